"""A client's WebSocket after its handshake: messages in, the session's log out."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
from msgspec import UNSET
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.admission import Credentials, Refused, Visitor
from gateway.conversation import Conversation, Resuming
from gateway.errors import ERRORS, CloseCode, ErrorCode
from gateway.protocol.codecs import Codec, Frame, ProtocolError
from gateway.protocol.messages import (
    AuthRefresh,
    ErrorMessage,
    MessageDuplicate,
    MessageSend,
    Notice,
    Ping,
    Pong,
    ServerMessage,
    SessionClose,
    SessionOpen,
)
from gateway.route import Route
from gateway.session.events import ClientId, Confirmed, Written
from gateway.session.keys import digest
from gateway.session.reader import LogReader
from gateway.session.sizes import utf8_size
from gateway.sessions import ClientGone, PastNewest, Sessions, TooManySessions
from gateway.tracecontext import CARRIER, Carrier
from gateway.transports.closing import CloseWith
from gateway.transports.coalescing import Coalescer
from gateway.transports.identity import Identity
from gateway.transports.link import LINK, Link
from gateway.transports.raw import RawCodec

log = structlog.stdlib.get_logger("gateway.connections")

MAX_BAD_MESSAGES = 20
"""Number of bad messages that closes a connection."""

MAX_REFUSED = 1000
"""Number of consecutive refusals, for whatever reason, that closes a connection."""

MAX_OPEN_BYTES = 16_384
"""Maximum size of ``session.open``; the longest of its fields is a token."""

WRITE_BYTES = 65_536
"""Approximate size of a batch, after which the link is checked for room."""

MESSAGE_COST = 1024
"""Cost of writing a message besides its bytes, as a number of bytes."""

REPORT_EVENTS = 16
"""Written events after which the session is told, if its log doesn't keep written events."""

REPORT_BYTES = 65_536
"""Size of the log from which it is told sooner."""

FULL_SECONDS = 5.0
"""``retry_after`` when the gateway has reached its limit of sessions."""

LEAVE_SECONDS = 30.0
"""Seconds that a client has to read the last messages before its connection is cut."""


