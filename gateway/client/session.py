"""A session over connections that come and go."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal, Unpack

from msgspec import UNSET
from websockets.exceptions import InvalidURI
from websockets.uri import parse_uri

from gateway.addresses import is_loopback, without_password
from gateway.client.closing import backoff
from gateway.client.codecs import ClientCodec, JsonClientCodec, MsgpackClientCodec
from gateway.client.connections import Connections, State, Token
from gateway.client.conversation import Conversation
from gateway.client.endings import not_sent
from gateway.client.errors import ConnectionFailed, SessionClosed
from gateway.client.notices import Notice
from gateway.client.saved import Position, SavedSession
from gateway.client.sending import Body, Options, message_of
from gateway.client.turns import Turn
from gateway.errors import ErrorCode
from gateway.protocol.codecs import Frame
from gateway.protocol.messages import AuthRefresh, SessionClose

ESCAPED = 6
"""A character of a text takes up to so many in JSON."""

CODECS: Mapping[str, Callable[[], ClientCodec]] = MappingProxyType(
    {"json": JsonClientCodec, "msgpack": MsgpackClientCodec}
)


class SessionClient:
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
        self._url = url
        self._codec = codec
        self._on_notice = on_notice
        self._open_timeout = open_timeout
        self._close_timeout = close_timeout
        self._max_turns = max_turns
        self._max_reply_bytes = max_reply_bytes
        news = asyncio.Event()
        self._conversation = Conversation(codec, self._notify, news.set, carry_over=carry_over)
        self._connections = Connections(
            url,
            self._conversation,
            codec,
            token=token,
            news=news,
            notify=self._notify,
            open_timeout=open_timeout,
            reconnect_timeout=reconnect_timeout,
            reopen=reopen,
            delays=delays,
            options=options,
        )
        self._resumed: Mapping[str, Turn] = MappingProxyType({})
        if resume is not None:
            ids = (*resume.accepted, *resume.written)
            self._resumed = MappingProxyType({name: self._turn("", name) for name in ids})
            self._conversation.restore(resume, self._resumed)
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<SessionClient {self.session_id} {self.state}>"

    @property
    def state(self) -> State:
        """How things stand with the connection."""
        return self._connections.state

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
        self._raise_if_closed()
        conversation = self._conversation
        message = message_of(body, json, id or uuid.uuid4().hex, options)
        if message.id in conversation.turns:
            raise ValueError(f"a turn {message.id!r} is under way")
        turn = self._turn(self._codec.encode(message), message.id)
        limit = conversation.limits.message_bytes if conversation.limits else None
        size = len(turn.frame if isinstance(turn.frame, bytes) else turn.frame.encode())
        if limit is not None and size > limit:
            turn.end(not_sent(ErrorCode.TOO_LARGE, f"the message has more than {limit} bytes"))
        elif len(conversation.turns) >= self._max_turns:
            full = "max_turns turns are under way"
            turn.end(not_sent(ErrorCode.QUEUE_FULL, full, retryable=True))
        else:
            conversation.send(turn)
        return turn

    async def refresh(self, token: str) -> None:
        """Show a new token before the one in use runs out; further connections use it too."""
        self._connections.token = token
        self._conversation.write(AuthRefresh(token=token))

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
        self._raise_if_closed()
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
        self._connections.ending = "the session was left"
        self._conversation.leave()
        await self.close()
        return saved

    async def close(self) -> None:
        """Close the session, at the model too; turns under way are cancelled.

        Without a connection the gateway can't be told: it closes the session when the time to
        resume is over. Closing again does nothing.
        """
        self._connections.closing = True
        task = self._task
        if task is None or task.done():
            return
        try:
            if self._conversation.ready:
                self._conversation.write(SessionClose())
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
        connections = self._connections
        address = without_password(self._url)
        self._task = asyncio.create_task(connections.run())
        opened = asyncio.create_task(connections.opened.wait())
        try:
            async with asyncio.timeout(self._open_timeout):
                await asyncio.wait([self._task, opened], return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            why = f": {connections.why}" if connections.why else ""
            text = f"{address}: no session within {self._open_timeout:g} s{why}"
            raise ConnectionFailed(text) from None
        finally:
            opened.cancel()
            if not connections.opened.is_set():
                await self.close()
        over = connections.over
        if over is not None and not connections.opened.is_set():
            raise ConnectionFailed(f"{address}: {over.why}", over.code) from over.__cause__

    # Parts

    def _notify(self, notice: Notice) -> None:
        if self._on_notice is not None:
            asyncio.get_running_loop().call_soon(self._on_notice, notice)

    def _turn(self, frame: Frame, message_id: str) -> Turn:
        return Turn(message_id, frame, self._max_reply_bytes, self._conversation.cancel)

    def _raise_if_closed(self) -> None:
        over = self._connections.over
        if over is not None:
            raise SessionClosed(over.why, over.code) from over.__cause__
        if self._connections.closing:
            raise SessionClosed("the session is being closed")


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
) -> AsyncIterator[SessionClient]:
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
        resume: What `SessionClient.save` or `SessionClient.detach` gave: go on with that session.
            Where it is gone by now, a new one takes its place, as above.
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
    session = SessionClient(
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
