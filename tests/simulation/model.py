"""The model: one for all replicas, which remembers what it was sent."""

from collections import Counter
from typing import Any

from gateway.errors import ErrorCode, Failure, Outcome
from gateway.session.ports import (
    ModelError,
    ModelReply,
    ModelRequest,
    ModelSession,
    OnEnd,
    OnParts,
)
from tests.simulation.store import Server
from tests.simulation.world import Process, World

LIFETIME = 600.0


class Endpoint:
    """What there is at the platform.

    Attributes:
        turns: How often each body has arrived.
        open: The sessions that are open, with when they expire.
        closed: How often each has been closed, and by whom.
        lost: Sessions that have been opened for a process that did not hear of it.
        fails: How often a turn fails that has arrived, or has not.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.turns: Counter[str] = Counter()
        self.open: dict[str, float] = {}
        self.closed: dict[str, list[Process]] = {}
        self.lost: set[str] = set()
        self.opened_by: dict[str, Process] = {}
        self.fails = 0.05
        self._count = 0

    def add(self, process: Process) -> ModelSession:
        """Open a session for a process."""
        self._count += 1
        session = ModelSession(f"m-{self._count}", self.world.wall() + LIFETIME)
        self.open[session.id] = self.world.now + LIFETIME
        self.opened_by[session.id] = process
        return session


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
        until: float | None,  # noqa: ARG002
        on_parts: OnParts,
        on_end: OnEnd,
    ) -> _Call:
        world, process, endpoint = self._world, self._process, self._endpoint
        call = _Call()
        turn = request.body.decode()
        if not self._server.has_at_model(affinity, process.name, turn):
            world.failures.append(f"{turn} goes to the model before that is written")

        def say(heard: Any, result: Any) -> None:
            def hear() -> None:
                if not call.cancelled:
                    heard(result)

            process.soon(hear)

        def send() -> None:
            if not call.cancelled and process.alive:
                call.sent = True
                world.after(world.between(0, 0.02), arrive)

        def arrive() -> None:
            if world.chance(endpoint.fails):
                outcome = world.random.choice([Outcome.NOT_INVOKED, Outcome.UNKNOWN])
                endpoint.turns[turn] += outcome is Outcome.UNKNOWN
                code = ErrorCode.THROTTLED if outcome is Outcome.NOT_INVOKED else ErrorCode.TIMEOUT
                world.after(0.01, say, on_end, Failure(code=code, message="No.", outcome=outcome))
                return
            endpoint.turns[turn] += 1
            if session is None or session.id not in endpoint.open:
                lost = Failure(
                    code=ErrorCode.SESSION_LOST, message="Gone.", outcome=Outcome.INVOKED
                )
                world.after(0.01, say, on_end, lost)
                return
            at = world.now
            parts = world.random.randint(0, 8) if request.stream else 0
            for _ in range(parts):
                at += world.between(0.001, 0.5)
                world.at(at, say, on_parts, ["a"] * world.random.randint(1, 3))
            at += world.between(0.001, 0.3)
            body = None if parts else b"answer"
            world.at(at, say, on_end, ModelReply(body=body, content_type="text/plain"))

        # As where a call has to wait for a connection.
        process.loop.call_later(world.between(0, 0.01), send)
        return call
