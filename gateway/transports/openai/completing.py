"""Converts the log of a turn to a chat completion or its chunks. Pure.

On a route of a chat model, each delta of the log is a chunk in JSON, and a whole reply is a
completion in JSON; on other routes they are text.
"""

from typing import Any

from msgspec import UNSET

from gateway.errors import ErrorCode, Outcome
from gateway.formats.text import from_json
from gateway.protocol.messages import ErrorObject, MessageDelta, MessageDone
from gateway.transports.drafts import whole_of
from gateway.transports.openai.errors import failure_of

Json = dict[str, Any]


def failed(text: str, outcome: Outcome = Outcome.INVOKED) -> ErrorObject:
    """Error of a turn whose reply is lost or unusable, but may have been generated."""
    return ErrorObject(code=ErrorCode.STREAM_BROKEN, message=text, retryable=False, outcome=outcome)


NOT_KEPT = failed("Part of the answer is no longer kept; the model has seen the request.")
TOO_SLOW = failed("The answer was read too slowly, and part of it is no longer kept.")
NO_CHAT = failed("The model's answer is not in the format that the route expects.")
NOT_KNOWN = failed(
    "The result of the request is not known; the model may have seen it.", Outcome.UNKNOWN
)


class Completion:
    """The chat completion of one turn, as far as its log has been read.

    Args:
        completion_id: Id of the completion.
        model: Name of the route.
        created: Time of its creation, in seconds since the epoch.
        chat: Whether the log contains the model's own JSON, rather than text.

    Attributes:
        is_over: Whether the turn has ended.
        failure: Error of the turn, if it has failed.
        whole: The whole completion, once it is known; None if the model streamed JSON.
        dropped_turns: Number of the oldest turns that were left out of the model's input.
    """

    def __init__(self, completion_id: str, model: str, created: int, *, chat: bool) -> None:
        self._about = {"id": completion_id, "created": created, "model": model}
        self._chat = chat
        self._deltas = 0
        self._content: list[str] = []
        self._calls: dict[int, Json] = {}
        self.is_over = False
        self.failure: ErrorObject | None = None
        self.whole: Json | None = None
        self.dropped_turns = 0

    @property
    def has_begun(self) -> bool:
        """Whether the reply has started, or the turn has ended."""
        return self._deltas > 0 or self.is_over

    @property
    def message(self) -> Json | None:
        """The model's message, as the next request contains it; None if it is empty."""
        if self.whole is not None:
            message: Json = self.whole["choices"][0]["message"]
            return message
        if not self._content and not self._calls:
            return None
        calls = [call for _, call in sorted(self._calls.items())]
        return {"role": "assistant", "content": "".join(self._content), "tool_calls": calls}

    def read(self, message: MessageDelta | MessageDone) -> list[Json]:
        """Read the next message of the turn's log, and return the chunks that it makes."""
        if self.is_over:
            return []
        if isinstance(message, MessageDone):
            return self._end(message)
        if message.index < self._deltas:
            return []  # the log is read again from its beginning
        if message.index != self._deltas:
            self.lose(NOT_KEPT)
            return []
        self._deltas += 1
        return self._piece(message)

    def lose(self, failure: ErrorObject) -> None:
        """End with a failure, because the rest can't be read."""
        if not self.is_over:
            self.is_over, self.failure = True, failure

    # Deltas

    def _piece(self, delta: MessageDelta) -> list[Json]:
        if self._chat:
            record = _record(delta.text if delta.text is not UNSET else delta.base64 or b"")
            try:
                self._hear(record or {})
            except (TypeError, AttributeError, KeyError):
                self.lose(NO_CHAT)
                return []
            return [{**(record or {}), **self._about}]
        if delta.text is UNSET:
            self.lose(NO_CHAT)
            return []
        first = [] if self._content else [self._chunk({"role": "assistant", "content": ""})]
        self._content.append(delta.text)
        return [*first, self._chunk({"content": delta.text})]

    def _hear(self, record: Json) -> None:
        """Accumulate the message of a chunk's first choice."""
        for choice in record["choices"]:
            if choice.get("index", 0) == 0:
                said = choice.get("delta") or {}
                if isinstance(said.get("content"), str):
                    self._content.append(said["content"])
                for place, call in enumerate(said.get("tool_calls") or ()):
                    _add_call(self._calls, call.get("index", place), call)

    def _end(self, done: MessageDone) -> list[Json]:
        if done.dropped_turns is not UNSET:
            self.dropped_turns = done.dropped_turns
        self.is_over, self.failure = True, failure_of(done)
        if self.failure is not None:
            return []
        if done.deltas != self._deltas:
            self.failure = NOT_KEPT
            return []
        if self._deltas:
            if self._chat:
                return []
            self.whole = self._completion("".join(self._content))
            return [self._chunk({}, "stop")]
        self.whole = self._whole(whole_of(done) or b"")
        if self.whole is None:
            self.failure = NO_CHAT
            return []
        return self._chunks_of(self.whole)

    # Whole replies

    def _whole(self, body: str | bytes) -> Json | None:
        if not self._chat:
            return self._completion(body) if isinstance(body, str) else None
        record = _record(body)
        if record is None or not record["choices"]:
            return None
        if not all(isinstance(choice.get("message"), dict) for choice in record["choices"]):
            return None
        return {**record, **self._about, "object": "chat.completion"}

    def _completion(self, words: str) -> Json:
        message = {"role": "assistant", "content": words, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return {**self._about, "object": "chat.completion", "choices": [choice]}

    def _chunk(self, delta: Json, reason: str | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return {**self._about, "object": "chat.completion.chunk", "choices": [choice]}

    def _chunks_of(self, whole: Json) -> list[Json]:
        """Split a completion into chunks: two for each choice, with its message and with its
        ``finish_reason``, and one for the usage.
        """
        base = {
            name: value
            for name, value in whole.items()
            if name not in {"choices", "usage", "object"}
        }
        about = {**base, "object": "chat.completion.chunk"}
        chunks = list[Json]()
        for choice in whole["choices"]:
            message, rest = dict(choice["message"]), {**choice}
            rest.pop("message")
            reason = rest.pop("finish_reason", None)
            if message.get("tool_calls"):
                message["tool_calls"] = [
                    {"index": number, **call} for number, call in enumerate(message["tool_calls"])
                ]
            chunks.append({**about, "choices": [{**rest, "delta": message, "finish_reason": None}]})
            chunks.append({**about, "choices": [{**rest, "delta": {}, "finish_reason": reason}]})
        if whole.get("usage") is not None:
            chunks.append({**about, "choices": [], "usage": whole["usage"]})
        return chunks


def _record(body: str | bytes) -> Json | None:
    """Parse a chunk or a completion; None if it is neither."""
    try:
        record = from_json(body.encode() if isinstance(body, str) else body)
    except ValueError:
        return None
    choices = record.get("choices") if isinstance(record, dict) else None
    if not isinstance(choices, list) or not all(isinstance(each, dict) for each in choices):
        return None
    known: Json = _repaired(record)
    return known


def _repaired(value: Any) -> Any:
    """Replace lone surrogates, such as ``"\\ud800"``, which can't be encoded in UTF-8."""
    match value:
        case str() if not value.isascii():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case dict():
            return {_repaired(name): _repaired(each) for name, each in value.items()}
        case list():
            return [_repaired(each) for each in value]
    return value


def _add_call(calls: dict[int, Json], which: int, piece: Json) -> None:
    """Add a delta of a function call to what arrived of the call before."""
    function = piece.get("function") or {}
    call = calls.setdefault(
        which, {"id": None, "type": "function", "function": {"name": None, "arguments": ""}}
    )
    call["id"] = call["id"] or piece.get("id")
    kept = call["function"]
    kept["name"] = kept["name"] or function.get("name")
    kept["arguments"] += function.get("arguments") or ""
