"""A search for all that may happen to a session: from each situation that is new to the next."""

import pickle
import random
from collections.abc import Callable
from enum import Enum
from typing import Any

from gateway.errors import ErrorCode, Failure, Outcome
from gateway.protocol import messages as wire
from gateway.session import events as on
from gateway.session.policy import Opening, Recovery
from gateway.session.ports import ModelSession
from gateway.session.table import TABLE, State
from gateway.session.transitions import Cause, Table, cause_of
from gateway.session.upstream_table import UPSTREAM
from tests.support.script import Script, send

STEPS = 200_000
"""More than are needed: half of it finds all, whatever it begins with."""

LIFETIMES = (None, 4.0, 6.0, 10.0, 18.0, 40.0)

BUSY = Failure(code=ErrorCode.THROTTLED, message="", retry_after=5.0)

Found = dict[tuple[Enum, Cause], set[Enum]]
Move = Callable[["Wanderer"], object]


class Wanderer(Script):
    """A script that is written as it goes."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(
            opening=chance.choice([*Opening]),
            open_on_connect=chance.random() < 0.5,
            streams=True,
            queued_messages=2,
            resume_seconds=chance.choice([0.0, 3.0, 30.0]),
            retries=1,
            idle_seconds=chance.choice([8.0, 600.0]),
            expiring_notice_seconds=10.0,
            on_expiry=chance.choice([*Recovery]),
            on_lost=chance.choice([*Recovery]),
        )
        self.models = 0
        told = [("a", "b")] if self.policy.telling and chance.random() < 0.5 else []
        self.start(chance.choice([None, 1]), told)
        for _ in range(chance.choice([0, 0, 2])):
            self.send(40.0)
            if self.invoking:
                opens = self.policy.opening is Opening.TURN and self.session.model is None
                self.answer(new_session=self.model(40.0) if opens else None)
        if chance.random() < 0.5:
            self.send(chance.choice([10.0, 18.0]))
            self.send(40.0)
            if self.invoking:
                code = chance.choice([ErrorCode.SESSION_LOST, ErrorCode.THROTTLED])
                self.fail(Failure(code=code, message="", retry_after=5.0))

    def send(self, lifetime: float) -> None:
        """A turn; where it needs a session, the model opens one."""
        self.step(send(f"m{len(self.accepted)}"))
        if self.opening:
            self.step(on.Opened(self.model(lifetime)))

    def situation(self) -> object:
        """What makes it another one than others: what it may do next, and what that may lead to."""
        session, upstream = self.session, self.session.upstream
        turns = session.turns.queue
        return (
            self.policy.opening,
            self.policy.on_expiry,
            self.policy.on_lost,
            self.policy.resume_seconds,
            session.state,
            session.clients.absent_since is None,
            upstream.state,
            upstream.renewal is None,
            frozenset(self.timers),
            bool(upstream.closing),
            session.held,
            bool(turns.waiting),
            min(len(session.history.transcript.exchanges), 2),
            self.cancelling(),
        )

    def choices(self, chance: random.Random) -> list[Move]:
        """What may happen now."""
        possible: list[Move] = [
            lambda s: s.step(send(f"m{len(s.accepted)}")),
            lambda s: s.step(send(f"m{len(s.accepted)}")),
            lambda s: s.step(send("m0")),
            lambda s: s.step(wire.MessageCancel(id=f"m{chance.randint(0, len(s.accepted))}")),
            lambda s: s.step(wire.EventAck(event=s.last_event)),
            lambda s: s.step(wire.EventAck(event=0)),
            lambda s: s.step(on.Written(s.last_event)),
            lambda s: s.step(wire.SessionClose()),
            lambda s: s.step(on.Drain(force=chance.random() < 0.5)),
            lambda s: s.step(on.Evict()),
            lambda s: s.step(on.Confirmed()),
        ]
        possible.append(lambda s: s.step(on.Hold(on=chance.random() < 0.5)))
        possible.append(lambda s: s.step(on.Forgotten()))
        if self.session.announced and not self.stands(State.CLOSED):
            possible.append(lambda s: s.move())
        if self.client:
            possible.append(lambda s: s.detach())
            possible.append(lambda s: s.step(on.Detached(s.client - 1)))
        if not self.stands(State.CLOSED):
            possible.append(lambda s: s.resume(s.last_event))
            possible.append(lambda s: s.step(on.Subscribed(1000 + s.clients, s.last_event)))
            possible.append(lambda s: s.step(on.Subscribed(1000 + s.clients, None)))
        if self.opening:
            possible.append(lambda s: s.step(on.Opened(s.model(chance.choice(LIFETIMES)))))
            possible.append(lambda s: s.step(on.OpenFailed(_failure(chance))))
        if self.invoking:
            running = self.session.turns.running
            if running is None or running.receipt is None:
                possible.append(lambda s: s.part("x"))
            if self.policy.opening is Opening.NONE and (
                self.state in {State.ENDED, State.CLOSED}
                or (running is not None and running.receipt is None and not running.deltas)
            ):
                possible.append(lambda s: s.submitted())
            possible.append(lambda s: s.answer())
            possible.append(lambda s: s.fail(_failure(chance)))
            if self.policy.opening is not Opening.NONE:
                possible.append(lambda s: s.answer(new_session=s.model(chance.choice(LIFETIMES))))
                possible.append(lambda s: s.answer(session_closed=True))
        if self.cancelling():
            possible += 5 * [lambda s: s.step(on.InvokeCancelled(s.invoking[0].turn))]
        if self.closing_models:
            possible.append(lambda s: s.closed())
        if self.timers:
            due = min(self.timers.values())
            timers = [timer for timer, at in self.timers.items() if at == due]
            possible += 2 * [lambda s: s.fire(chance.choice(timers))]
        return possible

    def move(self) -> None:
        """Another process goes on with it, and has no client of it."""
        self.store()
        self.adopt()

    def model(self, lifetime: float | None) -> ModelSession:
        """One more, which lasts for a while."""
        self.models += 1
        return ModelSession(f"model-{self.models}", lifetime and self.now + lifetime)

    def wait(self, chance: random.Random) -> None:
        """Let time pass, up to the next timer: none is overdue by more than an event takes."""
        if self.timers and chance.random() < 0.3:
            due = max(0.0, min(self.timers.values()) - self.now)
            self.clock += min(due, chance.choice([2.0, 600.0]))


def _failure(chance: random.Random) -> Failure:
    code = chance.choice([ErrorCode.SESSION_LOST, ErrorCode.THROTTLED, ErrorCode.MODEL_ERROR])
    outcome = chance.choice([Outcome.NOT_INVOKED, Outcome.INVOKED])
    return Failure(code=code, message="", outcome=outcome, retry_after=chance.choice([None, 5.0]))


def search(found: Found) -> None:
    """Go on from each situation that is new, as often in the states that are rare as in others,
    until all is found.
    """
    chance = random.Random(0)
    kept: dict[object, dict[object, bytes]] = {}
    for step in range(STEPS):
        if step % 1000 == 0 and not missing(found):
            return
        if step < 100 or chance.random() < 0.02:
            wanderer = Wanderer(chance)
        else:
            places = chance.choice([*kept.values()])
            wanderer = pickle.loads(chance.choice([*places.values()]))
            wanderer.wait(chance)
            chance.choice(wanderer.choices(chance))(wanderer)
        states = wanderer.session.state, wanderer.session.upstream.state
        places = kept.setdefault(states, {})
        situation = wanderer.situation()
        if situation not in places:
            places[situation] = pickle.dumps(wanderer)


def missing(found: Found) -> list[str]:
    """What the tables name and was not found."""
    tables: list[Table[Any]] = [TABLE, UPSTREAM]
    return [
        f"{cause} while {state}: then {then}"
        for table in tables
        for (state, cause), transition in table.items()
        for then in transition.to - found.get((state, cause), set())
    ]


def recorded(handle: Callable[..., Any], found: Found) -> Callable[..., Any]:
    def recording(self: Any, event: object, *arguments: object) -> object:
        before = self.state
        done = handle(self, event, *arguments)
        found.setdefault((before, cause_of(event)), set()).add(self.state)
        return done

    return recording
