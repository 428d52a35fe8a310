"""The shapes of replies: which one a request asks for, and how it reads in parts and in one piece.

- text of any kind: the text as it comes, always in parts, whether they are collected or not;
- JSON with ``messages``: OpenAI's ``choices[0].message.content``; in parts ``data: {…}`` of its
  chunks and ``data: [DONE]``, as vLLM, or where ``Accept`` is ``application/jsonlines`` the chunks
  in lines, as LMI;
- JSON with ``inputs``: ``{"generated_text":…}``; in parts lines of ``{"token":{"text":…}}``, the
  last with ``generated_text``, as LMI;
- the same with ``parameters.details``: ``[{"generated_text":…}]``; in parts
  ``data:{"token":{"text":…},…}``, as TGI;
- any other JSON: ``{"text":…}`` with what the model adds; in parts lines of ``{"text":…}``.

JSON comes in parts where the request says ``"stream": true``, whichever call it came with, since
a container does not see which that is.

A model that fails in mid-stream says so in the shape's own way, after a 200; text has none.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import msgspec

from gateway.local.containers import ContainerUnreachable

Pieces = AsyncGenerator[str, None]


class Stumbled(Exception):
    """The model fails when it has begun to answer."""


class Lines:
    """Lines of ``{"text":…}``; what the other shapes differ from.

    Args:
        streamed: Whether the request asks for parts.
    """

    stream_type = "application/jsonlines"
    content_type = "application/json"

    def __init__(self, *, streamed: bool = False) -> None:
        self.streamed = streamed

    def piece(self, text: str) -> bytes:
        """A part."""
        return _line({"text": text})

    def last(self, text: str) -> bytes:
        """What comes after the parts, which have said `text`."""
        del text
        return b""

    def failure(self, message: str) -> bytes:
        """What comes after the parts where the model fails.

        Raises:
            ContainerUnreachable: The connection breaks, for want of another way.
        """
        return _line({"code": 500, "error": message})

    def one(self, text: str, details: Mapping[str, Any]) -> bytes:
        """A reply in one piece."""
        return msgspec.json.encode({"text": text, **details})

    async def parts(self, pieces: Pieces) -> AsyncGenerator[bytes, None]:
        """A reply in parts: one of each piece."""
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
    """``inputs``, as DJL Serving's LMI answers them."""

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
    """``inputs`` with ``parameters.details``, as TGI answers them."""

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
    """``messages``, as LMI answers them."""

    def piece(self, text: str) -> bytes:
        """See `Lines.piece`."""
        return self.chunk({"content": text}, None)

    def last(self, text: str) -> bytes:
        """See `Lines.last`."""
        del text
        return self.chunk({}, "stop")

    def chunk(self, delta: Mapping[str, str], reason: str | None) -> bytes:
        """One of OpenAI's chunks."""
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return self.framed({"object": "chat.completion.chunk", "choices": [choice]})

    def framed(self, value: object) -> bytes:
        """A value as it is sent."""
        return _line(value)

    def one(self, text: str, details: Mapping[str, Any]) -> bytes:
        """See `Lines.one`."""
        del details
        said = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": said, "finish_reason": "stop"}
        return msgspec.json.encode({"object": "chat.completion", "choices": [choice]})


class OpenAi(OpenAiLines):
    """``messages``, as vLLM answers them."""

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
    """The shape that a request asks for.

    Args:
        headers: By name in lower case.
        request: The body's JSON value; None where it is text.
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
