"""A session over connections that come and go."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal, NoReturn, Unpack

import msgspec
from msgspec import UNSET, Struct
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websocket_connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from gateway.addresses import is_loopback, without_password
from gateway.client.closing import MAX_DELAY, ComeBack, backoff, closing_of
from gateway.client.codecs import ClientCodec, JsonClientCodec, MsgpackClientCodec
from gateway.client.conversation import Conversation
from gateway.client.errors import ConnectionFailed, MessageFailed, SessionClosed
from gateway.client.notices import Disconnected, Notice
from gateway.client.saved import Position, SavedSession
from gateway.client.sending import Body, Options, message_of
from gateway.client.turns import Turn
from gateway.errors import CloseCode, ErrorCode, Outcome
from gateway.protocol.codecs import Frame, ProtocolError
from gateway.protocol.messages import AuthRefresh, SessionClose

State = Literal["connecting", "open", "waiting", "closed"]
"""``waiting`` is the time before another attempt to connect."""

Token = str | Callable[[], Awaitable[str]]

AT_ONCE = 0.25
"""The longest wait where a client may come back at once, in seconds."""
A_WAIT = 1.0
"""The shortest where it may not, in seconds."""
STEADY = 10.0
"""A connection that held so long, in seconds, or answered, was good: waits begin anew after it."""
ESCAPED = 6
"""A character of a text takes up to so many in JSON."""

SAID = 200
"""So many characters of a refusal's text are passed on."""

NO_CODE = (None, 1005, 1006)
"""What the library says where the gateway has not said why a connection ended."""

STATUSES: Mapping[int, int] = MappingProxyType(
    {401: 4401, 403: 4403, 404: 4404, 429: 4429, 500: 1011, 502: 4503, 503: 4503, 504: 4503}
)
"""Refused handshakes, from the gateway or a proxy before it, as close codes."""

CODECS: Mapping[str, Callable[[], ClientCodec]] = MappingProxyType(
    {"json": JsonClientCodec, "msgpack": MsgpackClientCodec}
)


class _Over(Exception):
    """There will be no further connection."""

    def __init__(self, why: str, code: int | None) -> None:
        super().__init__(why)
        self.why = why
        self.code = code


