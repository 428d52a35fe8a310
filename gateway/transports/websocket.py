"""WebSocket connections: the handshake, frames in, and the session's log out."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import structlog
from msgspec import UNSET, structs
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.errors import CloseCode, ErrorCode
from gateway.protocol.codecs import (
    SUBPROTOCOL_JSON,
    SUBPROTOCOL_MSGPACK,
    Codec,
    Frame,
    JsonCodec,
    MsgpackCodec,
    ProtocolError,
)
from gateway.protocol.messages import (
    AuthRefresh,
    ErrorMessage,
    Notice,
    Ping,
    Pong,
    ServerMessage,
    SessionClose,
    SessionOpen,
    SessionOpened,
    SessionResumed,
)
from gateway.runner import Route, SessionRunner, Sessions
from gateway.session.events import Confirmed
from gateway.session.ports import StoreFull
from gateway.transports.closing import Closing
from gateway.transports.origins import REFUSED, Origins
from gateway.transports.proxies import Client, Proxies
from gateway.transports.raw import RawCodec
from gateway.transports.server import LINK, Link

log = structlog.stdlib.get_logger("gateway.connections")

CODECS: Mapping[str, Codec] = MappingProxyType(
    {SUBPROTOCOL_JSON: JsonCodec(), SUBPROTOCOL_MSGPACK: MsgpackCodec()}
)

MAX_BAD_MESSAGES = 20
"""The bad message with this number closes its connection."""

LINGER_SECONDS = 0.005
"""How long what nobody waits for, as an acceptance, may wait to be written with what follows."""

WRITE_BYTES = 65_536
"""About how much is written at once."""

MAX_NOTICES = 256
"""How many answers may wait for a client that sends and does not read."""

PRINCIPAL = "anonymous"
"""Whose every session is, as long as nobody has to say who they are."""

CREDENTIALS = ("bearer.", "ticket.")
"""How offered subprotocols begin that are none, and are never echoed."""


class Lingering:
    """Wakes connections in a moment, with one timer for all.

    Args:
        loop: Has the timer.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[Connection] = []

    def add(self, connection: "Connection") -> None:
        """Have it woken within `LINGER_SECONDS`."""
        if not self._waiting:
            self._loop.call_later(LINGER_SECONDS, self._wake)
        self._waiting.append(connection)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            if connection.is_behind:
                connection.wake(soon=True)


