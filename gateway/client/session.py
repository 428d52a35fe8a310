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
    """A conversation with a model. Use `connect` to create one.

    When the connection is lost, the client reconnects and resumes the session. Turns go on
    meanwhile, and no part of a reply is lost or repeated. If the session itself is gone, the client
    opens a new one, unless ``reopen`` is false. The model has then forgotten the conversation, and
    the `Opened` notice has the old session's id in ``replaces``.
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
        """The state of the connection: ``connecting``, ``open``, ``waiting`` or ``closed``.

        ``waiting`` is the delay before another attempt to connect.
        """
        return self._connections.state

    @property
    def session_id(self) -> str | None:
        """The gateway's id of the session; None while there is no session."""
        return self._conversation.session_id

    @property
    def route(self) -> str:
        """The route's name."""
        return self._conversation.route

    @property
    def expires_at(self) -> datetime | None:
        """When the session expires at the model; None if not known."""
        return self._conversation.expires_at

    @property
    def resumed(self) -> Mapping[str, Turn]:
        """The turns that were running when the session was saved, by message id.

        Their replies lack the parts that were received before, so they are not `complete`. A
        message about which the gateway has no more events fails with the outcome ``unknown``.
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

        Returns at once. The message is sent whether or not the turn is awaited; without a
        connection, it is sent after the client has reconnected. Messages are answered in the order
        in which they were sent.

        Args:
            body: Text, bytes, or a dict or list, which is sent as JSON.
            json: Any other JSON value, such as a number, in place of ``body``: what `msgspec` can
                encode as JSON.
            id: The message's id: up to 64 visible ASCII characters, unique within the session.
                Random by default.
            options: See `Options`.

        Raises:
            SessionClosed: The session has ended.
            TypeError: Neither ``body`` nor ``json`` was given, or both; or the type is not
                supported.
            ValueError: An argument is not valid, or a turn with this id is running.
        """
        self._raise_if_closed()
        conversation = self._conversation
        message = message_of(body, json, id or uuid.uuid4().hex, options)
        if message.id in conversation.turns:
            raise ValueError(f"a turn with the id {message.id!r} is running")
        turn = self._turn(self._codec.encode(message), message.id)
        limit = conversation.limits.message_bytes if conversation.limits else None
        size = len(turn.frame if isinstance(turn.frame, bytes) else turn.frame.encode())
        if limit is not None and size > limit:
            large = f"the message is larger than {limit} bytes, the limit of the route"
            turn.end(not_sent(ErrorCode.TOO_LARGE, large))
        elif len(conversation.turns) >= self._max_turns:
            full = f"{self._max_turns} turns are running: wait for one to end, or raise max_turns"
            turn.end(not_sent(ErrorCode.QUEUE_FULL, full, retryable=True))
        else:
            conversation.send(turn)
        return turn

    async def refresh(self, token: str) -> None:
        """Send a new token before the current one expires. Later connections use it too."""
        self._connections.token = token
        self._conversation.write(AuthRefresh(token=token))

    def save(self) -> SavedSession:
        """Return the session as a string, with which another process can resume it.

        Pass it to `connect` as ``resume``. It is a secret. It is valid until the session is resumed
        over a new connection, here or elsewhere, because the gateway then issues another key; and
        only as long as the gateway keeps a session without a connection (``resume_seconds``).

        The process that resumes the session receives what happens after it was saved, except for
        events that were acknowledged here. So save when no turn is running, or use `detach`.

        The string includes the ids of messages whose turns have not ended (see `resumed`), except
        messages that were not sent yet.

        Raises:
            SessionClosed: There is no session, or its replacement is not open yet.
        """
        self._raise_if_closed()
        position = self._conversation.position()
        if position is None:
            raise SessionClosed("there is no session at the moment: a new one is being opened")
        return position.save()

    async def detach(self) -> SavedSession:
        """Disconnect without closing the session, for another process to resume: see `save`.

        Running turns go on at the gateway. Here they fail; those that may have been sent have the
        outcome ``unknown``.

        Raises:
            SessionClosed: See `save`.
        """
        saved = self.save()
        self._connections.ending = "the session was detached"
        self._conversation.leave()
        await self.close()
        return saved

    async def close(self) -> None:
        """Close the session, at the model too. Running turns are cancelled.

        Without a connection, the gateway can't be told to; it then closes the session after
        ``resume_seconds``. Closing again has no effect.
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
            ConnectionFailed: It could not be opened.
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
            text = f"{address}: no session was opened within {self._open_timeout:g} s{why}"
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
    """Open a session, and close it at the end of the block, at the model too.

    ::

        async with connect("ws://127.0.0.1:8080/ws") as session:
            async for part in session.send("My name is Ada."):
                print(part, end="")
            reply = await session.send("What is my name?")
            print(reply.text)

    When the connection is lost, the client reconnects, with increasing ``delays``, and resumes the
    session, as long as the gateway keeps it (``resume_seconds``). It resends messages that the
    gateway has not acknowledged with the same ids, so that each reaches the model at most once.
    Replies continue where they stopped. If the session is gone, a message that may have reached the
    model fails with the outcome ``unknown``; one that was never sent is sent in the next session.

    Memory is limited: to ``max_turns`` running turns, each with up to ``max_reply_bytes`` of its
    reply (see `Turn`), and the turns that you hold after they have ended.

    Args:
        url: The address of a route: ``ws://HOST/ws`` or ``wss://HOST/ws/ROUTE``.
        token: An API key or token, sent as a bearer token; or a coroutine function that returns
            one, called for each connection, so that the client can reconnect after one has expired.
        origin: The ``Origin`` header. Programs usually need none.
        codec: ``json`` or ``msgpack``; ``msgpack`` sends bytes without Base64.
        on_notice: Called with each `Notice`, in order, from the event loop. It must not block.
        reopen: Whether to open a new session when the session is gone. If false, the client closes
            instead.
        carry_over: Whether messages that were not sent before the session was gone are sent in the
            new one. If false, they fail with the outcome ``not_invoked``, since the model has
            forgotten what they refer to.
        resume: The result of `SessionClient.save` or `SessionClient.detach`: resume that session.
            If it is gone, ``reopen`` applies.
        open_timeout: Seconds to wait for the session to open.
        reconnect_timeout: Seconds without a connection after which the client closes.
        close_timeout: Seconds to wait for the gateway to close the session.
        max_turns: The number of running turns. A further message is not sent, and fails with
            ``queue_full``.
        max_reply_bytes: How much of a reply each turn keeps, in bytes.
        delays: Returns an iterator of the delays between attempts to connect, in seconds.
        options: Passed to `websockets.asyncio.client.connect`, such as ``ssl``, ``proxy`` (default:
            none for addresses of this machine) and ``additional_headers``.

    Raises:
        ConnectionFailed: No session could be opened.
        ValueError: ``url`` is not a WebSocket address, or ``resume`` is not a saved session.
    """
    position = None if resume is None else Position.load(resume)
    try:
        host = parse_uri(url).host
    except InvalidURI as error:
        text = f"{without_password(url)} is not a WebSocket address: {error.msg}"
        raise ValueError(text) from None
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
