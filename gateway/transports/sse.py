"""Messages as server-sent events (HTML, section 9.2.6): an event's number is its ``id``."""

from collections.abc import AsyncGenerator, Callable, Iterable
from typing import get_args

import msgspec
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.protocol.messages import Notice, ServerMessage

MEDIA_TYPE = "text/event-stream"

KEEP_ALIVE = b":\n\n"
"""A comment, so that nobody between takes a quiet stream for a dead one."""

_NOTICES = frozenset(get_args(Notice))

_encode = msgspec.json.Encoder().encode


def encode(messages: Iterable[ServerMessage]) -> bytes:
    """Messages as events, in one piece; what is no event of the session has no id."""
    parts = []
    for message in messages:
        data = _encode(message)
        if b"\n" in data or b"\r" in data:  # of a model's JSON, between its values
            data = data.replace(b"\r", b" ").replace(b"\n", b" ")
        if type(message) in _NOTICES:
            parts.append(b"data: %b\n\n" % data)
        else:
            parts.append(b"id: %d\ndata: %b\n\n" % (message.event, data))  # type: ignore[union-attr]
    return b"".join(parts)


class EventStream(StreamingResponse):
    """A response that goes on for as long as there is something to tell.

    Args:
        events: What is sent, each in one piece.
        end: Called at the end, even where nothing could be sent.
    """

    def __init__(self, events: AsyncGenerator[bytes], end: Callable[[], None]) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type=MEDIA_TYPE, headers=headers)
        self._events = events
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        try:
            if scope["method"] == "HEAD":
                await Response(headers=self.headers)(scope, receive, send)
            else:
                await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()
            self._end()
