"""The gateway as it is, run as a module, which says what it holds when it gets SIGUSR1.

That is a line of JSON on standard output; see `Held`.
"""

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import AsyncIterator

import msgspec

import gateway.serving
from gateway.app import Built, build
from gateway.cli import main
from gateway.config import Settings
from gateway.guard.model import GuardedModel
from gateway.runner import SessionRunner
from gateway.transports.connection import WebSocketConnection


class Held(msgspec.Struct):
    """What a gateway holds.

    Attributes:
        tasks: Of asyncio.
        sessions: Open, or kept for who may come back.
        connections: Objects of them, which the collector may not have come to.
        runners: The same of sessions.
        at_model: Turns at the model.
        waiting: Turns that wait for it.
    """

    tasks: int
    sessions: int
    connections: int
    runners: int
    at_model: int
    waiting: int


def held(built: Built) -> Held:
    """What this gateway holds now."""
    gc.collect()  # what is found by no count of references is no leak
    there = [type(one) for one in gc.get_objects()]
    guards = [route.model for route in built.sessions.routes.values()]
    guarded = [one for one in guards if isinstance(one, GuardedModel)]
    return Held(
        tasks=len(asyncio.all_tasks()),
        sessions=len(built.sessions),
        connections=there.count(WebSocketConnection),
        runners=there.count(SessionRunner),
        at_model=sum(guard._in_flight for guard in guarded),
        waiting=sum(guard._queue.size for guard in guarded),
    )


@contextlib.asynccontextmanager
async def telling(settings: Settings, name: str | None) -> AsyncIterator[Built]:
    """See `gateway.app.build`."""
    async with build(settings, name) as built:

        def tell() -> None:
            os.write(1, msgspec.json.encode(held(built)) + b"\n")

        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, tell)
        yield built


if __name__ == "__main__":
    setattr(gateway.serving, "build", telling)  # noqa: B010 - no assignment may change a function
    main()
