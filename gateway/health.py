"""Whether the store that replicas share answers."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterator

import structlog

from gateway.session.storage import StoreUnavailable

DOUBT_SECONDS = 1.0
"""A store that has not answered for so long takes no new turns."""

log = structlog.stdlib.get_logger("gateway.store")


class Health:
    """Whether the store answers.

    Args:
        clock: Seconds of a clock that is never set.
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
        """Whether the last that was heard of it was good."""
        return self._well.is_set()

    @property
    def is_doubtful(self) -> bool:
        """Whether it may take long, or for ever, until what is written now is there."""
        if not self.is_up:
            return True
        oldest = next(iter(self._waiting.values()), None)
        return oldest is not None and self._clock() - oldest > DOUBT_SECONDS

    def begin(self) -> int:
        """Something is asked of the store; returns what `end` is to be told."""
        number = next(self._numbers)
        self._waiting[number] = self._clock()
        return number

    def end(self, number: int) -> None:
        """The store has answered, or has not."""
        del self._waiting[number]
        if not self._waiting:
            self._settled.set()

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Something is asked of the store, and its answer awaited."""
        number = self.begin()
        try:
            yield
        except StoreUnavailable as error:
            self.failed(error)
            raise
        finally:
            self.end(number)

    def failed(self, error: Exception) -> None:
        """It has not answered, and that is why."""
        if self.is_up:
            log.error("the store does not answer", why=str(error) or type(error).__name__)
            self._well.clear()
            self._ill.set()

    def answered(self) -> None:
        """It has."""
        if not self.is_up:
            log.warning("the store answers again")
            self._ill.clear()
            self._well.set()

    async def recovery(self) -> None:
        """Wait until it answers again."""
        await self._well.wait()

    async def trouble(self, seconds: float) -> None:
        """Wait until it does not answer, but no longer than that."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ill.wait(), seconds)

    async def settled(self) -> None:
        """Wait until nothing is asked of it."""
        while self._waiting:
            self._settled.clear()
            await self._settled.wait()
