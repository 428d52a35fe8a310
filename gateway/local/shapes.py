"""Formats of replies: which one a request selects, and how it is written, streamed or complete.

- Text of any kind: the text itself, always in parts, whether these are collected or not.
- JSON with ``messages``: OpenAI's ``choices[0].message.content``; streamed, its chunks as
  ``data: {…}`` and ``data: [DONE]``, as vLLM, or with ``Accept: application/jsonlines`` the chunks
  in lines, as LMI.
- JSON with ``inputs``: ``{"generated_text":…}``; streamed, lines of ``{"token":{"text":…}}``, the
  last one with ``generated_text``, as LMI.
- The same with ``parameters.details``: ``[{"generated_text":…}]``; streamed,
  ``data:{"token":{"text":…},…}``, as TGI.
- Any other JSON: ``{"text":…}`` with the model's details; streamed, lines of ``{"text":…}``.

JSON is streamed if the request has ``"stream": true``, whichever API call it came with, since a
container can't see that.

If the model fails in mid-stream, after a status of 200, the failure is reported as that server
would; text has no way to.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import msgspec

from gateway.local.containers import ContainerUnreachable

Pieces = AsyncGenerator[str, None]


class Stumbled(Exception):
    """The model has failed after it started to reply."""


class Lines:
    """Lines of ``{"text":…}``, and the base of the other formats.

    Args:
        streamed: Whether the request asks for a stream.
    """

    stream_type = "application/jsonlines"
    content_type = "application/json"

    def __init__(self, *, streamed: bool = False) -> None:
        self.streamed = streamed

    def piece(self, text: str) -> bytes:
        """Encode a part."""
        return _line({"text": text})

    def last(self, text: str) -> bytes:
        """Encode the end of a stream whose parts make up `text`."""
        del text
        return b""

    def failure(self, message: str) -> bytes:
        """Encode the end of a stream that has failed.

        Raises:
            ContainerUnreachable: The format can't report a failure, so the connection breaks.
        """
        return _line({"code": 500, "error": message})

    def one(self, text: str, details: Mapping[str, Any]) -> bytes:
        """Encode a complete reply."""
        return msgspec.json.encode({"text": text, **details})

    async def parts(self, pieces: Pieces) -> AsyncGenerator[bytes, None]:
        """Encode a stream, with one part for each piece."""
        said = []
        async with aclosing(pieces):
            try:
                async for piece in pieces:
                    said.append(piece)
                    yield self.piece(piece)
            except Stumbled as stumbled:
                yield self.failure(str(stumbled))
                return
        if last := self.last("".join(said)):
            yield last


class PlainText(Lines):
    """Text."""

    stream_type = content_type = "text/plain; charset=utf-8"

    def piece(self, text: str) -> bytes:
        """See `Lines.piece`."""
        return text.encode()

    def failure(self, message: str) -> bytes:
        """See `Lines.failure`."""
        raise ContainerUnreachable(message)

    def one(self, text: str, details: Mapping[str, Any]) -> bytes:
        """See `Lines.one`."""
        del details
        return text.encode()


class Lmi(Lines):
    """Replies to ``inputs``, as of DJL Serving's LMI."""

    def piece(self, text: str) -> bytes:
        """See `Lines.piece`."""
        return _line({"token": {"text": text}})

    def last(self, text: str) -> bytes:
        """See `Lines.last`."""
        return _line({"token": {"text": ""}, "generated_text": text})

    def one(self, text: str, details: Mapping[str, Any]) -> bytes:
        """See `Lines.one`."""
        del details
        return msgspec.json.encode({"generated_text": text})


class Tgi(Lmi):
    """Replies to ``inputs`` with ``parameters.details``, as of TGI."""

    stream_type = "text/event-stream"

    def piece(self, text: str) -> bytes:
        """See `Lines.piece`."""
        return _event({"token": {"text": text}, "generated_text": None}, "data:")

    def last(self, text: str) -> bytes:
        """See `Lines.last`."""
        return _event({"token": {"text": "", "special": True}, "generated_text": text}, "data:")

    def failure(self, message: str) -> bytes:
        """See `Lines.failure`."""
        return _event({"error": message, "error_type": "generation"}, "data:")

    def one(self, text: str, details: Mapping[str, Any]) -> bytes:
        """See `Lines.one`."""
        del details
        return msgspec.json.encode([{"generated_text": text}])


class OpenAiLines(Lines):
    """Replies to ``messages``, as of LMI."""

    def piece(self, text: str) -> bytes:
        """See `Lines.piece`."""
        return self.chunk({"content": text}, None)

    def last(self, text: str) -> bytes:
        """See `Lines.last`."""
        del text
        return self.chunk({}, "stop")

    def chunk(self, delta: Mapping[str, str], reason: str | None) -> bytes:
        """Encode one of OpenAI's chunks."""
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return self.framed({"object": "chat.completion.chunk", "choices": [choice]})

    def framed(self, value: object) -> bytes:
        """Frame a JSON value."""
        return _line(value)

    def one(self, text: str, details: Mapping[str, Any]) -> bytes:
        """See `Lines.one`."""
        del details
        said = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": said, "finish_reason": "stop"}
        return msgspec.json.encode({"object": "chat.completion", "choices": [choice]})


class OpenAi(OpenAiLines):
    """Replies to ``messages``, as of vLLM."""

    stream_type = "text/event-stream"
    DONE = b"data: [DONE]\n\n"

    def framed(self, value: object) -> bytes:
        """See `OpenAiLines.framed`."""
        return _event(value, "data: ")

    def last(self, text: str) -> bytes:
        """See `Lines.last`."""
        return super().last(text) + self.DONE

    def failure(self, message: str) -> bytes:
        """See `Lines.failure`."""
        return self.framed({"error": {"message": message, "code": 500}}) + self.DONE


def shape_of(headers: Mapping[str, str], request: object) -> Lines:
    """Select the format of a reply.

    Args:
        headers: The request's headers by name in lower case.
        request: The body's JSON value; None if it is text.
    """
    if "json" not in headers.get("content-type", ""):
        return PlainText(streamed=True)
    match request:
        case {"messages": list()} if "jsonlines" in headers.get("accept", ""):
            shape: type[Lines] = OpenAiLines
        case {"messages": list()}:
            shape = OpenAi
        case {"inputs": str(), "parameters": {"details": True}}:
            shape = Tgi
        case {"inputs": str()}:
            shape = Lmi
        case _:
            shape = Lines
    return shape(streamed=isinstance(request, dict) and request.get("stream") is True)


def _line(value: object) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def _event(value: object, field: str) -> bytes:
    return field.encode() + msgspec.json.encode(value) + b"\n\n"
