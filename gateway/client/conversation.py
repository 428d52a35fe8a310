"""What a client knows of its session, without I/O: messages in, messages to write out.

A connection comes and goes; this stays. It numbers off the events so that each counts once and in
order, keeps the messages that the gateway has not acknowledged, and knows what to write first on
a connection that resumes.
"""

from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NoReturn

from msgspec import UNSET

from gateway.client.codecs import ClientCodec, UnknownMessage
from gateway.client.endings import abandoned, failure_of, lost_end, reply_of, unheard_of
from gateway.client.errors import ReplyTooLarge, SessionError
from gateway.client.notices import Expiring, Notice, Opened, Refused, Renewed, Resumed, Updated
from gateway.client.saved import Position
from gateway.client.turns import Reply, Turn
from gateway.errors import ErrorCode, Outcome
from gateway.protocol import messages as wire
from gateway.protocol.codecs import Frame, ProtocolError

ACK_EVERY = 32
"""After so many events the gateway is told that it may forget them; after a turn's end too."""


class SkippedEvents(ProtocolError):
    """Events are missing that the gateway has not reported as lost.

    Attributes:
        again: Whether they were missing before, after the same event.
    """

    def __init__(self, first: int, last: int, *, again: bool) -> None:
        which = f"event {first}" if first == last else f"events {first} to {last}"
        super().__init__(f"the gateway skipped {which}")
        self.again = again


