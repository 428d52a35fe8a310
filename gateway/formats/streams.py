"""Splits a streamed reply's bytes into the parts that a client is sent, without I/O.

A ``PayloadPart`` is an arbitrary slice: it can split a line, a JSON object or a character, or hold
several lines. The result never depends on where slices begin and end.

Sources: DJL Serving's output formatters (LMI), vLLM's and TGI's servers, and the WHATWG's
server-sent events, of which the subset that those servers use is supported.
"""

import codecs
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Protocol

from gateway.errors import ErrorCode, Failure, Outcome
from gateway.formats.text import Text, finder, from_json

LINE_BYTES = 1_048_576
"""Default maximum length of a line or event in bytes."""

NOT_AS_CONFIGURED = Failure(
    code=ErrorCode.STREAM_BROKEN,
    message="The model's stream is not in the format that the route expects.",
    outcome=Outcome.INVOKED,
)
MODEL_FAILED = Failure(
    code=ErrorCode.MODEL_ERROR,
    message="The model failed in the middle of its reply.",
    outcome=Outcome.INVOKED,
)


class StreamKind(StrEnum):
    """Format of streamed replies."""

    OFF = "off"
    """No streaming."""
    RAW = "raw"
    """The reply itself, in arbitrary slices."""
    LINES = "lines"
    """One record per line."""
    SSE = "sse"
    """Server-sent events."""


class StreamError(Exception):
    """A stream can't be parsed; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.code.value, failure.message)
        self.failure = failure


Part = str | bytes
"""A piece of a reply: text, or bytes if the stream is not text."""


class Splitter(Protocol):
    """Splits a stream's bytes into parts.

    The iterators of both methods must be exhausted, and may raise `StreamError`, after the parts
    that precede the error. Nothing more may be called then.

    Each step of an iterator is a small piece of work, after which the caller may pause. None is a
    step without a part.
    """

    joins: bool
    """Whether parts may be concatenated, since they are not records."""

    def feed(self, data: bytes) -> Iterator[Part | None]:
        """Yield the parts that this slice completes."""
        ...

    def end(self) -> Iterator[Part | None]:
        """Yield what is left at the end of the stream."""
        ...


def splitter(
    kind: StreamKind,
    *,
    text: Text | None = None,
    textual: bool = False,
    line_bytes: int = LINE_BYTES,
) -> Splitter:
    """Create a splitter for one stream.

    Args:
        kind: Format of the stream; not `StreamKind.OFF`.
        text: Finds the text in a line or event, which then must be JSON; one without text yields no
            part. None to yield lines or events unchanged.
        textual: Whether the stream is text; only for `StreamKind.RAW`.
        line_bytes: Maximum length of a line or event; a longer one is `ErrorCode.TOO_LARGE`.
    """
    if kind is StreamKind.RAW:
        return _Slices(textual=textual)
    return _Events(sse=kind is StreamKind.SSE, text=text, line_bytes=line_bytes)


class _Slices:
    """Passes slices on; as text that never splits a character, as long as they are UTF-8."""

    joins = True

    def __init__(self, *, textual: bool) -> None:
        self._textual = textual
        self._rest = b""  # an incomplete character

    def feed(self, data: bytes) -> Iterator[Part | None]:
        data = self._rest + data
        self._rest = b""
        if self._textual:
            try:
                text, used = codecs.utf_8_decode(data, "strict", False)
                self._rest = data[used:]
                data = b""
            except UnicodeDecodeError as error:
                self._textual = False
                text, data = data[: error.start].decode(), data[error.start :]
            if text:
                yield text
        if data:
            yield data

    def end(self) -> Iterator[Part | None]:
        if self._rest:
            yield self._rest


class _Events:
    """Splits lines and server-sent events.

    Each kind tolerates the other: DJL's formatter for server-sent events may be behind a route of
    lines, and LMI writes chunks of a chat, and failures, as bare objects where others write
    ``data:``.
    """

    _DECORATION = (b":", b"event:", b"id:", b"retry:")

    def __init__(self, *, sse: bool, text: Text | None, line_bytes: int) -> None:
        self.joins = text is not None
        self._sse = sse
        self._text = text
        self._line_bytes = line_bytes
        self._line = bytearray()
        self._event = bytearray()  # lines of data, each with a line feed, as in the specification

    def feed(self, data: bytes) -> Iterator[Part | None]:
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._grow(self._line, data[start:end])
            yield from self._end_line()
            start = end + 1
        self._grow(self._line, data[start:])

    def end(self) -> Iterator[Part | None]:
        yield from self._end_line()
        yield self._end_event()

    def _end_line(self) -> Iterator[Part | None]:
        line = bytes(self._line).removesuffix(b"\r")
        self._line.clear()
        if line.startswith(b"data:"):
            self._grow(self._event, line[5:].removeprefix(b" ") + b"\n")
            ends = not self._sse
        elif self._sse:
            # No field name begins like this.
            bare = line.startswith((b"{", b"["))
            ends = bare or not line
            if bare:
                yield self._end_event()
                self._event += line + b"\n"
        else:
            ends = not line.startswith(self._DECORATION)
            if ends:
                self._event += line + b"\n"
        yield self._end_event() if ends else None

    def _end_event(self) -> Part | None:
        """Return the event's part; None if it has none."""
        data = bytes(self._event[:-1])
        self._event.clear()
        if data.strip() in {b"", b"[DONE]"}:
            return None
        try:
            value = from_json(data)
        except ValueError:
            if self._text is not None:
                raise StreamError(NOT_AS_CONFIGURED) from None
            value = None
        if _tells_of_failure(value):
            raise StreamError(MODEL_FAILED)
        return _decoded(data) if self._text is None else self._text.of(value) or None

    def _grow(self, buffer: bytearray, data: bytes) -> None:
        if len(buffer) + len(data) > self._line_bytes + 1:  # without the line feed
            text = f"A line of the model's stream is longer than {self._line_bytes} bytes."
            raise StreamError(
                Failure(code=ErrorCode.TOO_LARGE, message=text, outcome=Outcome.INVOKED)
            )
        buffer += data


_finish_reason = finder("details.finish_reason || choices[0].finish_reason")


def _tells_of_failure(value: Any) -> bool:
    """Whether an event reports a failure of the model, after a response that began with status 200.

    LMI writes ``{"code":…,"error":…}``, whose text may be empty, or the finish reason ``error``;
    vLLM ``{"error":{…}}``, formerly ``{"object":"error",…}``; TGI ``{"error":…,"error_type":…}``.
    """
    if not isinstance(value, dict):
        return False
    error = value.get("error")
    return (
        value.get("object") == "error"
        or (isinstance(error, dict | str) and (bool(error) or "code" in value))
        or _finish_reason(value) == "error"
    )


def _decoded(data: bytes) -> Part:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data
