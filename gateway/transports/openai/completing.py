"""What a session's log says of a turn, as a chat completion or its chunks. Pure.

Of a chat's model, each delta of the log is a chunk of its own, and a reply in one piece a
completion; of any other they are its words.
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
    """Why there is no answer, though the model has given one."""
    return ErrorObject(code=ErrorCode.STREAM_BROKEN, message=text, retryable=False, outcome=outcome)


NOT_KEPT = failed("Part of the answer is no longer kept; the model has seen the request.")
TOO_SLOW = failed("The answer was read too slowly, and part of it is no longer kept.")
NO_CHAT = failed("The model's answer is not in the format that the route expects.")
NOT_KNOWN = failed(
    "The result of the request is not known; the model may have seen it.", Outcome.UNKNOWN
)


class Completion:
    """Reads one turn of a session's log.

    Args:
        completion_id: What the answer is called.
        model: The route's name.
        created: When, in seconds since the epoch.
        chat: Whether the model's own records are in the log.

    Attributes:
        is_over: Whether it has ended.
        failure: Why it has failed, where it has.
        whole: The completion, where it came in one piece.
        dropped_turns: How many of the oldest turns the model was not told of.
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
        """Whether the model has answered something, or the turn is over."""
        return self._deltas > 0 or self.is_over

    @property
    def message(self) -> Json | None:
        """What the model has said, as the next request has it; None where it has said nothing."""
        if self.whole is not None:
            message: Json = self.whole["choices"][0]["message"]
            return message
        if not self._content and not self._calls:
            return None
        calls = [call for _, call in sorted(self._calls.items())]
        return {"role": "assistant", "content": "".join(self._content), "tool_calls": calls}

    def read(self, message: MessageDelta | MessageDone) -> list[Json]:
        """The next that the log says of the turn; returns the chunks that it is."""
        if self.is_over:
            return []
        if isinstance(message, MessageDone):
            return self._end(message)
        if message.index < self._deltas:
            return []  # it is read again from its beginning
        if message.index != self._deltas:
            self.lose(NOT_KEPT)
            return []
        self._deltas += 1
        return self._piece(message)

    def lose(self, failure: ErrorObject) -> None:
        """There is nothing more to be read."""
        if not self.is_over:
            self.is_over, self.failure = True, failure

    # Pieces

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
        """Keep what the first choice of a chunk says."""
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

    # In one piece

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
        """A completion in chunks: one for each choice, its end, and what was used."""
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
    """A chunk or a completion; None where it is neither."""
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
    """JSON that can be encoded: a text may name half a character, as ``"\\ud800"``."""
    match value:
        case str() if not value.isascii():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case dict():
            return {_repaired(name): _repaired(each) for name, each in value.items()}
        case list():
            return [_repaired(each) for each in value]
    return value


def _add_call(calls: dict[int, Json], which: int, piece: Json) -> None:
    """Add a piece of a function's call to what came of it before."""
    function = piece.get("function") or {}
    call = calls.setdefault(
        which, {"id": None, "type": "function", "function": {"name": None, "arguments": ""}}
    )
    call["id"] = call["id"] or piece.get("id")
    kept = call["function"]
    kept["name"] = kept["name"] or function.get("name")
    kept["arguments"] += function.get("arguments") or ""
