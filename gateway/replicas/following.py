"""Relays a session between the replica that owns it and the replica of its client, until the turn
at the model has ended and the session can move.

On the owner, a `Remote` reads the log as any connection does. On the client's replica, a `Follower`
receives what the remote has read, and takes the place of the session's runner for the connection.
"""

import asyncio
from collections import deque
from typing import Protocol

from gateway.conversation import Resuming
from gateway.errors import CloseCode, ErrorCode
from gateway.health import Health
from gateway.protocol.messages import (
    EventAck,
    MessageCancel,
    MessageSend,
    Notice,
    ServerMessage,
    SessionClose,
    SessionResumed,
)
from gateway.replicas import letters
from gateway.route import Route
from gateway.runner import NO_STORE, SessionRunner
from gateway.session.events import ClientId, Confirmed, SessionEvent
from gateway.session.log import EventLog
from gateway.session.output import error_message
from gateway.session.reader import LogReader

MAX_LETTER = 64
"""The most messages in one letter."""

MAX_UNHEARD = 1000
"""The most client messages that the session's owner has not confirmed."""

FOLLOWED: ClientId = 0
"""The number of a follower's client while the session is on another replica."""

_Message = MessageSend | MessageCancel | EventAck | SessionClose


class Links(Protocol):
    """What both ends of a link need from their replica."""

    @property
    def health(self) -> Health: ...
    def post(self, replica: str, letter: letters.Letter) -> None:
        """Send a letter, in order."""
        ...

    def forget(self, link: str) -> None:
        """Remove a link that is no longer used."""
        ...

    def take_back(self, follower: "Follower", client: ClientId | None) -> None:
        """Take over a session that its owner has released, or else cut the link."""
        ...


class Remote:
    """A client of a session here that is connected to another replica; a `Subscriber`.

    Args:
        letter: The client's request.
        runner: The session's runner.
        links: This replica's links.
        follows: Whether the session should move to that replica.
    """

    def __init__(
        self, letter: letters.Join, runner: SessionRunner, links: Links, *, follows: bool
    ) -> None:
        self.reader = LogReader()
        self.replica = letter.replica
        self._link = letter.link
        self._runner = runner
        self._links = links
        self._follows = follows
        self._begins = letter.new is None
        self._client: ClientId | None = None
        self._heard = self._told = 0
        self._loop = asyncio.get_running_loop()
        self._flushing = self._over = False

    def begin(self, letter: letters.Join) -> None:
        """Attach the client; see `SessionRunner.let_in`."""
        self._client = self._runner.let_in(self, letter.shown, letter.new, letter.last_event)

    def take(self, letter: letters.Said | letters.Left) -> None:
        """Handle the client's message, or its disconnection."""
        client = self._client
        if client is None or self._over or self._runner.is_gone:
            return  # it is repeated where the session moves to
        if isinstance(letter, letters.Left):
            self._end()
            return
        if letter.number <= self._heard:
            return
        if letter.number > self._heard + 1:
            self.abort(CloseCode.RESTARTING, "")
            return
        self._heard = letter.number
        _pass_on(letter.message, letter.size, self._runner, client)

    def cut(self) -> None:
        """Cut the link, since letters may be missing; the client has to resume."""
        self.abort(CloseCode.RESTARTING, "")

    def _end(self) -> None:
        self._over = True
        self._links.forget(self._link)
        self._leave()

    def wake(self, *, soon: bool) -> None:  # noqa: ARG002
        """See `gateway.subscribers.Subscriber`."""
        if not self._flushing and not self._over:
            self._flushing = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """See `gateway.subscribers.Subscriber`."""
        self._flushing = False
        if self._begins and self.reader.has_begun and not self._over:
            self._begins = False
            self._tell([], begun=self.reader.position)
        messages: list[ServerMessage] = []
        while not self._over and (message := self.reader.take()) is not None:
            messages.append(message)
            if len(messages) == MAX_LETTER:
                self._tell(messages)
                messages = []
        if messages:
            self._tell(messages)

    def _tell(self, messages: list[ServerMessage], begun: int | None = None) -> None:
        self._told += 1
        told = letters.Told(
            link=self._link, number=self._told, messages=messages, heard=self._heard, begun=begun
        )
        self._links.post(self.replica, told)

    def tell(self, notice: Notice) -> None:
        """See `gateway.subscribers.Subscriber`."""
        if self.reader.is_full:
            self.flush()
        self.reader.tell(notice)
        self.wake(soon=True)

    def close(self, code: CloseCode, reason: str) -> None:
        """See `gateway.subscribers.Subscriber`."""
        self.flush()
        self._shut(code, reason, last=True)

    def abort(self, code: CloseCode, reason: str) -> None:
        """See `gateway.subscribers.Subscriber`."""
        self._shut(code, reason, last=False)

    def _shut(self, code: CloseCode, reason: str, *, last: bool) -> None:
        if self._over:
            return
        self._over = True
        self._links.forget(self._link)
        shut = letters.Shut(
            link=self._link,
            number=self._told + 1,
            code=code,
            reason=reason,
            heard=self._heard,
            client=self._client,
            last=last,
        )
        self._links.post(self.replica, shut)
        self._loop.call_soon(self._leave)

    def _leave(self) -> None:
        if self._follows:
            self._runner.stay()
        if self._client is not None:
            self._runner.detach(self._client)


