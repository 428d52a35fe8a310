"""A `Link` over plain ASGI, for servers that do not offer one of their own.

With ASGI a connection ends when the application's call returns, an application sees no pings, and
it sends one message at a time, each as slowly as the client reads. So here the call lasts as long
as the connection, it is for the server to find out whether the client is still there, and what
waits to be sent is bounded.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.transports.link import LINK

T = TypeVar("T")

DENIAL = "websocket.http.response"
"""The ASGI extension for refusing a handshake with a response of the application's."""

UNSENT_BYTES = 65_536
"""How much may wait to be sent before `AsgiLink.can_write` is false."""

CLOSE_SECONDS = 10.0
"""How long what is unsent and the close may take to be sent."""

ANSWER_SECONDS = 1.0
"""How long the client may take to answer a close.

A connection that is closed with its answer unread is reset, and what was sent last may be lost.
"""

FRAMES_AT_ONCE = 64
"""How many frames are taken before other connections have their turn."""

NO_CODE, ABNORMAL = 1005, 1006
"""Codes of connections that were closed with none, or not closed at all (RFC 6455, 7.4.1)."""


def _nothing() -> None:
    pass


class AsgiLink:
    """One WebSocket of an ASGI server; see `gateway.transports.link.Link`.

    The application's call has to await `run` at its end, and then `finish`, however it ends.

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
        self._reading: asyncio.Timeout | None = None
        self._is_open = True
        self._closing: Message | None = None
        self._code = ABNORMAL
        self._on_frame: Callable[[str | bytes], None] | None = None
        self._on_writable = self._on_answer = _nothing
        self._on_end: Callable[[int], None] | None = None

    @property
    def is_open(self) -> bool:
        """See `Link.is_open`."""
        return self._is_open

    @property
    def can_write(self) -> bool:
        """See `Link.can_write`."""
        return self._is_open and self._unsent_bytes < UNSENT_BYTES

    def take_frames(
        self,
        on_frame: Callable[[str | bytes], None],
        on_writable: Callable[[], None],
        on_end: Callable[[int], None],
    ) -> None:
        """See `Link.take_frames`; but they come when the call awaits `run`."""
        self._on_end = on_end
        if self._is_open:
            self._on_frame, self._on_writable = on_frame, on_writable
        else:
            self._end(self._code)

    def write_frames(self, frames: Iterable[str | bytes], *, text: bool) -> None:
        """See `Link.write_frames`."""
        if not self._is_open:
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

    def admit(self) -> None:
        """See `Link.admit`; what is not read yet is the server's."""

    def finish(self) -> None:
        """See `Link.finish`; here that is the server's affair."""

    def close(self, code: int, reason: str, on_answer: Callable[[], None] | None = None) -> None:
        """See `Link.close`."""
        if self._is_open:
            self._on_answer = on_answer or _nothing
            self._closing = {"type": "websocket.close", "code": code, "reason": reason}
            self._end(code)
            self._stop_reading(0)

    def abandon(self, code: int, reason: str) -> None:
        """See `Link.abandon`. A frame that is being sent goes ahead of the close, if it goes."""
        if self._is_open:
            self._unsent.clear()
            self.close(code, reason)

    def _end(self, code: int) -> None:
        """Take nothing more in either way, and say so once."""
        self._is_open, self._code = False, code
        self._on_frame, self._on_writable = None, _nothing
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            # Not at once: it may come of what its connection is doing at this moment.
            self._loop.call_soon(on_end, code)

    def _stop_reading(self, seconds: float) -> None:
        if self._reading is not None and not self._reading.expired():
            self._reading.reschedule(self._loop.time() + seconds)

    async def _write(self) -> None:
        """Send what waits."""
        try:
            while self._unsent:
                message, size = self._unsent.popleft()
                await self._send(message)
                unsent = self._unsent_bytes
                self._unsent_bytes = left = unsent - size
                if left < UNSENT_BYTES <= unsent:
                    self._on_writable()
        except Exception:  # noqa: BLE001 - of any server; ASGI asks for an OSError
            self._unsent.clear()
            if self._is_open:
                # The connection is gone. What `receive` says of that is the code that counts.
                self._is_open = False
                self._stop_reading(ANSWER_SECONDS)
        self._writer = None

    async def receive(self) -> Message:
        """What the server receives, until the frames are taken or the connection is closed."""
        message = await self._until_closed(self._receive()) if self._is_open else None
        return message or {"type": "websocket.disconnect", "code": self._code}

    async def run(self) -> None:
        """Hand frames over until the connection ends, and close it if it is to be closed."""
        if self._on_frame is not None:
            code = await self._until_closed(self._read())
            if code is not None:
                self._end(code)
        if self._closing is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._close(self._closing)

    async def _until_closed(self, receiving: Awaitable[T]) -> T | None:
        """What comes of it; None where `_stop_reading` has ended it."""
        try:
            async with asyncio.timeout(None) as self._reading:
                return await receiving
        except TimeoutError:
            return None
        finally:
            self._reading = None

    async def _read(self) -> int:
        """Hand frames over; returns the code with which the connection has ended."""
        receive = self._receive
        while True:
            for _ in range(FRAMES_AT_ONCE):
                message = await receive()
                if message["type"] == "websocket.disconnect":
                    return message.get("code") or NO_CODE
                if self._on_frame is not None:
                    text = message.get("text")
                    self._on_frame(message["bytes"] if text is None else text)
            await asyncio.sleep(0)

    async def _close(self, closing: Message) -> None:
        """Send what is unsent and the close, and wait for its answer.

        Nothing is being received meanwhile: granian does not close before that has ended.
        """
        if self._writer is not None:
            await asyncio.wait([self._writer])
        with contextlib.suppress(Exception):  # it is gone; see above
            await self._send(closing)
            async with asyncio.timeout(ANSWER_SECONDS):
                if await self._read() == closing["code"]:
                    self._on_answer()

    async def aclose(self) -> None:
        """Stop writing, and say that this is the end where nothing else has."""
        self._end(self._code)
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
            await self._app({**scope, "extensions": extensions}, link.receive, handshake)
            await link.run()
        finally:
            await link.aclose()


def _closing(send: Send) -> Send:
    """Refuse handshakes where the server takes no response for that: it answers with a bare 403."""

    async def send_or_close(message: Message) -> None:
        if message["type"] == f"{DENIAL}.start":
            await send({"type": "websocket.close"})
        elif message["type"] != f"{DENIAL}.body":
            await send(message)

    return send_or_close