class Connection:
    """One client's socket: a reader of its session's log.

    Args:
        websocket: Accepted.
        codec: Of the subprotocol agreed on; None for raw.
        route: Where its session goes.
        on_end: Called once with the close code, when its socket closes.
    """

    __slots__ = (
        "_bad_messages",
        "_closed",
        "_closing",
        "_codec",
        "_confirmed",
        "_flushing",
        "_lingering",
        "_link",
        "_loop",
        "_notices",
        "_on_end",
        "_raw",
        "_route",
        "_runner",
        "_websocket",
        "position",
        "resume_key",
    )

    def __init__(
        self,
        websocket: WebSocket,
        codec: Codec | None,
        route: Route,
        on_end: Callable[[int, str | None], None],
        lingering: Lingering,
    ) -> None:
        self.position = 0
        self.resume_key = ""
        self._websocket = websocket
        self._link: Link = websocket.scope["extensions"][LINK]
        self._loop = asyncio.get_running_loop()
        self._codec: Codec | RawCodec = codec or RawCodec()
        self._raw = codec is None
        self._route = route
        self._on_end = on_end
        self._lingering = lingering
        self._runner: SessionRunner | None = None
        self._notices: list[tuple[int, Notice]] = []
        self._flushing = False
        self._closing: tuple[CloseCode, str] | None = None
        self._closed = False
        self._bad_messages = 0
        self._confirmed = True

    # What the session asks for

    def begin(self, resumed: SessionResumed, after: int) -> None:
        """See `gateway.runner.Connection`."""
        self.position = after
        self._notices.append((after, resumed))
        self._confirmed = False
        self._flush()  # at once: it is to come forward, however fast the log goes on

    def wake(self, *, soon: bool) -> None:
        """See `gateway.runner.Connection`."""
        # Not at once: what the session says in one moment goes out in one piece.
        if self._flushing:
            return
        if soon:
            self._flushing = True
            self._loop.call_soon(self._flush)
        elif not self._raw:  # whose client is told of ends only
            self._lingering.add(self)

    @property
    def is_behind(self) -> bool:
        """Whether the log has what it has not written."""
        return self._runner is not None and self.position != self._runner.session.log.last

    def tell(self, notice: Notice) -> None:
        """See `gateway.runner.Connection`."""
        if len(self._notices) == MAX_NOTICES:
            self._flush()  # a flood in one piece is no sign of a client that does not read
        if len(self._notices) == MAX_NOTICES:
            self.abandon(CloseCode.TOO_SLOW, "too slow")
            return
        last = self._runner.session.log.last if self._runner else 0
        self._notices.append((last, notice))
        if isinstance(notice, ErrorMessage) and notice.code is ErrorCode.BAD_MESSAGE:
            self._bad_messages += 1
            if self._bad_messages == MAX_BAD_MESSAGES:
                self.close(CloseCode.PROTOCOL_VIOLATION, "too many bad messages")
        self.wake(soon=True)

    def close(self, code: CloseCode, reason: str) -> None:
        """See `gateway.runner.Connection`."""
        self._closing = self._closing or (code, reason)
        self.wake(soon=True)

    def abandon(self, code: CloseCode, reason: str) -> None:
        """See `gateway.runner.Connection`."""
        self._closed = True
        self._link.abandon(code, reason)

    # In

    async def run(self, sessions: Sessions, open_timeout: float) -> None:
        """Open the client's session, or resume it; from then on, what comes is handed over."""
        try:
            await self._begin(sessions, open_timeout)
        except WebSocketDisconnect as gone:
            self._ended(gone.code)
            return
        except asyncio.CancelledError:
            self._ended(CloseCode.INTERNAL)
            raise
        except Exception as error:  # noqa: BLE001 - it ends this connection alone
            self._fail(error)
        del self._websocket
        self._link.take_frames(self._frame, self._flush, self._ended)

    def _ended(self, code: int) -> None:
        """The socket is closed."""
        self._closed = True
        if self._runner is not None:
            if self._raw:
                self._runner.handle(SessionClose())
            else:
                self._runner.detach(self)
        self._on_end(int(code), None if self._runner is None else self._runner.session.id)

    def _fail(self, error: Exception) -> None:
        """Close for what was raised."""
        if isinstance(error, Closing):
            self.close(error.code, error.reason)
        else:
            log.error("a connection failed", exc_info=error)
            self.close(CloseCode.INTERNAL, ErrorCode.INTERNAL)

    async def _begin(self, sessions: Sessions, open_timeout: float) -> None:
        """Open a session, or resume one, with the first frames."""
        if self._raw:
            frame = await self._receive()
            await self._open(sessions)
            self._frame(frame)
            return
        try:
            async with asyncio.timeout(open_timeout):
                while not await self._session_open(sessions):
                    pass
        except TimeoutError:
            raise Closing(CloseCode.SILENT, "no session.open in time") from None

    async def _open(self, sessions: Sessions) -> None:
        if sessions.draining:
            raise Closing(CloseCode.RESTARTING, ErrorCode.UNAVAILABLE)
        try:
            self._runner = await sessions.open(self._route, PRINCIPAL, self)
        except StoreFull:
            if sessions.draining:  # since a moment ago
                raise Closing(CloseCode.RESTARTING, ErrorCode.UNAVAILABLE) from None
            raise Closing(CloseCode.UNAVAILABLE, ErrorCode.UNAVAILABLE) from None

    async def _session_open(self, sessions: Sessions) -> bool:
        """Take a frame that is to open a session, or to resume one; False where it is wrong."""
        frame = await self._receive()
        try:
            message = self._codec.decode(frame)
        except ProtocolError as error:
            self._refuse(str(error))
            if error.message_type != "session.open":
                raise Closing(CloseCode.PROTOCOL_VIOLATION, "no session.open") from None
            return False
        if not isinstance(message, SessionOpen):
            raise Closing(CloseCode.PROTOCOL_VIOLATION, "no session.open")
        session_id, key, last = message.session_id, message.resume_key, message.last_event
        if session_id is UNSET and key is UNSET and last is UNSET:
            await self._open(sessions)
            return True
        if session_id is UNSET or key is UNSET or last is UNSET:
            self._refuse("`session_id`, `resume_key` and `last_event` resume a session together")
            return False
        runner = sessions.find(session_id, key, route=self._route, principal=PRINCIPAL)
        if runner is None:
            raise Closing(CloseCode.GONE, ErrorCode.SESSION_LOST)
        newest = runner.session.log.last
        if last > newest:
            self._refuse(f"`last_event` is past the newest event, {newest}")
            return False
        self._runner = runner
        runner.attach(self, key, last)
        return True

    async def _receive(self) -> Frame:
        """The next frame, before the link hands them over.

        Raises:
            Closing: It is too large.
            WebSocketDisconnect: There is none any more.
        """
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"], message.get("reason"))
        text: str | None = message.get("text")
        frame: Frame = message["bytes"] if text is None else text
        self._check(frame)
        return frame

    def _check(self, frame: Frame) -> None:
        if self._closing is None and _exceeds(frame, self._route.policy.message_bytes):
            raise Closing(CloseCode.TOO_LARGE, ErrorCode.TOO_LARGE)

    def _frame(self, frame: Frame) -> None:
        """Take a frame in."""
        runner = self._runner
        if self._closed or self._closing is not None or runner is None:
            return  # the session has ended, or is another connection's by now
        try:
            self._check(frame)
            if not self._confirmed:
                self._confirmed = True
                runner.handle(Confirmed())
            message = self._codec.decode(frame)
            match message:
                case Ping():
                    self.tell(Pong(data=message.data))
                case AuthRefresh():
                    pass  # nobody has to authenticate, so a token changes nothing
                case SessionOpen():
                    self._refuse("`session.open` comes first, and once")
                case _:
                    runner.handle(message)
        except ProtocolError as error:
            self._refuse(str(error), error.message_id)
        except Exception as error:  # noqa: BLE001 - it ends this connection alone
            self._fail(error)

    def _refuse(self, text: str, message_id: str | None = None) -> None:
        self.tell(
            ErrorMessage(
                code=ErrorCode.BAD_MESSAGE,
                message=text,
                id=message_id or UNSET,
                retryable=False,
            )
        )

    # Out

    def _flush(self) -> None:
        """Write what there is, as far as the socket takes it; then close, if it is to close."""
        self._flushing = False
        link, encode = self._link, self._codec.encode
        while not self._closed and link.can_write:
            frames: list[Frame] = []
            size = 0
            try:
                while size < WRITE_BYTES and (message := self._take()) is not None:
                    frame = encode(message)
                    if frame is not None:
                        frames.append(frame)
                        size += len(frame)
            except Exception as error:  # noqa: BLE001 - it ends this connection alone
                self._fail(error)
            if frames:
                link.write_frames(frames, text=self._codec.text)
            if size >= WRITE_BYTES:
                continue
            if self._closing is not None and link.can_write:
                self._closed = True
                link.close(*self._closing)
            return

    def _take(self) -> ServerMessage | None:
        """The next message to send: the log in its order, each notice where it was said."""
        runner, notices = self._runner, self._notices
        if runner is None:
            return notices.pop(0)[1] if notices else None
        session = runner.session
        events = session.log
        self.position = max(self.position, events.forgotten)
        if notices and notices[0][0] <= self.position:
            return notices.pop(0)[1]
        if self.position == events.last:
            return None
        self.position += 1
        event = events.get(self.position)
        if isinstance(event, SessionOpened):
            event = structs.replace(event, resume_key=self.resume_key)
        if not session.policy.resume_seconds:
            events.forget(self.position)
        return event


