"""Tracks whether the shared store is available."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterator

import structlog

from gateway.session.storage import StoreUnavailable

DOUBT_SECONDS = 1.0
"""Seconds without an answer after which no new turns are accepted."""

log = structlog.stdlib.get_logger("gateway.store")


class Health:
    """Availability of the store.

    Args:
        clock: Returns seconds of a monotonic clock.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._numbers = itertools.count()
        self._waiting: dict[int, float] = {}
        self._settled = asyncio.Event()
        self._ill = asyncio.Event()
        self._well = asyncio.Event()
        self._well.set()

    @property
    def is_up(self) -> bool:
        """Whether the last call succeeded."""
        return self._well.is_set()

    @property
    def is_doubtful(self) -> bool:
        """Whether a write may now take long, or never succeed."""
        if not self.is_up:
            return True
        oldest = next(iter(self._waiting.values()), None)
        return oldest is not None and self._clock() - oldest > DOUBT_SECONDS

    def begin(self) -> int:
        """Record the start of a call; returns the argument for `end`."""
        number = next(self._numbers)
        self._waiting[number] = self._clock()
        return number

    def end(self, number: int) -> None:
        """Record the end of a call, successful or not."""
        del self._waiting[number]
        if not self._waiting:
            self._settled.set()

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Track a call to the store."""
        number = self.begin()
        try:
            yield
        except StoreUnavailable as error:
            self.failed(error)
            raise
        finally:
            self.end(number)

    def failed(self, error: Exception) -> None:
        """Record that the store is unavailable."""
        if self.is_up:
            log.error("the store does not answer", why=str(error) or type(error).__name__)
            self._well.clear()
            self._ill.set()

    def answered(self) -> None:
        """Record that the store has answered."""
        if not self.is_up:
            log.warning("the store answers again")
            self._ill.clear()
            self._well.set()

    async def recovery(self) -> None:
        """Wait until the store is available."""
        await self._well.wait()

    async def trouble(self, seconds: float) -> None:
        """Wait until the store is unavailable, or the time is over."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ill.wait(), seconds)

    async def settled(self) -> None:
        """Wait until no calls are pending."""
        while self._waiting:
            self._settled.clear()
            await self._settled.wait()
