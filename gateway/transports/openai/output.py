"""Builds a response and its events. Pure: the output depends on the input only.

The order and content of events are those of Open Responses: an item is added, then its part, which
grows by deltas until it is done; then the item is done. A turn's log therefore yields the same
events with the same numbers each time that it is read.
"""

from typing import Any, Literal

from msgspec import structs

from gateway.transports.openai.items import (
    FunctionCall,
    Item,
    Message,
    OutputText,
    Reasoning,
    ReasoningText,
    Refusal,
    Status,
    item_id,
)
from gateway.transports.openai.resource import Incomplete, Response, ResponseError, State, Usage

Event = dict[str, Any]
"""An event, before it is encoded as JSON."""

Kind = Literal["text", "refusal", "reasoning", "call"]

TERMINAL = {
    "completed": "response.completed",
    "failed": "response.failed",
    "incomplete": "response.incomplete",
    "cancelled": "response.incomplete",
}
"""Type of a response's last event, by its status; cancelled responses have none of their own."""

_TYPES: dict[Kind, type[Item]] = {
    "text": Message,
    "refusal": Message,
    "reasoning": Reasoning,
    "call": FunctionCall,
}
_DELTAS: dict[Kind, str] = {
    "text": "response.output_text",
    "refusal": "response.refusal",
    "reasoning": "response.reasoning",
    "call": "response.function_call_arguments",
}


class _Growing:
    """An item that grows by deltas.

    Attributes:
        kind: Kind of the item.
        index: Its index in the output.
        id: Its id.
        pieces: Its deltas.
        logprobs: Log probabilities of its tokens.
        is_done: Whether it is complete.
    """

    __slots__ = ("call_id", "id", "index", "is_done", "kind", "logprobs", "name", "pieces")

    def __init__(self, kind: Kind, index: int, owner: str, call_id: str, name: str) -> None:
        self.kind = kind
        self.index = index
        self.id = item_id(_TYPES[kind], owner, index)
        self.call_id = call_id
        self.name = name
        self.pieces = list[str]()
        self.logprobs = list[Any]()
        self.is_done = False

    @property
    def text(self) -> str:
        """Its text or arguments so far."""
        return "".join(self.pieces)

    @property
    def place(self) -> Event:
        """Fields by which events identify its part."""
        place: Event = {"item_id": self.id, "output_index": self.index}
        return place if self.kind == "call" else place | {"content_index": 0}

    def part(self) -> OutputText | Refusal | ReasoningText:
        """Return its only part, as it is now."""
        if self.kind == "refusal":
            return Refusal(refusal=self.text)
        if self.kind == "reasoning":
            return ReasoningText(text=self.text)
        return OutputText(text=self.text, logprobs=[*self.logprobs])

    def item(self, status: Status, *, empty: bool = False) -> Item:
        """Return the item, as it is now or as it was at first."""
        if self.kind == "call":
            return FunctionCall(
                id=self.id,
                call_id=self.call_id,
                name=self.name,
                arguments="" if empty else self.text,
                status=status,
            )
        content: Any = [] if empty else [self.part()]
        if self.kind == "reasoning":
            return Reasoning(id=self.id, status=status, content=content)
        return Message(id=self.id, status=status, role="assistant", content=content)


