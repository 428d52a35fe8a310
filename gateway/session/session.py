"""A session as a state machine without I/O: events and the time go in, effects come out.

The table in ``table.py`` says what each event does in each state; the model session has its own
state machine, in ``upstream.py``. Only the session changes its state, and it never waits, so each
race of the outside world is an order of events here.
"""

from collections.abc import Callable
from typing import Any

from gateway.errors import ERRORS, CloseCode, ErrorCode, Failure, Outcome
from gateway.protocol import messages as wire
from gateway.session import effects as do
from gateway.session import events as on
from gateway.session.clients import Clients
from gateway.session.endings import DRAINED, ENDINGS, Ending
from gateway.session.events import ClientId, SessionEvent, Timer
from gateway.session.history import History
from gateway.session.output import Output, error_message
from gateway.session.policy import Opening, Policy, Recovery
from gateway.session.ports import ModelSession
from gateway.session.table import TABLE, State
from gateway.session.transitions import UnexpectedEvent
from gateway.session.turn_queue import TurnQueue
from gateway.session.turns import Turns
from gateway.session.upstream import Upstream, UpstreamEvent, retry_later
from gateway.session.upstream_table import (
    Acquired,
    GiveUp,
    Gone,
    Lost,
    Prepare,
    Release,
    Replied,
    Sign,
    Unavailable,
    Usable,
)

GATEWAY_LOST = Failure(
    code=ErrorCode.GATEWAY_LOST,
    message="The gateway that sent this to the model is gone; the model may have answered.",
    outcome=Outcome.UNKNOWN,
)
"""The failure of a turn whose process has crashed."""

MAX_UNSTORED = 1_000_000
"""How many events a process can have sent to clients, without storing them, before it crashed."""

_AT_REST = (State.READY, State.RETRYING, State.ENDED)