class Follower:
    """Stands for a session on another replica, for a client connected here; a `Conversation`.

    Args:
        link: The link to the owner.
        owner: The replica that owns the session.
        client: The client that resumes.
        route: The session's route.
        links: This replica's links.
    """

    def __init__(self, link: str, owner: str, client: Resuming, route: Route, links: Links) -> None:
        self.id = client.session_id
        self.route = route
        self.log = EventLog(route.policy.log_bounds)
        self.owner = owner
        self.subscriber = client.subscriber
        self.answer: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        """None once the log is being relayed; else the close code of the rejection."""
        self.newest: int | None = None
        """The newest event that the client can have, if it claims to have newer ones."""
        self.link = link
        self._last_event = client.last_event
        self._links = links
        self._number = self._told = 0
        self._unheard: deque[tuple[int, _Message | None, int]] = deque()
        self._room = route.policy.message_bytes * (route.policy.queued_messages + 1)
        """How many more bytes of unconfirmed messages are allowed."""
        self._ack = 0  # the number of the last acknowledgement sent
        self._newer_ack: EventAck | None = None
        self._over = self._has_left = False

    # From the connection

    def receive(self, message: MessageSend, client: ClientId, size: int) -> None:  # noqa: ARG002
        """See `Conversation.receive`."""
        if self._links.health.is_doubtful:
            self.subscriber.tell(error_message(NO_STORE, message.id))
            return
        self._say(message, size)

    def handle(self, event: SessionEvent, client: ClientId | None = None) -> None:  # noqa: ARG002
        """See `Conversation.handle`."""
        if isinstance(event, EventAck):
            self.log.trim(min(event.event, self.log.last))
            self._acknowledge(event)
        elif isinstance(event, _Message):
            self._say(event, 0)
        elif isinstance(event, Confirmed):
            self._say(None, 0)

    def detach(self, client: ClientId) -> None:  # noqa: ARG002
        """See `Conversation.detach`."""
        self._has_left = True
        if not self._over:
            self._over = True
            self._links.forget(self.link)
            self._links.post(self.owner, letters.Left(link=self.link))

    def read_by(self, reader: LogReader) -> None:
        """See `Conversation.read_by`: the session notices by itself that no client resumes."""

    def _acknowledge(self, event: EventAck) -> None:
        """Send an acknowledgement; only the newest counts, so at most one is unconfirmed."""
        if self._unheard and self._ack >= self._unheard[0][0]:
            self._newer_ack = event
        else:
            self._newer_ack = None
            self._say(event, 0)
            self._ack = self._number

    def _say(self, message: _Message | None, size: int) -> None:
        self._number += 1
        self._unheard.append((self._number, message, size))
        self._room -= size
        if self._room < 0 or len(self._unheard) > MAX_UNHEARD:
            self._close(CloseCode.TOO_MANY, ErrorCode.QUEUE_FULL, last=False)
        if not self._over:
            said = letters.Said(link=self.link, number=self._number, message=message, size=size)
            self._links.post(self.owner, said)

    # From the owner

    def take(self, letter: letters.Told | letters.Shut) -> None:
        """Handle relayed messages, or the end of the link."""
        if letter.number <= self._told or self.answer.cancelled():
            return  # a duplicate, or no longer awaited
        self._told += 1
        if letter.number > self._told:
            self.cut()
            return
        while self._unheard and self._unheard[0][0] <= letter.heard:
            _, _, size = self._unheard.popleft()
            self._room += size
        if self._newer_ack is not None:
            self._acknowledge(self._newer_ack)
        if isinstance(letter, letters.Told):
            self._take_told(letter)
        elif not self.answer.done():
            self._over = True
            self._links.forget(self.link)
            self.newest = letter.newest
            self.answer.set_result(letter.code)
        elif letter.code == CloseCode.RESTARTING:
            self._over = True
            self._links.take_back(self, letter.client)
        else:
            self._close(CloseCode(letter.code), letter.reason, last=letter.last)

    def _take_told(self, letter: letters.Told) -> None:
        if letter.begun is not None:
            self._begin(letter.begun)
        for message in letter.messages:
            self._tell(message)
        if self.subscriber.reader.lags:
            self._close(CloseCode.TOO_SLOW, "too slow", last=False)

    def _begin(self, after: int) -> None:
        """Start relaying the log, after this event."""
        self.log.begin(after)
        last = after if self._last_event is None else self._last_event
        self.subscriber.reader.begin(self.log, last, owns=False)
        if not self.answer.done():
            self.answer.set_result(None)

    def _tell(self, message: ServerMessage) -> None:
        subscriber, last = self.subscriber, self._last_event
        if isinstance(message, SessionResumed) and last is not None:
            self.log.begin(last if message.lost is None else message.lost[1])
            subscriber.reader.resume(self.log, last, message)
            if not self.answer.done():
                self.answer.set_result(None)
            subscriber.wake(soon=True)
        elif isinstance(message, Notice):
            subscriber.tell(message)
        else:
            self.log.append(message, 0.0)
            subscriber.wake(soon=True)

    def _close(self, code: CloseCode, reason: str, *, last: bool) -> None:
        self.detach(FOLLOWED)
        (self.subscriber.close if last else self.subscriber.abort)(code, reason)

    def cut(self) -> None:
        """Close the client's connection, since the link is cut; it has to resume."""
        if not self.answer.done():
            self.answer.set_result(CloseCode.RESTARTING)
        else:
            self.subscriber.abort(CloseCode.RESTARTING, "moved")
        self.detach(FOLLOWED)

    def repeat(self, runner: SessionRunner, client: ClientId) -> None:
        """Repeat the unconfirmed messages to the session, which is here now.

        Args:
            runner: The session's runner.
            client: The client's number in the session.
        """
        if self._has_left:
            runner.detach(client)
        if self._newer_ack is not None:
            self._unheard.append((0, self._newer_ack, 0))
        for _, message, size in self._unheard:
            _pass_on(message, size, runner, client)


def _pass_on(message: _Message | None, size: int, runner: SessionRunner, client: ClientId) -> None:
    """Pass a client's message to a session; see `letters.Said`."""
    if message is None:
        runner.handle(Confirmed())
    elif isinstance(message, MessageSend):
        runner.receive(message, client, size)
    else:
        runner.handle(message, client)
