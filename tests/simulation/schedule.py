"""One schedule: clients talk while a seed breaks what can break, and what must hold in the end."""

import asyncio
import contextlib
import itertools
import logging
import random
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import structlog
from msgspec import Struct

from gateway.session.policy import Policy, Recovery
from tests.simulation.client import Broken, Client
from tests.simulation.gateways import LEASE, POLICY, Cluster
from tests.simulation.model import LIFETIME, TOLD, Arrival, answer_to
from tests.simulation.raw import RawClient
from tests.simulation.store import TIMEOUT
from tests.simulation.world import World

TROUBLE_SECONDS = 30.0
"""For how long things break."""

SETTLE_SECONDS = 200.0
"""How long it may take until everything has ended afterwards."""

KNOWN_SECONDS = 2.0
"""How long it may take until the store is told of a session at the model, where it is there."""


class Plan(Struct, frozen=True):
    """How often what breaks, in a schedule.

    Attributes:
        replicas: How many gateways there are.
        clients: How many clients.
        raw: How many more that speak without an envelope.
        messages: How many messages each has to say.
        faults: How many things break.
        kinds: Which.
        loses: How often the store loses a request or a reply.
        late: How often a request reaches the store too late.
        latency: How long a request to the store, or its reply, may take on its way.
        leaves: How often a client that is cut off does not come back.
        lifetime: For how long a session at the model can be used.
        policy: Of the route.
        told: How many turns sessions go on from that were held elsewhere.
    """

    replicas: int = 3
    clients: int = 3
    raw: int = 0
    messages: int = 4
    faults: int = 4
    kinds: tuple[str, ...] = ("cut", "crash", "pause", "drain", "outage")
    loses: float = 0.0
    late: float = 0.0
    latency: float = 0.002
    leaves: float = 0.0
    lifetime: float = LIFETIME
    policy: Policy = POLICY
    told: int = 0


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
            self.cluster = Cluster(world, self.plan.replicas, self.plan.policy)
            self.cluster.endpoint.lifetime = self.plan.lifetime
            self.cluster.server.loses = self.plan.loses
            self.cluster.server.late = self.plan.late
            self.cluster.server.latency = self.plan.latency
            kinds = [Client] * self.plan.clients + [RawClient] * self.plan.raw
            self.clients = [
                kind(world, self.cluster, f"c{number}", self.plan.messages, self.plan.leaves)
                for number, kind in enumerate(kinds)
            ]
            for client in self.clients:
                client.told = [f"{TOLD}{client.name}-{n}" for n in range(self.plan.told)]
            for _ in range(self.plan.faults):
                world.at(world.between(0.5, TROUBLE_SECONDS), self._break)
            self._heal_at(TROUBLE_SECONDS + 10)
            try:
                world.run(TROUBLE_SECONDS + 10)
                end = world.now + SETTLE_SECONDS
                while world.now < end and not all(client.is_over for client in self.clients):
                    world.run(world.now + 1)
                world.run(world.now + 3 * LEASE)
                if self.cluster.endpoint.open:  # of clients that have left, and do not come back
                    world.run(world.now + self.plan.policy.resume_seconds)
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
        elif kind == "stall":
            client = world.random.choice(self.clients)
            client.stall(world.between(0.5, 10))
            self._note(f"{client.name} does not read")
        elif kind == "vanish":
            cluster.endpoint.vanish()
            self._note("the model has lost a session")
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
        server = self.cluster.server
        for client in self.clients:
            if not client.is_over:
                self.broken.append(f"{client.name} waits for ever")
            if client.gone and not (client.forsaken or server.may_lack(client.session_id)):
                self.broken.append(f"{client.name} was told that its session is gone")
            if not client.gone and not client.left:
                missing = sorted(client.accepted - set(client.done))
                if missing and not server.may_lack(client.session_id):
                    self.broken.append(f"{missing} were accepted and have not ended")
            if not client.lost and not server.may_lack(client.session_id):
                arrivals = self.cluster.endpoint.arrivals[client.session_id or ""]
                self.broken += misled(client, arrivals, self.plan.policy)
        self._check_model()

    def _check_model(self) -> None:
        endpoint, server = self.cluster.endpoint, self.cluster.server
        for session_id, arrivals in endpoint.arrivals.items():
            turns = Counter(arrival.turn for arrival in arrivals if not arrival.again)
            for turn, times in turns.items():
                if times > 1 and not server.may_repeat(session_id, turn):
                    self.broken.append(f"{turn} has reached the model {times} times")
        for model in endpoint.open:
            process, at = endpoint.opened_by[model]
            missed_at = server.missed_at[process] + TIMEOUT
            known_at = max(at, process.well_since, missed_at) + KNOWN_SECONDS
            forgotten = model in endpoint.lost or (
                model not in server.models and not process.alive and process.ran_until < known_at
            )
            if not forgotten and not server.may_lack(server.models.get(model)):
                self.broken.append(f"{model} stays open at the model")
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


def misled(client: Client, arrivals: Sequence[Arrival], policy: Policy) -> Iterator[str]:
    """Where the model did not know what the client had been told that it does."""
    order = [*client.done]
    used: set[str] = set()
    knows: defaultdict[str, list[str]] = defaultdict(list)
    for turn, session, again, history in arrivals:
        knows[session].append(turn)
        if again or turn not in client.done:
            continue
        used.add(session)
        before = order[: order.index(turn)]
        if client.renewals[turn] < len(used) - 1:
            yield f"{turn} goes to another session, of which {client.name} is not told"
        answered = [each for each in before if client.done[each] == "completed"]
        if policy.sends_history:
            # What was cancelled is told as far as it was heard, where the model may have seen it.
            known = [each for each, _ in history]
            told = [
                (each, client.heard.get(each, ""))
                for each in before
                if each in answered or (each in known and client.done[each] == "cancelled")
            ]
            told = [*((each, answer_to(each)) for each in client.told), *told]
            if history != told:
                yield f"{turn}: the model is told {history}, not {told}"
        elif policy.on_lost is Recovery.REPLAY:
            knew = [
                each
                for each in knows[session][:-1]
                if each in client.told or client.done.get(each) == "completed"
            ]
            if knew != [*client.told, *answered]:
                yield f"{turn}: the model knows of {knew}, not of {client.told} and {answered}"


def run(seed: int, plan: Plan) -> Outcome:
    """Run one schedule."""
    return Schedule(seed, plan).run()
