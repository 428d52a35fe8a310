"""An event loop in a thread of its own, for programs that have none, or another."""

import asyncio
import atexit
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")


class Closed(Exception):
    """The loop is over, or has ended meanwhile."""


class Portal:
    """Runs coroutines for threads that wait for them, as long as this context lasts.

    It ends with the interpreter, whose last objects may be those that wait: daemon threads do not
    go on by then (`threading`). A process that is forked has none of its parent's threads.
    """

    def __init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name="session-gateway", daemon=True)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._lock = threading.Lock()
        self._over = False

    def __enter__(self) -> Self:
        self._thread.start()
        atexit.register(self._end)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        atexit.unregister(self._end)
        self._end()

    def wait(
        self, function: Callable[[], Coroutine[Any, Any, T]], timeout: float | None = None
    ) -> T:
        """What a coroutine returns or raises. Who no longer waits for it cancels it.

        Raises:
            Closed: There is no loop any more, so that it has not begun or was cancelled.
            RuntimeError: The loop would wait for itself.
            TimeoutError: It takes longer than so many seconds.
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError("on_notice runs in the session's thread and can't wait for a result")
        if not self._thread.is_alive():
            raise Closed
        with self._lock:
            if self._over:
                raise Closed
            future = asyncio.run_coroutine_threadsafe(function(), self._loop)
        try:
            return future.result(timeout)
        except concurrent.futures.CancelledError:
            raise Closed from None
        except BaseException:  # Ctrl-C, say
            future.cancel()
            raise

    def call(self, function: Callable[[], T]) -> T:
        """What a function returns or raises that does not wait, called in the loop while it is."""

        async def called() -> T:
            return function()

        if threading.current_thread() is self._thread:
            return function()
        try:
            return self.wait(called)
        except Closed:
            return function()

    def _end(self) -> None:
        if self._thread.is_alive():
            with self._lock:
                self._over = True
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def _run(self) -> None:
        # Where the interpreter ends, Python 3.12 has no thread any more to end the loop's own with,
        # which have ended by then.
        with (
            contextlib.suppress(RuntimeError),
            asyncio.Runner(loop_factory=lambda: self._loop) as runner,
        ):
            runner.run(self._until_stopped())

    async def _until_stopped(self) -> None:
        await self._stop.wait()
