"""One of several processes that serve a port together; `gateway.workers` starts it.

It has its settings from there, over its standard input, and then is told what to do. When that ends
its parent is gone, and it stops as on SIGTERM. It says on its standard output when it serves, or
why it can't.
"""

import asyncio
import contextlib
import os
import pickle
import sys

import msgspec
import uvloop

from gateway.config import ConfigError
from gateway.process import Signals
from gateway.serving import serve
from gateway.workers import ALIVE, ALIVE_SECONDS, RELOAD, SIZE_BYTES, STOP, CantStart, Ready


async def work(orders: int, answers: int) -> bool:
    """Serve until it is told to stop; returns whether it could.

    Args:
        orders: Where it is told what to do.
        answers: Where it says how it is.
    """
    told = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(told), os.fdopen(orders, "rb", buffering=0)
    )

    def say(answer: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # that nobody hears it is seen elsewhere
            os.write(answers, answer)

    def tell(answer: Ready | CantStart) -> None:
        say(msgspec.json.encode(answer) + b"\n")

    async def live() -> None:
        while True:
            say(ALIVE)
            await asyncio.sleep(ALIVE_SECONDS)

    with Signals() as signals:
        try:
            size = int.from_bytes(await told.readexactly(SIZE_BYTES))
            settings = pickle.loads(await told.readexactly(size))  # noqa: S301 - its parent's
        except asyncio.IncompleteReadError:
            return True  # nobody is there to serve for
        tasks = [asyncio.create_task(work) for work in (_obey(told, signals), live())]
        try:
            await serve(settings, on_ready=lambda url: tell(Ready(url)), signals=signals)
        except ConfigError as error:
            tell(CantStart(str(error), wrong=True))
            return False
        except OSError as error:
            tell(CantStart(error.strerror or str(error), wrong=False))
            return False
        finally:
            for task in tasks:
                task.cancel()
    return True


async def _obey(told: asyncio.StreamReader, signals: Signals) -> None:
    while order := await told.read(1):
        if order == STOP:
            signals.stop()
        elif order == RELOAD:
            signals.hang_up()
    signals.stop()


def main() -> None:
    """Keep what connects this with its parent from everything else that would use it."""
    orders, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    sys.exit(not uvloop.run(work(orders, answers)))


if __name__ == "__main__":
    main()
