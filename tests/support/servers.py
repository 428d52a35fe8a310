"""ASGI servers as processes, each with an application of `tests.support.embedded`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from urllib.parse import urlsplit

from tests.support.fronts import free_port, listens
from tests.support.processes import Process
from tests.support.timing import UNIT

PREFIX = "/prefix"
"""Where the gateway is mounted."""

UVICORN = ("uvicorn", "--port", "0")
SERVERS = {
    "uvicorn-websockets": (*UVICORN, "--ws", "websockets"),
    "uvicorn-websockets-sansio": (*UVICORN, "--ws", "websockets-sansio"),
    "uvicorn-wsproto": (*UVICORN, "--ws", "wsproto"),
    "hypercorn": ("hypercorn", "--bind", "127.0.0.1:0"),
    "granian": ("granian", "--interface", "asgi", "--port", "{port}"),
}


@contextmanager
def served(server: str, app: str, config: Path) -> Iterator[Process]:
    """An application that a server runs, from when it takes connections.

    Args:
        server: One of `SERVERS`.
        app: Its name in `tests.support.embedded`.
        config: The gateway's file.
    """
    module, *options = SERVERS[server]
    options = [option.format(port=free_port()) for option in options]
    target = f"tests.support.embedded:{app}"
    process = Process(["env", f"CONFIG={config}", sys.executable, "-m", module, target, *options])
    try:
        until = monotonic() + 30 * UNIT
        while not listens(urlsplit(process.url).port or 0):  # granian says so before it does
            assert monotonic() < until, process.output
            sleep(0.02)
        yield process
    finally:
        process.stop()