class Conversation:
    """A session as its client sees it.

    Args:
        codec: Of the connections.
        notify: Called with each notice.
        wake: Called when there is something to write.
        carry_over: Whether a message that was never written goes to the session that takes the
            place of one that is gone.
    """

    def __init__(
        self,
        codec: ClientCodec,
        notify: Callable[[Notice], None],
        wake: Callable[[], None],
        *,
        carry_over: bool,
    ) -> None:
        self.turns: dict[str, Turn] = {}
        """Those that have not ended, in the order sent."""
        self.session_id: str | None = None
        self.route = ""
        self.expires_at: datetime | None = None
        self.limits: wire.Limits | None = None
        self.heartbeat = 30.0
        """Seconds between signs of life."""
        self.ready = False
        """Whether the present connection carries the session."""
        self.closed: wire.ClosedReason | None = None
        """Why the gateway has ended the session, where it has."""
        self.last_error: wire.ErrorMessage | None = None
        """The newest error on this connection that was about no message."""
        self.answered = False
        """Whether a turn has come forward on this connection."""
        self._codec = codec
        self._notify = notify
        self._wake = wake
        self._carry_over = carry_over
        self._resume_key = ""
        self._replaces: str | None = None
        self._last_event = 0
        self._acknowledged = 0
        self._skipped_after = -1
        self._ack = False
        self._gap = False
        self._newest = 0
        self._catching_up = False
        self._ended_in_gap: dict[str, wire.Progress] = {}
        self._outgoing: deque[Turn | wire.ClientMessage] = deque()

    # Elsewhere

    def position(self) -> Position | None:
        """All that another process needs to go on with the session; None while there is none."""
        if self.session_id is None or self.limits is None:
            return None
        written = [turn for turn in self.turns.values() if turn.written]
        return Position(
            session_id=self.session_id,
            resume_key=self._resume_key,
            last_event=self._last_event,
            route=self.route,
            limits=self.limits,
            heartbeat_seconds=self.heartbeat,
            accepted=tuple(turn.id for turn in written if turn.accepted),
            written=tuple(turn.id for turn in written if not turn.accepted),
        )

    def restore(self, position: Position, turns: Mapping[str, Turn]) -> None:
        """Go on with another process's session, and with its turns, of which the rest comes."""
        self.session_id = position.session_id
        self._resume_key = position.resume_key
        self._last_event = self._acknowledged = position.last_event
        self.route = position.route
        self.limits = position.limits
        self.heartbeat = position.heartbeat_seconds
        self.turns.update(turns)
        for turn in turns.values():
            turn.written = True
            turn.accepted = turn.id in position.accepted

    def leave(self) -> None:
        """Write nothing more on this connection."""
        self.ready = self._ack = False
        self._outgoing.clear()

    # Out

    def opening(self) -> wire.SessionOpen:
        """The first message of a connection: resumes the session, where there is one."""
        self.ready = self.answered = False
        self.last_error = None
        self._outgoing.clear()
        if self.session_id is None:
            return wire.SessionOpen()
        return wire.SessionOpen(
            session_id=self.session_id,
            resume_key=self._resume_key,
            last_event=self._last_event,
        )

    def send(self, turn: Turn) -> None:
        """Write the turn's message, now or as soon as a connection carries the session."""
        self.turns[turn.id] = turn
        self.write(turn)

    def cancel(self, turn: Turn) -> None:
        """Stop the turn; one that was never written ends here."""
        if turn.written:
            self.write(wire.MessageCancel(id=turn.id))
        else:
            self._end(turn, Reply(id=turn.id, status="cancelled", outcome=Outcome.NOT_INVOKED))

    def write(self, what: Turn | wire.ClientMessage) -> None:
        """Write a turn's message or another, if the present connection carries the session."""
        if self.ready:
            self._outgoing.append(what)
            self._wake()

    def next_frame(self) -> Frame | None:
        """The next frame to write; None where there is none."""
        while self._outgoing:
            what = self._outgoing.popleft()
            if not isinstance(what, Turn):
                return self._codec.encode(what)
            if not what.ended:
                what.written = True
                return what.frame
        if self._ack and self.ready:
            self._ack = False
            self._acknowledged = self._last_event
            return self._codec.encode(wire.EventAck(event=self._last_event))
        return None

    # In

    def received(self, message: wire.ServerMessage | UnknownMessage) -> None:
        """Take a message of the gateway's.

        Raises:
            ProtocolError: It is not what it may be.
            SkippedEvents: Others should have come before it.
        """
        match message:
            case wire.SessionResumed():
                self._resumed(message)
            case wire.MessageDuplicate():
                self._duplicate(message)
            case wire.ErrorMessage():
                self._refused(message)
            case wire.Pong():
                pass
            case UnknownMessage():
                self._count(message.event)
            case _:
                if self._count(message.event):
                    self._event(message)
        if self._last_event >= self._newest:
            self._settle()

    def _count(self, event: int) -> bool:
        """Whether an event is the next one, and no replay of what is known.

        Raises:
            SkippedEvents: Others should have come before it.
        """
        if event <= self._last_event:
            return False
        if event > self._last_event + 1:
            self._skipped(event - 1)
        self._last_event = event
        if self._last_event - self._acknowledged >= ACK_EVERY:
            self._acknowledge()
        return True

    def _skipped(self, last: int) -> NoReturn:
        """Events are numbered without gaps, and what is lost is reported: up to this one, not."""
        again = self._skipped_after == self._last_event
        self._skipped_after = self._last_event
        raise SkippedEvents(self._last_event + 1, last, again=again)

    def _event(self, event: wire.Event) -> None:
        match event:
            case wire.SessionOpened():
                self._opened(event)
            case wire.SessionClosed():
                self.closed = event.reason
            case wire.SessionRenewed():
                self.expires_at = _time(event.expires_at)
                self._notify(Renewed(event.reason, event.context, self.expires_at))
            case wire.SessionUpdated():
                self.expires_at = _time(event.expires_at)
                self._notify(Updated(self.expires_at))
            case wire.SessionExpiring():
                self.expires_at = _time(event.expires_at)
                self._notify(Expiring(self.expires_at))
            case _:
                self.answered = True
                turn = self.turns.get(event.id)
                if turn is not None:
                    self._turn_event(turn, event)
                if isinstance(event, wire.MessageDone):
                    self._acknowledge()

    def _acknowledge(self) -> None:
        self._ack = True
        self._wake()

    def _opened(self, opened: wire.SessionOpened) -> None:
        replaces, self._replaces = self._replaces, None
        self.session_id = opened.session_id
        self._resume_key = opened.resume_key
        self.route = opened.route
        self.limits = opened.limits
        self.heartbeat = opened.heartbeat_seconds
        self.expires_at = _time(opened.expires_at)
        self._notify(Opened(opened.session_id, opened.route, self.expires_at, replaces))
        self._begin()

    def _resumed(self, resumed: wire.SessionResumed) -> None:
        if resumed.session_id != self.session_id or resumed.last_event < self._last_event:
            raise ProtocolError("the gateway resumed another session than requested")
        self._resume_key = resumed.resume_key
        self.expires_at = _time(resumed.expires_at)
        self._newest = resumed.last_event
        self._catching_up = True
        if resumed.lost is not None:
            first, last = resumed.lost
            if first > self._last_event + 1:
                self._skipped(first - 1)
            self._last_event = max(self._last_event, last)
            self._gap = True
            for turn in self.turns.values():
                turn.uncertain = turn.written
        self._notify(Resumed(resumed.lost))
        self._begin()

    def _begin(self) -> None:
        """Write again what the gateway may not have.

        Where events were lost, a turn's end may be among them: its message is written again too,
        since the answer, ``message.duplicate``, says how far it is. It keeps its id, so it is not
        invoked again. The messages of another process are not here to be written.
        """
        self.ready = True
        for turn in self.turns.values():
            if turn.frame and (turn.uncertain or not turn.accepted):
                self.write(turn)
        for turn in self.turns.values():
            if turn.cancelling:
                self.write(wire.MessageCancel(id=turn.id))
        self._wake()

    def _duplicate(self, duplicate: wire.MessageDuplicate) -> None:
        turn = self.turns.get(duplicate.id)
        if turn is None:
            return
        turn.accepted = True
        if duplicate.status in {"queued", "running"}:
            turn.uncertain = False
        else:
            self._ended_in_gap[turn.id] = duplicate.status

    def _settle(self) -> None:
        """End the turns whose end fell into a gap, now that all that could be had is here.

        So too those of another process that no event speaks of: their messages are not here to
        ask with.
        """
        if self._catching_up and self.ready:
            self._catching_up = False
            for other in [turn for turn in self.turns.values() if not turn.frame]:
                if other.uncertain or not other.accepted:
                    self._end(other, unheard_of())
        while self._ended_in_gap:
            message_id, status = self._ended_in_gap.popitem()
            turn = self.turns.get(message_id)
            if turn is not None:
                self._end(turn, lost_end(message_id, status))

    def _refused(self, error: wire.ErrorMessage) -> None:
        turn = None if error.id is UNSET else self.turns.get(error.id)
        if turn is not None and not turn.accepted:
            outcome = Outcome.UNKNOWN if turn.uncertain else Outcome.NOT_INVOKED
            self._end(turn, failure_of(error, outcome))
        elif not self.ready and error.code is ErrorCode.BAD_MESSAGE:
            raise ProtocolError(error.message)  # or it would wait for another `session.open`
        elif error.id is UNSET:
            self.last_error = error
            self._notify(Refused(error.code, error.message))

    def _turn_event(
        self, turn: Turn, event: wire.MessageAccepted | wire.MessageDelta | wire.MessageDone
    ) -> None:
        turn.accepted = True
        turn.uncertain = False
        if isinstance(event, wire.MessageAccepted):
            return
        body = self._codec.body(event)
        index = event.index if isinstance(event, wire.MessageDelta) else None
        if body is not None and not turn.add(body, index):
            self._end(turn, ReplyTooLarge("the reply is larger than max_reply_bytes"))
            if isinstance(event, wire.MessageDelta):
                self.write(wire.MessageCancel(id=turn.id))
        elif isinstance(event, wire.MessageDone):
            error = event.error
            failed = None if error is UNSET else failure_of(error, error.outcome)
            self._end(turn, failed or reply_of(event))

    # Ends

    def forget(self) -> None:
        """The session is gone. What was never written waits for the next one, unless it may not."""
        self._abandon("the session is gone", unwritten=not self._carry_over)
        self._replaces = self.session_id or self._replaces
        self.session_id = None
        self.expires_at = None
        self.closed = None
        self.ready = self._ack = self._gap = self._catching_up = False
        self._last_event = self._acknowledged = self._newest = 0
        self._skipped_after = -1
        self._ended_in_gap.clear()
        self._outgoing.clear()

    def end(self, why: str) -> None:
        """There will be no other session: nothing is left to wait for."""
        self._abandon(why, unwritten=True)
        self.forget()

    def _abandon(self, why: str, *, unwritten: bool) -> None:
        """Fail what was written, and what was not where that is asked.

        Where the gateway has said ``session.closed``, a message that it had not accepted by then
        never reached the model. Else nobody knows.
        """
        proof = self.closed is not None and not self._gap
        for turn in list(self.turns.values()):
            if turn.written:
                self._end(turn, abandoned(why, unseen=proof and not turn.accepted))
            elif unwritten:
                self._end(turn, abandoned(f"not sent: {why}", unseen=True))

    def _end(self, turn: Turn, end: Reply | SessionError) -> None:
        del self.turns[turn.id]
        turn.end(end)


def _time(text: str | None) -> datetime | None:
    """RFC 3339 as a time with a zone.

    Raises:
        ProtocolError: It is none.
    """
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:
        raise ProtocolError(f"{text!r} is not a time") from None
