"""The model session as a state machine: opening, expiry, renewal, retries, closing.

It runs within the session's state machine: events go in, effects come out with the session's, and
signs say what they mean for its turns.
"""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from gateway.errors import ErrorCode, Failure
from gateway.protocol import messages as wire
from gateway.session import effects as do
from gateway.session import events as on
from gateway.session.dates import rfc3339
from gateway.session.events import Timer
from gateway.session.history import History
from gateway.session.output import Output
from gateway.session.policy import Opening, Policy, Recovery
from gateway.session.ports import ModelReply, ModelRequest, ModelSession
from gateway.session.transitions import UnexpectedEvent
from gateway.session.turn_queue import TurnQueue
from gateway.session.upstream_table import (
    UPSTREAM,
    Acquired,
    GiveUp,
    Gone,
    Life,
    Lost,
    Prepare,
    Quiet,
    Release,
    Replied,
    Sign,
    Unavailable,
    Usable,
)

Signs = tuple[Sign, ...]

USABLE: Signs = (Usable(),)
QUIET: Signs = (Quiet(),)

UpstreamEvent = (
    Prepare
    | Replied
    | Lost
    | Release
    | GiveUp
    | on.Opened
    | on.OpenFailed
    | on.ReplyEnded
    | on.InvokeFailed
    | on.InvokeCancelled
    | on.CloseEnded
    | on.TimerFired
    | on.Adopted
)


class Renewal(Struct):
    """The replacement of a model session, until the client is told about the new one.

    Attributes:
        recovery: The route's setting.
        expires_at: When the old session expires, by the session's clock; None if it was lost, or
            there was none.
        branches: Whether there was none: an imported conversation is replayed to the first one.
        steps: What remains to be replayed to the new session; None until that is open.
        step: The number of the newest replay step that was sent.
    """

    recovery: Recovery
    expires_at: float | None
    branches: bool = False
    steps: list[ModelRequest] | None = None
    step: int | None = None

    def reason(self, now: float) -> wire.RenewedReason:
        """Return why the old session is gone."""
        if self.expires_at is None:
            return "lost"
        return "expiring" if now < self.expires_at else "expired"


