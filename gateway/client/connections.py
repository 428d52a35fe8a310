"""The connections of a session: made again and again, until it is over."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal, NoReturn

import msgspec
from msgspec import UNSET, Struct
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websocket_connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.http11 import Response
from websockets.typing import Subprotocol

from gateway.client.closing import MAX_DELAY, ComeBack, closing_of
from gateway.client.codecs import ClientCodec
from gateway.client.conversation import Conversation, SkippedEvents
from gateway.client.notices import Disconnected, Notice
from gateway.errors import CloseCode
from gateway.protocol.codecs import ProtocolError

State = Literal["connecting", "open", "waiting", "closed"]
"""``waiting`` is the time before another attempt to connect."""

Token = str | Callable[[], Awaitable[str]]

AT_ONCE = 0.25
"""The longest wait where a client may come back at once, in seconds."""
A_WAIT = 1.0
"""The shortest where it may not, in seconds."""
STEADY = 10.0
"""A connection that held so long, in seconds, or answered, was good: waits begin anew after it."""
DETAIL = 200
"""So many characters of a refusal's text are passed on."""
NOT_THE_GATEWAY = "the server is not a session-gateway: its addresses end in /ws or /ws/ROUTE"

NO_CODE = (None, 1005, 1006)
"""What the library gives where the gateway has not said why a connection ended."""

STATUSES: Mapping[int, int] = MappingProxyType(
    {401: 4401, 403: 4403, 404: 4404, 429: 4429, 500: 1011, 502: 4503, 503: 4503, 504: 4503}
)
"""Refused handshakes, from the gateway or a proxy before it, as close codes."""


class Over(Exception):
    """There will be no further connection."""

    def __init__(self, why: str, code: int | None) -> None:
        super().__init__(why)
        self.why = why
        self.code = code


