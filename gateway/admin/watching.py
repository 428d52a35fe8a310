"""Streams an overview every second, computed once for all watchers, and only if there are any."""

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
"""Interval of overviews, and maximum time for a replica's answer."""

KEPT = 11
"""Number of overviews that latencies cover: ten seconds."""

MOST_WATCH = 32
"""Maximum number of watchers at this replica."""

log = structlog.stdlib.get_logger("gateway.admin")


class TooManyWatch(Exception):
    """Too many clients are watching."""


class Watch:
    """Lets operators watch all replicas.

    Args:
        fleet: All replicas.
        spawn: Runs a coroutine in the background.
    """

    def __init__(
        self, fleet: Fleet, spawn: Callable[[Coroutine[Any, Any, object]], "asyncio.Task[None]"]
    ) -> None:
        self._fleet = fleet
        self._spawn = spawn
        self._watching = 0
        self._task: asyncio.Task[None] | None = None
        self._newest = b""
        self._number = 0  # of the newest overview
        self._seen = asyncio.Condition()
        self._is_closed = False

    def check(self) -> None:
        """Check that another watcher is allowed.

        Raises:
            TooManyWatch: The limit is reached.
        """
        if self._watching >= MOST_WATCH:
            raise TooManyWatch

    async def watch(self) -> AsyncGenerator[bytes]:
        """Yield overviews as JSON, now and every second, until this replica has drained. Slow
        watchers skip outdated ones.
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
        """End all streams."""
        self._is_closed = True
        async with self._seen:
            self._seen.notify_all()

    @property
    def _is_over(self) -> bool:
        return self._is_closed or self._fleet.console.is_over

    async def _look(self) -> None:
        """Compute overviews until cancelled."""
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
