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
        self.policy = Policy(**{"route": "chat", "resume_seconds": 0.0, **policy})
        self.session = Session(session_id="s-1", principal="anonymous", policy=self.policy)
        self.now = START
        self.effects: list[do.Effect] = []
        self.events: list[wire.Event] = []
        self.notices: list[wire.Notice] = []
        self.timers: dict[Timer, float] = {}
        self.invoking: list[do.Invoke] = []
        self.cancels: set[int] = set()
        self.opening = 0
        self.open_models: set[str] = set()
        self.closing_models: list[ModelSession] = []
        self.accepted: set[str] = set()
        self.done: dict[str, wire.MessageDone] = {}
        self.deltas: dict[str, int] = {}
        self.sent: set[str] = set()
        self.keys = ["key-0"]
        self.forgotten = False
        self.socket: do.CloseSocket | None = None
        self.resumed: do.Attach | None = None

    @property
    def state(self) -> State:
        """Where the session stands."""
        return self.session.state

    def stands(self, state: State) -> bool:
        """Whether that is the state; a function, so that mypy asks again each time."""
        return self.state is state

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
                running = self.session.turns.running
                if running is not None and event.failure.outcome is Outcome.NOT_INVOKED:
                    self.sent.discard(running.id)  # so it may be sent again
                self._settle(event.turn)
                if event.failure.code is ErrorCode.SESSION_LOST:
                    self.open_models.clear()
            case on.InvokeCancelled():
                self._settle(event.turn)
            case on.CloseEnded():
                self.closing_models.remove(event.model)
            case on.Attached():
                assert self.session.accepts(event.resume_key)
            case _:
                pass
        self.effects = self.session.handle(event, self.now)
        assert self.state in TABLE[before, type(event)].to, (before, event, self.state)
        for effect in self.effects:
            self._check(effect, before)
        self._invariants()
        return self.effects

    def cancelling(self) -> bool:
        """Whether the call at the model has been asked to stop."""
        return any(invoke.turn in self.cancels for invoke in self.invoking)

    def _settle(self, turn: int) -> None:
        self.invoking = [invoke for invoke in self.invoking if invoke.turn != turn]

    def _check(self, effect: do.Effect, before: State) -> None:
        if before is State.CLOSED or self.forgotten:
            assert isinstance(effect, do.CloseSession), "only closing follows the end"
        if before is State.ENDED:
            assert not isinstance(effect, do.Emit | do.Invoke | do.OpenSession | do.Persist)
        match effect:
            case do.Emit():
                assert effect.event.event == len(self.events) + 1, "numbers without gaps"
                self.events.append(effect.event)
                if isinstance(effect.event, wire.MessageAccepted):
                    assert effect.event.id not in self.accepted
                    self.accepted.add(effect.event.id)
                elif isinstance(effect.event, wire.MessageDelta):
                    assert effect.event.id not in self.done, "no part follows the end"
                    assert effect.event.index == self.deltas.get(effect.event.id, 0)
                    self.deltas[effect.event.id] = effect.event.index + 1
                elif isinstance(effect.event, wire.MessageDone):
                    assert effect.event.id in self.accepted
                    assert effect.event.id not in self.done, "one end for each message"
                    assert effect.event.deltas == self.deltas.get(effect.event.id, 0)
                    self.done[effect.event.id] = effect.event
            case do.Tell():
                self.notices.append(effect.notice)
            case do.SetTimer():
                if effect.at is None:
                    self.timers.pop(effect.timer, None)
                else:
                    self.timers[effect.timer] = effect.at
            case do.Attach():
                self._attach(effect)
            case do.Invoke():
                running = self.session.turns.running
                if running is not None:
                    assert running.id not in self.sent, "sent twice, and the model may have it"
                    self.sent.add(running.id)
                self.invoking.append(effect)
            case do.CancelInvoke():
                assert any(invoke.turn == effect.turn for invoke in self.invoking)
                self.cancels.add(effect.turn)
            case do.OpenSession():
                self.opening += 1
                assert self.opening == 1
                assert not self.open_models, "one session at the model at a time"
            case do.CloseSession():
                self.open_models.discard(effect.model.id)
                self.closing_models.append(effect.model)
            case do.Forget():
                self.forgotten = True
            case do.CloseSocket():
                assert self.socket is None
                self.socket = effect
            case do.Persist():
                if effect.record.model is not None:
                    assert effect.record.model.id in self.open_models

    def _attach(self, effect: do.Attach) -> None:
        self.socket, self.resumed = None, effect
        lost, log = effect.resumed.lost, self.session.log
        assert effect.resumed.last_event == log.last == len(self.events)
        if lost is not None:
            assert lost[0] <= lost[1] == effect.after
        for number in range(effect.after + 1, log.last + 1):
            assert log.get(number) is self.events[number - 1], "what is not lost is there"

    def _invariants(self) -> None:
        assert len(self.invoking) <= 1, "one turn at the model at a time"
        assert self.session.log.last == len(self.events)
        if self.state is State.CLOSED:
            assert not self.timers, "no timer outlives the session"
            assert self.forgotten
            assert self.socket is not None
        if self.state is State.ENDED:
            assert set(self.timers) == {Timer.DETACHED}
            assert self.policy.resume_seconds
        if self.state in {State.ENDED, State.CLOSED}:
            assert self.accepted == set(self.done), "every accepted message has ended"
            assert not self.open_models, "what was opened is being closed"
        if self.state is State.READY:
            assert not self.open_models or Timer.EXPIRY in self.timers

    # Shorthand

    def start(self) -> "Script":
        """A client connects."""
        self.step(on.Start(resume_key="key-0"))
        return self

    def resume(self, last_event: int, key: str | None = None) -> do.Attach:
        """The client comes back, with the newest key unless told otherwise."""
        shown = self.keys[-1] if key is None else key
        self.keys.append(f"key-{len(self.keys)}")
        self.step(on.Attached(shown, self.keys[-1], last_event))
        assert self.resumed is not None
        return self.resumed

    def part(self, part: str | bytes) -> list[do.Effect]:
        """A part of the reply comes."""
        return self.step(on.ReplyParts(self.invoking[0].turn, [part]))

    def closed(self) -> list[do.Effect]:
        """The model has closed the session that was to be closed first."""
        return self.step(on.CloseEnded(self.closing_models[0]))

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
