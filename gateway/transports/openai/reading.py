"""What a session's log says of a turn, as a response and its events. Pure, as `output.py` is.

Of a chat's model, each delta of the log is a record of its stream, one chunk's JSON; the reply in
one piece is its JSON too. Of any other, they are its words.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import UNSET

from gateway.errors import Outcome
from gateway.formats.text import from_json
from gateway.protocol.messages import ErrorObject, MessageDelta, MessageDone
from gateway.transports.drafts import whole_of
from gateway.transports.openai.output import Event, Output
from gateway.transports.openai.resource import (
    CachedTokens,
    ReasoningTokens,
    Response,
    ResponseError,
    State,
    Usage,
)

LOST = ResponseError(
    code="server_error",
    message="Part of the answer is no longer kept; the model has seen the request.",
)
"""Why a response is not shown whose log is not whole."""

UNKNOWN = ResponseError(
    code="server_error",
    message="The gateway that sent this to the model is gone; the model may have answered.",
)
"""Why a response has failed of which there is neither a log nor an end."""

NO_WORDS = ResponseError(
    code="server_error", message="The model's answer is not in the format that the route expects."
)

_ENDS: dict[str | None, tuple[State, str | None]] = {
    "length": ("incomplete", "max_output_tokens"),
    "content_filter": ("incomplete", "content_filter"),
}
"""What a response is that its model has not finished, by its ``finish_reason``."""


class Reading:
    """Reads one turn of a session's log.

    Args:
        response: What is known of it before anything is answered.
        chat: Whether the model's own records are in the log.

    Attributes:
        failure: Why the turn has failed, where it has.
        is_over: Whether it has ended.
        dropped_turns: How many of the oldest turns the model was not told of.
        count: How many events there have been.
    """

    def __init__(self, response: Response, *, chat: bool) -> None:
        self._begun = response
        self._output = Output(response)
        self._chat = chat
        self._deltas = 0
        self._finish: str | None = None
        self._usage: Usage | None = None
        self._broken: ResponseError | None = None
        self.failure: ErrorObject | None = None
        self.is_over = False
        self.dropped_turns = 0
        self.count = 0

    @property
    def has_output(self) -> bool:
        """Whether the model has answered something."""
        return self._deltas > 0

    @property
    def response(self) -> Response:
        """It as it stands; without what was said where a part of that is missing."""
        if self._broken is not None and not self.is_over:
            return self._begun
        return self._output.now()

    def take(self) -> list[Event]:
        """The events since this was asked for last, with their numbers."""
        events = self._output.take()
        for event in events:
            event["sequence_number"] = self.count
            self.count += 1
        return events

    def read(self, message: MessageDelta | MessageDone, at: float) -> None:
        """The next that the log says of the turn.

        Args:
            message: It.
            at: What time it is, in seconds since the epoch.
        """
        if self.is_over:
            return
        if isinstance(message, MessageDelta):
            if message.index < self._deltas:
                return  # it is read again from its beginning
            if message.index != self._deltas:
                self._broken = self._broken or LOST
            self._deltas += 1
            self._piece(message)
        else:
            self._end(message, at)

    def lose(self, error: ResponseError, at: float) -> None:
        """There is nothing more to be read, and what has become of it is not known."""
        if not self.is_over:
            self.is_over = True
            self._output.end("failed", at, error=error)

    def _end(self, done: MessageDone, at: float) -> None:
        self.is_over = True
        self.dropped_turns = done.dropped_turns or 0
        if done.deltas != self._deltas:
            self._broken = self._broken or LOST
        elif done.status == "completed" and not self._deltas:
            self._whole(done)
        if done.error is not UNSET:
            self.failure = done.error
            self._output.end("failed", at, usage=self._usage, error=error_of(done.error))
        elif done.status == "cancelled":
            self._output.end("cancelled", at, usage=self._usage, reason="cancelled")
        elif self._broken is not None:
            self._output.end("failed", at, usage=self._usage, error=self._broken)
        else:
            status, reason = _ENDS.get(self._finish, ("completed", None))
            self._output.end(status, at, usage=self._usage, reason=reason)

    # Pieces

    def _piece(self, delta: MessageDelta) -> None:
        body: str | bytes = delta.text if delta.text is not UNSET else delta.base64 or b""
        if self._chat:
            self._record(body, "delta")
        elif isinstance(body, str):
            self._output.text(body, [])
        else:
            self._broken = self._broken or NO_WORDS

    def _whole(self, done: MessageDone) -> None:
        """A reply in one piece."""
        body = whole_of(done)
        if body is None:
            return
        if self._chat:
            self._record(body, "message")
            return
        try:
            words = body if isinstance(body, str) else body.decode()
        except UnicodeDecodeError:
            self._broken = NO_WORDS
            return
        self._output.text(words, [])

    def _record(self, body: str | bytes, inside: str) -> None:
        """A chunk of a chat, or its whole reply."""
        try:
            record = from_json(body.encode() if isinstance(body, str) else body)
            self._usage = _usage_of(record.get("usage")) or self._usage
            choices = record.get("choices") or ()
            for choice in choices:
                if choice.get("index", 0) == 0:
                    self._choice(choice, choice.get(inside) or {})
        except (ValueError, TypeError, AttributeError, KeyError):
            self._broken = self._broken or NO_WORDS

    def _choice(self, choice: dict[str, Any], said: dict[str, Any]) -> None:
        self._finish = choice.get("finish_reason") or self._finish
        output = self._output
        if thought := said.get("reasoning_content") or said.get("reasoning"):
            output.reasoning(_string(thought))
        if refusal := said.get("refusal"):
            output.refusal(_string(refusal))
        if content := said.get("content"):
            output.text(_string(content), _logprobs(choice.get("logprobs")))
        for place, call in enumerate(said.get("tool_calls") or ()):
            self._call(call.get("index", place), call)

    def _call(self, which: int, call: dict[str, Any]) -> None:
        function = call.get("function") or {}
        if not self._output.has_call(which):
            name = _string(function["name"])
            self._output.call(which, str(call.get("id") or self._output.next_call_id), name)
        if arguments := function.get("arguments"):
            # Some containers write them as JSON in JSON, and some as an object.
            self._output.arguments(
                which,
                _string(arguments)
                if isinstance(arguments, str)
                else msgspec.json.encode(arguments).decode(),
            )


def error_of(failure: ErrorObject) -> ResponseError:
    """Why a turn has failed, as a response says it: whether it may have run, too."""
    text = failure.message
    if failure.outcome is Outcome.NOT_INVOKED:
        text += " The model has not seen the request."
    elif failure.outcome is Outcome.UNKNOWN:
        text += " The model may have seen the request."
    return ResponseError(code=failure.code.value, message=text)


def _string(value: Any) -> str:
    """Text that can be encoded: JSON may name half a character."""
    if not isinstance(value, str):
        raise TypeError
    if value.isascii():
        return value
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _usage_of(usage: Any) -> Usage | None:
    if not isinstance(usage, dict):
        return None
    read, written = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    cached = _count(usage.get("prompt_tokens_details"), "cached_tokens")
    reasoning = _count(usage.get("completion_tokens_details"), "reasoning_tokens")
    return Usage(
        input_tokens=read,
        output_tokens=written,
        total_tokens=_count(usage, "total_tokens") or read + written,
        input_tokens_details=CachedTokens(cached_tokens=cached),
        output_tokens_details=ReasoningTokens(reasoning_tokens=reasoning),
    )


def _count(of: Any, name: str) -> int:
    value = of.get(name) if isinstance(of, dict) else None
    return value if isinstance(value, int) else 0


def _logprobs(given: Any) -> list[Any]:
    """How probable tokens were, in the form of a response, which has all of each."""
    content: Iterable[Any] = (given or {}).get("content") or ()
    return [
        {
            "token": each["token"],
            "logprob": each["logprob"],
            "bytes": each.get("bytes") or [],
            "top_logprobs": [
                {"token": top["token"], "logprob": top["logprob"], "bytes": top.get("bytes") or []}
                for top in each.get("top_logprobs") or ()
            ],
        }
        for each in content
    ]