class Connections:
    """Connects a session, and connects it again, until it is over.

    Args:
        url: The gateway's.
        conversation: What the session's client knows of it.
        codec: Of all connections.
        news: Set when the conversation has something to write.
        notify: Called with each notice.

    Attributes:
        state: How things stand.
        token: Shown at each handshake.
        opened: Set once there was a session.
        closing: Whether its end is wanted; `ending` says why in words.
        over: Why there will be no further connection, once that is so.
        why: Why there is none just now, in words.
    """

    def __init__(
        self,
        url: str,
        conversation: Conversation,
        codec: ClientCodec,
        *,
        token: Token | None,
        news: asyncio.Event,
        notify: Callable[[Notice], None],
        open_timeout: float,
        reconnect_timeout: float,
        reopen: bool,
        delays: Callable[[], Iterator[float]],
        options: dict[str, Any],
    ) -> None:
        self.state: State = "connecting"
        self.token = token
        self.opened = asyncio.Event()
        self.closing = False
        self.ending = "the session was closed"
        self.over: Over | None = None
        self.why = ""
        self._url = url
        self._conversation = conversation
        self._codec = codec
        self._news = news
        self._notify = notify
        self._open_timeout = open_timeout
        self._reconnect_timeout = reconnect_timeout
        self._reopen = reopen
        self._delays = delays
        self._options = options

    async def run(self) -> None:
        """Connect again and again, until the session is over."""
        try:
            await self._keep_connected()
        except Over as over:
            self.over = over
        except Exception as error:  # noqa: BLE001 - the token's, say; raised where somebody asks
            self.over = Over(f"{type(error).__name__}: {error}", None)
            self.over.__cause__ = error
        finally:
            if self.over is None:
                self.over = Over(self.ending, None)
            self.state = "closed"
            self._conversation.end(self.over.why)

    async def _keep_connected(self) -> NoReturn:
        loop = asyncio.get_running_loop()
        conversation = self._conversation
        delays = self._delays()
        lost_at = loop.time()
        attempts = refused = 0
        while True:
            self.state = "connecting"
            began = loop.time()
            code, self.why = await self._connect()
            come_back = closing_of(code).come_back
            held = conversation.ready
            if held:
                conversation.ready = False
                lost_at, refused = loop.time(), 0
                if conversation.answered or lost_at - began > STEADY:
                    delays, attempts = self._delays(), 0
            away = loop.time() - lost_at
            if come_back is ComeBack.NEW_TOKEN:
                refused += 1
            if (
                self.closing
                or come_back is ComeBack.NO
                or conversation.closed == "client"
                or self._is_refused()
                or (come_back is ComeBack.NEW_TOKEN and (refused > 1 or not callable(self.token)))
                or (self.opened.is_set() and away > self._reconnect_timeout)
            ):
                raise Over(self.why, code)
            gone = self._is_gone(come_back, away)
            if gone:
                if not self._reopen:
                    raise Over(self.why, code)
                conversation.forget()
            at_once = not attempts or (gone and not held)
            delay = self._delay(come_back, next(delays, MAX_DELAY), at_once=at_once)
            attempts += 1
            self.state = "waiting"
            self._notify(Disconnected(self.why, code, delay))
            await asyncio.sleep(delay)

    def _is_refused(self) -> bool:
        """Whether the gateway will not open a session, and says that asking again is no use."""
        error = self._conversation.last_error
        return error is not None and not error.retryable and self._conversation.session_id is None

    def _is_gone(self, come_back: ComeBack, away: float) -> bool:
        """Whether there is a session that can't be resumed any more, after so many seconds."""
        conversation = self._conversation
        return conversation.session_id is not None and (
            come_back is ComeBack.NEW_SESSION
            or conversation.closed is not None
            or conversation.limits is None
            or away >= conversation.limits.resume_seconds
        )

    def _delay(self, come_back: ComeBack, delay: float, *, at_once: bool) -> float:
        """How long to wait before another attempt, in seconds.

        Only the first is at once, and that after a session was found to be gone: sessions that end
        as soon as they open are not opened in a loop.
        """
        if come_back in {ComeBack.NOW, ComeBack.NEW_SESSION, ComeBack.NEW_TOKEN}:
            return min(delay, AT_ONCE) if at_once else delay
        if come_back is ComeBack.AFTER_A_WAIT:
            error = self._conversation.last_error
            wait = error.retry_after if error is not None else UNSET
            return max(delay, A_WAIT if wait is UNSET else wait)
        return delay

    async def _connect(self) -> tuple[int | None, str]:
        """Hold one connection until it ends: its close code, and why in words."""
        try:
            socket = await self._handshake()
        except InvalidStatus as refused:
            status = refused.response.status_code
            if status not in STATUSES:
                raise Over(f"no WebSocket is served there: HTTP {status}", None) from None
            return STATUSES[status], f"HTTP {status}: {_detail(refused.response)}"
        except (OSError, EOFError, InvalidHandshake) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            if not self.opened.is_set():
                raise Over(why, None) from None
            return None, why
        try:
            if socket.subprotocol != self._codec.subprotocol and socket.close_code is None:
                raise Over(NOT_THE_GATEWAY, None)
            violation = await self._hold(socket)
        finally:
            await socket.close()
        if isinstance(violation, SkippedEvents):
            # Resuming after the last that came may bring them. Where they are skipped again they
            # can't be had, and to go on would hide that.
            if violation.again:
                raise Over(str(violation), CloseCode.PROTOCOL_VIOLATION)
            return None, str(violation)
        if violation is not None:
            words = f"the gateway violated the protocol: {violation}"
            raise Over(words, CloseCode.PROTOCOL_VIOLATION)
        code = None if socket.close_code in NO_CODE else socket.close_code
        refusal = self._conversation.last_error
        return code, refusal.message if refusal else closing_of(code).words

    async def _handshake(self) -> ClientConnection:
        self._conversation.last_error = None
        options = dict(self._options)
        token = await self.token() if callable(self.token) else self.token
        if token is not None:
            headers = dict(options.pop("additional_headers", None) or {})
            options["additional_headers"] = {**headers, "Authorization": f"Bearer {token}"}
        subprotocols = [Subprotocol(self._codec.subprotocol)]
        return await websocket_connect(self._url, subprotocols=subprotocols, **options)

    async def _hold(self, socket: ClientConnection) -> ProtocolError | None:
        """Read and write until the connection ends, or the gateway breaks the protocol."""
        violation = None
        opening = self._codec.encode(self._conversation.opening())
        async with asyncio.TaskGroup() as tasks:
            ready = asyncio.Event()
            writing = tasks.create_task(self._write(socket))
            beating = tasks.create_task(self._beat(socket, ready))
            try:
                await socket.send(opening)
                while True:
                    self._conversation.received(self._codec.decode(await socket.recv()))
                    if self._conversation.ready and not ready.is_set():
                        ready.set()
                        self.state = "open"
                        self.opened.set()
            except ConnectionClosed:
                pass
            except ProtocolError as error:
                violation = error
            finally:
                writing.cancel()
                beating.cancel()
        if violation is not None:
            await socket.close(CloseCode.PROTOCOL_VIOLATION, "protocol violation")
        return violation

    async def _write(self, socket: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self._news.wait()
                self._news.clear()
                while (frame := self._conversation.next_frame()) is not None:
                    await socket.send(frame)

    async def _beat(self, socket: ClientConnection, ready: asyncio.Event) -> None:
        """Give up a connection on which nothing comes: no session in time, then no pong."""
        with contextlib.suppress(ConnectionClosed):
            try:
                async with asyncio.timeout(self._open_timeout):
                    await ready.wait()
                while True:
                    heartbeat = self._conversation.heartbeat
                    await asyncio.sleep(heartbeat)
                    async with asyncio.timeout(heartbeat):
                        await (await socket.ping())
            except TimeoutError:
                socket.transport.abort()


class _Problem(Struct):
    """RFC 9457, as much of it as is passed on."""

    detail: str


def _detail(refusal: Response) -> str:
    """Why there is no WebSocket: the gateway's words, or what the status most likely means."""
    status = refusal.status_code
    try:
        return msgspec.json.decode(refusal.body, type=_Problem).detail[:DETAIL]
    except msgspec.DecodeError:
        pass  # it is not the gateway's
    if status in {403, 404}:
        return NOT_THE_GATEWAY
    return closing_of(STATUSES[status]).words
