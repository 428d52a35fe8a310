"""The model: one for all replicas, which remembers what it was sent."""

from collections import Counter, defaultdict
from typing import Any, NamedTuple

import msgspec

from gateway.errors import ErrorCode, Failure, Outcome
from gateway.session.ports import (
    ModelError,
    ModelReply,
    ModelRequest,
    ModelSession,
    OnEnd,
    OnParts,
    Receipt,
)
from tests.simulation.store import Server
from tests.simulation.world import Process, World

LIFETIME = 600.0
TOLD = "told-"
"""How turns begin that were held elsewhere, and that sessions go on from."""


class Arrival(NamedTuple):
    """A turn that has reached the model.

    Attributes:
        turn: What it says.
        session: In which session at the model.
        again: Whether another session has answered it, be it elsewhere; this one is to know it.
        history: What was said before, by the user and by the model, where the turn carries it.
    """

    turn: str
    session: str
    again: bool
    history: list[tuple[str, str]]


class Endpoint:
    """What there is at the platform.

    Attributes:
        lifetime: For how long a session can be used.
        arrivals: The turns of each of the gateway's sessions, as they have arrived.
        answered: The session at the model that has answered each turn first.
        fatal: Of the gateway's sessions, those that the model has given a reason to end.
        open: The sessions that are open, with when they expire.
        closed: How often each has been closed, and by whom.
        lost: Sessions that have been opened for a process that did not hear of it.
        fails: How often a turn fails that has arrived, or has not.
        ready_at: When the reply is there to each turn that is answered later.
        awaited: The turns that a process has waited for as it may.
    """

    def __init__(self, world: World, lifetime: float = LIFETIME) -> None:
        self.world = world
        self.lifetime = lifetime
        self.arrivals: defaultdict[str, list[Arrival]] = defaultdict(list)
        self.answered: dict[str, str] = {}
        self.fatal: set[str] = set()
        self.open: dict[str, float] = {}
        self.closed: dict[str, list[Process]] = {}
        self.lost: set[str] = set()
        self.opened_by: dict[str, tuple[Process, float]] = {}
        self.fails = 0.05
        self.ready_at: dict[str, float] = {}
        self.awaited: set[str] = set()
        self._count = 0
        self._losses: Counter[str] = Counter()

    def prolong(self, session: ModelSession) -> ModelSession:
        """From now on, a session can be used for as long as a new one."""
        self.open[session.id] = self.world.now + self.lifetime
        return ModelSession(session.id, self.world.wall() + self.lifetime)

    def add(self, process: Process) -> ModelSession:
        """Open a session for a process."""
        self._count += 1
        session = self.prolong(ModelSession(f"m-{self._count}"))
        self.opened_by[session.id] = process, self.world.now
        return session

    def vanish(self) -> None:
        """Lose a session."""
        if self.open:
            del self.open[self.world.random.choice([*self.open])]

    def has(self, session: ModelSession | None) -> bool:
        """Whether a session can be used."""
        return session is not None and self.open.get(session.id, 0.0) > self.world.now

    def lose(self, affinity: str, turn: str, session: ModelSession | None) -> Outcome:
        """A turn has come for a session that is gone; returns whether a container has seen it."""
        self.open.pop(session.id if session else "", None)
        self._losses[turn] += 1
        if turn in self.answered or turn.startswith(TOLD) or self._losses[turn] > 1:
            self.fatal.add(affinity)
        return self.world.random.choice([Outcome.NOT_INVOKED, Outcome.INVOKED])

    def arrive(
        self,
        affinity: str,
        turn: str,
        session: ModelSession | None,
        history: list[tuple[str, str]],
    ) -> bool:
        """Take a turn in; returns whether another session had answered it."""
        where = session.id if session else ""
        again = turn.startswith(TOLD) or self.answered.get(turn, where) != where
        self.arrivals[affinity].append(Arrival(turn, where, again, history))
        return again


class _Call:
    def __init__(self) -> None:
        self.sent = self.cancelled = False

    def cancel(self) -> object:
        self.cancelled = True
        return None if self.sent else Outcome.NOT_INVOKED


