"""Messages as server-sent events (HTML, section 9.2.6): an event's number is its ``id``."""

from collections.abc import AsyncGenerator, Callable, Iterable
from typing import get_args

import msgspec
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.protocol.messages import Notice, ServerMessage

MEDIA_TYPE = "text/event-stream"

KEEP_ALIVE = b":\n\n"
"""A comment that keeps intermediaries from closing an idle stream."""

_NOTICES = frozenset(get_args(Notice))

_encode = msgspec.json.Encoder().encode


def encode(messages: Iterable[ServerMessage]) -> bytes:
    """Encode messages as events; those that aren't events of the session get no id."""
    parts = []
    for message in messages:
        data = _encode(message)
        if b"\n" in data or b"\r" in data:  # between the values of a model's JSON
            data = data.replace(b"\r", b" ").replace(b"\n", b" ")
        if type(message) in _NOTICES:
            parts.append(b"data: %b\n\n" % data)
        else:
            parts.append(b"id: %d\ndata: %b\n\n" % (message.event, data))  # type: ignore[union-attr]
    return b"".join(parts)


class EventStream(StreamingResponse):
    """A response that streams events.

    Args:
        events: Encoded events.
        end: Called at the end, even if nothing could be sent.
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