class Output:
    """A response that grows with the model's output, and its events.

    Args:
        response: The response as accepted.
    """

    def __init__(self, response: Response) -> None:
        self._response = response
        self._items = list[_Growing]()
        self._calls = dict[int, _Growing]()
        self._events = list[Event]()
        self._emit("response.created", response=response)
        self._emit("response.in_progress", response=response)

    def take(self) -> list[Event]:
        """Return the events since the last call."""
        events, self._events = self._events, []
        return events

    def now(self) -> Response:
        """Return the response as it is now."""
        if self._response.is_over:
            return self._response
        made = [each.item("completed" if each.is_done else "in_progress") for each in self._items]
        return structs.replace(self._response, output=made)

    # Output of the model

    def text(self, piece: str, logprobs: list[Any]) -> None:
        """Add a piece of the answer."""
        growing = self._growing("text")
        growing.logprobs += logprobs
        self._grow(growing, piece, logprobs=logprobs)

    def refusal(self, piece: str) -> None:
        """Add a piece of a refusal."""
        self._grow(self._growing("refusal"), piece)

    def reasoning(self, piece: str) -> None:
        """Add a piece of the reasoning."""
        self._grow(self._growing("reasoning"), piece)

    def call(self, which: int, call_id: str, name: str) -> None:
        """Start a function call; the deltas of several calls may be interleaved."""
        if self._items and self._items[-1].kind != "call":
            self._finish("completed")
        self._calls[which] = self._begin("call", call_id, name)

    @property
    def next_call_id(self) -> str:
        """Id for the next function call, if the model does not provide one."""
        return item_id(FunctionCall, self._response.id, len(self._items)).replace("fc_", "call_")

    def has_call(self, which: int) -> bool:
        """Whether a function call has started."""
        return which in self._calls

    def arguments(self, which: int, piece: str) -> None:
        """Add a piece of a function call's arguments."""
        self._grow(self._calls[which], piece)

    # End

    def end(
        self,
        status: State,
        at: float,
        *,
        usage: Usage | None = None,
        reason: str | None = None,
        error: ResponseError | None = None,
    ) -> None:
        """End the response.

        Args:
            status: Final status.
            at: Current time, in seconds since the epoch.
            usage: Tokens used, if the model reports them.
            reason: Why it is incomplete.
            error: Why it has failed.
        """
        last: Status = "completed" if status == "completed" else "incomplete"
        done = [each.is_done for each in self._items]
        self._finish(last)
        self._response = structs.replace(
            self._response,
            status=status,
            completed_at=int(at) if status == "completed" else None,
            output=[
                each.item("completed" if was_done else last)
                for each, was_done in zip(self._items, done, strict=True)
            ],
            usage=usage,
            incomplete_details=None if reason is None else Incomplete(reason=reason),
            error=error,
        )
        self._emit(TERMINAL[status], response=self._response)

    # Events

    def _emit(self, kind: str, **what: Any) -> None:
        self._events.append({"type": kind, **what})

    def _growing(self, kind: Kind) -> _Growing:
        """Return the item to add a piece to: the last if it is of this kind, or else a new one."""
        if self._items and self._items[-1].kind == kind:
            return self._items[-1]
        self._finish("completed")
        return self._begin(kind)

    def _begin(self, kind: Kind, call_id: str = "", name: str = "") -> _Growing:
        growing = _Growing(kind, len(self._items), self._response.id, call_id, name)
        self._items.append(growing)
        item = growing.item("in_progress", empty=True)
        self._emit("response.output_item.added", output_index=growing.index, item=item)
        if kind != "call":
            self._emit("response.content_part.added", **growing.place, part=growing.part())
        return growing

    def _grow(self, growing: _Growing, piece: str, **more: Any) -> None:
        growing.pieces.append(piece)
        self._emit(f"{_DELTAS[growing.kind]}.delta", **growing.place, delta=piece, **more)

    def _finish(self, status: Status) -> None:
        """Complete all items."""
        for growing in self._items:
            if not growing.is_done:
                growing.is_done = True
                self._done(growing, status)

    def _done(self, growing: _Growing, status: Status) -> None:
        place, text = growing.place, growing.text
        done = f"{_DELTAS[growing.kind]}.done"
        match growing.kind:
            case "call":
                self._emit(done, **place, name=growing.name, arguments=text)
            case "refusal":
                self._emit(done, **place, refusal=text)
            case "reasoning":
                self._emit(done, **place, text=text)
            case "text":
                self._emit(done, **place, text=text, logprobs=growing.logprobs)
        if growing.kind != "call":
            self._emit("response.content_part.done", **place, part=growing.part())
        item = growing.item(status)
        self._emit("response.output_item.done", output_index=growing.index, item=item)
