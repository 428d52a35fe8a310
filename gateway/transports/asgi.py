"""A `Link` over plain ASGI, for servers that don't provide one of their own.

With ASGI, a connection ends when the application's call returns; the application sees no pings, and
sends one message at a time, as slowly as the client reads. So the call lasts as long as the
connection, the server has to detect lost clients, and the buffer of unsent messages is bounded.
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
"""The ASGI extension for refusing a handshake with a response."""

UNSENT_BYTES = 65_536
"""Size of the send buffer from which `AsgiLink.can_write` is false."""

CLOSE_SECONDS = 10.0
"""Seconds allowed for sending the unsent messages and the close."""

ANSWER_SECONDS = 1.0
"""Seconds that the client has to answer a close.

A connection that is closed with unread data is reset, and what was sent last may be lost.
"""

FRAMES_AT_ONCE = 64
"""Frames that are read before other connections have their turn."""

NO_CODE, ABNORMAL = 1005, 1006
"""Codes of connections closed without a code, or without a close (RFC 6455, 7.4.1)."""


def _nothing() -> None:
    pass


class AsgiLink:
    """A WebSocket of an ASGI server; see `gateway.transports.link.Link`.

    The application's call has to await `run` last, and `aclose` however it ends.

    Args:
        receive: The server's ``receive``.
        send: The server's ``send``.
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
        """See `Link.take_frames`; frames arrive only while the call awaits `run`."""
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
        """See `Link.admit`; unread data is buffered by the server."""

    def finish(self) -> None:
        """See `Link.finish`; left to the server."""

    def close(self, code: int, reason: str, on_answer: Callable[[], None] | None = None) -> None:
        """See `Link.close`."""
        if self._is_open:
            self._on_answer = on_answer or _nothing
            self._closing = {"type": "websocket.close", "code": code, "reason": reason}
            self._end(code)
            self._stop_reading(0)

    def abandon(self, code: int, reason: str) -> None:
        """See `Link.abandon`. A frame that is being sent may still precede the close."""
        if self._is_open:
            self._unsent.clear()
            self.close(code, reason)

    def _end(self, code: int) -> None:
        """Stop reading and writing, and call `on_end` once."""
        self._is_open, self._code = False, code
        self._on_frame, self._on_writable = None, _nothing
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            # Deferred: the connection itself may be what called this.
            self._loop.call_soon(on_end, code)

    def _stop_reading(self, seconds: float) -> None:
        if self._reading is not None and not self._reading.expired():
            self._reading.reschedule(self._loop.time() + seconds)

    async def _write(self) -> None:
        """Send the unsent messages."""
        try:
            while self._unsent:
                message, size = self._unsent.popleft()
                await self._send(message)
                unsent = self._unsent_bytes
                self._unsent_bytes = left = unsent - size
                if left < UNSENT_BYTES <= unsent:
                    self._on_writable()
        except Exception:  # noqa: BLE001 - differs among servers; ASGI asks for an OSError
            self._unsent.clear()
            if self._is_open:
                # The connection is gone. Its close code is the one that `receive` returns.
                self._is_open = False
                self._stop_reading(ANSWER_SECONDS)
        self._writer = None

    async def receive(self) -> Message:
        """Receive a message, until frames are taken or the connection is closed."""
        message = await self._until_closed(self._receive()) if self._is_open else None
        return message or {"type": "websocket.disconnect", "code": self._code}

    async def run(self) -> None:
        """Pass frames on until the connection ends, and complete its close."""
        if self._on_frame is not None:
            code = await self._until_closed(self._read())
            if code is not None:
                self._end(code)
        if self._closing is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._close(self._closing)

    async def _until_closed(self, receiving: Awaitable[T]) -> T | None:
        """Await a result; None if `_stop_reading` interrupted it."""
        try:
            async with asyncio.timeout(None) as self._reading:
                return await receiving
        except TimeoutError:
            return None
        finally:
            self._reading = None

    async def _read(self) -> int:
        """Pass frames on; return the code that the connection was closed with."""
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
        """Send the unsent messages and the close, and wait for the answer.

        Nothing else may be receiving: granian doesn't close before that has ended.
        """
        if self._writer is not None:
            await asyncio.wait([self._writer])
        with contextlib.suppress(Exception):  # the connection is gone; see `_write`
            await self._send(closing)
            async with asyncio.timeout(ANSWER_SECONDS):
                if await self._read() == closing["code"]:
                    self._on_answer()

    async def aclose(self) -> None:
        """Stop writing, and call `on_end` if that hasn't happened."""
        self._end(self._code)
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait([self._writer])


class PlainAsgi:
    """Gives WebSockets of any ASGI server the extensions that the application needs: link, denial.

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
    """Refuse with a plain close, which servers without the extension answer with a bare 403."""

    async def send_or_close(message: Message) -> None:
        if message["type"] == f"{DENIAL}.start":
            await send({"type": "websocket.close"})
        elif message["type"] != f"{DENIAL}.body":
            await send(message)

    return send_or_close
