"""Virtual time, and processes that live in it: each has an event loop, and all share one clock.

A process runs when its loop has something to do; one that is paused does not, and does it late,
as after SIGSTOP and SIGCONT; one that has crashed never does again. Which of several goes first is
drawn from the seed, so a seed is a schedule.
"""

import asyncio
import heapq
import itertools
import traceback
from asyncio import base_events, events
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

EPOCH = 1_800_000_000.0


class _NoFiles:
    """The part of a selector that a loop without files needs."""

    def select(self, _timeout: float | None) -> list[Any]:
        return []

    def close(self) -> None:
        pass


class SimulatedLoop(base_events.BaseEventLoop):
    """An event loop without files, whose time is the world's."""

    def __init__(self, world: "World") -> None:
        super().__init__()
        self._world = world
        self._selector = _NoFiles()

    def time(self) -> float:
        return self._world.now

    def _process_events(self, _events: Sequence[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    @property
    def due(self) -> float:
        """When it has something to do; infinity where never."""
        if self._ready:  # type: ignore[attr-defined]
            return self._world.now
        scheduled = self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._cancelled:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            self._timer_cancelled_count -= 1  # type: ignore[attr-defined]
        return scheduled[0].when() if scheduled else float("inf")

    def step(self) -> None:
        """Run what is due now, once."""
        events._set_running_loop(self)
        try:
            self._run_once()  # type: ignore[attr-defined]
        finally:
            events._set_running_loop(None)


class Process:
    """Something that can be paused, and that can crash.

    Attributes:
        loop: Its event loop.
        alive: Whether it has not crashed, or ended.
        disturbed: Whether it was paused, killed or stopped at any time.
        well_since: Since when it runs.
        ran_until: When it has run last, if it does not.
    """

    def __init__(self, world: "World", name: str) -> None:
        self.name = name
        self.loop = SimulatedLoop(world)
        self.loop.set_exception_handler(world.failed)
        self.alive = True
        self.paused = self.disturbed = False
        self.well_since = self.ran_until = world.now
        world.processes.append(self)

    def soon(self, call: Callable[..., object], *arguments: object) -> None:
        """Have it do something, if it lives."""
        if self.alive:
            self.loop.call_soon(call, *arguments)

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        """Have it run a coroutine."""
        return self.loop.create_task(work)


class World:
    """The clock, chance, and whatever happens outside of processes.

    Args:
        seed: Of all that is left to chance.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.now = 0.0
        self.processes: list[Process] = []
        self.failures: list[str] = []
        self._numbers = itertools.count()
        self._heap: list[tuple[float, int, Callable[..., object], tuple[object, ...]]] = []

    def wall(self) -> float:
        """Seconds since the epoch."""
        return EPOCH + self.now

    def at(self, when: float, call: Callable[..., object], *arguments: object) -> None:
        """Have something happen, at that time."""
        heapq.heappush(self._heap, (when, next(self._numbers), call, arguments))

    def after(self, seconds: float, call: Callable[..., object], *arguments: object) -> None:
        """Have something happen, in so many seconds."""
        self.at(self.now + seconds, call, *arguments)

    def chance(self, probability: float) -> bool:
        """Whether something happens that happens so often."""
        return self.random.random() < probability

    def between(self, least: float, most: float) -> float:
        """A number at random."""
        return self.random.uniform(least, most)

    def failed(self, _loop: object, context: dict[str, Any]) -> None:
        """What no code has handled."""
        error = context.get("exception")
        text = "".join(traceback.format_exception(error)) if error else ""
        self.failures.append(f"{context['message']}: {text}")

    def run(self, until: float) -> None:
        """Let time pass."""
        while True:
            due = self._heap[0][0] if self._heap else float("inf")
            who: list[Process | None] = [None]
            for process in self.processes:
                if process.alive and not process.paused:
                    when = process.loop.due
                    if when < due:
                        due, who = when, [process]
                    elif when == due:
                        who.append(process)
            due = max(due, self.now)
            if due > until:
                self.now = until
                return
            self.now = due
            chosen = who[0] if len(who) == 1 else self.random.choice(who)
            if chosen is None:
                _, _, call, arguments = heapq.heappop(self._heap)
                call(*arguments)
            else:
                chosen.loop.step()