class WebSocketConnection:
    """One client's WebSocket, which reads its session's log.

    Args:
        websocket: The WebSocket, accepted.
        codec: Codec of the subprotocol; None for raw.
        route: Route of the session.
        visitor: The client; released with the connection.
        on_end: Called once, with the close code and the session's id, when the socket closes.
        coalescer: Delays wake-ups that aren't urgent.
        carrier: Trace context of its messages.
    """

    __slots__ = (
        "_bad_messages",
        "_carrier",
        "_client",
        "_closed",
        "_closing",
        "_coalescer",
        "_codec",
        "_confirmed",
        "_cut",
        "_flushing",
        "_identity",
        "_link",
        "_loop",
        "_most_bytes",
        "_on_end",
        "_raw",
        "_refused",
        "_reported",
        "_reports",
        "_route",
        "_runner",
        "_spawn",
        "_websocket",
        "reader",
    )

    def __init__(
        self,
        websocket: WebSocket,
        codec: Codec | None,
        route: Route,
        *,
        visitor: Visitor,
        on_end: Callable[[int, str | None], None],
        coalescer: Coalescer,
        carrier: Carrier | None = None,
    ) -> None:
        self.reader = LogReader(secrets.token_urlsafe(32))
        self._websocket = websocket
        self._link: Link = websocket.scope["extensions"][LINK]
        self._loop = asyncio.get_running_loop()
        self._codec: Codec | RawCodec = codec or RawCodec()
        self._raw = codec is None
        self._route = route
        self._identity = Identity(
            visitor, route.policy.route, on_refused=self._tell_refused, on_lost=self._fail
        )
        self._on_end = on_end
        self._coalescer = coalescer
        self._carrier = carrier
        self._runner: Conversation | None = None
        self._client: ClientId | None = None
        self._flushing = False
        self._closing: tuple[CloseCode, str] | None = None
        self._cut: asyncio.TimerHandle | None = None
        self._closed = False
        self._bad_messages = self._refused = 0
        self._most_bytes = route.policy.message_bytes
        self._reports = not route.policy.resume_seconds
        self._reported = 0
        self._confirmed = True

    # Called by the session

    def wake(self, *, soon: bool) -> None:
        """See `gateway.subscribers.Subscriber`."""
        # Deferred: what the session emits in one step is written together.
        if self._flushing:
            return
        if soon:
            self._flushing = True
            self._loop.call_soon(self.flush)
        elif not self._raw:  # raw clients get nothing but replies
            self._coalescer.add(self)

    def wake_if_behind(self) -> None:
        """See `gateway.transports.coalescing.Wakeable`."""
        if self.reader.is_behind:
            self.wake(soon=True)

    def tell(self, notice: Notice) -> None:
        """See `gateway.subscribers.Subscriber`."""
        if self.reader.is_full:
            self.flush()  # many notices at once don't mean that the client doesn't read
        if self.reader.is_full:
            self.abort(CloseCode.TOO_SLOW, "too slow")
            return
        self.reader.tell(notice)
        if isinstance(notice, ErrorMessage | MessageDuplicate):
            self._count(notice)
        self.wake(soon=True)

    def _count(self, refusal: ErrorMessage | MessageDuplicate) -> None:
        """Count a refusal, and close after too many."""
        self._refused += 1
        if isinstance(refusal, ErrorMessage) and refusal.code is ErrorCode.BAD_MESSAGE:
            self._bad_messages += 1
        if self._bad_messages == MAX_BAD_MESSAGES:
            self.close(CloseCode.PROTOCOL_VIOLATION, "too many bad messages")
        elif self._refused == MAX_REFUSED:
            self.close(CloseCode.TOO_MANY, "too many refused messages")

    def close(self, code: CloseCode, reason: str) -> None:
        """See `gateway.subscribers.Subscriber`."""
        if self._closing is None:
            self._closing = (code, reason)
            self._link.finish()
            self._cut = self._loop.call_later(
                LEAVE_SECONDS, self.abort, CloseCode.TOO_SLOW, "too slow"
            )
        self.wake(soon=True)

    def abort(self, code: CloseCode, reason: str) -> None:
        """See `gateway.subscribers.Subscriber`."""
        self._closed = True
        self._link.abandon(code, reason)

    # In

    async def run(self, sessions: Sessions, credentials: Credentials, open_timeout: float) -> None:
        """Open or resume the client's session; its frames are then passed on by the link.

        Args:
            sessions: All sessions.
            credentials: Credentials of the handshake.
            open_timeout: Seconds within which a client has to send ``session.open``.
        """
        self._spawn = sessions.spawn
        try:
            await self._begin(sessions, credentials, open_timeout)
        except WebSocketDisconnect as gone:
            self._ended(gone.code)
            return
        except asyncio.CancelledError:
            self._ended(CloseCode.INTERNAL)
            raise
        except Exception as error:  # noqa: BLE001 - ends this connection only
            self._fail(error)
        del self._websocket
        self._link.take_frames(self._frame, self.flush, self._ended)

    def _ended(self, code: int) -> None:
        """Clean up after the socket has closed."""
        self._closed = True
        self._identity.release()
        if self._cut is not None:
            self._cut.cancel()
        if self._runner is not None and self._client is not None:
            if self._raw:
                self._runner.handle(SessionClose())
            self._runner.detach(self._client)
        self._on_end(int(code), None if self._runner is None else self._runner.id)

    def _fail(self, error: Exception) -> None:
        """Close because of an exception."""
        if isinstance(error, CloseWith):
            self.close(error.code, error.reason)
        elif isinstance(error, Refused):
            self._tell_refused(error)
            self.close(ERRORS[error.code].close, error.code)
        else:
            log.error("a connection failed", exc_info=error)
            self.close(CloseCode.INTERNAL, ErrorCode.INTERNAL)

    async def _begin(
        self, sessions: Sessions, credentials: Credentials, open_timeout: float
    ) -> None:
        """Authenticate the client, and open or resume its session with the first frames."""
        deadline = asyncio.get_running_loop().time() + open_timeout
        frame = None
        async with self._in_time(deadline):
            await self._identity.show(credentials)
            if self._raw:
                self._identity.principal()  # raw frames can't carry a token
                self._link.admit()
                frame = await self._receive()
        if frame is not None:
            await self._open(sessions)
            self._frame(frame)
            return
        while not await self._session_open(sessions, deadline):
            if self._closing is not None:
                return

    @asynccontextmanager
    async def _in_time(self, deadline: float) -> AsyncIterator[None]:
        """Close the connection if the client hasn't sent its first message by the deadline."""
        try:
            async with asyncio.timeout_at(deadline):
                yield
        except TimeoutError:
            awaited = "frame" if self._raw else "session.open"
            raise CloseWith(CloseCode.SILENT, f"no {awaited} in time") from None

    async def _open(self, sessions: Sessions) -> None:
        if sessions.draining:
            raise CloseWith(CloseCode.RESTARTING, ErrorCode.UNAVAILABLE)
        try:
            runner = await sessions.open(self._route, self._identity.principal())
        except TooManySessions:
            if sessions.draining:  # since the check above
                raise CloseWith(CloseCode.RESTARTING, ErrorCode.UNAVAILABLE) from None
            text = "The gateway has reached its limit of sessions."
            raise Refused(ErrorCode.UNAVAILABLE, text, retry_after=FULL_SECONDS) from None
        self._runner = runner
        self._client = runner.start(digest(self.reader.resume_key), self)

    async def _session_open(self, sessions: Sessions, deadline: float) -> bool:
        """Handle a frame that should open or resume a session; return False if it is not valid."""
        async with self._in_time(deadline):
            frame = await self._receive()
        if _size(frame) > MAX_OPEN_BYTES:
            raise CloseWith(CloseCode.PROTOCOL_VIOLATION, "no session.open")
        try:
            message = self._codec.decode(frame)
        except ProtocolError as error:
            self._refuse(str(error))
            if error.message_type != "session.open":
                raise CloseWith(CloseCode.PROTOCOL_VIOLATION, "no session.open") from None
            return False
        if not isinstance(message, SessionOpen):
            raise CloseWith(CloseCode.PROTOCOL_VIOLATION, "no session.open")
        if message.token is not UNSET and not self._identity.is_known:
            async with self._in_time(deadline):
                await self._identity.show(Credentials(message.token))
        principal = self._identity.principal()
        session_id, key, last = message.session_id, message.resume_key, message.last_event
        if session_id is UNSET and key is UNSET and last is UNSET:
            await self._open(sessions)
            return True
        if session_id is UNSET or key is UNSET or last is UNSET:
            self._refuse("`session_id`, `resume_key` and `last_event` resume a session together")
            return False
        shown, new = digest(key), digest(self.reader.resume_key)
        client = Resuming(self, session_id, shown, new, last, self._route, principal)
        return await self._resume(sessions, client)

    async def _resume(self, sessions: Sessions, client: Resuming) -> bool:
        """Take over an existing session; return False if the client's request is not valid."""
        if sessions.draining:
            raise CloseWith(CloseCode.RESTARTING, ErrorCode.UNAVAILABLE)
        try:
            resumed = await sessions.resume(client)
        except PastNewest as error:
            self._refuse(f"`last_event` is past the newest event, {error.newest}")
            return False
        except ClientGone:
            return True
        if resumed is None:
            raise CloseWith(CloseCode.GONE, ErrorCode.SESSION_LOST)
        self._confirmed = False
        self._runner, self._client = resumed
        return True

    @property
    def is_open(self) -> bool:
        """See `gateway.conversation.Traveller`."""
        return not self._closed and self._link.is_open

    def go_on(self, conversation: Conversation, client: ClientId) -> None:
        """See `gateway.conversation.Traveller`."""
        self._runner, self._client = conversation, client
        self.reader.move(conversation.log)

    async def _receive(self) -> Frame:
        """Receive a frame, before the link passes them on.

        Raises:
            CloseWith: The frame is too large.
            WebSocketDisconnect: The connection has ended.
        """
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"], message.get("reason"))
        text: str | None = message.get("text")
        frame: Frame = message["bytes"] if text is None else text
        if self._closing is None and _size(frame) > self._most_bytes:
            raise CloseWith(CloseCode.TOO_LARGE, ErrorCode.TOO_LARGE)
        return frame

    def _frame(self, frame: Frame) -> None:  # noqa: C901, PLR0912 - a case for each message
        """Handle a frame."""
        runner = self._runner
        client = self._client
        if self._closed or self._closing is not None or runner is None or client is None:
            return  # the session has ended, or another connection has taken it over
        try:
            size = _size(frame)
            if size > self._most_bytes:
                self.close(CloseCode.TOO_LARGE, ErrorCode.TOO_LARGE)
                return
            if not self._confirmed and self.reader.has_begun:  # otherwise it lacks the new key
                self._confirmed = True
                runner.handle(Confirmed())
            message = self._codec.decode(frame)
            match message:
                case MessageSend():
                    refused = self._refused
                    if wait := self._identity.visitor.take(size):
                        self._tell_refused(_too_fast(wait), message.id)
                    else:
                        token = CARRIER.set(self._carrier)
                        try:
                            runner.receive(message, client, size)
                        finally:
                            CARRIER.reset(token)
                    if self._refused == refused:
                        self._refused = 0
                case Ping():
                    self.tell(Pong(data=message.data))
                case AuthRefresh():
                    if wait := self._identity.visitor.take(size):
                        self._tell_refused(_too_fast(wait))
                    else:
                        self._identity.refresh(message.token, self._spawn)
                case SessionOpen():
                    self._refuse("`session.open` comes first, and once")
                case _:
                    runner.handle(message, client)
        except ProtocolError as error:
            self._refuse(str(error), error.message_id)
        except Exception as error:  # noqa: BLE001 - ends this connection only
            self._fail(error)

    def _refuse(self, text: str, message_id: str | None = None) -> None:
        self._tell_refused(Refused(ErrorCode.BAD_MESSAGE, text), message_id)

    def _tell_refused(self, refused: Refused, message_id: str | None = None) -> None:
        after = refused.retry_after
        self._route.measures.refused[refused.code.value] += 1
        self.tell(
            ErrorMessage(
                code=refused.code,
                message=refused.text,
                id=message_id or UNSET,
                retryable=ERRORS[refused.code].retryable,
                retry_after=UNSET if after is None else round(after, 3),
            )
        )

    # Out

    def _report(self) -> None:
        """Tell the session now and then what is written, if its log keeps only unwritten events."""
        runner, position = self._runner, self.reader.position
        if runner is not None and (
            position - self._reported >= REPORT_EVENTS or runner.log.held >= REPORT_BYTES
        ):
            self._reported = position
            runner.handle(Written(position))

    def flush(self) -> None:
        """See `gateway.subscribers.Subscriber`. Then closes the connection, if requested."""
        self._flushing = False
        link, encode, take = self._link, self._codec.encode, self.reader.take
        while not self._closed and link.can_write:
            frames: list[Frame] = []
            size = 0
            message: ServerMessage | None = None
            try:
                while size < WRITE_BYTES and (message := take()) is not None:
                    size += MESSAGE_COST
                    frame = encode(message)
                    if frame is not None:
                        frames.append(frame)
                        size += len(frame)
            except Exception as error:  # noqa: BLE001 - ends this connection only
                message = None
                self._fail(error)
            if frames:
                link.write_frames(frames, text=self._codec.text)
            if self._reports:
                self._report()
            if message is not None:
                continue
            if self._closing is not None and link.can_write:
                self._closed = True
                link.close(*self._closing, self._has_all)
            return

    def _has_all(self) -> None:
        """Record that the client has received everything, since it has answered the close."""
        if self._runner is not None:
            self._runner.read_by(self.reader)


def _too_fast(wait: float) -> Refused:
    return Refused(ErrorCode.RATE_LIMITED, "Rate limit exceeded; try again later.", wait)


def _size(frame: Frame) -> int:
    return len(frame) if isinstance(frame, bytes) else utf8_size(frame)
