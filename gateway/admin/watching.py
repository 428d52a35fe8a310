"""What goes on, each second: made once for all who watch, and only while somebody does."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from time import monotonic
from typing import Any

import msgspec
import structlog

from gateway.admin.fleet import Fleet
from gateway.admin.summary import Summary, Window
from gateway.admin.views import Overview
from gateway.measures import TURNS
from gateway.session.dates import rfc3339

EACH_SECONDS = 1.0
"""How often it is seen what goes on, and how long a replica may take to say so."""

KEPT = 11
"""Latencies are those of so many looks: of ten seconds."""

MOST_WATCH = 32
"""How many may watch at once, at this replica."""

log = structlog.stdlib.get_logger("gateway.admin")


class TooManyWatch(Exception):
    """Too many clients are watching."""


class Watch:
    """Lets operators watch all replicas.

    Args:
        fleet: All of them.
        spawn: Runs work in the background.
    """

    def __init__(
        self, fleet: Fleet, spawn: Callable[[Coroutine[Any, Any, object]], "asyncio.Task[None]"]
    ) -> None:
        self._fleet = fleet
        self._spawn = spawn
        self._watching = 0
        self._task: asyncio.Task[None] | None = None
        self._newest = b""
        self._number = 0  # counts what was seen
        self._seen = asyncio.Condition()
        self._is_closed = False

    def check(self) -> None:
        """See whether one more may watch.

        Raises:
            TooManyWatch: There is no room.
        """
        if self._watching >= MOST_WATCH:
            raise TooManyWatch

    async def watch(self) -> AsyncGenerator[bytes]:
        """What goes on, as JSON: now, and each second, until this replica has drained. Who is slow
        misses what is old.
        """
        self._watching += 1
        number = self._number
        try:
            if self._task is None:
                self._task = self._spawn(self._look())
            while not self._is_over:
                async with self._seen:
                    while self._number == number and not self._is_over:
                        await self._seen.wait()
                    newest, number = self._newest, self._number
                if not self._is_over:
                    yield newest
        finally:
            self._watching -= 1
            if not self._watching and self._task is not None:
                self._task.cancel()
                self._task = None

    async def close(self) -> None:
        """End what everybody watches."""
        self._is_closed = True
        async with self._seen:
            self._seen.notify_all()

    @property
    def _is_over(self) -> bool:
        return self._is_closed or self._fleet.console.is_over

    async def _look(self) -> None:
        """See what goes on until this is cancelled."""
        window, due = Window(KEPT), monotonic()
        while not self._is_over:
            try:
                newest = await self._overview(window)
            except Exception:
                log.exception("the operator's view failed")
            else:
                self._newest = newest
                self._number += 1
            async with self._seen:
                self._seen.notify_all()
            due = max(due + EACH_SECONDS, monotonic())
            await asyncio.sleep(due - monotonic())
        await self.close()

    async def _overview(self, window: Window) -> bytes:
        readings, missing = await self._fleet.read(EACH_SECONDS)
        window.add(monotonic(), readings)
        summary = Summary(self._fleet.endpoints, readings, window)
        overview = Overview(
            at=rfc3339(time.time()),
            window_seconds=(KEPT - 1) * EACH_SECONDS,
            bounds=[*TURNS],
            replicas=self._fleet.states(readings, missing),
            routes=summary.routes(),
            total=summary.figures(),
        )
        return msgspec.json.encode(overview)
