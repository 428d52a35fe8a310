"""Tests of the session core as scripts: events in, effects out.

`Script` checks on every step what must hold on all of them, whatever the test is about.
"""

import itertools
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, structs

from gateway.errors import ErrorCode, Failure, Outcome
from gateway.protocol import messages as wire
from gateway.session import effects as do
from gateway.session import events as on
from gateway.session.events import SessionEvent, Timer
from gateway.session.keys import digest
from gateway.session.log import EventLog
from gateway.session.policy import Policy
from gateway.session.ports import ModelReply, ModelSession, Receipt
from gateway.session.reader import LogReader
from gateway.session.recorder import Recorder, snapshot_of
from gateway.session.session import Session
from gateway.session.snapshot import Snapshot, restore, take
from gateway.session.storage import Change, Saved, Title
from gateway.session.table import State
from gateway.stores.memory import _merged

E = TypeVar("E")

START = 1_800_000_000.0
"""When scripts begin, in seconds since the epoch: 2027-01-15T08:00:00Z."""

CLOCK = 1000.0
"""The same by the session's clock."""

MODEL = ModelSession("model-1", expires_at=START + 1200)


RECEIPT = Receipt(
    id="i-1", reply_at="s3://b/i-1.out", failure_at="s3://b/i-1.err", until=START + 4560
)


OWNER = Title("here", 1)


def merged(before: Saved | None, change: Change) -> Saved:
    """A session as a store has it after a change."""
    number = 1 if before is None else before.number + 1
    saved = _merged(None if change.whole else before, change, OWNER, number)
    pieces = [piece for piece in saved.events if _last_of(piece) >= change.first]
    return structs.replace(saved, events=pieces)