class Session:
    """One client's conversation with a stateful model.

    Args:
        session_id: The gateway's id of the session.
        principal: The session's owner.
        policy: The route's rules.
    """

    __slots__ = (
        "announced",
        "clients",
        "drained",
        "ending",
        "held",
        "history",
        "id",
        "inherited",
        "out",
        "policy",
        "principal",
        "state",
        "sure_until",
        "turns",
        "upstream",
        "used_at",
    )

    def __init__(self, *, session_id: str, principal: str, policy: Policy) -> None:
        self.id = session_id
        self.principal = principal
        self.policy = policy
        self.state = State.OPENING
        self.out = Output()
        self.history = History(policy)
        queue = TurnQueue(remembered=policy.remembered_messages)
        self.turns = Turns(policy, self.history, queue, self.out)
        self.upstream = Upstream(policy, self.history, queue, self.out)
        self.clients = Clients(policy, self.out)
        self.announced = False
        self.drained = False
        """Whether it ends because the gateway is draining: nobody can resume it for the last
        events."""
        self.held = False
        """Whether it is about to move to another process."""
        self.inherited = False
        """Whether it was restored from what a crashed process had stored."""
        self.sure_until: int | None = None
        """The newest stored event, if the previous process has crashed and may have sent clients
        events after it; else None."""
        self.used_at = 0.0
        self.ending: Ending | None = None

    def __repr__(self) -> str:
        """State and counts, no content."""
        return f"<Session {self.id} {self.state.value} turns={self.turns.queue.pending}>"

    def handle(
        self, event: SessionEvent, now: float, wall: float, client: ClientId | None = None
    ) -> list[do.Effect]:
        """Handle an event.

        Args:
            event: The event.
            now: When it happened, in seconds of a monotonic clock, which timers use too.
            wall: The same in seconds since the epoch, for what is shown or stored.
            client: The sender, if the event is a client's message; receives its errors.

        Returns:
            The effects, to be applied in this order.

        Raises:
            UnexpectedEvent: The event can't happen in this state.
        """
        out = self.out
        kind: type | Timer = type(event)
        if kind is on.TimerFired:
            kind = event.timer  # type: ignore[union-attr] # by its type
            del out.timers[kind]
        action = _action_of((self.state, kind))
        if action is None:
            raise UnexpectedEvent(f"{type(event).__name__} while {self.state.value}")
        out.begin(now, wall, client)
        action(self, event)
        return out.take()

    def accepts(self, shown: bytes) -> bool:
        """Whether a client that presents the key with this digest may resume the session."""
        return self.clients.accept(shown)

    def knows(self, message_id: str) -> bool:
        """Whether a message with this id was accepted before, and is remembered."""
        return self.turns.queue.find(message_id) is not None

    def may_have_told(self, event: int) -> bool:
        """Whether a client can have received the event of this number."""
        last = self.out.last if self.sure_until is None else self.sure_until + MAX_UNSTORED
        return event <= last

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or is ending."""
        return self.ending is not None

    @property
    def is_closed_by_client(self) -> bool:
        """Whether a client has closed it; it may not have received the last events yet."""
        return self.state is State.ENDED and self._ended_by.reason == "client"

    @property
    def model(self) -> ModelSession | None:
        """Its model session."""
        return self.upstream.model

    @property
    def at_model(self) -> frozenset[str]:
        """The ids of its model sessions that are open or being closed."""
        upstream = self.upstream
        return upstream.closing | ({upstream.model.id} if upstream.model else set())

    # The model's side

    def _start(self, event: on.Start) -> None:
        """Open the session, at the model too unless the route waits for the first message."""
        if event.told and self.policy.telling is None:
            raise UnexpectedEvent("this route's model can't be told what was said before")
        self.clients.start(event)
        if self.history.begin(event.told):
            self.upstream.branch()
            self.state = State.RENEWING
        if self.policy.opening is Opening.CALL and self.policy.open_on_connect:
            self._heed(self.upstream.handle(Prepare(wanted=True)))
        else:
            self._announce()
            self._next()

    def _announce(self) -> None:
        self.announced = True
        policy = self.policy
        self.out.emit(
            wire.SessionOpened(
                event=self.out.last + 1,
                session_id=self.id,
                resume_key="",  # each reader adds its own: the log outlives a key
                expires_at=self.upstream.expires_at,
                route=policy.route,
                limits=wire.Limits(
                    message_bytes=policy.message_bytes,
                    queued_messages=policy.queued_messages,
                    resume_seconds=policy.resume_seconds,
                ),
                heartbeat_seconds=policy.heartbeat_seconds,
            )
        )

    def _model_says(self, event: UpstreamEvent) -> None:
        """Pass it to the session at the model; then send queued turns, fail them, or end."""
        self._heed(self.upstream.handle(event))

    def _heed(self, signs: tuple[Sign, ...]) -> None:
        for sign in signs:
            match sign:
                case Acquired():
                    self._acquired(sign)
                case Usable():
                    self._next()
                case Unavailable():
                    self._unavailable(sign.failure)
                case Gone():
                    self._end(sign.reason)
                case _:
                    self._finish_ending()

    def _acquired(self, sign: Acquired) -> None:
        self.out.set_timer(Timer.IDLE, self.out.now + self.policy.idle_seconds)
        if not self.announced:
            self._announce()
        elif not sign.renewed:
            ends = self.upstream.expires_at
            self.out.emit(wire.SessionUpdated(event=self.out.last + 1, expires_at=ends))

    def _unavailable(self, failure: Failure) -> None:
        """Fail what waits; without any session yet, end the connection."""
        self.turns.fail_waiting(failure)
        if self.announced:
            self._next()
            return
        for client in self.clients.readers:
            self.out.do(do.Tell(client, error_message(failure)))
        close = ERRORS[failure.code].close
        if close is not CloseCode.TOO_MANY:
            close = CloseCode.UNAVAILABLE
        self._finish(close, failure.code)

    def _expire_running(self, event: on.TimerFired) -> None:
        """End the session, or renew it after the turn has ended."""
        if self.policy.on_expiry is Recovery.NONE:  # else `_next` notices the expiry
            self._model_says(event)

    # Turns

    def _send(self, message: wire.MessageSend) -> None:
        """Accept or refuse the message."""
        self.clients.seen()
        self.turns.accept(message)

    def _send_ready(self, message: wire.MessageSend) -> None:
        """Accept the message and send it, or refuse it."""
        self._send(message)
        if self.turns.queue.waiting:
            self._next()

    def _send_late(self, message: wire.MessageSend) -> None:
        """Refuse the message, since the session is ending; report a known one as a duplicate."""
        if not self.turns.is_known(message):
            self.out.refuse(self._ended_by.code, self._ended_by.message, message.id)

    def _cancel(self, message: wire.MessageCancel) -> None:
        """Remove a queued turn, cancel the call of a running one, else report its status."""
        self.turns.cancel(message)

    def _cancel_retrying(self, message: wire.MessageCancel) -> None:
        """The same; if it was the turn to be retried, continue with the next one."""
        next_up = self.turns.queue.next_up
        self.turns.cancel(message)
        if self.turns.queue.next_up is not next_up:
            self.out.clear_timer(Timer.RETRY_TURN)
            self._next()

    def _send_again(self, _event: on.TimerFired) -> None:
        """Retry the turn."""
        self._next()

    def _next(self) -> None:
        """Send the turn that has waited longest, if the session can carry it."""
        self.state = State.READY
        waiting, upstream = self.turns.queue.waiting, self.upstream
        if self.held and waiting:
            return
        if not upstream.is_usable:
            signs = upstream.handle(Prepare(wanted=bool(waiting)))
            if not signs:
                self.state = State.RENEWING if upstream.renewal else State.OPENING
                return
            if isinstance(signs[0], Gone):
                self._end(signs[0].reason)
                return
        if waiting:
            self.state = State.RUNNING
            self.turns.begin(upstream.model, upstream.usable_until)
        else:
            self.used_at = self.out.now
            if self.clients.absent_since is not None:
                self._end_if_abandoned()

    def _parts(self, event: on.ReplyParts) -> None:
        """Pass on parts of the running turn's reply."""
        self.turns.take_parts(event.turn, event.parts)

    def _submitted(self, event: on.Submitted) -> None:
        """Await the reply to a turn that was submitted asynchronously."""
        self.turns.submit(self.turns.at_model(event.turn), event.receipt)

    def _replied(self, event: on.ReplyEnded) -> None:
        """End the turn with its reply, then apply what the reply says about the session."""
        self.turns.complete(self.turns.at_model(event.turn), event.reply)
        if self.upstream.is_changed_by(event.reply):
            self._heed(self.upstream.handle(Replied(event.reply)))
        if self.ending is None:
            self._next()

    def _failed(self, event: on.InvokeFailed) -> None:
        """Retry the turn if that is safe, else end it; renew or end a lost session."""
        turn, failure = self.turns.at_model(event.turn), event.failure
        policy = self.policy
        lost = failure.code is ErrorCode.SESSION_LOST
        unseen = failure.outcome is Outcome.NOT_INVOKED and turn.receipt is None
        resend = unseen and not turn.cancelling
        if resend and retry_later(self.out, policy, Timer.RETRY_TURN, failure, turn.retries):
            turn.retries += 1
            self.turns.queue.put_back(turn)
            self.state = State.RETRYING
            return
        renew = lost and policy.on_lost is not Recovery.NONE and not turn.renewed
        if renew and resend:
            turn.renewed = True  # once, to not hammer a model that loses every session
            self.turns.queue.put_back(turn)
        else:
            self.turns.fail(turn, failure)
        if lost:
            recovery = policy.on_lost if renew else Recovery.NONE
            self._heed(self.upstream.handle(Lost(recovery)))
        elif self.model is None and policy.opening is Opening.TURN:
            self.turns.fail_waiting(failure)  # each would open another session
        if self.ending is None:
            self._next()

    def _cancelled(self, event: on.InvokeCancelled) -> None:
        """End the turn as cancelled; its outcome depends on whether it was sent and answered."""
        self.turns.cancelled(self.turns.at_model(event.turn), event.outcome)
        self._next()

    # In another process

    @property
    def can_move(self) -> bool:
        """Whether it can move to another process: nothing is in progress at the model that only
        this process can await.
        """
        turn = self.turns.running
        is_awaited = turn is not None and turn.is_awaited and self.state is State.RUNNING
        return (is_awaited or self.state in _AT_REST) and not self.upstream.closing

    def _hold(self, event: on.Hold) -> None:
        """Pause new calls to the model, or resume them."""
        self.held = event.on
        if self.state is State.READY and self.turns.queue.waiting:
            self._next()

    def _adopted(self, event: on.Adopted) -> None:
        """Restart what was in progress, with the clients that are still connected."""
        self._set_up(event)
        self._heed(self.upstream.handle(event))
        if self.ending is not None:
            return
        if self.state is not State.READY:
            self.clients.await_one()
        elif self.turns.queue.waiting:
            self._next()
        else:
            self._end_if_abandoned()

    def _adopted_running(self, event: on.Adopted) -> None:
        """Keep awaiting an asynchronous reply; fail a turn whose call is gone, then continue."""
        turn = self.turns.running
        assert turn is not None  # noqa: S101 - it is at the model
        self._set_up(event)
        self._heed(self.upstream.handle(event))
        self.clients.await_one()
        if turn.receipt is not None and not turn.stopping:
            self.turns.submit(turn, turn.receipt)
        else:
            self._failed(on.InvokeFailed(turn.number, GATEWAY_LOST))

    def _adopted_closing(self, event: on.Adopted) -> None:
        """End the running turn as the reason for closing requires, and close."""
        self._set_up(event)
        turn = self.turns.running
        if turn is not None:
            self.turns.cut(turn, self._ended_by)
        self._heed(self.upstream.handle(event))

    def _adopted_ended(self, event: on.Adopted) -> None:
        """Keep the last events for clients, and repeat the close that was in progress."""
        self._set_up(event)
        self._heed(self.upstream.handle(event))

    def _forgotten(self, _event: on.Forgotten) -> None:
        """End the session: it is not known what the model was sent."""
        self._end("lost")

    def _set_up(self, event: on.Adopted) -> None:
        self.inherited = self.inherited or event.crashed
        turn = self.turns.running
        streamed = turn is not None and turn.request.stream and turn.receipt is None
        if streamed and self.sure_until is None:
            self.sure_until = self.out.last
        for client in self.clients.readers:
            if client not in event.clients:
                self.clients.leave(client)

    # The end

    def _close(self, _message: wire.SessionClose) -> None:
        """End the session at the client's request."""
        self._end("client")

    def _evict(self, _event: on.Evict) -> None:
        """End the session as if its client had asked."""
        self._end("operator")

    def _drain(self, event: on.Drain) -> None:
        """Let the running turn finish unless time is up; start nothing new."""
        self.drained = True
        self._end("operator", finish_turn=not event.force)

    def _drain_closing(self, event: on.Drain) -> None:
        """Let it close; if time is up, cancel the running turn."""
        self.drained = True
        turn = self.turns.running
        if event.force and turn is not None:
            self.turns.stop(turn)

    def _end(self, reason: wire.ClosedReason, *, finish_turn: bool = False) -> None:
        self.ending = DRAINED if self.drained else ENDINGS[reason]
        self.state = State.CLOSING
        self.turns.end_waiting(self.ending)
        self.out.clear_timers()
        running = self.turns.running
        if running is None or not finish_turn:
            if running is not None:
                self.turns.stop(running)
            self.out.set_timer(Timer.CLOSING, self.out.now + self.policy.close_seconds)
        self._heed(self.upstream.handle(Release(busy=running is not None)))

    def _replied_closing(self, event: on.ReplyEnded) -> None:
        """End the turn with its reply, and close."""
        if self.turns.running is not None:
            self.turns.complete(self.turns.at_model(event.turn), event.reply)
        self._model_says(event)

    def _failed_closing(self, event: on.InvokeFailed) -> None:
        """End the turn as failed, and close."""
        if self.turns.running is not None:
            self.turns.fail(self.turns.at_model(event.turn), event.failure)
        self._model_says(event)

    def _cancelled_closing(self, event: on.InvokeCancelled) -> None:
        """End the turn as the reason for closing requires, and close."""
        if self.turns.running is not None:
            self.turns.cut(self.turns.at_model(event.turn), self._ended_by, event.outcome)
        self._model_says(event)

    def _give_up(self, _event: on.TimerFired) -> None:
        """Stop waiting for the model."""
        turn = self.turns.running
        if turn is not None:
            self.turns.cut(turn, self._ended_by)
        self._model_says(GiveUp())
        self._finish_ending()

    def _finish_ending(self) -> None:
        ending = self._ended_by
        if not self.announced:
            self._finish(ending.close, ending.close_reason)
            return
        self.out.emit(wire.SessionClosed(event=self.out.last + 1, reason=ending.reason))
        if not self.policy.resume_seconds or self.drained:
            self._finish(ending.close, ending.close_reason)
            return
        self.state = State.ENDED
        self.out.clear_timers()
        self.out.do(do.CloseClient(ending.close, ending.close_reason))
        self.out.set_timer(Timer.DETACHED, self.out.now + self.policy.resume_seconds)

    def _finish(self, close: CloseCode, reason: str) -> None:
        self.out.do(do.CloseClient(close, reason))
        self._forget(None)

    def _forget(self, _event: object) -> None:
        """Forget the session: no client has resumed it for the last events."""
        self.state = State.CLOSED
        self.out.clear_timers()
        self.out.do(do.Forget())

    @property
    def _ended_by(self) -> Ending:
        assert self.ending is not None  # noqa: S101 - set on the way into this state
        return self.ending

    # The client's side

    def _attach(self, event: on.Attached) -> None:
        """Continue on the new connection, after the last event that the client has."""
        self._catch_up(event.last_event, shared=self.clients.shared)
        self.clients.take_over(event, self.upstream.expires_at)
        self._go_on_with(event.client)

    def _subscribe(self, event: on.Subscribed) -> None:
        """Let a client read along, after the last event that it has or from now on."""
        last = event.last_event
        self._catch_up(self.out.last if last is None else last, shared=True)
        self.clients.subscribe(event.client, self.out.last if last is None else last)
        if self.state is State.ENDED:
            self._go_on_with(event.client)

    def _catch_up(self, last_event: int, *, shared: bool) -> None:
        """Renumber events that no client has received to follow those that a client can have."""
        sure = self.sure_until
        if sure is not None:
            by = MAX_UNSTORED if shared else last_event - sure
            if by > 0:
                self.out.renumber(sure, by)
            self.sure_until = None

    def _go_on_with(self, client: ClientId) -> None:
        if self.state is State.ENDED:
            ending = self._ended_by
            self.out.do(do.CloseClient(ending.close, ending.close_reason, client))
        else:
            self.out.clear_timer(Timer.DETACHED)

    def _confirm(self, _event: on.Confirmed) -> None:
        """Invalidate all resume keys but the newest."""
        self.clients.confirm()

    def _acknowledge(self, message: wire.EventAck) -> None:
        """Forget the events that the client has."""
        self.clients.acknowledge(message)

    def _acknowledge_ended(self, message: wire.EventAck) -> None:
        """Forget the events that the client has, and the session once it has all of them."""
        self.clients.acknowledge(message)
        if message.event == self.out.last:
            self._forget(None)

    def _written(self, event: on.Written) -> None:
        """Forget events that were written, if no client can resume to read them."""
        self.clients.written(event)

    def _detached(self, event: on.Detached) -> None:
        """Continue without a client while one may resume."""
        self.clients.leave(event.client)
        self.clients.await_one()

    def _detached_ready(self, event: on.Detached) -> None:
        """The same, or end the session if no client can resume."""
        self.clients.leave(event.client)
        self._end_if_abandoned()

    def _detached_late(self, event: on.Detached) -> None:
        """Keep the last events for a client that resumes."""
        self.clients.leave(event.client)

    def _end_if_abandoned(self) -> None:
        if self.clients.have_left:
            self._end("idle")
        else:
            self.clients.await_one()

    def _abandoned(self, _event: on.TimerFired) -> None:
        """End the session that its client has left, unless it was used meanwhile."""
        if not self.turns.queue.waiting:  # they can wait here while it is about to move
            self._end_if_abandoned()

    def _abandoned_busy(self, _event: on.TimerFired) -> None:
        """Let accepted turns finish first."""

    def _idle(self, _event: on.TimerFired) -> None:
        """End a session that has been idle for too long."""
        ends = self.used_at + self.policy.idle_seconds
        if self.out.now >= ends:
            self._end("idle")
        else:
            self.out.set_timer(Timer.IDLE, ends)

    def _not_idle(self, _event: on.TimerFired) -> None:
        """Wait again: the session is in use."""
        self.out.set_timer(Timer.IDLE, self.out.now + self.policy.idle_seconds)

    def _ignore(self, _event: SessionEvent) -> None:
        """Do nothing."""


_action_of: Callable[[tuple[State, Any]], Callable[[Session, Any], None] | None] = {
    key: getattr(Session, f"_{transition.action}") for key, transition in TABLE.items()
}.get
