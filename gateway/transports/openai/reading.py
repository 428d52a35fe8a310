"""Converts the log of a turn to a response and its events. Pure, like `output`.

On a route of a chat model, each delta of the log is a chunk in JSON, and a whole reply is a
completion in JSON; on other routes they are text.
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
"""Error of a response whose log is incomplete."""

UNKNOWN = ResponseError(
    code="server_error",
    message="The gateway that sent this to the model is gone; the model may have answered.",
)
"""Error of a response with neither a log nor a stored result."""

NO_WORDS = ResponseError(
    code="server_error", message="The model's answer is not in the format that the route expects."
)

_ENDS: dict[str | None, tuple[State, str | None]] = {
    "length": ("incomplete", "max_output_tokens"),
    "content_filter": ("incomplete", "content_filter"),
}
"""Status of incomplete responses and its reason, by the model's ``finish_reason``."""


class Reading:
    """The response of one turn, as far as its log has been read.

    Args:
        response: The response as accepted.
        chat: Whether the log contains the model's own JSON, rather than text.

    Attributes:
        failure: Error of the turn, if it has failed.
        is_over: Whether the turn has ended.
        dropped_turns: Number of the oldest turns that were left out of the model's input.
        count: Number of events taken.
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
        """Whether the reply has started."""
        return self._deltas > 0

    @property
    def response(self) -> Response:
        """The response as it is now; as accepted while part of its output is missing."""
        if self._broken is not None and not self.is_over:
            return self._begun
        return self._output.now()

    def take(self) -> list[Event]:
        """Return the events since the last call, with their numbers."""
        events = self._output.take()
        for event in events:
            event["sequence_number"] = self.count
            self.count += 1
        return events

    def read(self, message: MessageDelta | MessageDone, at: float) -> None:
        """Read the next message of the turn's log.

        Args:
            message: The message.
            at: Current time, in seconds since the epoch.
        """
        if self.is_over:
            return
        if isinstance(message, MessageDelta):
            if message.index < self._deltas:
                return  # the log is read again from its beginning
            if message.index != self._deltas:
                self._broken = self._broken or LOST
            self._deltas += 1
            self._piece(message)
        else:
            self._end(message, at)

    def lose(self, error: ResponseError, at: float) -> None:
        """End with an error, because the rest can't be read."""
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

    # Deltas and whole replies

    def _piece(self, delta: MessageDelta) -> None:
        body: str | bytes = delta.text if delta.text is not UNSET else delta.base64 or b""
        if self._chat:
            self._record(body, "delta")
        elif isinstance(body, str):
            self._output.text(body, [])
        else:
            self._broken = self._broken or NO_WORDS

    def _whole(self, done: MessageDone) -> None:
        """Read a whole reply."""
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
        """Read a chunk or a completion."""
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
            # Some containers send them as a string of JSON, and some as an object.
            self._output.arguments(
                which,
                _string(arguments)
                if isinstance(arguments, str)
                else msgspec.json.encode(arguments).decode(),
            )


def error_of(failure: ErrorObject) -> ResponseError:
    """Return a turn's error as a response's, including whether the model may have seen it."""
    text = failure.message
    if failure.outcome is Outcome.NOT_INVOKED:
        text += " The model has not seen the request."
    elif failure.outcome is Outcome.UNKNOWN:
        text += " The model may have seen the request."
    return ResponseError(code=failure.code.value, message=text)


def _string(value: Any) -> str:
    """Replace lone surrogates, which JSON may contain but UTF-8 can't encode."""
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
    """Convert log probabilities to the format of responses, in which all fields are required."""
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
