"""A worker: one of several processes that serve a port together, started by `gateway.workers`.

Standard input has the settings, followed by commands; when it is closed the parent has ended, and
the worker stops as on SIGTERM. On standard output the worker reports that it serves, or why it
can't.
"""

import asyncio
import contextlib
import os
import pickle
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec
import uvloop

from gateway.config import ConfigError
from gateway.process import Signals
from gateway.serving import serve
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.reading import Reading
from gateway.workers import (
    ALIVE,
    ALIVE_SECONDS,
    MEASURE,
    RELOAD,
    SIZE_BYTES,
    STOP,
    CantStart,
    Measured,
    Ready,
)

LAST_SECONDS = 1.0
"""Seconds that a worker waits for its parent to read its last reports."""


async def work(orders: int, answers: int) -> bool:
    """Serve until told to stop; returns whether it could be started.

    Args:
        orders: File descriptor to read commands from.
        answers: File descriptor to write reports to.
    """
    told = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(told), os.fdopen(orders, "rb", buffering=0)
    )

    heard = _Heard()
    # Asynchronous, since the parent may be stopped and the pipe full.
    answering, _ = await asyncio.get_running_loop().connect_write_pipe(
        lambda: heard, os.fdopen(answers, "wb", buffering=0)
    )

    def say(answer: bytes) -> None:
        if not answering.is_closing():  # else the parent has ended, which `_obey` notices
            answering.write(answer)

    def tell(answer: Ready | CantStart | Measured) -> None:
        say(msgspec.json.encode(answer) + b"\n")

    async def live() -> None:
        while True:
            say(ALIVE)
            await asyncio.sleep(ALIVE_SECONDS)

    try:
        return await _serve(told, tell, live())
    finally:
        answering.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_SECONDS):
                await heard.all.wait()


class _Heard(asyncio.Protocol):
    """Waits until all reports have been read, or the parent has ended."""

    def __init__(self) -> None:
        self.all = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.all.set()


async def _serve(
    told: asyncio.StreamReader,
    tell: Callable[[Ready | CantStart | Measured], None],
    live: Coroutine[Any, Any, None],
) -> bool:
    built: list[Metrics] = []

    async def measure() -> None:
        tell(Measured(await built[-1].read() if built else Reading()))

    with Signals() as signals:
        try:
            size = int.from_bytes(await told.readexactly(SIZE_BYTES))
            settings = pickle.loads(await told.readexactly(size))  # noqa: S301 - its parent's
        except asyncio.IncompleteReadError:
            live.close()
            return True  # the parent has ended
        obey = _obey(told, signals, measure)
        tasks = [asyncio.create_task(work) for work in (obey, live)]
        try:
            await serve(
                settings,
                on_ready=lambda url: tell(Ready(url)),
                on_built=built.append,
                signals=signals,
            )
        except ConfigError as error:
            tell(CantStart(str(error), wrong=True))
            return False
        except OSError as error:
            tell(CantStart(error.strerror or str(error), wrong=False))
            return False
        finally:
            for task in tasks:
                task.cancel()
            await measure()
    return True


async def _obey(
    told: asyncio.StreamReader, signals: Signals, measure: Callable[[], Awaitable[None]]
) -> None:
    while order := await told.read(1):
        if order == STOP:
            signals.stop()
        elif order == RELOAD:
            signals.hang_up()
        elif order == MEASURE:
            await measure()
    signals.stop()


def main() -> None:
    """Run a worker, with its pipes hidden from any code that uses standard input or output."""
    orders, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    sys.exit(not uvloop.run(work(orders, answers)))


if __name__ == "__main__":
    main()
