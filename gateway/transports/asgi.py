"""A `Link` over plain ASGI, for servers that do not offer one of their own.

With ASGI a connection ends when the application's call returns, an application sees no pings, and
it sends one message at a time, each as slowly as the client reads. So here the call lasts as long
as the connection, it is for the server to find out whether the client is still there, and what
waits to be sent is bounded.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.transports.server import LINK

DENIAL = "websocket.http.response"
"""The ASGI extension for refusing a handshake with a response of the application's."""

UNSENT_BYTES = 65_536
"""How much may wait to be sent before `AsgiLink.can_write` is false."""

CLOSE_SECONDS = 10.0
"""How long a closed connection may take to go before the call returns regardless."""

FRAMES_AT_ONCE = 64
"""How many frames are taken before other connections have their turn."""

NO_CODE, ABNORMAL = 1005, 1006
"""Codes of connections that were closed with none, or not closed at all (RFC 6455, 7.4.1)."""


def _nothing() -> None:
    pass


class AsgiLink:
    """One WebSocket of an ASGI server; see `gateway.transports.server.Link`.

    After `take_frames` the application's call has to await `read`, and then `finish`.

    Args:
        receive: The server's.
        send: The server's.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._unsent: deque[tuple[Message, int]] = deque()
        self._unsent_bytes = 0
        self._writer: asyncio.Task[None] | None = None
        self._ends_at: float | None = None
        self._deadline: asyncio.Timeout | None = None
        self._code: int | None = None
        self._is_taken = False
        self._on_frame: Callable[[str | bytes], None] | None = None
        self._on_writable = _nothing
        self._on_end: Callable[[int], None] | None = None

    @property
    def can_write(self) -> bool:
        """See `Link.can_write`."""
        return self._ends_at is None and self._unsent_bytes < UNSENT_BYTES

    def take_frames(
        self,
        on_frame: Callable[[str | bytes], None],
        on_writable: Callable[[], None],
        on_end: Callable[[int], None],
    ) -> None:
        """See `Link.take_frames`; but the call is not to return yet."""
        self._is_taken = True
        self._on_end = on_end
        if self._code is None:
            self._on_frame, self._on_writable = on_frame, on_writable
        else:
            self._tell_end(self._code)

    def write_frames(self, frames: Iterable[str | bytes], *, text: bool) -> None:
        """See `Link.write_frames`."""
        if self._ends_at is not None:
            return
        for frame in frames:
            message: Message
            if isinstance(frame, str):
                message = {"type": "websocket.send", "text": frame}
            elif text:
                message = {"type": "websocket.send", "text": frame.decode()}
            else:
                message = {"type": "websocket.send", "bytes": frame}
            self._unsent.append((message, len(frame)))
            self._unsent_bytes += len(frame)
        if self._writer is None:
            self._writer = self._loop.create_task(self._write())

    def close(self, code: int, reason: str) -> None:
        """See `Link.close`."""
        if self._ends_at is None:
            self._unsent.append(({"type": "websocket.close", "code": code, "reason": reason}, 0))
            self._end_soon()
            self._tell_end(code)
            if self._writer is None:
                self._writer = self._loop.create_task(self._write())

    def abandon(self, code: int, reason: str) -> None:
        """See `Link.abandon`."""
        if self._ends_at is None:
            self._unsent.clear()
            hanging, self._writer = self._writer, None
            if hanging is not None:
                hanging.cancel()
            self._unsent.append(({"type": "websocket.close", "code": code, "reason": reason}, 0))
            self._end_soon()
            self._tell_end(code)
            self._writer = self._loop.create_task(self._write(hanging))

    def _end_soon(self) -> None:
        """Limit the time that is left."""
        self._ends_at = self._loop.time() + CLOSE_SECONDS
        if self._deadline is not None:
            self._deadline.reschedule(self._ends_at)

    def _tell_end(self, code: int) -> None:
        """Say once that it has ended, and drop what refers back to this."""
        self._code = code
        self._on_frame, self._on_writable = None, _nothing
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            # Not at once: it may come of what its connection is doing at this moment.
            self._loop.call_soon(on_end, code)

    async def _write(self, before: asyncio.Task[None] | None = None) -> None:
        """Send what waits, after another writer has ended."""
        if before is not None:
            await asyncio.wait([before])
        try:
            while self._unsent:
                message, size = self._unsent.popleft()
                await self._send(message)
                unsent = self._unsent_bytes
                self._unsent_bytes = left = unsent - size
                if left < UNSENT_BYTES <= unsent:
                    self._on_writable()
        except Exception:  # noqa: BLE001 - of any server; ASGI asks for an OSError
            # The connection is gone. What `receive` says of that is the code that counts.
            self._unsent.clear()
            if self._ends_at is None:
                self._end_soon()
        if self._ends_at is None:
            self._writer = None

    async def read(self) -> None:
        """Hand frames over until the connection is gone, or has had its time to go."""
        if self._is_taken:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._ends_at) as self._deadline:
                    await self._read()

    async def _read(self) -> None:
        receive = self._receive
        while True:
            for _ in range(FRAMES_AT_ONCE):
                message = await receive()
                if message["type"] == "websocket.disconnect":
                    if self._code is None:
                        self._tell_end(message.get("code") or NO_CODE)
                    return
                if self._on_frame is not None:
                    text = message.get("text")
                    self._on_frame(message["bytes"] if text is None else text)
            await asyncio.sleep(0)

    async def finish(self) -> None:
        """Stop writing, however the call has ended."""
        if self._ends_at is None:
            self._ends_at = self._loop.time()
        if self._code is None:
            self._tell_end(ABNORMAL)
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait([self._writer])


class PlainAsgi:
    """Gives WebSockets of any ASGI server what the application asks of them: a link, and denials.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        offered = scope.get("extensions") or {}
        if scope["type"] != "websocket" or LINK in offered:
            await self._app(scope, receive, send)
            return
        link = AsgiLink(receive, send)
        extensions = {**offered, LINK: link, DENIAL: {}}
        handshake = send if DENIAL in offered else _closing(send)
        try:
            await self._app({**scope, "extensions": extensions}, receive, handshake)
            await link.read()
        finally:
            await link.finish()


def _closing(send: Send) -> Send:
    """Refuse handshakes where the server takes no response for that: it answers with a bare 403."""

    async def send_or_close(message: Message) -> None:
        if message["type"] == f"{DENIAL}.start":
            await send({"type": "websocket.close"})
        elif message["type"] != f"{DENIAL}.body":
            await send(message)

    return send_or_close
