"""Tests of the session core as scripts: events in, effects out.

`Script` checks on every step what must hold on all of them, whatever the test is about.
"""

import itertools
from typing import Any, TypeVar

from msgspec import UNSET

from gateway.errors import ErrorCode, Failure, Outcome
from gateway.protocol import messages as wire
from gateway.session import effects as do
from gateway.session import events as on
from gateway.session.events import SessionEvent, Timer
from gateway.session.policy import Policy
from gateway.session.ports import ModelReply, ModelSession
from gateway.session.session import Session
from gateway.session.table import TABLE, State

E = TypeVar("E")

START = 1_800_000_000.0
"""When scripts begin, in seconds since the epoch: 2027-01-15T08:00:00Z."""

MODEL = ModelSession("model-1", expires_at=START + 1200)


def send(message_id: str, text: str = "hello", **fields: Any) -> wire.MessageSend:
    """A turn from the client."""
    return wire.MessageSend(id=message_id, text=text, **fields)


def reply(text: str = "hi", **fields: Any) -> ModelReply:
    """An answer of the model."""
    fields.setdefault("content_type", "text/plain")
    return ModelReply(body=text.encode(), **fields)


def failure(code: ErrorCode = ErrorCode.MODEL_ERROR, outcome: Outcome = Outcome.INVOKED) -> Failure:
    """An error of the model."""
    return Failure(code=code, message="It failed.", outcome=outcome)


class Script:
    """A session, what it did at the last step, and the invariants of every step."""

    def __init__(self, **policy: Any) -> None:
        self.policy = Policy(**{"route": "chat", **policy})
        self.session = Session(session_id="s-1", principal="anonymous", policy=self.policy)
        self.now = START
        self.effects: list[do.Effect] = []
        self.events: list[wire.Event] = []
        self.notices: list[wire.Notice] = []
        self.timers: dict[Timer, float] = {}
        self.invoking: list[do.Invoke] = []
        self.opening = 0
        self.open_models: set[str] = set()
        self.closing_models: list[ModelSession] = []
        self.accepted: set[str] = set()
        self.done: dict[str, wire.MessageDone] = {}
        self.forgotten = False
        self.socket: do.CloseSocket | None = None

    @property
    def state(self) -> State:
        """Where the session stands."""
        return self.session.state

    def step(self, event: SessionEvent, after: float = 0.0) -> list[do.Effect]:
        """Let an event in, that many seconds after the last one."""
        self.now += after
        before = self.state
        match event:
            case on.TimerFired():
                del self.timers[event.timer]
            case on.Opened():
                self.opening -= 1
                self.open_models.add(event.model.id)
            case on.OpenFailed():
                self.opening -= 1
            case on.ReplyEnded():
                self._settle(event.turn)
                if event.reply.new_session is not None:
                    self.open_models = {event.reply.new_session.id}
                if event.reply.session_closed:
                    self.open_models.clear()
            case on.InvokeFailed():
                self._settle(event.turn)
                if event.failure.code is ErrorCode.SESSION_LOST:
                    self.open_models.clear()
            case on.InvokeCancelled():
                self._settle(event.turn)
            case on.CloseEnded():
                self.open_models.discard(self.closing_models.pop().id)
            case _:
                pass
        self.effects = self.session.handle(event, self.now)
        assert self.state in TABLE[before, type(event)].to, (before, event, self.state)
        for effect in self.effects:
            self._check(effect, closed_before=before is State.CLOSED)
        self._invariants()
        return self.effects

    def _settle(self, turn: int) -> None:
        self.invoking = [invoke for invoke in self.invoking if invoke.turn != turn]

    def _check(self, effect: do.Effect, *, closed_before: bool) -> None:
        if closed_before:
            assert isinstance(effect, do.CloseSession), "only closing follows the end"
        if self.forgotten:
            assert isinstance(effect, do.CloseSession)
        match effect:
            case do.Emit():
                assert effect.event.event == len(self.events) + 1, "numbers without gaps"
                self.events.append(effect.event)
                if isinstance(effect.event, wire.MessageAccepted):
                    assert effect.event.id not in self.accepted
                    self.accepted.add(effect.event.id)
                elif isinstance(effect.event, wire.MessageDone):
                    assert effect.event.id in self.accepted
                    assert effect.event.id not in self.done, "one end for each message"
                    self.done[effect.event.id] = effect.event
            case do.Tell():
                self.notices.append(effect.notice)
            case do.SetTimer():
                if effect.at is None:
                    self.timers.pop(effect.timer, None)
                else:
                    self.timers[effect.timer] = effect.at
            case do.Invoke():
                self.invoking.append(effect)
            case do.CancelInvoke():
                assert any(invoke.turn == effect.turn for invoke in self.invoking)
            case do.OpenSession():
                self.opening += 1
                assert self.opening == 1
                assert not self.open_models, "one session at the model at a time"
            case do.CloseSession():
                self.closing_models.append(effect.model)
            case do.Forget():
                self.forgotten = True
            case do.CloseSocket():
                assert self.socket is None
                self.socket = effect
            case do.Persist():
                assert effect.record.model is not None
                assert effect.record.model.id in self.open_models

    def _invariants(self) -> None:
        assert len(self.invoking) <= 1, "one turn at the model at a time"
        assert self.session.log.last == len(self.events)
        if self.state is State.CLOSED:
            assert not self.timers, "no timer outlives the session"
            assert self.accepted == set(self.done), "every accepted message has ended"
            assert self.forgotten
            assert self.socket is not None
        if self.state in {State.READY, State.RUNNING} and self.policy.resume_seconds:
            assert not self.open_models or Timer.EXPIRY in self.timers

    # Shorthand

    def start(self) -> "Script":
        """A client connects."""
        self.step(on.Start(resume_key="key"))
        return self

    def ready(self, model: ModelSession = MODEL) -> "Script":
        """A client connects and the model opens."""
        self.start()
        self.step(on.Opened(model))
        return self

    def answer(self, text: str = "hi", after: float = 0.0, **fields: Any) -> list[do.Effect]:
        """The model answers the turn that it has."""
        return self.step(on.ReplyEnded(self.invoking[0].turn, reply(text, **fields)), after)

    def fail(self, reason: Failure | None = None, after: float = 0.0) -> list[do.Effect]:
        """The model fails the turn that it has."""
        return self.step(on.InvokeFailed(self.invoking[0].turn, reason or failure()), after)

    def fire(self, timer: Timer) -> list[do.Effect]:
        """Let it be the time of an alarm."""
        self.now = max(self.now, self.timers[timer])
        return self.step(on.TimerFired(timer))

    def last(self, kind: type[E]) -> E:
        """The newest effect, event or notice of that type."""
        for item in itertools.chain(
            reversed(self.effects), reversed(self.events), reversed(self.notices)
        ):
            if isinstance(item, kind):
                return item
        raise AssertionError(f"no {kind.__name__}")

    def error(self, message_id: str) -> wire.ErrorObject:
        """The error that a message ended with."""
        error = self.done[message_id].error
        assert error is not UNSET
        return error
