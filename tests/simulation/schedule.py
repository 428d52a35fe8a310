"""One schedule: clients talk while a seed breaks what can break, and what must hold in the end."""

import asyncio
import contextlib
import itertools
import logging
import random
import secrets
import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from msgspec import Struct

from tests.simulation.client import Broken, Client
from tests.simulation.gateways import LEASE, POLICY, Cluster
from tests.simulation.store import model_ids
from tests.simulation.world import World

TROUBLE_SECONDS = 30.0
"""For how long things break."""

SETTLE_SECONDS = 200.0
"""How long it may take until everything has ended afterwards."""


class Plan(Struct, frozen=True):
    """How often what breaks, in a schedule.

    Attributes:
        replicas: How many gateways there are.
        clients: How many clients.
        messages: How many messages each has to say.
        faults: How many things break.
        kinds: Which.
        loses: How often the store loses a request or a reply.
        late: How often a request reaches the store too late.
        latency: How long a request to the store, or its reply, may take on its way.
        leaves: How often a client that is cut off does not come back.
    """

    replicas: int = 3
    clients: int = 3
    messages: int = 4
    faults: int = 4
    kinds: tuple[str, ...] = ("cut", "crash", "pause", "drain", "outage")
    loses: float = 0.0
    late: float = 0.0
    latency: float = 0.002
    leaves: float = 0.0


class Outcome(Struct):
    """What has come of a schedule.

    Attributes:
        broken: Promises that were not kept.
        turns: How many turns have ended.
        lost: How many event numbers clients were told are lost.
        reconnects: How often they have come back.
        faults: What broke, and when.
        notes: What each client has seen.
    """

    broken: list[str]
    turns: int
    lost: int
    reconnects: int
    faults: list[str]
    notes: dict[str, list[str]]


