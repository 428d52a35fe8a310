"""What a client knows of its session, without I/O: messages in, messages to write out.

A connection comes and goes; this stays. It numbers off the events so that each counts once and in
order, keeps the messages that the gateway has not acknowledged, and knows what to write first on
a connection that resumes.
"""

from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TypeVar

from msgspec import UNSET, UnsetType

from gateway.client.codecs import ClientCodec
from gateway.client.errors import MessageFailed, ReplyTooLarge, SessionError
from gateway.client.notices import Expiring, Notice, Opened, Refused, Renewed, Resumed, Updated
from gateway.client.saved import Position
from gateway.client.turns import Reply, Turn
from gateway.errors import ErrorCode, Outcome
from gateway.protocol import messages as wire
from gateway.protocol.codecs import Frame, ProtocolError

T = TypeVar("T")

ACK_EVERY = 32
"""After so many events the gateway is told that it may forget them; after a turn's end too."""


class Conversation:
    """A session as its client sees it.

    Args:
        codec: Of the connections.
        tell: Called with each notice.
        wake: Called when there is something to write.
        carry_over: Whether a message that was never written goes to the session that takes the
            place of one that is gone.
    """

    def __init__(
        self,
        codec: ClientCodec,
        tell: Callable[[Notice], None],
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
        """What the gateway has said last, on this connection, that was about no message."""
        self.answered = False
        """Whether a turn has come forward on this connection."""
        self._codec = codec
        self._tell = tell
        self._wake = wake
        self._carry_over = carry_over
        self._resume_key = ""
        self._replaces: str | None = None
        self._last_event = 0
        self._acknowledged = 0
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

    def go_on(self, position: Position, turns: Mapping[str, Turn]) -> None:
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
        self._write(turn)

    def cancel(self, turn: Turn) -> None:
        """Stop the turn; one that was never written ends here."""
        if turn.written:
            self._write(wire.MessageCancel(id=turn.id))
        else:
            self._finish(turn, Reply(id=turn.id, status="cancelled", outcome=Outcome.NOT_INVOKED))

    def say(self, message: wire.ClientMessage) -> None:
        """Write something of this connection."""
        self._write(message)

    def _write(self, what: Turn | wire.ClientMessage) -> None:
        if self.ready:
            self._outgoing.append(what)
            self._wake()

    def take(self) -> Frame | None:
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

    def received(self, message: wire.ServerMessage) -> None:
        """Take what the gateway says.

        Raises:
            ProtocolError: It says what it may not.
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
            case _:
                if message.event > self._last_event:  # else a replay of what is known
                    self._event(message)
        if self._last_event >= self._newest:
            self._settle()

    def _event(self, event: wire.Event) -> None:
        if event.event != self._last_event + 1:
            raise ProtocolError(f"event {event.event} follows {self._last_event}")
        self._last_event = event.event
        if self._last_event - self._acknowledged >= ACK_EVERY:
            self._acknowledge()
        match event:
            case wire.SessionOpened():
                self._opened(event)
            case wire.SessionClosed():
                self.closed = event.reason
            case wire.SessionRenewed():
                self.expires_at = _time(event.expires_at)
                self._tell(Renewed(event.reason, event.context, self.expires_at))
            case wire.SessionUpdated():
                self.expires_at = _time(event.expires_at)
                self._tell(Updated(self.expires_at))
            case wire.SessionExpiring():
                self.expires_at = _time(event.expires_at)
                self._tell(Expiring(self.expires_at))
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
        self._tell(Opened(opened.session_id, opened.route, self.expires_at, replaces))
        self._begin()

    def _resumed(self, resumed: wire.SessionResumed) -> None:
        if resumed.session_id != self.session_id or resumed.last_event < self._last_event:
            raise ProtocolError("another session was resumed than was asked for")
        self._resume_key = resumed.resume_key
        self.expires_at = _time(resumed.expires_at)
        self._newest = resumed.last_event
        self._catching_up = True
        if resumed.lost is not None:
            first, last = resumed.lost
            if first > self._last_event + 1:
                raise ProtocolError(f"the gap {first} to {last} does not follow {self._last_event}")
            self._last_event = max(self._last_event, last)
            self._gap = True
            for turn in self.turns.values():
                turn.uncertain = turn.written
        self._tell(Resumed(resumed.lost))
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
                self._write(turn)
        for turn in self.turns.values():
            if turn.cancelling:
                self._write(wire.MessageCancel(id=turn.id))
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
                    error = MessageFailed(
                        "what became of this message is not known; "
                        "sent again under its id, it reaches the model at most once",
                        code=ErrorCode.STREAM_BROKEN,
                        outcome=Outcome.UNKNOWN,
                    )
                    self._fail(other, error)
        while self._ended_in_gap:
            message_id, status = self._ended_in_gap.popitem()
            turn = self.turns.get(message_id)
            if turn is None:
                continue
            if status == "failed":
                error = MessageFailed(
                    "the message failed; why can no longer be had",
                    code=ErrorCode.STREAM_BROKEN,
                    outcome=Outcome.UNKNOWN,
                )
                self._fail(turn, error)
            else:
                cancelled = status == "cancelled"
                reply = Reply(
                    id=message_id,
                    status="cancelled" if cancelled else "completed",
                    complete=False,
                    outcome=Outcome.UNKNOWN if cancelled else None,
                )
                self._finish(turn, reply)

    def _refused(self, error: wire.ErrorMessage) -> None:
        turn = None if error.id is UNSET else self.turns.get(error.id)
        if turn is not None and not turn.accepted:
            failed = MessageFailed(
                error.message,
                code=error.code,
                outcome=Outcome.UNKNOWN if turn.uncertain else Outcome.NOT_INVOKED,
                retryable=error.retryable,
                retry_after=_given(error.retry_after),
            )
            self._fail(turn, failed)
        elif not self.ready and error.code is ErrorCode.BAD_MESSAGE:
            raise ProtocolError(error.message)  # or it would wait for another `session.open`
        elif error.id is UNSET:
            self.last_error = error
            self._tell(Refused(error.code, error.message))

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
            self._fail(turn, ReplyTooLarge("the reply is larger than max_reply_bytes"))
            if isinstance(event, wire.MessageDelta):
                self._write(wire.MessageCancel(id=turn.id))
        elif isinstance(event, wire.MessageDone):
            self._done(turn, event)

    def _done(self, turn: Turn, done: wire.MessageDone) -> None:
        if done.error is not UNSET:
            error = MessageFailed(
                done.error.message,
                code=done.error.code,
                outcome=done.error.outcome,
                retryable=done.error.retryable,
                retry_after=_given(done.error.retry_after),
            )
            self._fail(turn, error)
            return
        reply = Reply(
            id=turn.id,
            status="cancelled" if done.status == "cancelled" else "completed",
            outcome=_given(done.outcome),
            content_type=_given(done.content_type),
            variant=_given(done.invoked_production_variant),
            custom_attributes=_given(done.custom_attributes),
            duration=done.duration_ms / 1000,
            deltas=done.deltas,
            dropped_turns=_given(done.dropped_turns) or 0,
        )
        self._finish(turn, reply)

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
                unseen = proof and not turn.accepted
                text = why if unseen else f"{why}; whether the model saw the message is not known"
            elif unwritten:
                unseen, text = True, f"not sent: {why}"
            else:
                continue
            error = MessageFailed(
                text,
                code=ErrorCode.SESSION_LOST,
                outcome=Outcome.NOT_INVOKED if unseen else Outcome.UNKNOWN,
                retryable=unseen,
            )
            self._fail(turn, error)

    def _finish(self, turn: Turn, reply: Reply) -> None:
        del self.turns[turn.id]
        turn.finish(reply)

    def _fail(self, turn: Turn, error: SessionError) -> None:
        del self.turns[turn.id]
        turn.fail(error)


def _given(value: T | UnsetType) -> T | None:
    return None if value is UNSET else value


def _time(text: str | None) -> datetime | None:
    """RFC 3339 as a time with a zone.

    Raises:
        ProtocolError: It is none.
    """
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:
        raise ProtocolError(f"{text!r} is no time") from None
