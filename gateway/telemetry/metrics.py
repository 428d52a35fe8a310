"""Reads metrics when they are scraped, from the counts that objects keep anyway."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, get_args

from prometheus_client.process_collector import ProcessCollector

from gateway import __version__
from gateway.errors import Outcome
from gateway.guard.model import GuardedModel
from gateway.measures import MOMENTS, Histogram, StoreMeasures
from gateway.protocol.messages import Context
from gateway.sessions import Sessions
from gateway.tally import RouteMeasures
from gateway.telemetry.reading import Reading

LOOK_SECONDS = 0.25
"""Seconds between measurements of the event loop's delay."""

SESSIONS_AT_ONCE = 1000
"""Sessions that are read in one iteration of the event loop."""


_TURNS = {("failed", "internal", outcome.value): 0 for outcome in Outcome}
_ENDED = {"internal": 0, "lost": 0}
_RENEWED = {("lost", context): 0 for context in get_args(Context)}
"""Label values of alert rules, exposed as 0 so that Prometheus sees the first increase."""


class Connections(Protocol):
    """Counts of WebSockets of all protocols."""

    @property
    def connections(self) -> Mapping[tuple[str, str], int]:
        """Number of open connections, by route and protocol."""
        ...

    @property
    def closed(self) -> Mapping[tuple[str, int], int]:
        """Number of closed connections, by route and close code; 0 for unknown codes."""
        ...

    @property
    def turned_away(self) -> int:
        """Number of connections refused because there were too many."""
        ...


class Sources(NamedTuple):
    """The objects that metrics are read from.

    Attributes:
        sessions: All sessions.
        guards: The guarded model of each route.
        connections: WebSockets.
        answered: Number of HTTP responses, by status.
        limits_hit: How often each setting has refused something, by name; these are added up.
        store: Measures of the shared store; None without one.
    """

    sessions: Sessions
    guards: Mapping[str, GuardedModel]
    connections: Connections
    answered: Mapping[int, int]
    limits_hit: Sequence[Mapping[str, int]]
    store: StoreMeasures | None


class Metrics:
    """The current values of all metrics.

    Args:
        sources: The objects to read them from.
    """

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._delay = Histogram(MOMENTS)
        self._process = ProcessCollector(registry=None)

    async def watch(self) -> None:
        """Measure the event loop's delay until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            self._see(loop.time() - due)

    def _see(self, delay: float) -> None:
        """Record a delay, and those of missed measurements, which would have been late too."""
        self._delay.observe(max(0.0, delay))
        while (delay := delay - LOOK_SECONDS) > 0:
            self._delay.observe(delay)

    async def read(self) -> Reading:
        """Read the current values."""
        reading, sources = Reading(), self._sources
        reading.set("build_info", 1, __version__)
        for (name, protocol), number in sources.connections.connections.items():
            reading.set("connections", number, name, protocol)
        for (name, code), number in sources.connections.closed.items():
            reading.set("connections_closed", number, name, str(code or "other"))
        for status, number in sources.answered.items():
            reading.set("http_requests", number, str(status))
        for name, route in sources.sessions.routes.items():
            _read_route(reading, name, route.measures)
        for name, guard in sources.guards.items():
            _read_guard(reading, name, guard)
        self._read_limits(reading)
        if sources.store is not None:
            reading.set("store_up", sources.sessions.can_keep)
            reading.set("store_commands", sources.store.commands)
            reading.set("store_failures", sources.store.failures)
            reading.spread("store_round_trip_seconds", sources.store.trips)
        reading.spread("event_loop_delay_seconds", self._delay)
        reading.set("draining", sources.sessions.draining)
        for metric in self._process.collect():
            name = metric.name
            if name in {"process_cpu_seconds", "process_resident_memory_bytes", "process_open_fds"}:
                reading.set(name, metric.samples[0].value)
        await self._read_sessions(reading)
        return reading

    def _read_limits(self, reading: Reading) -> None:
        sources = self._sources
        hits: Counter[str] = Counter()
        for each in sources.limits_hit:
            hits.update(each)
        hits["max_connections"] = sources.connections.turned_away
        hits["max_turns_in_flight"] = sum(each.turned_away for each in sources.guards.values())
        budget = sources.sessions.budget
        hits["buffer_bytes"] = budget.refused
        for limit, number in hits.items():
            reading.set("limits_hit", number, limit)
        reading.set("buffer_bytes", budget.total)
        reading.set("buffer_limit_bytes", budget.limit)

    async def _read_sessions(self, reading: Reading) -> None:
        sessions = self._sources.sessions
        states: Counter[tuple[str, str, str]] = Counter()
        held: Counter[str] = Counter(dict.fromkeys(sessions.routes, 0))
        queued: Counter[str] = Counter(dict.fromkeys(sessions.routes, 0))
        awaited: Counter[str] = Counter(dict.fromkeys(sessions.routes, 0))
        for number, runner in enumerate(sessions.runners, 1):
            session = runner.session
            name = session.policy.route
            attached = "false" if session.clients.owner is None else "true"
            states[name, session.state.value, attached] += 1
            held[name] += runner.log.held
            queued[name] += len(session.turns.queue.waiting)
            running = session.turns.running
            awaited[name] += running is not None and running.is_awaited
            if number % SESSIONS_AT_ONCE == 0:
                await asyncio.sleep(0)
        for labels, number in states.items():
            reading.set("sessions", number, *labels)
        for name in sessions.routes:
            reading.set("log_bytes", held[name], name)
            reading.set("turns_queued", queued[name], name)
            reading.set("turns_awaited", awaited[name], name)


def _read_route(reading: Reading, name: str, measures: RouteMeasures) -> None:
    measures.count()
    for labels, number in {**_TURNS, **measures.turns}.items():
        reading.set("turns", number, name, *labels)
    reading.set("deltas", measures.deltas, name)
    reading.spread("turn_duration_seconds", measures.duration, name)
    reading.spread("turn_queued_seconds", measures.queued, name)
    reading.spread("turn_upstream_seconds", measures.upstream, name)
    reading.spread("turn_gateway_seconds", measures.own, name)
    reading.spread("turn_first_delta_seconds", measures.first_delta, name)
    reading.set("sessions_opened", measures.opened, name)
    for reason, number in {**_ENDED, **measures.ended}.items():
        reading.set("sessions_ended", number, name, reason)
    for (reason, context), number in {**_RENEWED, **measures.renewed}.items():
        reading.set("sessions_renewed", number, name, reason, context)
    for (call, error), number in measures.failures.items():
        reading.set("call_failures", number, name, call, error)
    for code, number in measures.refused.items():
        reading.set("messages_refused", number, name, code)


def _read_guard(reading: Reading, name: str, guard: GuardedModel) -> None:
    reading.set("turns_waiting", guard.waiting, name)
    reading.set("turns_in_flight", guard.in_flight, name)
    reading.set("turns_in_flight_limit", guard.limit, name)
    reading.set("breaker_open", guard.refuses, name)
    reading.spread("place_wait_seconds", guard.waited, name)