@contextlib.contextmanager
def deterministic(world: World) -> Iterator[None]:
    """Let whatever asks for the time or for chance get the world's."""
    state, numbers = random.getstate(), itertools.count(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", world.wall)
        patch.setattr(secrets, "token_hex", lambda _size=None: f"{next(numbers):032x}")
        patch.setattr(secrets, "token_urlsafe", lambda _size=None: f"key-{next(numbers)}")
        random.seed(world.seed)
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        try:
            yield
        finally:
            random.setstate(state)
            structlog.reset_defaults()


class Schedule:
    """Runs one.

    Args:
        seed: Which.
        plan: Of what kind.
    """

    def __init__(self, seed: int, plan: Plan) -> None:
        self.plan = plan
        self.world = World(seed)
        self.faults: list[str] = []
        self.broken: list[str] = []

    def run(self) -> Outcome:
        """Run it, and look at what has come of it."""
        world = self.world
        with deterministic(world):
            self.cluster = Cluster(world, self.plan.replicas)
            self.cluster.server.loses = self.plan.loses
            self.cluster.server.late = self.plan.late
            self.cluster.server.latency = self.plan.latency
            self.clients = [
                Client(world, self.cluster, f"c{number}", self.plan.messages, self.plan.leaves)
                for number in range(self.plan.clients)
            ]
            for _ in range(self.plan.faults):
                world.at(world.between(0.5, TROUBLE_SECONDS), self._break)
            self._heal_at(TROUBLE_SECONDS + 10)
            try:
                world.run(TROUBLE_SECONDS + 10)
                end = world.now + SETTLE_SECONDS
                while world.now < end and not all(client.is_over for client in self.clients):
                    world.run(world.now + 1)
                left = any(client.left for client in self.clients)
                world.run(world.now + 3 * LEASE + (POLICY.resume_seconds if left else 0))
                self._check()
            except Broken as error:
                self.broken.append(str(error))
            broken = [*self.broken, *world.failures]
            self._tidy()
        return Outcome(
            broken=broken,
            turns=sum(len(client.done) for client in self.clients),
            lost=sum(last - first + 1 for c in self.clients for first, last in c.lost),
            reconnects=sum(client.reconnects for client in self.clients),
            faults=self.faults,
            notes={client.name: client.notes for client in self.clients},
        )

    def _break(self) -> None:
        world, cluster = self.world, self.cluster
        kind = world.random.choice(self.plan.kinds)
        victims = cluster.ready
        if kind == "cut":
            client = world.random.choice(self.clients)
            client.cut()
            self._note(f"cut {client.name}")
        elif kind == "outage":
            seconds = world.between(0.5, 12)
            cluster.server.is_down = True
            if world.chance(0.5):  # else it has only stopped
                cluster.server.cut()
            world.after(seconds, self._restore)
            self._note(f"the store is away for {seconds:.1f} s")
        elif kind == "failover":
            cluster.server.copy()
            world.after(world.between(0.01, 0.3), self._lose_store)
        elif victims:
            gateway = world.random.choice(victims)
            if kind == "crash":
                gateway.kill()
                world.after(world.between(0.1, 8), cluster.start)
                self._cut_off(gateway)
                self._note(f"{gateway.name} is killed")
            elif kind == "drain":
                gateway.terminate()
                cluster.start()
                self._note(f"{gateway.name} is stopped")
            else:
                seconds = world.between(0.5, 3 * LEASE)
                gateway.pause(seconds)
                self._note(f"{gateway.name} is paused for {seconds:.1f} s")

    def _lose_store(self) -> None:
        self.cluster.server.is_down = True
        self.cluster.server.cut()
        self.world.after(self.world.between(0.3, 5), self._fail_over)

    def _fail_over(self) -> None:
        self.cluster.server.is_down = False
        self.cluster.server.fail_over()
        self._note("another store takes over")

    def _cut_off(self, gateway: Any) -> None:
        for client in self.clients:
            connection = client._connection
            if connection is not None and connection.gateway is gateway:
                self.world.after(self.world.between(0, 0.1), client.cut)

    def _restore(self) -> None:
        self.cluster.server.is_down = False

    def _heal_at(self, when: float) -> None:
        def heal() -> None:
            server = self.cluster.server
            server.is_down = False
            server.loses = server.late = 0.0
            self.cluster.endpoint.fails = 0.0
            self._note("all is well from here on")

        self.world.at(when, heal)

    def _note(self, text: str) -> None:
        self.faults.append(f"{self.world.now:.3f} {text}")
        for client in self.clients:
            client.note(f"-- {text}")

    def _check(self) -> None:
        endpoint = self.cluster.endpoint
        fails = "failover" in self.plan.kinds
        for client in self.clients:
            if not client.is_over:
                self.broken.append(f"{client.name} waits for ever")
            if client.gone and not fails:
                self.broken.append(f"{client.name} was told that its session is gone")
            if not client.lost and not client.gone and not client.left:
                missing = sorted(client.accepted - set(client.done))
                if missing:
                    self.broken.append(f"{missing} were accepted and have not ended")
        for body, times in endpoint.turns.items():
            if times > 1:
                self.broken.append(f"{body} has reached the model {times} times")
        memory = self.cluster.server.memory
        kept = {
            model
            for each in memory._sessions.values()
            if each.saved is not None
            for model in model_ids(each.saved.head)
        }
        for model in endpoint.open:
            forgotten = model in endpoint.lost or (
                model not in self.cluster.server.models and not endpoint.opened_by[model].alive
            )
            if model not in kept and not forgotten:
                self.broken.append(f"{model} stays open at the model, and nobody knows it")
        for model, who in endpoint.closed.items():
            sure = {process.name for process in who if not process.disturbed}
            if len(sure) > 1:
                self.broken.append(f"{model} was closed by {sorted(sure)}")

    def _tidy(self) -> None:
        """Let what is left of the processes end, so that nothing is collected in the middle."""
        for process in self.world.processes:
            process.alive = process.paused = False
            for task in asyncio.all_tasks(process.loop):
                task.cancel()
            for _ in range(50):
                if not process.loop._ready:  # type: ignore[attr-defined]
                    break
                process.loop.step()
            for task in asyncio.all_tasks(process.loop):
                task._log_destroy_pending = False  # type: ignore[attr-defined]
            process.loop.close()


def run(seed: int, plan: Plan) -> Outcome:
    """Run one schedule."""
    return Schedule(seed, plan).run()