class SimulatedModel:
    """One process's way to it; see `gateway.session.ports.Model`."""

    def __init__(self, endpoint: Endpoint, process: Process, server: Server) -> None:
        self._endpoint = endpoint
        self._server = server
        self._world = endpoint.world
        self._process = process

    async def _later(self, act: Any) -> Any:
        """What the endpoint answers, if this process still hears it."""
        world, process = self._world, self._process
        answer = process.loop.create_future()

        def arrive() -> None:
            result = act()
            world.after(world.between(0.001, 0.05), process.soon, reply, result)

        def reply(result: Any) -> None:
            if not answer.done():
                answer.set_result(result)

        world.after(world.between(0.001, 0.05), arrive)
        return await answer

    async def open(self, principal: str) -> ModelSession:  # noqa: ARG002
        endpoint = self._endpoint
        if self._world.chance(endpoint.fails):
            raise ModelError(Failure(code=ErrorCode.THROTTLED, message="Slow down."))
        heard: set[str] = set()

        def act() -> ModelSession:
            session = endpoint.add(self._process)
            endpoint.lost.add(session.id)
            heard.add(session.id)
            return session

        session: ModelSession = await self._later(act)
        endpoint.lost -= heard
        return session

    async def close(self, session: ModelSession) -> None:
        def act() -> None:
            self._endpoint.open.pop(session.id, None)
            self._endpoint.closed.setdefault(session.id, []).append(self._process)

        await self._later(act)

    def invoke(
        self,
        request: ModelRequest,
        session: ModelSession | None,
        *,
        affinity: str,
        principal: str,  # noqa: ARG002
        until: float | None,
        on_parts: OnParts,
        on_end: OnEnd,
    ) -> _Call:
        world, process, endpoint = self._world, self._process, self._endpoint
        call = _Call()
        *history, (turn, _) = _said(request.body)

        def say(heard: Any, result: Any) -> None:
            def hear() -> None:
                if not call.cancelled:
                    heard(result)

            process.soon(hear)

        def fail(code: ErrorCode, outcome: Outcome) -> None:
            failure = Failure(code=code, message="No.", outcome=outcome)
            world.after(0.01, say, on_end, failure)

        def send() -> None:
            if call.cancelled or not process.alive:
                return
            if until is not None and world.now >= until:
                endpoint.lose(affinity, turn, session)
                fail(ErrorCode.SESSION_LOST, Outcome.NOT_INVOKED)
                return
            if not self._server.has_at_model(affinity, process.name, turn):
                world.failures.append(f"{turn} goes to the model before that is written")
            call.sent = True
            world.after(world.between(0, 0.02), arrive)

        def arrive() -> None:
            if world.chance(endpoint.fails):
                if world.chance(0.5):
                    fail(ErrorCode.THROTTLED, Outcome.NOT_INVOKED)
                    return
                if endpoint.arrive(affinity, turn, session, history):
                    endpoint.fatal.add(affinity)
                fail(ErrorCode.TIMEOUT, Outcome.UNKNOWN)
                return
            if session is None:
                endpoint.arrive(affinity, turn, None, history)
                endpoint.ready_at[turn] = world.now + world.between(0.01, 15)
                receipt = Receipt(
                    id=turn, reply_at=turn, failure_at=None, until=world.wall() + 1000
                )
                world.after(world.between(0.001, 0.05), say, on_end, receipt)
                return
            if not endpoint.has(session):
                outcome = endpoint.lose(affinity, turn, session)
                if outcome is Outcome.INVOKED:
                    endpoint.arrive(affinity, turn, session, history)
                fail(ErrorCode.SESSION_LOST, outcome)
                return
            endpoint.arrive(affinity, turn, session, history)
            endpoint.answered.setdefault(turn, session.id)
            at = world.now
            parts = world.random.randint(0, 8) if request.stream else 0
            for _ in range(parts):
                at += world.between(0.001, 0.5)
                world.at(at, say, on_parts, ["a"] * world.random.randint(1, 3))
            at += world.between(0.001, 0.3)
            body = None if parts else answer_to(turn).encode()
            # Where they live short, what a gateway has not heard of being prolonged is not closed.
            prolongs = endpoint.lifetime == LIFETIME and world.chance(0.2)
            later = endpoint.prolong(session) if prolongs else None
            reply = ModelReply(body=body, content_type="text/plain", new_session=later)
            world.at(at, say, on_end, reply)

        # As where a call has to wait for a connection.
        process.loop.call_later(world.between(0, 0.01), send)
        return call

    def wait(self, receipt: Receipt, *, affinity: str, on_end: OnEnd) -> _Call:
        world, process, turn = self._world, self._process, receipt.id
        call = _Call()
        call.sent = True

        def hear() -> None:
            if not call.cancelled:
                on_end(ModelReply(body=answer_to(turn).encode(), content_type="text/plain"))

        if not self._server.has_receipt(affinity, process.name, turn):
            world.failures.append(f"{turn} is waited for before that is written")
        self._endpoint.awaited.add(turn)
        ready_at = self._endpoint.ready_at[turn]
        world.at(max(world.now, ready_at) + world.between(0, 1), process.soon, hear)
        return call


def answer_to(turn: str) -> str:
    """What the model says to a turn in one piece."""
    return f"answer to {turn}"


def _said(body: bytes) -> list[tuple[str, str]]:
    """What a body tells: the user's words and the model's, which are still to come at its end."""
    if not body.startswith(b"["):
        return [(body.decode(), "")]
    words = [line["content"] for line in msgspec.json.decode(body)]
    return [*zip(words[::2], [*words[1::2], ""], strict=True)]