def _last_of(piece: bytes) -> int:
    return msgspec.json.decode(piece, type=list[wire.Event])[-1].event


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
    """A session, what it did at the last step, and the invariants of every step.

    Args:
        policy: Its route's, but for the defaults.

    Attributes:
        moves: Take the session down before each step, and set it up again on another clock.
    """

    moves = False

    def __init__(self, **policy: Any) -> None:
        self.policy = Policy(**{"route": "chat", "resume_seconds": 0.0, **policy})
        self.session = Session(session_id="s-1", principal="anonymous", policy=self.policy)
        self.log = EventLog(self.policy.log_bounds)
        self.clock = CLOCK
        self.epoch = START - CLOCK
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
        self.forgotten = self.was_held = False
        self.socket: do.CloseClient | None = None
        self.resumed: wire.SessionResumed | None = None
        self.reader = LogReader()
        self.client = 0
        self.clients = 0
        self.readers: set[int] = set()
        self.recorder: Recorder | None = None
        self.saved: Saved | None = None

    @property
    def last_event(self) -> int:
        """The number of the newest event."""
        return self.events[-1].event if self.events else 0

    @property
    def now(self) -> float:
        """The time, in seconds since the epoch."""
        return self.clock + self.epoch

    @now.setter
    def now(self, wall: float) -> None:
        self.clock = wall - self.epoch

    @property
    def state(self) -> State:
        """Where the session stands."""
        return self.session.state

    def stands(self, state: State) -> bool:
        """Whether that is the state; a function, so that mypy asks again each time."""
        return self.state is state

    def step(self, event: SessionEvent, after: float = 0.0) -> list[do.Effect]:
        """Let an event in, that many seconds after the last one."""
        self.clock += after
        before = self.state
        twin = self._moved() if self.moves else None
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
            case on.Submitted():
                assert any(invoke.turn == event.turn for invoke in self.invoking)
            case on.InvokeCancelled():
                self._settle(event.turn)
            case on.CloseEnded():
                self.closing_models.remove(event.model)
            case on.Hold():
                self.was_held = True
            case on.Attached():
                assert self.session.accepts(event.shown)
            case _:
                pass
        self.effects = self.handle(event)
        if twin is not None:
            again = twin.handle(event, self.clock, self.now, self.client or None)
            assert again == self.effects, "it behaves the same"
        for effect in self.effects:
            self._check(effect, before)
        self._invariants()
        return self.effects

    def _moved(self) -> Session:
        """Set the session up on another clock; returns another one of it, as it is there."""
        data = take(self.session, self.clock, self.now).encode()
        self.clock, self.epoch = self.clock + 512, self.epoch - 512
        self.session = self._restored(data)
        self.recorder = None
        return self._restored(take(self.session, self.clock, self.now).encode())

    def _restored(self, data: bytes) -> Session:
        session, timers = restore(Snapshot.decode(data), self.policy, self.clock, self.now)
        session.held = self.session.held  # which is not stored
        assert {timer.timer: (timer.at or 0) + self.epoch for timer in timers} == self.timers
        assert not any(timer.spread for timer in timers), "they are spread already"
        return session

    def handle(self, event: SessionEvent) -> list[do.Effect]:
        """Let an event in, and check nothing."""
        return self.session.handle(event, self.clock, self.now, self.client or None)

    def cancelling(self) -> bool:
        """Whether the call at the model has been asked to stop."""
        return any(invoke.turn in self.cancels for invoke in self.invoking)

    def _settle(self, turn: int) -> None:
        self.invoking = [invoke for invoke in self.invoking if invoke.turn != turn]

    def _check(self, effect: do.Effect, before: State) -> None:
        if before is State.CLOSED or self.forgotten:
            assert isinstance(effect, do.CloseSession), "only closing follows the end"
        if before is State.ENDED:
            assert not isinstance(effect, do.Append | do.Invoke | do.OpenSession)
        match effect:
            case do.Append():
                for event in effect.events:
                    self._append(event)
            case do.Renumber():
                self._renumber(effect)
            case do.Trim():
                self.log.trim(effect.through)
            case do.Tell():
                if effect.client == self.client:
                    self.notices.append(effect.notice)
                else:
                    assert effect.client in self.readers
            case do.SetTimer():
                if effect.at is None:
                    self.timers.pop(effect.timer, None)
                else:
                    self.timers[effect.timer] = effect.at + self.epoch
            case do.Attach():
                self._attach(effect)
            case do.Invoke():
                running = self.session.turns.running
                if running is not None:
                    assert running.id not in self.sent, "sent twice, and the model may have it"
                    self.sent.add(running.id)
                self.invoking.append(effect)
            case do.Await():
                self._await(effect)
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
            case do.CloseClient() if effect.client in self.readers:
                self.readers.remove(effect.client or 0)
            case do.CloseClient():
                assert self.socket is None
                assert effect.client in {None, self.client}
                self.socket = effect
                if effect.client is None:
                    self.readers.clear()
            case do.Displace():
                assert effect.client != self.client

    def _await(self, effect: do.Await) -> None:
        running = self.session.turns.running
        assert running is not None
        assert (running.number, running.receipt) == (effect.turn, effect.receipt)
        assert effect.turn not in self.cancels, "what is to be stopped is not waited for"
        if not self.invoking:  # in another process
            self.invoking.append(do.Invoke(effect.turn, running.request, None))
        assert self.invoking[0].turn == effect.turn

    def _append(self, event: wire.Event) -> None:
        assert event.event == self.last_event + 1, "numbers without gaps"
        self.events.append(event)
        self.log.append(event, self.clock)
        if isinstance(event, wire.MessageAccepted):
            assert event.id not in self.accepted
            self.accepted.add(event.id)
        elif isinstance(event, wire.MessageDelta):
            assert event.id not in self.done, "no part follows the end"
            assert event.index == self.deltas.get(event.id, 0)
            self.deltas[event.id] = event.index + 1
        elif isinstance(event, wire.MessageDone):
            assert event.id in self.accepted
            assert event.id not in self.done, "one end for each message"
            assert event.deltas == self.deltas.get(event.id, 0)
            self.done[event.id] = event

    def _renumber(self, effect: do.Renumber) -> None:
        assert effect.by > 0
        assert not self.readers, "nobody has got them"
        self.log.renumber(effect.after, effect.by)
        if self.recorder is not None:
            self.recorder.reset()
        self.events = [
            structs.replace(event, event=event.event + effect.by)
            if event.event > effect.after
            else event
            for event in self.events
        ]

    def _attach(self, effect: do.Attach) -> None:
        if effect.client != self.client:
            assert (effect.opens, effect.resumes) == (False, False)
            self.readers.add(effect.client)
            return
        self.socket, self.reader = None, LogReader(self.keys[-1])
        if not effect.resumes:
            self.reader.begin(self.log, effect.after, owns=effect.opens)
            return
        self.reader.resume(
            self.log,
            effect.after,
            wire.SessionResumed(
                session_id=self.session.id,
                resume_key="",
                expires_at=effect.expires_at,
                last_event=self.log.last,
                lost=None,
            ),
        )
        said = self.reader.take()
        assert isinstance(said, wire.SessionResumed)
        assert said.last_event == self.last_event
        self.resumed, lost = said, said.lost
        if lost is not None:
            assert lost == (effect.after + 1, self.reader.position)
        for number in range(self.reader.position + 1, self.log.last + 1):
            (event,) = [event for event in self.events if event.event == number]
            assert self.log.get(number) == event, "what is not lost is there"

    def _invariants(self) -> None:
        assert len(self.invoking) <= 1, "one turn at the model at a time"
        assert self.session.out.last == self.log.last == self.last_event
        assert set(self.session.out.timers) == set(self.timers)
        if self.state is State.CLOSED:
            assert not self.timers, "no timer outlives the session"
            assert self.forgotten
            assert self.socket is not None
        if self.state is State.ENDED:
            assert set(self.timers) == {Timer.DETACHED}
            assert not self.readers
            assert self.policy.resume_seconds
        if self.state in {State.ENDED, State.CLOSED}:
            assert self.accepted == set(self.done), "every accepted message has ended"
            assert not self.open_models, "what was opened is being closed"
        if self.state is State.READY:
            # One that has expired while it was held is seen to with its next turn.
            assert not self.open_models or self.was_held or Timer.EXPIRY in self.timers

    # Other processes

    def store(self) -> Saved:
        """Write the session to where another process finds it."""
        if self.recorder is None:
            self.recorder = Recorder(self.session, self.log, stored=False)
        self.saved = merged(self.saved, self.recorder.take(self.clock, self.now))
        return self.saved

    def adopt(self, *clients: int, crashed: bool = True) -> list[do.Effect]:
        """Another process goes on with what was stored last; of this one nothing is left.

        Args:
            clients: Those that have found their way there before.
            crashed: Whether this process was to go on with it.
        """
        assert self.saved is not None
        self.clock, self.epoch = self.clock + 512, self.epoch - 512
        snapshot, events = snapshot_of(self.saved)
        self.session, timers = restore(snapshot, self.policy, self.clock, self.now)
        self.log = EventLog(self.policy.log_bounds)
        self.log.begin(snapshot.last - len(events))
        for event in events:
            self.log.append(event, self.clock)
        self.recorder = Recorder(self.session, self.log, stored=True)
        self.timers = {timer.timer: (timer.at or 0) + self.epoch for timer in timers}
        self._forget_since(snapshot.last)
        self.invoking, self.opening, self.closing_models = [], 0, []
        self.readers.intersection_update(clients)
        if self.client not in clients:
            self.client = 0
        return self.step(on.Adopted(clients, crashed))

    def _forget_since(self, last: int) -> None:
        """What was told and not stored is not known any more."""
        self.events = [event for event in self.events if event.event <= last]
        self.deltas = {}
        for event in self.events:
            if isinstance(event, wire.MessageDelta):
                self.deltas[event.id] = event.index + 1

    # Shorthand

    def start(self, client: int | None = 1, told: Iterable[tuple[str, str]] = ()) -> "Script":
        """A client connects, or asks without a connection; perhaps to go on with what was said."""
        self.client = self.clients = client or 0
        words = tuple(on.Words(*each) for each in told)
        self.step(on.Start(digest("key-0"), client, words))
        return self

    def detach(self, after: float = 0.0) -> list[do.Effect]:
        """The client is gone."""
        return self.step(on.Detached(self.client), after)

    def resume(self, last_event: int, key: str | None = None) -> wire.SessionResumed:
        """The client comes back, with the newest key unless told otherwise."""
        shown = self.keys[-1] if key is None else key
        self.keys.append(f"key-{len(self.keys)}")
        self.client = self.clients = self.clients + 1
        self.step(on.Attached(self.client, digest(shown), digest(self.keys[-1]), last_event))
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

    def submitted(self, receipt: Receipt = RECEIPT, after: float = 0.0) -> list[do.Effect]:
        """The model answers the turn that it has later."""
        return self.step(on.Submitted(self.invoking[0].turn, receipt), after)

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