class Upstream:
    """A session's model session, or the attempts to get one.

    Args:
        policy: The route's rules.
        history: What is replayed to a new session.
        turns: Numbers the steps of a replay.
        out: Collects effects.

    Attributes:
        state: Its state.
        model: The model session; None if there is none that may be used.
    """

    __slots__ = (
        "_history",
        "_out",
        "_policy",
        "_turns",
        "closing",
        "ends_at",
        "model",
        "renewal",
        "retries",
        "state",
        "use_until",
    )

    def __init__(self, policy: Policy, history: History, turns: TurnQueue, out: Output) -> None:
        self._policy = policy
        self._history = history
        self._turns = turns
        self._out = out
        self.state = Life.ABSENT
        self.model: ModelSession | None = None
        self.ends_at = 0.0
        """When the model drops it, in seconds since the epoch."""
        self.use_until = 0.0
        """When it must no longer be used, by the session's clock."""
        self.renewal: Renewal | None = None
        """The renewal in progress."""
        self.retries = 0
        """How often the current call was retried."""
        self.closing: frozenset[str] = frozenset()
        """The ids of model sessions that are being closed."""

    @property
    def is_usable(self) -> bool:
        """Whether it is open and has not expired."""
        return self.state is Life.OPEN and self._out.now < self.use_until

    @property
    def usable_until(self) -> float | None:
        """When turns may no longer be sent, by the session's clock; None if it is not open."""
        return None if self.model is None else self.use_until

    def is_changed_by(self, reply: ModelReply) -> bool:
        """Whether a reply to a turn affects the model session: most don't."""
        return (
            reply.new_session is not None
            or reply.session_closed
            or (self.model is None and self._policy.opening is Opening.TURN)
        )

    @property
    def expires_at(self) -> str | None:
        """When it expires, as clients are told; None if the model gave no time."""
        if self.model is None or self.model.expires_at is None:
            return None
        return rfc3339(self.model.expires_at)

    def handle(self, event: UpstreamEvent) -> Signs:
        """Handle an event.

        Returns:
            What it means for the session, in order.

        Raises:
            UnexpectedEvent: The event can't happen in this state.
        """
        cause = event.timer if type(event) is on.TimerFired else type(event)
        action = _action_of((self.state, cause))
        if action is None:
            raise UnexpectedEvent(f"{type(event).__name__} while {self.state.value} at the model")
        return action(self, event)

    # Opening

    def branch(self) -> None:
        """Replay an imported conversation to the model session once it is open."""
        self.renewal = Renewal(Recovery.REPLAY, None, branches=True)

    def _acquire(self, event: Prepare) -> Signs:
        """Open a model session if the queued turn needs one, else let the turn be sent."""
        if not event.wanted:
            return USABLE
        if self._policy.opening is Opening.CALL:
            return self._open()
        if self.renewal is not None:
            return self._replay()
        return USABLE

    def _replace(self, event: Prepare) -> Signs:
        """Replace a session that has expired, or end the conversation."""
        return self._expire() or self._acquire(event)

    def _open(self, _event: object = None) -> Signs:
        """Open a model session."""
        self.state = Life.OPENING
        self._out.do(do.OpenSession())
        return ()

    def _opened(self, event: on.Opened) -> Signs:
        """Use it, after replaying the conversation if there is one to replay."""
        self.retries = 0
        acquired = self._use(event.model)
        if self._out.now >= self.use_until:
            return (
                acquired,
                Gone("expired"),
            )  # before it could be used, and the next one would too
        if self.renewal is None:
            return (acquired, Usable())
        return (acquired, *self._replay())

    def _use(self, model: ModelSession) -> Acquired:
        out, policy = self._out, self._policy
        self.state = Life.OPEN
        self.model = model
        ends = model.expires_at
        self.ends_at = out.wall + policy.session_seconds if ends is None else ends
        self.use_until = out.now + (self.ends_at - out.wall) - policy.expiry_margin_seconds
        out.set_timer(Timer.EXPIRY, self.use_until)
        if policy.on_expiry is Recovery.NONE:
            out.set_timer(Timer.EXPIRING, self.use_until - policy.expiring_notice_seconds)
        renewal = self.renewal
        return Acquired(renewed=renewal is not None and not renewal.branches)

    def _open_failed(self, event: on.OpenFailed) -> Signs:
        """Retry after a wait if that may help."""
        if self._retry_later(Timer.RETRY_OPEN, event.failure):
            return ()
        self.retries = 0
        self.state = Life.ABSENT
        return (Unavailable(event.failure),)

    def _retry_later(self, timer: Timer, failure: Failure) -> bool:
        if not retry_later(self._out, self._policy, timer, failure, self.retries):
            return False
        self.retries += 1
        self.state = Life.WAITING
        return True

    # In use

    def _replied(self, event: Replied) -> Signs:
        """Apply what the reply to a turn says about the session."""
        return self._take_in(event.reply)

    def _take_in(self, reply: ModelReply) -> Signs:
        if reply.session_closed:
            self._drop_model()
            return (Gone("model"),)
        if reply.new_session is not None:
            return (self._use(reply.new_session),)
        if self.model is None and self._policy.opening is Opening.TURN:
            self.state = Life.ABSENT
            return (Gone("lost"),)  # the turn should have opened a session, and has not
        return ()

    def _lost(self, event: Lost) -> Signs:
        """Get another one for the next turn, or end the conversation."""
        if event.recovery is Recovery.NONE:
            self._drop_model()
            return (Gone("lost"),)
        self._renew_later(Renewal(event.recovery, None))
        return ()

    def _expire(self, _event: object = None) -> Signs:
        """Close it and get another one for the next turn, or end the conversation."""
        if self._policy.on_expiry is Recovery.NONE:
            return (Gone("expired"),)
        self._close_model()
        ends = self.use_until + self._policy.expiry_margin_seconds
        self._renew_later(Renewal(self._policy.on_expiry, ends))
        return ()

    def _expire_unused(self, _event: on.TimerFired) -> Signs:
        """Give up: it has expired before it could be used, and so would the next."""
        return (Gone("expired"),)

    def _warn(self, _event: on.TimerFired) -> Signs:
        """Warn the client that it is about to expire."""
        ends = rfc3339(self.ends_at)
        self._out.emit(wire.SessionExpiring(event=self._out.last + 1, expires_at=ends))
        return ()

    def _drop_model(self) -> None:
        self.model = None
        self.state = Life.ABSENT

    def _renew_later(self, renewal: Renewal) -> None:
        self._drop_model()
        self.renewal = renewal
        self._out.clear_timer(Timer.EXPIRY)
        self._out.clear_timer(Timer.EXPIRING)

    # Renewal

    def _replay(self, _event: object = None) -> Signs:
        """Replay the next turn to the new session; after the last one, use it."""
        renewal = self.renewal
        assert renewal is not None  # noqa: S101 - it is what is replayed
        if renewal.steps is None:
            renewal.steps = self._history.to_replay(renewal.recovery)
        if renewal.steps:
            self.state = Life.REPLAYING
            renewal.step = self._turns.number()
            step = do.Invoke(renewal.step, renewal.steps[0], self.model, self.usable_until)
            self._out.do(step)
            return ()
        self.renewal = None
        self._rest()
        if renewal.branches:
            return USABLE  # nothing that its client knew has been replaced
        self._out.emit(
            wire.SessionRenewed(
                event=self._out.last + 1,
                reason=renewal.reason(self._out.now),
                context=self._history.context_after(renewal.recovery),
                expires_at=self.expires_at,
            )
        )
        return USABLE

    def _rest(self) -> None:
        self.state = Life.ABSENT if self.model is None else Life.OPEN

    def _step_replied(self, event: on.ReplyEnded) -> Signs:
        """Continue the replay; its replies are dropped."""
        renewal = self._step_ended(event.turn)
        signs = self._take_in(event.reply)
        if any(isinstance(sign, Gone) for sign in signs):
            return signs
        assert renewal.steps  # noqa: S101 - the one that has been answered
        renewal.steps.pop(0)
        self.retries = 0
        return (*signs, *self._replay())

    def _step_failed(self, event: on.InvokeFailed) -> Signs:
        """Retry if that is safe, now or with the next turn; else end the session."""
        self._step_ended(event.turn)
        failure = event.failure
        if self._retry_later(Timer.RETRY_REPLAY, failure):
            return ()
        if failure.may_retry:
            self._drop_replay()
            return (Unavailable(failure),)
        if failure.code is ErrorCode.SESSION_LOST:
            self.model = None
        self._rest()
        return (Gone("lost"),)

    def _drop_replay(self) -> None:
        """Close the session: half a context is useless, so the next one gets all of it."""
        assert self.renewal is not None  # noqa: S101 - it is what is replayed
        self.renewal.steps = self.renewal.step = None
        self.retries = 0
        self._close_model()
        self._out.clear_timer(Timer.EXPIRY)
        self._out.clear_timer(Timer.EXPIRING)
        self.state = Life.ABSENT

    def _step_ended(self, number: int) -> Renewal:
        renewal = self.renewal
        if renewal is None or renewal.step != number:
            raise UnexpectedEvent(f"step {number} is not at the model")
        return renewal

    # The end

    def _release(self, event: Release) -> Signs:
        """Close it after the running turn."""
        if event.busy:
            self.state = Life.STOPPING
            return ()
        return self._wind_up()

    def _stop(self, _event: Release) -> Signs:
        """Cancel the replay; wait for the session that is being opened."""
        self.state = Life.STOPPING
        if self.renewal is not None and self.renewal.step is not None:
            self._out.do(do.CancelInvoke(self.renewal.step))
        return ()

    def _opened_for_nobody(self, event: on.Opened) -> Signs:
        """Close what the model has opened."""
        self.model = event.model
        return self._wind_up()

    def _replied_last(self, event: on.ReplyEnded) -> Signs:
        """Close what the last reply leaves open."""
        if event.reply.new_session is not None:
            self.model = event.reply.new_session
        if event.reply.session_closed:
            self.model = None
        return self._wind_up()

    def _failed_last(self, event: on.InvokeFailed) -> Signs:
        """Close it, unless the model has lost it."""
        if event.failure.code is ErrorCode.SESSION_LOST:
            self.model = None
        return self._wind_up()

    def _stopped(self, _event: object) -> Signs:
        """Close what is open."""
        return self._wind_up()

    def _wind_up(self) -> Signs:
        self._close_model()
        if not self.closing:
            self.state = Life.CLOSED
            return QUIET
        self.state = Life.CLOSING
        self._out.set_timer(Timer.CLOSING, self._out.now + self._policy.close_seconds)
        return ()

    def _close_model(self) -> None:
        if self.model is not None:
            self._close(self.model)
            self.model = None

    def _close(self, model: ModelSession) -> None:
        self.closing |= {model.id}
        self._out.do(do.CloseSession(model))

    def _close_ended(self, event: on.CloseEnded) -> Signs:
        """Finish, unless another one is still being closed."""
        self.closing -= {event.model.id}
        return self._wind_up()

    def _close_ended_aside(self, event: on.CloseEnded) -> Signs:
        """Note that a replaced or late session is closed."""
        self.closing -= {event.model.id}
        return ()

    # In another process

    def _close_again(self, _event: on.Adopted) -> Signs:
        """Repeat the close that was in progress: its result is lost."""
        for model_id in sorted(self.closing):
            self._out.do(do.CloseSession(ModelSession(model_id)))
        return ()

    def _open_again(self, event: on.Adopted) -> Signs:
        """Open a model session again."""
        self._close_again(event)
        return self._open()

    def _wait_again(self, event: on.Adopted) -> Signs:
        """Keep waiting, or start a replay anew."""
        if Timer.RETRY_REPLAY in self._out.timers:
            self._out.clear_timer(Timer.RETRY_REPLAY)
            return self._replay_again(event)
        return self._close_again(event)

    def _replay_again(self, event: on.Adopted) -> Signs:
        """Replay everything to another session: half a context is useless."""
        self._close_again(event)
        self._drop_replay()
        return USABLE

    def _stop_again(self, event: on.Adopted) -> Signs:
        """Close what is open; calls in progress are gone."""
        self._close_again(event)
        return self._wind_up()

    def _give_up(self, _event: GiveUp) -> Signs:
        """Close it without waiting for calls in progress."""
        self._close_model()
        self.state = Life.CLOSED
        return ()

    def _opened_late(self, event: on.Opened) -> Signs:
        """Close a session that the model opened too late."""
        self._close(event.model)
        return ()

    def _replied_late(self, event: on.ReplyEnded) -> Signs:
        """Close a session that a reply opened too late."""
        new = event.reply.new_session
        if new is not None and not event.reply.session_closed:
            self._close(new)
        return ()

    def _ignore(self, _event: object) -> Signs:
        """Do nothing."""
        return ()


def retry_later(out: Output, policy: Policy, timer: Timer, failure: Failure, retries: int) -> bool:
    """Set a timer for a retry, if the call is safe to retry and may succeed.

    Args:
        out: Collects the timer.
        policy: The number of retries, and the backoff.
        timer: The timer.
        failure: Why the call failed.
        retries: How often it was retried already.

    Returns:
        Whether it will be retried.
    """
    wait = failure.retry_after or 0.0
    if not failure.may_retry or retries >= policy.retries or wait > policy.retry_max_seconds:
        return False
    spread = min(policy.retry_seconds * 2**retries, policy.retry_max_seconds)
    out.set_timer(timer, out.now + wait, spread)
    return True


_action_of: Callable[[tuple[Life, Any]], Callable[[Upstream, Any], Signs] | None] = {
    key: getattr(Upstream, f"_{transition.action}") for key, transition in UPSTREAM.items()
}.get