class Session:
    """A conversation with a model. `connect` makes one.

    Its connection may be lost and come back; turns go on meanwhile, and nothing of a reply is
    lost or comes twice. Where the session itself is gone, a new one takes its place unless
    ``reopen`` is false: the model has forgotten then, and a `Opened` notice says so in
    ``replaces``.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token | None,
        codec: ClientCodec,
        on_notice: Callable[[Notice], None] | None,
        open_timeout: float,
        reconnect_timeout: float,
        close_timeout: float,
        reopen: bool,
        carry_over: bool,
        resume: Position | None,
        max_turns: int,
        max_reply_bytes: int,
        delays: Callable[[], Iterator[float]],
        options: dict[str, Any],
    ) -> None:
        self._state: State = "connecting"
        self._url = url
        self._token = token
        self._codec = codec
        self._on_notice = on_notice
        self._open_timeout = open_timeout
        self._reconnect_timeout = reconnect_timeout
        self._close_timeout = close_timeout
        self._reopen = reopen
        self._max_turns = max_turns
        self._max_reply_bytes = max_reply_bytes
        self._delays = delays
        self._options = options
        self._news = asyncio.Event()
        self._ready = asyncio.Event()
        self._closing = False
        self._ending = "the session was closed"
        self._why = ""
        self._was_open = False
        self._over: _Over | None = None
        self._conversation = Conversation(codec, self._tell, self._news.set, carry_over=carry_over)
        self._resumed: Mapping[str, Turn] = MappingProxyType({})
        if resume is not None:
            ids = (*resume.accepted, *resume.written)
            self._resumed = MappingProxyType({name: self._turn("", name) for name in ids})
            self._conversation.go_on(resume, self._resumed)
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Session {self.session_id} {self._state}>"

    @property
    def state(self) -> State:
        """How things stand with the connection."""
        return self._state

    @property
    def session_id(self) -> str | None:
        """The gateway's id of the session; None while there is none."""
        return self._conversation.session_id

    @property
    def route(self) -> str:
        """The route's name."""
        return self._conversation.route

    @property
    def expires_at(self) -> datetime | None:
        """When the session expires at the model, as far as that is known."""
        return self._conversation.expires_at

    @property
    def resumed(self) -> Mapping[str, Turn]:
        """The turns that were under way when the session was saved, by their messages' ids.

        Their replies lack the parts that had come by then, and say that they are not `complete`.
        A message of which nothing more is heard fails with the outcome ``unknown``.
        """
        return self._resumed

    def send(
        self,
        body: Body | None = None,
        /,
        *,
        json: Any = UNSET,
        id: str | None = None,  # noqa: A002 - the protocol's name
        **options: Unpack[Options],
    ) -> Turn:
        """Send a message: text, bytes, or JSON.

        It is sent from now on, whether or not the turn is awaited. Turns are answered in the order
        sent. While there is no connection they wait for one.

        Args:
            body: Text, bytes, or a dict or a list, which is sent as JSON.
            json: In its place any other JSON value, as a number; what `msgspec` can write as JSON.
            id: The message's id, up to 64 visible ASCII characters; within a session no two are
                the same. A random one unless given.
            options: See `Options`.

        Raises:
            SessionClosed: The session is over.
            TypeError: There is not exactly one body, or it is of another type.
            ValueError: An argument is no part of a message; or a turn of this id is under way.
        """
        if self._over is not None or self._closing:
            self._raise_closed()
        conversation = self._conversation
        message = message_of(body, json, id or uuid.uuid4().hex, options)
        if message.id in conversation.turns:
            raise ValueError(f"a turn {message.id!r} is under way")
        turn = self._turn(self._codec.encode(message), message.id)
        limit = conversation.limits.message_bytes if conversation.limits else None
        size = len(turn.frame if isinstance(turn.frame, bytes) else turn.frame.encode())
        if limit is not None and size > limit:
            turn.fail(_refusal(ErrorCode.TOO_LARGE, f"the message has more than {limit} bytes"))
        elif len(conversation.turns) >= self._max_turns:
            turn.fail(
                _refusal(ErrorCode.QUEUE_FULL, "max_turns turns are under way", retryable=True)
            )
        else:
            conversation.send(turn)
        return turn

    async def refresh(self, token: str) -> None:
        """Show a new token before the one in use runs out; further connections use it too."""
        self._token = token
        self._conversation.say(AuthRefresh(token=token))

    def save(self) -> SavedSession:
        """The session as a text, for `connect` in another process to go on with.

        It is a secret. It holds until this session or another goes on over a new connection,
        since the gateway then gives another key, and for as long as the gateway keeps a session
        without a connection (``resume_seconds``). What happens to the session after it was saved
        comes to the process that goes on with it, unless it was acknowledged here: so save when
        nothing is under way, or use `detach`.

        Of messages whose turns have not ended it has the ids: see `resumed`. One that was not
        written yet is not among them.

        Raises:
            SessionClosed: There is no session, or not yet the one that takes its place.
        """
        if self._over is not None or self._closing:
            self._raise_closed()
        position = self._conversation.position()
        if position is None:
            raise SessionClosed("there is no session just now")
        return position.save()

    async def detach(self) -> SavedSession:
        """Leave the session as it is, for `connect` in another process to go on with: see `save`.

        Turns go on at the gateway. Here they fail, those that may have been sent with the outcome
        ``unknown``.

        Raises:
            SessionClosed: See `save`.
        """
        saved = self.save()
        self._ending = "the session was left"
        self._conversation.leave()
        await self.close()
        return saved

    async def close(self) -> None:
        """Close the session, at the model too; turns under way are cancelled.

        Without a connection the gateway can't be told: it closes the session when the time to
        resume is over. Closing again does nothing.
        """
        self._closing = True
        task = self._task
        if task is None or task.done():
            return
        try:
            if self._conversation.ready:
                self._conversation.say(SessionClose())
                await asyncio.wait([task], timeout=self._close_timeout)
        finally:
            task.cancel()
            await asyncio.wait([task])

    # For `connect`

    async def start(self) -> None:
        """Open the session.

        Raises:
            ConnectionFailed: There is none to be had.
        """
        self._task = asyncio.create_task(self._run())
        ready = asyncio.create_task(self._ready.wait())
        try:
            async with asyncio.timeout(self._open_timeout):
                await asyncio.wait([self._task, ready], return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            why = f": {self._why}" if self._why else ""
            text = f"{without_password(self._url)}: no session within {self._open_timeout:g} s{why}"
            raise ConnectionFailed(text) from None
        finally:
            ready.cancel()
            if not self._was_open:
                await self.close()
        if self._over is not None and not self._was_open:
            over = self._over
            text = f"{without_password(self._url)}: {over.why}"
            raise ConnectionFailed(text, over.code) from over.__cause__

    # Connections

    async def _run(self) -> None:
        """Connect again and again, until the session is over."""
        try:
            await self._keep_connected()
        except _Over as over:
            self._over = over
        except Exception as error:  # noqa: BLE001 - the token's, say; raised where somebody asks
            self._over = _Over(f"{type(error).__name__}: {error}", None)
            self._over.__cause__ = error
        finally:
            if self._over is None:
                self._over = _Over(self._ending, None)
            self._state = "closed"
            self._conversation.end(self._over.why)

    async def _keep_connected(self) -> NoReturn:
        loop = asyncio.get_running_loop()
        conversation = self._conversation
        delays = self._delays()
        lost_at = loop.time()
        attempts = refused = 0
        while True:
            self._state = "connecting"
            began = loop.time()
            code, self._why = await self._connect()
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
                self._closing
                or come_back is ComeBack.NO
                or conversation.closed == "client"
                or self._is_refused()
                or (come_back is ComeBack.NEW_TOKEN and (refused > 1 or not callable(self._token)))
                or (self._was_open and away > self._reconnect_timeout)
            ):
                raise _Over(self._why, code)
            gone = self._is_gone(come_back, away)
            if gone:
                if not self._reopen:
                    raise _Over(self._why, code)
                conversation.forget()
            at_once = not attempts or (gone and not held)
            delay = self._delay(come_back, next(delays, MAX_DELAY), at_once=at_once)
            attempts += 1
            self._state = "waiting"
            self._tell(Disconnected(self._why, code, delay))
            await asyncio.sleep(delay)

    def _is_refused(self) -> bool:
        """Whether the gateway will not open a session, and says that asking again is no use."""
        error = self._conversation.last_error
        return error is not None and not error.retryable and self.session_id is None

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
                raise _Over(f"no WebSocket there: HTTP {status}", None) from None
            return STATUSES[status], f"HTTP {status}: {_said(refused.response)}"
        except (OSError, EOFError, InvalidHandshake) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            if not self._was_open:
                raise _Over(why, None) from None
            return None, why
        try:
            if socket.subprotocol != self._codec.subprotocol and socket.close_code is None:
                raise _Over("no session-gateway there", None)
            await self._hold(socket)
        finally:
            await socket.close()
        code = None if socket.close_code in NO_CODE else socket.close_code
        error_said = self._conversation.last_error
        return code, error_said.message if error_said else closing_of(code).words

    async def _handshake(self) -> ClientConnection:
        self._conversation.last_error = None
        options = dict(self._options)
        token = await self._token() if callable(self._token) else self._token
        if token is not None:
            headers = dict(options.pop("additional_headers", None) or {})
            options["additional_headers"] = {**headers, "Authorization": f"Bearer {token}"}
        subprotocols = [Subprotocol(self._codec.subprotocol)]
        return await websocket_connect(self._url, subprotocols=subprotocols, **options)

    async def _hold(self, socket: ClientConnection) -> None:
        """Read and write until the connection ends."""
        violation = None
        opening = self._codec.encode(self._conversation.opening())
        async with asyncio.TaskGroup() as tasks:
            ready = asyncio.Event()
            writing = tasks.create_task(self._write(socket))
            beating = tasks.create_task(self._beat(socket, ready))
            try:
                await socket.send(opening)
                while True:
                    message = self._codec.decode(await socket.recv())
                    if message is not None:
                        self._conversation.received(message)
                    if self._conversation.ready and not ready.is_set():
                        ready.set()
                        self._state = "open"
                        self._was_open = True
                        self._ready.set()
            except ConnectionClosed:
                pass
            except ProtocolError as error:
                violation = error
            finally:
                writing.cancel()
                beating.cancel()
        if violation is not None:
            code = int(CloseCode.PROTOCOL_VIOLATION)
            await socket.close(code, "protocol violation")
            raise _Over(f"the gateway broke the protocol: {violation}", code)

    async def _write(self, socket: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self._news.wait()
                self._news.clear()
                while (frame := self._conversation.take()) is not None:
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

    # Parts

    def _tell(self, notice: Notice) -> None:
        if self._on_notice is not None:
            asyncio.get_running_loop().call_soon(self._on_notice, notice)

    def _turn(self, frame: Frame, message_id: str) -> Turn:
        return Turn(message_id, frame, self._max_reply_bytes, self._conversation.cancel)

    def _raise_closed(self) -> NoReturn:
        over = self._over
        if over is None:
            raise SessionClosed("the session is being closed")
        raise SessionClosed(over.why, over.code) from over.__cause__


@asynccontextmanager
async def connect(
    url: str,
    *,
    token: Token | None = None,
    origin: str | None = None,
    codec: Literal["json", "msgpack"] = "json",
    on_notice: Callable[[Notice], None] | None = None,
    reopen: bool = True,
    carry_over: bool = True,
    resume: str | None = None,
    open_timeout: float = 60.0,
    reconnect_timeout: float = 300.0,
    close_timeout: float = 5.0,
    max_turns: int = 64,
    max_reply_bytes: int = 16 * 2**20,
    delays: Callable[[], Iterator[float]] = backoff,
    **options: Any,
) -> AsyncIterator[Session]:
    """Open a session, and close it at the end, at the model too.

    ::

        async with connect("ws://127.0.0.1:8080/ws") as session:
            async for part in session.send("My name is Ada."):
                print(part, end="")
            reply = await session.send("What is my name?")
            print(reply.text)

    A lost connection is made anew and the session resumed, as long as the gateway keeps it
    (``resume_seconds``); attempts are spread by ``delays``. Messages that the gateway has not
    acknowledged are sent again under their id, which it invokes once; replies go on where they
    were. A message whose session is gone fails with the outcome ``unknown`` if it may have
    reached the model, and is sent in the next session if it was never written.

    Memory is bounded: ``max_turns`` turns under way, each with ``max_reply_bytes`` of its reply
    (see `Turn`). The turns that have ended are their holder's.

    Args:
        url: Of the route: ``ws://HOST/ws`` or ``wss://HOST/ws/ROUTE``.
        token: Shown as a bearer token; a coroutine function is asked for one at each connection,
            so that the client can come back after one has run out.
        origin: The ``Origin`` header; programs need none.
        codec: ``msgpack`` spares binary bodies the detour over Base64.
        on_notice: Called with each notice, in order, from the event loop; it must not block.
        reopen: Whether a new session takes the place of one that is gone. If not, the session is
            over then.
        carry_over: Whether a message that was not written yet when its session was found to be
            gone is sent in the new one. If not, it fails with the outcome ``not_invoked``, since
            what it was said about is forgotten.
        resume: What `Session.save` or `Session.detach` gave: go on with that session. Where it is
            gone by now, a new one takes its place, as above.
        open_timeout: Seconds that a session may take to open.
        reconnect_timeout: Seconds without a connection after which the session is over.
        close_timeout: Seconds that the gateway may take to close the session.
        max_turns: Turns under way; a further one fails with ``queue_full`` and was not sent.
        max_reply_bytes: Of a reply that a turn holds.
        delays: Gives the waits before attempts, in seconds.
        options: For `websockets.asyncio.client.connect`, such as ``ssl``, ``proxy`` (for this
            machine, none) and ``additional_headers``.

    Raises:
        ConnectionFailed: No session could be opened.
        ValueError: The address is none of a WebSocket, or ``resume`` is no saved session.
    """
    position = None if resume is None else Position.load(resume)
    try:
        host = parse_uri(url).host
    except InvalidURI as error:
        raise ValueError(f"{without_password(url)} isn't a valid URI: {error.msg}") from None
    if is_loopback(host):
        options.setdefault("proxy", None)
    options.setdefault("close_timeout", close_timeout)
    options.setdefault("open_timeout", open_timeout)
    options.setdefault("max_size", ESCAPED * max_reply_bytes + 2**16)
    session = Session(
        url,
        token=token,
        codec=CODECS[codec](),
        on_notice=on_notice,
        open_timeout=open_timeout,
        reconnect_timeout=reconnect_timeout,
        close_timeout=close_timeout,
        reopen=reopen,
        carry_over=carry_over,
        resume=position,
        max_turns=max_turns,
        max_reply_bytes=max_reply_bytes,
        delays=delays,
        options={**options, "origin": origin, "ping_interval": None},
    )
    await session.start()
    try:
        yield session
    finally:
        await session.close()


class _Problem(Struct):
    """RFC 9457, as much of it as is passed on."""

    detail: str


def _said(refusal: Response) -> str:
    """Why there is no WebSocket: what the gateway says, or what the status most likely means."""
    status = refusal.status_code
    try:
        return msgspec.json.decode(refusal.body, type=_Problem).detail[:SAID]
    except msgspec.DecodeError:
        pass  # it is not the gateway's
    if status in {403, 404}:
        return "no session-gateway answers there; its addresses end in /ws or /ws/ROUTE"
    return closing_of(STATUSES[status]).words


def _refusal(code: ErrorCode, message: str, *, retryable: bool = False) -> MessageFailed:
    return MessageFailed(message, code=code, outcome=Outcome.NOT_INVOKED, retryable=retryable)
