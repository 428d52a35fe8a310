"""The gateway's processes, and a balancer that knows which of them live."""

import asyncio

from gateway.budget import ByteBudget
from gateway.replicas.replica import Replica
from gateway.route import Route
from gateway.session.policy import Policy, Recovery
from gateway.session.storage import StoreUnavailable
from gateway.sessions import Sessions
from gateway.transports.websocket import _raw
from tests.simulation.model import Endpoint, SimulatedModel
from tests.simulation.store import Connection, Server
from tests.simulation.world import Process, World
from tests.support.sessions import nobody_asks

LEASE = 5.0
DRAIN = 4.0

POLICY = Policy(
    route="chat",
    streams=True,
    on_expiry=Recovery.RENEW,
    on_lost=Recovery.RENEW,
    resume_seconds=120.0,
    idle_seconds=300.0,
    retry_seconds=0.1,
    retry_max_seconds=0.5,
    close_seconds=5.0,
)


class Gateway(Process):
    """A process of the gateway.

    Attributes:
        ready: Whether it takes connections.
        route: Its one route.
        raw: The same, for raw connections.
    """

    sessions: Sessions
    replica: Replica

    def __init__(
        self, world: World, name: str, server: Server, endpoint: Endpoint, policy: Policy
    ) -> None:
        super().__init__(world, name)
        self.world = world
        self.ready = False
        self._server = server
        self.route = Route(policy, SimulatedModel(endpoint, self, server))
        self.raw = _raw(self.route)
        self._stop: asyncio.Event | None = None
        self.soon(lambda: self.spawn(self._main()))

    async def _main(self) -> None:
        self._stop = asyncio.Event()
        store = Connection(self._server, self)
        async with Sessions(
            {"chat": self.route},
            max_sessions=1000,
            budget=ByteBudget(100_000_000),
            drain_seconds=DRAIN,
        ) as sessions:
            self.sessions = sessions
            self.replica = Replica(self.name, store, sessions, LEASE, nobody_asks)
            sessions.share(self.replica)
            running = sessions.spawn(self.replica.run())
            self.ready = True
            await self._stop.wait()
            await sessions.drain()
            running.cancel()
            await self.replica.resign()
        self.alive = self.ready = False
        self.ran_until = self.world.now

    def terminate(self) -> None:
        """As by SIGTERM: drain, then end."""
        self.ready, self.disturbed = False, True
        if self._stop is not None:
            self.soon(self._stop.set)

    def kill(self) -> None:
        """As by SIGKILL."""
        if not self.paused:
            self.ran_until = self.world.now
        self.alive, self.ready, self.disturbed = False, False, True

    def pause(self, seconds: float) -> None:
        """As by SIGSTOP and SIGCONT."""
        if not self.paused:
            self.ran_until = self.world.now
        self.paused = self.disturbed = True
        self.world.after(seconds, self._go_on)

    def _go_on(self) -> None:
        self.paused = False
        self.well_since = self.world.now


class Cluster:
    """All of them.

    Args:
        world: Where they are.
        size: How many.
        policy: Of their route.
    """

    def __init__(self, world: World, size: int, policy: Policy = POLICY) -> None:
        self.world = world
        self.policy = policy
        self.server = Server(world)
        self.endpoint = Endpoint(world)
        self._count = 0
        self.gateways: list[Gateway] = []
        for _ in range(size):
            self.start()

    def start(self) -> None:
        """Start one more."""
        self._count += 1
        name = f"gw-{self._count}"
        gateway = Gateway(self.world, name, self.server, self.endpoint, self.policy)
        self.gateways.append(gateway)

    @property
    def ready(self) -> list[Gateway]:
        """Those that take connections."""
        return [gateway for gateway in self.gateways if gateway.ready]

    def pick(self) -> Gateway | None:
        """One of them, as the balancer chooses."""
        ready = self.ready
        return self.world.random.choice(ready) if ready else None


__all__ = ["LEASE", "Cluster", "Gateway", "StoreUnavailable"]