def _exceeds(frame: Frame, limit: int) -> bool:
    """Whether a frame has more bytes than that; text is encoded only where it must be."""
    if len(frame) > limit:
        return True
    return isinstance(frame, str) and len(frame) * 4 > limit and len(frame.encode()) > limit


def _raw(route: Route) -> Route:
    """The same for raw connections: since none can come back, nothing is kept for when it does.

    A frame is a body as it stands, also where it is text and the route takes JSON.
    """
    policy = structs.replace(
        route.policy, resume_seconds=0.0, remembered_messages=0, json_only=False
    )
    return Route(policy, route.model)


def _refusal() -> Response:
    problem = {"status": 403, "code": ErrorCode.FORBIDDEN, "detail": REFUSED}
    readable = {"Access-Control-Allow-Origin": "*"}
    return JSONResponse(problem, 403, readable, media_type="application/problem+json")


class WebSocketEndpoint:
    """Takes handshakes on ``/ws`` and ``/ws/{route}``.

    Args:
        sessions: Where they lead to.
        origins: Which pages may connect.
        proxies: Finds out who does.
        max_connections: How many there may be at once.
        open_timeout: Seconds within which a client has to send ``session.open``.
    """

    def __init__(
        self,
        sessions: Sessions,
        *,
        origins: Origins,
        proxies: Proxies,
        max_connections: int,
        open_timeout: float,
    ) -> None:
        self._sessions = sessions
        self._raw_routes = {name: _raw(route) for name, route in sessions.routes.items()}
        self._origins = origins
        self._proxies = proxies
        self._max_connections = max_connections
        self._open_timeout = open_timeout
        self._lingering = Lingering(asyncio.get_running_loop())
        self._connections = 0

    def _called(self, connection: HTTPConnection) -> tuple[str, Client, bool]:
        """The name of the route that is asked for, by whom, and whether its origin may connect."""
        name = connection.path_params.get("route") or next(iter(self._sessions.routes))
        headers, peer = connection.headers, connection.client
        client = self._proxies.client_of(peer and peer.host, headers)
        origin, host = headers.get("origin"), headers.get("host")
        return name, client, self._origins.allow(origin, host, route=name, client=client)

    async def explain(self, connection: HTTPConnection) -> Response:
        """Answer what is no handshake, or one that is refused.

        A browser does not tell a page why its handshake was refused. So the page may ask for the
        same over HTTP, and read the refusal whatever its origin.
        """
        *_, allowed = self._called(connection)
        if not allowed:
            return _refusal()
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}  # RFC 9110, 15.5.22
        return PlainTextResponse("Connect with a WebSocket.\n", 426, upgrade)

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one connection."""
        routes = self._sessions.routes
        name, client, allowed = self._called(websocket)
        if not allowed:
            await websocket.send_denial_response(_refusal())
            return
        offered = [p for p in websocket.scope["subprotocols"] if not p.startswith(CREDENTIALS)]
        chosen = next((p for p in offered if p in CODECS), None)
        # A browser takes a handshake for failed that picks none of those it offered, and would
        # not see the close code; so an unknown one is picked, to be closed at once.
        await websocket.accept(chosen or next(iter(offered), None))
        if chosen is None and offered:
            await websocket.close(CloseCode.UNKNOWN_SUBPROTOCOL, "no common subprotocol")
        elif name not in routes:
            await websocket.close(CloseCode.UNKNOWN_ROUTE, ErrorCode.UNKNOWN_ROUTE)
        elif self._connections >= self._max_connections:
            await websocket.close(CloseCode.UNAVAILABLE, ErrorCode.UNAVAILABLE)
        elif chosen is None:
            await self._connect(websocket, None, self._raw_routes[name], client)
        else:
            await self._connect(websocket, chosen, routes[name], client)

    async def _connect(
        self, websocket: WebSocket, subprotocol: str | None, route: Route, client: Client
    ) -> None:
        self._connections += 1
        name, spoken, address = route.policy.route, subprotocol or "raw", client.address
        log.info(
            "connection opened",
            route=name,
            subprotocol=spoken,
            client=address,
            connections=self._connections,
        )
        codec = CODECS[subprotocol] if subprotocol else None
        on_end = partial(self._ended, name, spoken, address)
        connection = Connection(websocket, codec, route, on_end, self._lingering)
        await connection.run(self._sessions, self._open_timeout)

    def _ended(
        self, route: str, subprotocol: str, client: str, code: int, session: str | None
    ) -> None:
        self._connections -= 1
        log.info(
            "connection closed",
            route=route,
            subprotocol=subprotocol,
            client=client,
            session=session,
            code=code,
            connections=self._connections,
        )
