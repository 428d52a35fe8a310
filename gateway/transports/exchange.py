"""A request's part in a session: it finds it, listens to it, and gets one message answered.

The session may be at another replica, and may move while the request waits. Sending a message
again is safe then, since its session knows its id.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from gateway.admission import Refused, Visitor
from gateway.conversation import Resuming
from gateway.errors import ERRORS, CloseCode, ErrorCode
from gateway.protocol.messages import (
    ErrorMessage,
    MessageAccepted,
    MessageCancel,
    MessageDelta,
    MessageDone,
    MessageDuplicate,
    MessageSend,
    ServerMessage,
    SessionClose,
    SessionClosed,
    SessionExpiring,
    SessionRenewed,
    SessionUpdated,
)
from gateway.route import Route
from gateway.sessions import PastNewest, Sessions
from gateway.transports.listener import Ended, Listener

_OF_SESSION = (SessionRenewed, SessionUpdated, SessionExpiring, SessionClosed)
_OF_TURN = (MessageAccepted, MessageDone)
_LAST = (MessageDone, ErrorMessage)


class AlreadyAnswered(Exception):
    """The message was accepted before, and has ended; what it was answered is no longer kept."""


class Crashed(Exception):
    """The session has failed with the message: what has become of it, nobody knows."""


class IdTaken(Exception):
    """Another message was accepted under this id before."""


class Moved(Exception):
    """The session is not here any more, and where it is can't be said yet. What becomes of a
    message is known where its id is known: it may be sent again under the same.
    """


def gone() -> Refused:
    """There is no session for who asks."""
    text = "The session does not exist or has ended, or its key is wrong."
    return Refused(ErrorCode.SESSION_LOST, text)


class Asker(NamedTuple):
    """Who asks for a session.

    Attributes:
        session_id: The gateway's own id of it.
        shown: The digest of the key that was shown.
        visitor: Has been identified.
    """

    session_id: str
    shown: bytes
    visitor: Visitor

    def __repr__(self) -> str:
        return f"<Asker for {self.session_id}>"

    @property
    def principal(self) -> str:
        """Who that is."""
        return principal_of(self.visitor)


def principal_of(visitor: Visitor) -> str:
    """Who somebody is that has been identified."""
    assert visitor.principal is not None  # noqa: S101 - see above
    return visitor.principal


async def join(
    sessions: Sessions, asker: Asker, last_event: int | None, listener: Listener
) -> None:
    """Listen to a session, wherever it is.

    Args:
        sessions: Those that are here.
        asker: Who wants to.
        last_event: The newest event that it has; None where it wants those still to come.
        listener: What listens.

    Raises:
        Refused: There is none for this asker, or it can't be found out at the moment.
    """
    client = Resuming(
        listener, asker.session_id, asker.shown, None, last_event, None, asker.principal
    )
    try:
        found = await sessions.resume(client)
    except PastNewest as error:
        text = f"Last-Event-ID is past the newest event, {error.newest}."
        raise Refused(ErrorCode.BAD_MESSAGE, text) from None
    if found is None:
        raise gone()
    listener.begin(*found)
    try:
        asker.visitor.check_route(listener.conversation.route.policy.route)
    except Refused:
        listener.leave()
        raise


class Exchange:
    """One message and what it is answered.

    Args:
        sessions: Those that are here.
        asker: Whose message it is.
        message: Makes it, for a route.
        size: About how many bytes it has.
        seconds: How long there may be nothing to tell; None for as long as it takes.
        claims: Whether this is the only one to send a message under its id, so that one that was
            accepted under it before is another: see `IdTaken`.

    Attributes:
        seconds: As given; it may be changed.
    """

    __slots__ = (
        "_after",
        "_again",
        "_asker",
        "_begun",
        "_claims",
        "_id",
        "_listener",
        "_make",
        "_over",
        "_said",
        "_sessions",
        "_size",
        "seconds",
    )

    def __init__(
        self,
        sessions: Sessions,
        asker: Asker,
        message: Callable[[Route], MessageSend],
        size: int,
        seconds: float | None,
        *,
        claims: bool = False,
    ) -> None:
        self._sessions = sessions
        self._asker = asker
        self._make = message
        self._size = size
        self.seconds = seconds
        self._claims = claims
        self._listener: Listener | None = None
        self._id = ""
        self._after: int | None = None
        self._said = self._again = self._begun = self._over = False

    async def next(self) -> list[ServerMessage]:
        """What the session tells of the message: the last of it is a refusal or the turn's end.

        What it tells of itself meanwhile is there too. An empty list is a sign of life.

        Raises:
            AlreadyAnswered: See there.
            Crashed: See there.
            IdTaken: See there.
            Moved: See there.
            Refused: The session is not there, or can't be had at the moment.
        """
        while True:
            listener = self._listener or await self._send()
            try:
                told = self._ours(await listener.next(self.seconds))
            except TimeoutError:
                return []
            except Ended as ended:
                self._go_on(ended.code, listener.reader.position)
            else:
                if told:
                    return told

    async def _send(self) -> Listener:
        """Send the message, and listen to what becomes of it."""
        listener = Listener(patient=self.seconds is None)
        try:
            await join(self._sessions, self._asker, self._after, listener)
        except Refused as refused:
            if self._said and ERRORS[refused.code].retryable:
                raise Moved from None
            raise
        self._listener = listener
        if self._over:
            self.leave()
            raise gone()
        message = self._make(listener.conversation.route)
        self._id, self._said = message.id, True
        listener.conversation.receive(message, listener.client, self._size)
        return listener

    def _go_on(self, code: CloseCode, position: int) -> None:
        """Listen again, where there is more to be heard.

        Args:
            code: Why this was the end.
            position: Up to where it has been heard.
        """
        if code == CloseCode.INTERNAL and self._said:
            raise Crashed
        if code == CloseCode.RESTARTING and self._sessions.draining:
            raise Moved
        if code == CloseCode.RESTARTING and not self._over:
            self._read_again(position)
        elif self._again or self._over or (self._claims and not self._begun):
            raise gone()  # what a claimed id was answered before was another message's
        else:
            self._read_again(0)  # the session is over; it may have been answered before

    def _ours(self, messages: Iterable[ServerMessage]) -> list[ServerMessage]:
        """What of this concerns the message."""
        ours = list[ServerMessage]()
        for each in messages:
            if type(each) is MessageDelta:  # by far the most
                if each.id == self._id:
                    ours.append(each)
            elif isinstance(each, MessageDuplicate):
                if not self._again:
                    self._check_claim()
                    self._read_again(0)  # it was accepted before
                    break
                if each.id == self._id and each.status not in {"queued", "running"}:
                    raise AlreadyAnswered
            elif self._concerned_by(each):
                ours.append(each)
                if isinstance(each, _LAST):
                    break
        return ours

    def _concerned_by(self, message: ServerMessage) -> bool:
        if isinstance(message, _OF_TURN):
            is_own = message.id == self._id
            self._begun = self._begun or is_own
            return is_own
        if isinstance(message, ErrorMessage):
            if self._again and message.retryable:  # what was sent before may have been accepted
                raise Moved
            if message.code is ErrorCode.BAD_MESSAGE:
                self._check_claim()  # the id was used for another body
            return True
        return self._begun and isinstance(message, _OF_SESSION)

    def _check_claim(self) -> None:
        if self._claims:
            raise IdTaken

    def _read_again(self, after: int) -> None:
        """Go on after that event, wherever the session is."""
        self.leave()
        self._listener = None
        self._after, self._again = after, True

    @property
    def has_sent(self) -> bool:
        """Whether the session may have had the message."""
        return self._said

    def cancel(self) -> None:
        """Stop the turn, queued or running."""
        if self._listener is not None:
            message = MessageCancel(id=self._id)
            self._listener.conversation.handle(message, self._listener.client)

    def close_session(self) -> None:
        """End the session, at the model too."""
        if self._listener is not None:
            self._listener.conversation.handle(SessionClose(), self._listener.client)

    def cut(self) -> None:
        """Nobody waits for the answer any more."""
        self._over = True
        if self._listener is not None:
            self._listener.cut()

    def leave(self) -> None:
        """Wait for nothing more."""
        if self._listener is not None:
            self._listener.leave()
