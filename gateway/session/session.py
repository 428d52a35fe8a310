"""A session as a state machine without I/O: events and the time go in, effects come out.

The table in ``table.py`` says in which state which event does what. Nothing but the session
changes its state, and it never waits, so each race of the outside world is an order of events here.
"""

from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import UNSET, structs

from gateway.errors import ERRORS, CloseCode, ErrorCode, Failure, Outcome
from gateway.protocol import messages as wire
from gateway.session import effects as do
from gateway.session import events as on
from gateway.session.bodies import (
    ReplyFields,
    body_of,
    options_of,
    refused_field,
    reply_fields,
    request_of,
)
from gateway.session.endings import ENDINGS, Ending
from gateway.session.events import SessionEvent, Timer
from gateway.session.keys import ResumeKeys
from gateway.session.log import EventLog
from gateway.session.output import Output
from gateway.session.policy import Opening, Policy, Recovery
from gateway.session.ports import ModelReply, ModelRequest, ModelSession, SessionRecord
from gateway.session.renewal import Renewal
from gateway.session.table import TABLE, State
from gateway.session.templates import fill
from gateway.session.transcript import Exchange, Line, Transcript, told
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

    __slots__ = (
        "_announced",
        "_closing",
        "_detached_at",
        "_ending",
        "_expires_at",
        "_keeps_words",
        "_keys",
        "_model",
        "_now",
        "_open_retries",
        "_opening",
        "_out",
        "_renewal",
        "_replays",
        "_transcript",
        "_used_at",
        "id",
        "log",
        "policy",
        "principal",
        "state",
        "turns",
    )

    def __init__(self, *, session_id: str, principal: str, policy: Policy) -> None:
        self.id = session_id
        self.principal = principal
        self.policy = policy
        self.state = State.OPENING
        self.log = EventLog(
            max_events=policy.log_events, max_bytes=policy.log_bytes, max_age=policy.log_seconds
        )
        self.turns = Turns(remembered=policy.remembered_messages)
        self._transcript = Transcript(
            max_turns=policy.transcript_turns, max_bytes=policy.transcript_bytes
        )
        self._keeps_words = policy.sends_history or policy.seed is not None
        self._replays = Recovery.REPLAY in (policy.on_expiry, policy.on_lost)
        self._out = Output(self.log)
        self._now = 0.0
        self._keys: ResumeKeys | None = None
        self._announced = False
        self._detached_at: float | None = None
        self._model: ModelSession | None = None
        self._expires_at = 0.0
        self._used_at = 0.0
        self._opening = False
        self._open_retries = 0
        self._closing: frozenset[str] = frozenset()
        self._renewal: Renewal | None = None
        self._ending: Ending | None = None

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
        action = _action_of((self.state, type(event)))
        if action is None:
            raise UnexpectedEvent(f"{type(event).__name__} while {self.state.value}")
        self._now = now
        self._out.begin(now)
        action(self, event)
        return self._out.take()

    def accepts(self, resume_key: str) -> bool:
        """Whether a client that shows this key may take the session over."""
        return self._keys is not None and self._keys.accepts(resume_key)

    def record(self, expires_at: float | None = None) -> SessionRecord:
        """What the store is to keep of the session as it is."""
        return SessionRecord(
            id=self.id,
            route=self.policy.route,
            principal=self.principal,
            model=self._model,
            expires_at=expires_at,
        )

    # Opening

    def _start(self, event: on.Start) -> None:
        """Open the session, at the model too if the route opens it at once."""
        self._keys = ResumeKeys(event.resume_key)
        if self.policy.opening is Opening.CALL and self.policy.open_on_connect:
            self._open()
        else:
            self._announce()
            self._next()

    def _open(self) -> None:
        self.state = State.OPENING if self._renewal is None else State.RENEWING
        self._opening = True
        self._out.do(do.OpenSession())

    def _opened(self, event: on.Opened) -> None:
        """Use the model's session, tell it what a lost one knew, send the first turn that waits."""
        self._opening = False
        self._open_retries = 0
        self._use(event.model)
        if self._now >= self._use_until:
            self._end("expired")  # before it could be used: the next would be no better
        elif self._renewal is None:
            self._next()
        else:
            self._replay(self._renewal)

    def _opened_closing(self, event: on.Opened) -> None:
        """Close what the model has opened."""
        self._opening = False
        self._model = event.model
        self._wind_up()

    def _opened_late(self, event: on.Opened) -> None:
        """Close what the model has opened for nobody."""
        self._close_at_model(event.model)

    def _open_failed(self, event: on.OpenFailed) -> None:
        """Try again in a while, or fail what waits; without any session yet, end the connection."""
        self._opening = False
        if self._retry_later(event.failure, self._open_retries):
            self._open_retries += 1
            return
        self._open_retries = 0
        self._fail_waiting(event.failure)
        if self._announced:
            self._next()
            return
        self._out.tell_failure(event.failure)
        close = ERRORS[event.failure.code].close
        if close is not CloseCode.TOO_MANY:
            close = CloseCode.UNAVAILABLE
        self._finish(close, event.failure.code)

    def _use(self, model: ModelSession) -> None:
        self._model = model
        ends = model.expires_at
        if ends is None:
            ends = self._now + self.policy.session_seconds
        self._expires_at = ends
        self._used_at = self._now
        self._out.do(do.Persist(self.record(ends)))
        self._out.set_timer(Timer.EXPIRY, self._use_until)
        if self.policy.on_expiry is Recovery.NONE:
            notice = self._use_until - self.policy.expiring_notice_seconds
            self._out.set_timer(Timer.EXPIRING, notice)
        self._out.set_timer(Timer.IDLE, self._now + self.policy.idle_seconds)
        if not self._announced:
            self._announce()
        elif self._renewal is None:
            ends_at = rfc3339(model.expires_at)
            self._out.emit(wire.SessionUpdated(event=self._out.next_event, expires_at=ends_at))

    @property
    def _use_until(self) -> float:
        return self._expires_at - self.policy.expiry_margin_seconds

    def _announce(self) -> None:
        self._announced = True
        policy = self.policy
        self._out.emit(
            wire.SessionOpened(
                event=self._out.next_event,
                session_id=self.id,
                resume_key="",  # the connection puts in its own: the log outlives it
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

    # Turns

    def _send(self, message: wire.MessageSend) -> None:
        """Accept the message, or say why not; send it if nothing is ahead of it."""
        if self._known(message):
            return
        options = options_of(message)
        refused = refused_field(options, self.policy)
        if refused is not None:
            text = f"The route {self.policy.route} does not let clients set `{refused}`."
            self._out.refuse(ErrorCode.FORBIDDEN, text, message.id)
            return
        if self.policy.json_only and message.text is not UNSET and message.content_type is UNSET:
            text = (
                f"The route {self.policy.route} takes JSON, which `text` is not: send `json`, or "
                "give the route a `request`, or a `format` with one."
            )
            self._out.refuse(ErrorCode.VALIDATION_ERROR, text, message.id)
            return
        if len(self.turns.queue) >= self.policy.queued_messages:
            text = "Too many messages wait; send it again when one has ended."
            self._out.refuse(ErrorCode.QUEUE_FULL, text, message.id)
            return
        ahead = self.turns.pending
        words = self._keeps_words or self.policy.template is not None
        said = message.text if words and message.text is not UNSET else None
        body, kind = body_of(message)
        body_digest = digest(body)
        request = request_of(
            message, self.policy, options=options, body=body, kind=kind, sha256=body_digest
        )
        self.turns.add(message.id, said, body_digest, request)
        accepted = wire.MessageAccepted(event=self._out.next_event, id=message.id, queued=ahead)
        self._out.emit(accepted)
        if self.state is State.READY:
            self._next()

    def _send_late(self, message: wire.MessageSend) -> None:
        """Refuse the message, since the session is ending; one that it has had is a duplicate."""
        if not self._known(message):
            ending = self._ended_by
            self._out.refuse(ending.code, ending.message, message.id)

    def _known(self, message: wire.MessageSend) -> bool:
        """Whether the id was accepted before; the client is then told what became of it."""
        known = self.turns.find(message.id)
        if known is None:
            return False
        if digest(body_of(message)[0]).startswith(known.digest):
            self._out.do(do.Tell(wire.MessageDuplicate(id=known.id, status=known.status)))
        else:
            text = "`id` was used for another body"
            self._out.refuse(ErrorCode.BAD_MESSAGE, text, message.id)
        return True

    def _cancel(self, message: wire.MessageCancel) -> None:
        """Remove the turn if it waits, close its request if it runs, else say what became of it."""
        turn = self.turns.find(message.id)
        if turn is None:
            self._out.refuse(ErrorCode.UNKNOWN_MESSAGE, "No message has this `id`.", message.id)
        elif turn.status == "queued":
            next_up = self.turns.queue[0]
            self._end_turn(turn, "cancelled", outcome=Outcome.NOT_INVOKED)
            if self.state is State.RETRYING and turn is next_up:
                self._out.clear_timer(Timer.RETRY)
                self._next()
        elif turn.status == "running":
            turn.cancelling = True
            self._out.do(do.CancelInvoke(turn.number))
        else:
            self._out.do(do.Tell(wire.MessageDuplicate(id=turn.id, status=turn.status)))

    def _acknowledge(self, message: wire.EventAck) -> None:
        """Forget the events that the client has."""
        if message.event > self.log.last:
            text = f"`event` is past the newest event, {self.log.last}"
            self._out.refuse(ErrorCode.BAD_MESSAGE, text)
        else:
            self.log.forget(message.event)

    def _next(self) -> None:
        """Send the turn that has waited longest, if the session can carry it."""
        self.state = State.READY
        if self._model is not None and self._now >= self._use_until:
            self._expired()
            if self._ending is not None:
                return
        if not self.turns.queue:
            self._used_at = self._now
            if self._abandoned:
                self._end("idle")
        elif self._model is None and self._renewal is not None:
            self._renew(self._renewal)
        elif self._model is None and self.policy.opening is Opening.CALL:
            self._open()
        else:
            self.state = State.RUNNING
            turn = self.turns.begin(self._now)
            self._compose(turn)
            self._out.do(do.Invoke(turn.number, turn.request, self._model))

    def _compose(self, turn: Turn) -> None:
        """Make the body of a turn that has words, where the route has a template for them."""
        policy, said = self.policy, turn.said
        if said is None or policy.template is None:
            return
        lines: list[Line] = []
        if policy.sends_history:
            if policy.system is not None:
                lines.append(("system", policy.system))
            lines += self._transcript.lines()
            turn.dropped = self._transcript.dropped
        lines.append(("user", said))
        values = {"text": said, "stream": turn.request.stream, **told(lines, policy.template)}
        body = msgspec.json.encode(fill(policy.template, values))
        turn.request = structs.replace(turn.request, body=body)

    def _parts(self, event: on.ReplyParts) -> None:
        """Pass parts of the running turn's reply on."""
        turn = self.turns.running
        if turn is None or turn.number != event.turn:
            return  # of a replay that the session's end has overtaken
        first, index = self._out.next_event, turn.deltas
        self._out.emit(
            *[
                wire.MessageDelta(event=first + number, id=turn.id, index=index + number, text=part)
                if isinstance(part, str)
                else wire.MessageDelta(
                    event=first + number, id=turn.id, index=index + number, base64=part
                )
                for number, part in enumerate(event.parts)
            ]
        )
        turn.deltas += len(event.parts)
        if self._keeps_words:
            for part in event.parts:
                if isinstance(part, str):
                    turn.hear(part, self.policy.transcript_bytes)

    def _replied(self, event: on.ReplyEnded) -> None:
        """End the turn with its reply, then go on with what the reply says of the session."""
        self._complete(self._running(event.turn), event.reply)
        if self._goes_on(event.reply):
            self._next()

    def _goes_on(self, reply: ModelReply) -> bool:
        """Take in what a reply says of the model's session; False where that ends this one."""
        if reply.session_closed:
            self._model = None
            self._end("model")
            return False
        if reply.new_session is not None:
            self._use(reply.new_session)
        if self._model is None and self.policy.opening is Opening.TURN:
            self._end("lost")  # it was to open a session, and has not
            return False
        return True

    def _complete(self, turn: Turn, reply: ModelReply) -> None:
        fields = reply_fields(reply, self.policy)
        self._end_turn(turn, "completed", reply=fields)
        if self._keeps_words:
            self._keep_words(turn, fields.get("text"))
        elif self._replays:
            self._transcript.add(Exchange(turn.request))

    def _failed(self, event: on.InvokeFailed) -> None:
        """Send the turn again where that is safe, else end it; see to a session that is lost."""
        turn, failure = self._running(event.turn), event.failure
        lost = failure.code is ErrorCode.SESSION_LOST
        resend = failure.outcome is Outcome.NOT_INVOKED and not turn.cancelling
        if resend and self._retry_later(failure, turn.retries):
            turn.retries += 1
            self.turns.put_back(turn)
            self.state = State.RETRYING
        elif lost and self.policy.on_lost is not Recovery.NONE and not turn.renewed:
            if resend:
                turn.renewed = True  # once: a model that loses every session is not to be hammered
                self.turns.put_back(turn)
            else:
                self._fail(turn, failure)
            self._without_model(Renewal(self.policy.on_lost, None))
            self._next()
        else:
            self._fail(turn, failure)
            if lost:
                self._model = None
                self._end("lost")
            elif self._model is None and self.policy.opening is Opening.TURN:
                self._fail_waiting(failure)  # each would open another session
                self._next()
            else:
                self._next()

    def _fail(self, turn: Turn, failure: Failure) -> None:
        if turn.cancelling:
            self._end_turn(turn, "cancelled", outcome=failure.outcome)
            if turn.deltas:
                self._keep_stopped(turn)
        else:
            self._end_turn(turn, "failed", failure=failure)

    def _retry_later(self, failure: Failure, retries: int) -> bool:
        """Set the alarm for another try, where the call is safe to make again and may succeed."""
        policy = self.policy
        wait = failure.retry_after or 0.0
        if not failure.may_retry or retries >= policy.retries or wait > policy.retry_max_seconds:
            return False
        spread = min(policy.retry_seconds * 2**retries, policy.retry_max_seconds)
        self._out.set_timer(Timer.RETRY, self._now + wait, spread)
        return True

    def _fail_waiting(self, failure: Failure) -> None:
        """Fail what waits for a session; the model has seen the opening at most, none of these."""
        not_sent = structs.replace(failure, outcome=Outcome.NOT_INVOKED)
        for turn in list(self.turns.queue):
            self._end_turn(turn, "failed", failure=not_sent)

    def _cancelled(self, event: on.InvokeCancelled) -> None:
        """End the turn as cancelled; unless parts of its reply came, nobody knows more."""
        turn = self._running(event.turn)
        self._end_turn(turn, "cancelled", outcome=turn.outcome_if_cut)
        self._keep_stopped(turn)
        self._next()

    def _running(self, number: int) -> Turn:
        turn = self.turns.running
        if turn is None or turn.number != number:
            raise UnexpectedEvent(f"turn {number} is not at the model")
        return turn

    def _end_turn(
        self,
        turn: Turn,
        status: wire.Status,
        *,
        reply: ReplyFields | None = None,
        failure: Failure | None = None,
        outcome: Outcome | None = None,
    ) -> None:
        self.turns.end(turn, status)
        duration = 0.0 if turn.started is None else self._now - turn.started
        self._out.emit(
            wire.MessageDone(
                event=self._out.next_event,
                id=turn.id,
                status=status,
                deltas=turn.deltas,
                duration_ms=round(duration * 1000),
                dropped_turns=turn.dropped or UNSET,
                error=_error_object(failure) if failure else UNSET,
                outcome=outcome or UNSET,
                **(reply or {}),
            )
        )

    def _keep_words(self, turn: Turn, answered: str | None) -> None:
        """Keep what was said in a turn, to tell it again.

        Args:
            turn: It has ended.
            answered: The model's words, where they did not come in parts.
        """
        if turn.said is not None:
            request = structs.replace(turn.request, body=b"", sha256=None)
            words = "".join(turn.heard or ()) if answered is None else answered
            self._transcript.add(Exchange(request, turn.said, words))
        elif not self.policy.sends_history:
            self._transcript.leave_out()

    def _keep_stopped(self, turn: Turn) -> None:
        """Keep a turn with what the client has heard of it."""
        if self._keeps_words:
            self._keep_words(turn, None)
        elif self._replays:
            self._transcript.leave_out()  # answered in full, it might take for ever

    # Expiry and renewal

    def _expire(self, _event: on.Evicted) -> None:
        """The store has dropped the session: treat it as expired."""
        self._expired()

    def _expired(self) -> None:
        """End the session, or let go of the model's so that the next turn gets another."""
        if self.policy.on_expiry is Recovery.NONE or self.state is State.RENEWING:
            self._end("expired")
        elif self.state is State.RUNNING:
            self._out.do(do.Persist(self.record()))  # `_next` sees that it may not be used again
        elif self._model is not None:
            self._close_at_model(self._model)
            self._without_model(Renewal(self.policy.on_expiry, self._expires_at))

    def _without_model(self, renewal: Renewal) -> None:
        self._model = None
        self._renewal = renewal
        self._out.clear_timer(Timer.EXPIRY)
        self._out.clear_timer(Timer.EXPIRING)
        self._out.do(do.Persist(self.record()))

    def _renew(self, renewal: Renewal) -> None:
        self.state = State.RENEWING
        if self.policy.opening is Opening.CALL:
            self._open()
        else:
            self._replay(renewal)

    def _replay(self, renewal: Renewal) -> None:
        """Tell the new session the next of what the old one knew; when that is all, go on."""
        if renewal.steps is None:
            renewal.steps = deque(self._to_replay(renewal))
        if renewal.steps:
            renewal.running = self.turns.number()
            self._out.do(do.Invoke(renewal.running, renewal.steps[0], self._model))
            return
        self._renewal = None
        self._out.emit(
            wire.SessionRenewed(
                event=self._out.next_event,
                reason=renewal.reason(self._now),
                context=self._context_after(renewal),
                expires_at=rfc3339(self._model.expires_at if self._model else None),
            )
        )
        self._next()

    def _context_after(self, renewal: Renewal) -> wire.Context:
        if renewal.recovery is not Recovery.REPLAY and not self.policy.sends_history:
            return "lost"
        return "replayed" if self._transcript.whole else "partial"

    def _to_replay(self, renewal: Renewal) -> list[ModelRequest]:
        if renewal.recovery is not Recovery.REPLAY or self.policy.sends_history:
            return []  # the next turn carries the history
        if self.policy.seed is None:
            return self._transcript.turns()
        return self._transcript.seed(self.policy.seed)

    def _replayed(self, event: on.ReplyEnded) -> None:
        """Go on with the replay; its replies are for nobody."""
        renewal = self._replaying(event.turn)
        if not self._goes_on(event.reply):
            return
        assert renewal.steps  # noqa: S101 - the one that has been answered
        renewal.steps.popleft()
        renewal.retries = 0
        self._replay(renewal)

    def _replay_failed(self, event: on.InvokeFailed) -> None:
        """Try again where that is safe; half a context is none, so else end the session."""
        renewal = self._replaying(event.turn)
        if self._retry_later(event.failure, renewal.retries):
            renewal.retries += 1
            return
        if event.failure.code is ErrorCode.SESSION_LOST:
            self._model = None
        self._end("lost")

    def _replaying(self, number: int) -> Renewal:
        renewal = self._renewal
        if renewal is None or renewal.running != number:
            raise UnexpectedEvent(f"replay {number} is not at the model")
        renewal.running = None
        return renewal

    # The end

    def _close(self, _message: wire.SessionClose) -> None:
        """End the session as the client asks."""
        self._end("client")

    def _drain(self, event: on.Drain) -> None:
        """Let the turn at the model finish, unless time is up; nothing new is begun."""
        self._end("operator", finish_turn=not event.force)

    def _drain_closing(self, event: on.Drain) -> None:
        """Let it close; where time is up, cancel what is still at the model."""
        if event.force:
            self._cancel_call()

    def _end(self, reason: wire.ClosedReason, *, finish_turn: bool = False) -> None:
        self._ending = ENDINGS[reason]
        self.state = State.CLOSING
        for turn in list(self.turns.queue):
            self._end_by_ending(turn, Outcome.NOT_INVOKED)
        self._out.clear_timers()
        if self.turns.running is None or not finish_turn:
            self._cancel_call()
            self._out.set_timer(Timer.CLOSING, self._now + self.policy.close_seconds)
        self._wind_up()

    def _cancel_call(self) -> None:
        number = self._at_model
        if number is not None:
            self._out.do(do.CancelInvoke(number))

    @property
    def _at_model(self) -> int | None:
        """The number of the call that is at the model, a turn's or a replay's."""
        if self.turns.running is not None:
            return self.turns.running.number
        return None if self._renewal is None else self._renewal.running

    def _wind_up(self) -> None:
        """Close at the model when nothing is under way there, and finish when that is done."""
        if self._at_model is not None or self._opening:
            return
        if self._model is not None:
            self._close_at_model(self._model)
            self._model = None
        if self._closing:
            self._out.set_timer(Timer.CLOSING, self._now + self.policy.close_seconds)
        else:
            self._finish_ending()

    def _close_at_model(self, model: ModelSession) -> None:
        self._closing |= {model.id}
        self._out.do(do.CloseSession(model))

    def _end_by_ending(self, turn: Turn, outcome: Outcome) -> None:
        ending = self._ended_by
        if ending.status == "cancelled":
            self._end_turn(turn, "cancelled", outcome=outcome)
        else:
            failure = Failure(code=ending.code, message=ending.message, outcome=outcome)
            self._end_turn(turn, "failed", failure=failure)

    def _settled(self, number: int) -> Turn | None:
        """The turn whose call has come to an end; None where that was a replay's."""
        if self._renewal is not None and self._renewal.running == number:
            self._renewal.running = None
            return None
        return self._running(number)

    def _replied_closing(self, event: on.ReplyEnded) -> None:
        """End the turn with its reply, and close."""
        turn, reply = self._settled(event.turn), event.reply
        if turn is not None:
            self._complete(turn, reply)
        if reply.new_session is not None:
            self._model = reply.new_session
        if reply.session_closed:
            self._model = None
        self._wind_up()

    def _failed_closing(self, event: on.InvokeFailed) -> None:
        """End the turn as failed, and close."""
        turn = self._settled(event.turn)
        if turn is not None:
            self._fail(turn, event.failure)
        if event.failure.code is ErrorCode.SESSION_LOST:
            self._model = None
        self._wind_up()

    def _cancelled_closing(self, event: on.InvokeCancelled) -> None:
        """End the turn as the session's end says, and close."""
        turn = self._settled(event.turn)
        if turn is not None:
            self._end_by_ending(turn, turn.outcome_if_cut)
        self._wind_up()

    def _open_failed_closing(self, _event: on.OpenFailed) -> None:
        """There is nothing to close."""
        self._opening = False
        self._wind_up()

    def _close_ended(self, event: on.CloseEnded) -> None:
        """A session is closed at the model: finish if it was the last thing to do."""
        self._closing -= {event.model.id}
        self._wind_up()

    def _close_ended_aside(self, event: on.CloseEnded) -> None:
        """A session that another has replaced, or that came too late, is closed at the model."""
        self._closing -= {event.model.id}

    def _replied_late(self, event: on.ReplyEnded) -> None:
        """Drop the reply; close a session that it has opened."""
        new = event.reply.new_session
        if new is not None and not event.reply.session_closed:
            self._close_at_model(new)

    def _finish_ending(self) -> None:
        ending = self._ended_by
        if not self._announced:
            self._finish(ending.close, ending.close_reason)
            return
        self._out.emit(wire.SessionClosed(event=self._out.next_event, reason=ending.reason))
        if not self.policy.resume_seconds or not self._may_come_back:
            self._finish(ending.close, ending.close_reason)
            return
        # The store keeps the session for as long as its log is to be had.
        self.state = State.ENDED
        self._out.clear_timers()
        until = self._now + self.policy.resume_seconds
        self._out.do(do.CloseSocket(ending.close, ending.close_reason))
        self._out.do(do.Persist(self.record(until)))
        self._out.set_timer(Timer.DETACHED, until)

    @property
    def _may_come_back(self) -> bool:
        """Whether a client may want the last events: not one that asked for the end and is there
        to see it, nor when the gateway itself goes.
        """
        if self._ended_by.reason == "client":
            return self._detached_at is not None
        return self._ended_by.reason != "operator"

    def _finish(self, close: CloseCode, reason: str) -> None:
        self.state = State.CLOSED
        self._out.clear_timers()
        self._out.do(do.CloseSocket(close, reason))
        self._out.do(do.Forget())

    def _forget(self, _event: SessionEvent) -> None:
        """Nobody has come back for the last events."""
        self.state = State.CLOSED
        self._out.clear_timers()
        self._out.do(do.Forget())

    def _acknowledge_ended(self, message: wire.EventAck) -> None:
        """Forget the events that the client has, and the session when it has all."""
        self._acknowledge(message)
        if self.log.first > self.log.last:
            self._forget(message)

    @property
    def _ended_by(self) -> Ending:
        assert self._ending is not None  # noqa: S101 - set on the way into this state
        return self._ending

    # Connections and timers

    def _attach(self, event: on.Attached) -> None:
        """Go on over the new connection, from the event that the client has."""
        assert self._keys is not None  # noqa: S101 - it has accepted the key
        self._keys.rotate(event.resume_key, event.new_key)
        self._detached_at = None
        after = max(event.last_event, self.log.first - 1)
        lost = (event.last_event + 1, after) if after > event.last_event else None
        self.log.forget(event.last_event)
        self._out.do(
            do.Attach(
                wire.SessionResumed(
                    session_id=self.id,
                    resume_key=event.new_key,
                    expires_at=rfc3339(self._model.expires_at if self._model else None),
                    last_event=self.log.last,
                    lost=lost,
                ),
                after=after,
            )
        )
        if self.state is State.ENDED:
            self._out.do(do.CloseSocket(self._ended_by.close, self._ended_by.close_reason))
        else:
            self._out.clear_timer(Timer.DETACHED)

    def _confirm(self, _event: on.Confirmed) -> None:
        """Let no key but the newest be good."""
        assert self._keys is not None  # noqa: S101 - there is a client
        self._keys.confirm()

    def _detached(self, _event: on.Detached) -> None:
        """Go on without a connection, as long as one may come back."""
        self._detached_at = self._now
        if self.state is State.READY and self._abandoned:
            self._end("idle")
        else:
            self._out.set_timer(Timer.DETACHED, self._now + self.policy.resume_seconds)

    def _detached_closing(self, _event: on.Detached) -> None:
        """Keep the last events for when the client comes back."""
        self._detached_at = self._now

    @property
    def _abandoned(self) -> bool:
        if self._detached_at is None:
            return False
        return self._now >= self._detached_at + self.policy.resume_seconds

    def _timer(self, event: on.TimerFired) -> None:
        """Expire, warn, try again, or end what nobody uses."""
        self._out.fired(event.timer)
        match event.timer:
            case Timer.EXPIRY:
                self._expired()
            case Timer.EXPIRING:
                ends = rfc3339(self._expires_at) or ""
                event_number = self._out.next_event
                self._out.emit(wire.SessionExpiring(event=event_number, expires_at=ends))
            case Timer.RETRY if self.state is State.RETRYING:
                self._next()
            case Timer.RETRY if self._renewal is not None and self._renewal.steps is not None:
                self._replay(self._renewal)
            case Timer.RETRY:
                self._open()
            case Timer.IDLE if self.state is State.READY:
                ends_at = self._used_at + self.policy.idle_seconds
                if self._now >= ends_at:
                    self._end("idle")
                else:
                    self._out.set_timer(Timer.IDLE, ends_at)
            case Timer.IDLE:
                self._out.set_timer(Timer.IDLE, self._now + self.policy.idle_seconds)
            case Timer.DETACHED if self.state is State.READY:
                self._end("idle")
            case _:
                pass  # detached with turns to finish: `_next` ends it after the last

    def _timer_closing(self, event: on.TimerFired) -> None:
        """Wait no longer for the model."""
        self._out.fired(event.timer)
        self._cancel_call()
        turn = self.turns.running
        if turn is not None:
            self._end_by_ending(turn, turn.outcome_if_cut)
        if self._model is not None:
            self._close_at_model(self._model)
            self._model = None
        self._finish_ending()

    def _ignore(self, _event: SessionEvent) -> None:
        """Nothing is left to do."""


def _error_object(failure: Failure) -> wire.ErrorObject:
    return wire.ErrorObject(
        code=failure.code,
        message=failure.message,
        retryable=failure.may_retry,
        outcome=failure.outcome,
        retry_after=UNSET if failure.retry_after is None else failure.retry_after,
    )


_action_of: Callable[[tuple[State, type]], Callable[[Session, Any], None] | None] = {
    key: getattr(Session, f"_{transition.action}") for key, transition in TABLE.items()
}.get
