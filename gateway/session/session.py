"""A session as a state machine without I/O: events and the time go in, effects come out.

The table in ``table.py`` says in which state which event does what. Nothing but the session
changes its state, and it never waits, so each race of the outside world is an order of events here.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from msgspec import UNSET, structs

from gateway.errors import ERRORS, CloseCode, ErrorCode, Failure, Outcome
from gateway.protocol import messages as wire
from gateway.session import effects as do
from gateway.session import events as on
from gateway.session.bodies import ReplyFields, refused_field, reply_fields, request_of
from gateway.session.endings import ENDINGS, Ending
from gateway.session.events import SessionEvent, Timer
from gateway.session.log import EventLog
from gateway.session.policy import Opening, Policy
from gateway.session.ports import ModelSession, SessionRecord
from gateway.session.table import TABLE, State
from gateway.session.turns import Turn, Turns, digest


class UnexpectedEvent(Exception):
    """An event that can't happen in this state: a fault of whoever runs the session."""


def rfc3339(seconds: float | None) -> str | None:
    """A time in seconds since the epoch as clients are given it."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Session:
    """One client's conversation with a stateful model.

    Args:
        session_id: The gateway's own id.
        principal: Who it belongs to.
        policy: Its route's rules.
    """

    def __init__(self, *, session_id: str, principal: str, policy: Policy) -> None:
        self.id = session_id
        self.principal = principal
        self.policy = policy
        self.state = State.OPENING
        self.log = EventLog(max_events=policy.log_events, max_bytes=policy.log_bytes)
        self.turns = Turns(remembered=policy.remembered_messages)
        self._resume_key = ""
        self._announced = False
        self._detached_at: float | None = None
        self._model: ModelSession | None = None
        self._use_until: float | None = None
        self._used_at = 0.0
        self._opening = False
        self._closing = False
        self._ending: Ending | None = None
        self._timers: set[Timer] = set()
        self._effects: list[do.Effect] = []

    def __repr__(self) -> str:
        """State and counts, no content."""
        return f"<Session {self.id} {self.state.value} turns={self.turns.pending}>"

    def handle(self, event: SessionEvent, now: float) -> list[do.Effect]:
        """Take an event in.

        Args:
            event: What has happened.
            now: When, in seconds since the epoch.

        Returns:
            What to do about it, in this order.

        Raises:
            UnexpectedEvent: It can't happen in this state.
        """
        action = _ACTIONS.get((self.state, type(event)))
        if action is None:
            raise UnexpectedEvent(f"{type(event).__name__} while {self.state.value}")
        self._effects = []
        action(self, event, now)
        return self._effects

    # Opening

    def _start(self, event: on.Start, now: float) -> None:
        """Open the session, at the model too if the route opens it at once."""
        self._resume_key = event.resume_key
        if self.policy.opening is Opening.CALL and self.policy.open_on_connect:
            self._open()
        else:
            self._announce()
            self._next(now)

    def _open(self) -> None:
        self.state = State.OPENING
        self._opening = True
        self._do(do.OpenSession())

    def _opened(self, event: on.Opened, now: float) -> None:
        """Use the model's session, and send the first turn that waits."""
        self._opening = False
        self._use(event.model, now)
        self._next(now)

    def _opened_closing(self, event: on.Opened, now: float) -> None:
        """Close what the model has opened."""
        self._opening = False
        self._model = event.model
        self._wind_up(self._ended_by, now)

    def _opened_late(self, event: on.Opened, _now: float) -> None:
        """Close what the model has opened for nobody."""
        self._do(do.CloseSession(event.model))

    def _open_failed(self, event: on.OpenFailed, now: float) -> None:
        """Fail what waits; without any session yet, end the connection."""
        self._opening = False
        self._fail_waiting(event.failure, now)
        if self._announced:
            self._next(now)
            return
        self._tell_error(event.failure)
        close = ERRORS[event.failure.code].close
        if close is not CloseCode.TOO_MANY:
            close = CloseCode.UNAVAILABLE
        self._finish(close, event.failure.code)

    def _use(self, model: ModelSession, now: float) -> None:
        self._model = model
        ends = model.expires_at
        if ends is None:
            ends = now + self.policy.session_seconds
        self._use_until = ends - self.policy.expiry_margin_seconds
        self._used_at = now
        self._do(do.Persist(self.record(ends)))
        self._set(Timer.EXPIRY, self._use_until)
        self._set(Timer.EXPIRING, self._use_until - self.policy.expiring_notice_seconds)
        self._set(Timer.IDLE, now + self.policy.idle_seconds)
        if self._announced:
            self._emit(wire.SessionUpdated(event=self._event, expires_at=rfc3339(model.expires_at)))
        else:
            self._announce()

    def _announce(self) -> None:
        self._announced = True
        policy = self.policy
        self._emit(
            wire.SessionOpened(
                event=self._event,
                session_id=self.id,
                resume_key=self._resume_key,
                expires_at=rfc3339(self._model.expires_at if self._model else None),
                route=policy.route,
                limits=wire.Limits(
                    message_bytes=policy.message_bytes,
                    queued_messages=policy.queued_messages,
                    resume_seconds=policy.resume_seconds,
                ),
                heartbeat_seconds=policy.heartbeat_seconds,
            )
        )

    def record(self, expires_at: float | None = None) -> SessionRecord:
        """What the store is to keep of the session as it is."""
        return SessionRecord(
            id=self.id,
            route=self.policy.route,
            principal=self.principal,
            model=self._model,
            expires_at=expires_at,
        )

    # Turns

    def _send(self, message: wire.MessageSend, now: float) -> None:
        """Accept the message, or say why not; send it if nothing is ahead of it."""
        request = request_of(message, self.policy)
        known = self.turns.find(message.id)
        if known is not None:
            if known.digest != digest(request.body):
                self._refuse(ErrorCode.BAD_MESSAGE, "`id` was used for another body", message.id)
            else:
                self._do(do.Tell(wire.MessageDuplicate(id=known.id, status=known.status)))
            return
        refused = refused_field(message, self.policy)
        if refused is not None:
            text = f"The route {self.policy.route} does not let clients set `{refused}`."
            self._refuse(ErrorCode.FORBIDDEN, text, message.id)
            return
        if len(self.turns.queue) >= self.policy.queued_messages:
            text = "Too many messages wait; send it again when one has ended."
            self._refuse(ErrorCode.QUEUE_FULL, text, message.id)
            return
        ahead = self.turns.pending
        self.turns.add(message.id, request)
        self._emit(wire.MessageAccepted(event=self._event, id=message.id, queued=ahead))
        if self.state is State.READY:
            self._next(now)

    def _send_late(self, message: wire.MessageSend, _now: float) -> None:
        """Refuse the message: the session is ending."""
        ending = self._ended_by
        self._refuse(ending.code, ending.message, message.id)

    def _cancel(self, message: wire.MessageCancel, now: float) -> None:
        """Remove the turn if it waits, close its request if it runs, else say what became of it."""
        turn = self.turns.find(message.id)
        if turn is None:
            self._refuse(ErrorCode.UNKNOWN_MESSAGE, "No message has this `id`.", message.id)
        elif turn.status == "queued":
            self._end_turn(turn, "cancelled", now, outcome=Outcome.NOT_INVOKED)
        elif turn.status == "running":
            self._do(do.CancelInvoke(turn.number))
        else:
            self._do(do.Tell(wire.MessageDuplicate(id=turn.id, status=turn.status)))

    def _acknowledge(self, message: wire.EventAck, _now: float) -> None:
        """Forget the events that the client has."""
        if message.event > self.log.last:
            text = f"`event` is past the newest event, {self.log.last}"
            self._refuse(ErrorCode.BAD_MESSAGE, text)
        else:
            self.log.forget(message.event)

    def _next(self, now: float) -> None:
        """Send the turn that has waited longest, if the session can carry it."""
        if not self.turns.queue:
            self.state = State.READY
            self._used_at = now
            if self._abandoned(now):
                self._end("idle", now)
        elif self._use_until is not None and now >= self._use_until:
            self._end("expired", now)
        elif self._model is None and self.policy.opening is Opening.CALL:
            self._open()
        else:
            self.state = State.RUNNING
            turn = self.turns.begin(now)
            assert turn.request is not None  # noqa: S101 - it ends later than it begins
            self._do(do.Invoke(turn.number, turn.request, self._model))

    def _replied(self, event: on.ReplyEnded, now: float) -> None:
        """End the turn with its reply, then go on with what the reply says of the session."""
        turn, reply = self._running(event.turn), event.reply
        self._end_turn(turn, "completed", now, reply=reply_fields(reply, self.policy))
        if reply.session_closed:
            self._model = None
            self._end("model", now)
            return
        if reply.new_session is not None:
            self._use(reply.new_session, now)
        if self._model is None and self.policy.opening is Opening.TURN:
            self._end("lost", now)  # it was to open a session, and has not
        else:
            self._next(now)

    def _failed(self, event: on.InvokeFailed, now: float) -> None:
        """End the turn as failed; a lost session ends with it."""
        turn = self._running(event.turn)
        self._end_turn(turn, "failed", now, failure=event.failure)
        if event.failure.code is ErrorCode.SESSION_LOST:
            self._model = None
            self._end("lost", now)
        elif self._model is None and self.policy.opening is Opening.TURN:
            self._fail_waiting(event.failure, now)  # each would open another session
            self._next(now)
        else:
            self._next(now)

    def _fail_waiting(self, failure: Failure, now: float) -> None:
        """Fail what waits for a session; the model has seen the opening at most, none of these."""
        not_sent = structs.replace(failure, outcome=Outcome.NOT_INVOKED)
        for turn in list(self.turns.queue):
            self._end_turn(turn, "failed", now, failure=not_sent)

    def _cancelled(self, event: on.InvokeCancelled, now: float) -> None:
        """End the turn as cancelled; whether the model saw it, nobody knows."""
        turn = self._running(event.turn)
        self._end_turn(turn, "cancelled", now, outcome=Outcome.UNKNOWN)
        self._next(now)

    def _running(self, number: int) -> Turn:
        turn = self.turns.running
        if turn is None or turn.number != number:
            raise UnexpectedEvent(f"turn {number} is not at the model")
        return turn

    def _end_turn(
        self,
        turn: Turn,
        status: wire.Status,
        now: float,
        *,
        reply: ReplyFields | None = None,
        failure: Failure | None = None,
        outcome: Outcome | None = None,
    ) -> None:
        self.turns.end(turn, status)
        self._emit(
            wire.MessageDone(
                event=self._event,
                id=turn.id,
                status=status,
                deltas=0,
                duration_ms=0 if turn.started is None else round((now - turn.started) * 1000),
                error=_error_object(failure) if failure else UNSET,
                outcome=outcome or UNSET,
                **(reply or {}),
            )
        )

    # The end

    def _close(self, _message: wire.SessionClose, now: float) -> None:
        """End the session as the client asks."""
        self._end("client", now)

    def _evicted(self, _event: on.Evicted, now: float) -> None:
        """End the session: the store says that it has expired."""
        self._end("expired", now)

    def _drain(self, event: on.Drain, now: float) -> None:
        """Let the turn at the model finish, unless time is up; nothing new is begun."""
        self._end("operator", now, finish_turn=not event.force)

    def _drain_closing(self, event: on.Drain, _now: float) -> None:
        """Let it close; where time is up, cancel what is still at the model."""
        if event.force and self.turns.running is not None:
            self._do(do.CancelInvoke(self.turns.running.number))

    def _end(self, reason: wire.ClosedReason, now: float, *, finish_turn: bool = False) -> None:
        ending = self._ending = ENDINGS[reason]
        self.state = State.CLOSING
        for turn in list(self.turns.queue):
            self._end_by_ending(turn, Outcome.NOT_INVOKED, now)
        if self.turns.running is not None and not finish_turn:
            self._do(do.CancelInvoke(self.turns.running.number))
        self._clear_timers()
        if self.turns.running is None or not finish_turn:
            self._set(Timer.CLOSING, now + self.policy.close_seconds)
        self._wind_up(ending, now)

    def _wind_up(self, ending: Ending, now: float) -> None:
        """Close at the model when nothing is under way there, and finish when that is done."""
        if self.turns.running is not None or self._opening or self._closing:
            return
        if self._model is not None:
            self._closing = True
            self._set(Timer.CLOSING, now + self.policy.close_seconds)
            self._do(do.CloseSession(self._model))
            self._model = None
        else:
            self._finish_ending(ending)

    def _end_by_ending(self, turn: Turn, outcome: Outcome, now: float) -> None:
        ending = self._ended_by
        if ending.status == "cancelled":
            self._end_turn(turn, "cancelled", now, outcome=outcome)
        else:
            failure = Failure(code=ending.code, message=ending.message, outcome=outcome)
            self._end_turn(turn, "failed", now, failure=failure)

    def _replied_closing(self, event: on.ReplyEnded, now: float) -> None:
        """End the turn with its reply, and close."""
        turn, reply = self._running(event.turn), event.reply
        self._end_turn(turn, "completed", now, reply=reply_fields(reply, self.policy))
        if reply.new_session is not None:
            self._model = reply.new_session
        if reply.session_closed:
            self._model = None
        self._wind_up(self._ended_by, now)

    def _failed_closing(self, event: on.InvokeFailed, now: float) -> None:
        """End the turn as failed, and close."""
        self._end_turn(self._running(event.turn), "failed", now, failure=event.failure)
        if event.failure.code is ErrorCode.SESSION_LOST:
            self._model = None
        self._wind_up(self._ended_by, now)

    def _cancelled_closing(self, event: on.InvokeCancelled, now: float) -> None:
        """End the turn as the session's end says, and close."""
        self._end_by_ending(self._running(event.turn), Outcome.UNKNOWN, now)
        self._wind_up(self._ended_by, now)

    def _open_failed_closing(self, _event: on.OpenFailed, now: float) -> None:
        """There is nothing to close."""
        self._opening = False
        self._wind_up(self._ended_by, now)

    def _close_ended(self, _event: on.CloseEnded, now: float) -> None:
        """The session is closed at the model."""
        self._closing = False
        self._wind_up(self._ended_by, now)

    def _replied_late(self, event: on.ReplyEnded, _now: float) -> None:
        """Drop the reply; close a session that it has opened."""
        new = event.reply.new_session
        if new is not None and not event.reply.session_closed:
            self._do(do.CloseSession(new))

    def _finish_ending(self, ending: Ending) -> None:
        if self._announced:
            self._emit(wire.SessionClosed(event=self._event, reason=ending.reason))
        self._finish(ending.close, "" if ending.close is CloseCode.NORMAL else ending.code)

    def _finish(self, close: CloseCode, reason: str) -> None:
        self.state = State.CLOSED
        self._clear_timers()
        self._do(do.CloseSocket(close, reason))
        self._do(do.Forget())

    @property
    def _ended_by(self) -> Ending:
        assert self._ending is not None  # noqa: S101 - set on the way into this state
        return self._ending

    # Connections and timers

    def _detached(self, _event: on.Detached, now: float) -> None:
        """Go on without a connection, as long as one may come back."""
        self._detached_at = now
        if self.state is State.READY and self._abandoned(now):
            self._end("idle", now)
        else:
            self._set(Timer.DETACHED, now + self.policy.resume_seconds)

    def _abandoned(self, now: float) -> bool:
        if self._detached_at is None:
            return False
        return now >= self._detached_at + self.policy.resume_seconds

    def _timer(self, event: on.TimerFired, now: float) -> None:
        """Expire, warn, or end what nobody uses."""
        self._timers.discard(event.timer)
        match event.timer:
            case Timer.EXPIRY:
                self._end("expired", now)
            case Timer.EXPIRING:
                assert self._use_until is not None  # noqa: S101 - set with the timer
                ends = rfc3339(self._use_until + self.policy.expiry_margin_seconds)
                self._emit(wire.SessionExpiring(event=self._event, expires_at=ends or ""))
            case Timer.IDLE if self.state is State.READY:
                ends_at = self._used_at + self.policy.idle_seconds
                if now >= ends_at:
                    self._end("idle", now)
                else:
                    self._set(Timer.IDLE, ends_at)
            case Timer.IDLE:
                self._set(Timer.IDLE, now + self.policy.idle_seconds)
            case Timer.DETACHED if self.state is State.READY:
                self._end("idle", now)
            case _:
                pass  # detached with turns to finish: `_next` ends it after the last

    def _timer_closing(self, event: on.TimerFired, now: float) -> None:
        """Wait no longer for the model."""
        self._timers.discard(event.timer)
        turn = self.turns.running
        if turn is not None:
            self._do(do.CancelInvoke(turn.number))
            self._end_by_ending(turn, Outcome.UNKNOWN, now)
        if self._model is not None:
            self._do(do.CloseSession(self._model))
            self._model = None
        self._finish_ending(self._ended_by)

    def _ignore(self, _event: SessionEvent, _now: float) -> None:
        """Nothing is left to do."""

    # Effects

    @property
    def _event(self) -> int:
        return self.log.last + 1

    def _do(self, effect: do.Effect) -> None:
        self._effects.append(effect)

    def _emit(self, event: wire.Event) -> None:
        self.log.append(event)
        self._do(do.Emit(event))

    def _refuse(self, code: ErrorCode, text: str, message_id: str | None = None) -> None:
        self._tell_error(Failure(code=code, message=text), message_id)

    def _tell_error(self, failure: Failure, message_id: str | None = None) -> None:
        self._do(
            do.Tell(
                wire.ErrorMessage(
                    code=failure.code,
                    message=failure.message,
                    id=UNSET if message_id is None else message_id,
                    retryable=failure.may_retry,
                    retry_after=UNSET if failure.retry_after is None else failure.retry_after,
                )
            )
        )

    def _clear_timers(self) -> None:
        for timer in sorted(self._timers, key=lambda timer: timer.value):
            self._set(timer, None)

    def _set(self, timer: Timer, at: float | None) -> None:
        if at is None:
            self._timers.discard(timer)
        else:
            self._timers.add(timer)
        self._do(do.SetTimer(timer, at))


def _error_object(failure: Failure) -> wire.ErrorObject:
    return wire.ErrorObject(
        code=failure.code,
        message=failure.message,
        retryable=failure.may_retry,
        outcome=failure.outcome,
        retry_after=UNSET if failure.retry_after is None else failure.retry_after,
    )


_ACTIONS: Mapping[tuple[State, type], Callable[[Session, Any, float], None]] = MappingProxyType(
    {key: getattr(Session, f"_{transition.action}") for key, transition in TABLE.items()}
)
