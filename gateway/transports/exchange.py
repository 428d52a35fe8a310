"""Sends one message to a session for a request, and follows it until it is answered.

The session may be at another replica, and may move while the request waits. Sending the message
again is then safe, since the session knows its id.
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
    """The message was accepted before and has ended; its reply is no longer kept."""


class Crashed(Exception):
    """The session failed with the message; its outcome is unknown."""


class IdTaken(Exception):
    """Another message was accepted with this id before."""


class Moved(Exception):
    """The session has left this replica, and can't be located yet. If the client knows the
    message's id, it can send it again with the same id to learn the outcome.
    """


def gone() -> Refused:
    """Return the refusal for a session that does not exist for this client."""
    text = "The session does not exist or has ended, or its key is wrong."
    return Refused(ErrorCode.SESSION_LOST, text)


class Asker(NamedTuple):
    """A client that asks for a session.

    Attributes:
        session_id: The gateway's id of the session.
        shown: Digest of the resume key that the client sent.
        visitor: The client, authenticated.
    """

    session_id: str
    shown: bytes
    visitor: Visitor

    def __repr__(self) -> str:
        return f"<Asker for {self.session_id}>"

    @property
    def principal(self) -> str:
        """The client's principal."""
        return principal_of(self.visitor)


def principal_of(visitor: Visitor) -> str:
    """Return the principal of an authenticated client."""
    assert visitor.principal is not None  # noqa: S101 - authenticated
    return visitor.principal


async def join(
    sessions: Sessions, asker: Asker, last_event: int | None, listener: Listener
) -> None:
    """Subscribe to a session, at whichever replica it is.

    Args:
        sessions: Sessions of this replica.
        asker: The client.
        last_event: Newest event that the client has; None to receive only future events.
        listener: The subscriber.

    Raises:
        Refused: This client has no such session, or it can't be located at the moment.
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
    """One message and the events about it.

    Args:
        sessions: Sessions of this replica.
        asker: The client.
        message: Creates the message for a route.
        size: Approximate size of the message in bytes.
        seconds: Maximum time without an event; None for no limit.
        claims: Whether only this exchange may use the id, so that a message accepted with it
            before is a different one: see `IdTaken`.

    Attributes:
        seconds: As given; may be changed.
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
        """Return the next events about the message; the last is a refusal or the turn's end.

        They include events of the session itself. An empty list serves as a heartbeat.

        Raises:
            AlreadyAnswered: See there.
            Crashed: See there.
            IdTaken: See there.
            Moved: See there.
            Refused: The session does not exist, or is unavailable at the moment.
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
        """Send the message, and subscribe to its session."""
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
        """Decide whether to subscribe again after a subscription has ended.

        Args:
            code: Why it ended.
            position: Newest event that was received.
        """
        if code == CloseCode.INTERNAL and self._said:
            raise Crashed
        if code == CloseCode.RESTARTING and self._sessions.draining:
            raise Moved
        if code == CloseCode.RESTARTING and not self._over:
            self._read_again(position)
        elif self._again or self._over or (self._claims and not self._begun):
            raise gone()  # a reply before the claim was another message's
        else:
            self._read_again(0)  # the session has ended, perhaps after answering

    def _ours(self, messages: Iterable[ServerMessage]) -> list[ServerMessage]:
        """Select the events that concern the message."""
        ours = list[ServerMessage]()
        for each in messages:
            if type(each) is MessageDelta:  # by far the most frequent
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
            if self._again and message.retryable:  # the first attempt may have been accepted
                raise Moved
            if message.code is ErrorCode.BAD_MESSAGE:
                self._check_claim()  # the id was used for another body
            return True
        return self._begun and isinstance(message, _OF_SESSION)

    def _check_claim(self) -> None:
        if self._claims:
            raise IdTaken

    def _read_again(self, after: int) -> None:
        """Subscribe again after this event, wherever the session is."""
        self.leave()
        self._listener = None
        self._after, self._again = after, True

    @property
    def has_sent(self) -> bool:
        """Whether the session may have received the message."""
        return self._said

    def cancel(self) -> None:
        """Cancel the turn, queued or running."""
        if self._listener is not None:
            message = MessageCancel(id=self._id)
            self._listener.conversation.handle(message, self._listener.client)

    def close_session(self) -> None:
        """Close the session, at the model too."""
        if self._listener is not None:
            self._listener.conversation.handle(SessionClose(), self._listener.client)

    def cut(self) -> None:
        """Stop: the client is gone."""
        self._over = True
        if self._listener is not None:
            self._listener.cut()

    def leave(self) -> None:
        """Unsubscribe."""
        if self._listener is not None:
            self._listener.leave()
