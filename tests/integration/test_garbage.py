"""A connection that has ended, and its session, are gone at once: nothing waits for a collector.

The gateway lets Python's collector of cyclic garbage run seldom, and a session's log may be large.
"""

import asyncio
import gc
import subprocess
import sys
import time

import pytest
from websockets.server import ServerProtocol

from gateway.config import Settings
from gateway.process import Signals
from gateway.runner import SessionRunner
from gateway.sagemaker.replies import ReplyReader
from gateway.serving import serve
from gateway.session.session import Session
from gateway.transports.calls import HttpCall, WebSocketCall
from gateway.transports.connection import WebSocketConnection
from gateway.transports.http import HttpProtocol
from gateway.transports.protocol import WebSocketProtocol
from tests.integration.conftest import Start
from tests.support.client import client, in_time, raw
from tests.support.timing import UNIT

KINDS = (
    Session,
    SessionRunner,
    ReplyReader,
    WebSocketConnection,
    WebSocketProtocol,
    WebSocketCall,
    HttpProtocol,
    HttpCall,
    ServerProtocol,
)


LARGE_AND_SMALL = """
import random
from pathlib import Path
from resource import getpagesize
from gateway.serving import return_large_blocks


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize()


return_large_blocks()
random.seed(1)
before = resident()
large, small = [], []
for _ in range(400):
    for kept, limit, low, high in (large, 20, 5_000_000, 7_000_000), (small, 50, 1_000, 100_000):
        kept.append(b"x" * random.randrange(low, high))
        if len(kept) > limit:
            kept.pop(random.randrange(limit))
large.clear()
print(resident() - before)
"""
"""As replies do in logs, of which some are dropped; prints how many bytes are not given back."""


def there() -> list[object]:
    return [one for one in gc.get_objects() if type(one) in KINDS]


async def converse(url: str) -> None:
    """Connections that end in different ways."""
    async with client(url) as chat:
        await chat.open()
        await chat.ask("Hello")
        await chat.send("session.close")
        await chat.closed()
    async with client(url) as chat:
        await chat.send("nonsense")
        await chat.closed()
    async with raw(url, "chat") as socket:
        await socket.send("Hello")
        await in_time(socket.recv())
    async with client(url, route="streamed") as chat:
        await chat.open()
        await chat.ask("Hello")
        await chat.send("session.close")
        await chat.closed()


async def test_nothing_is_left_of_connections(
    start_local: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local-secret")
    for name in ("configure_logging", "tune_garbage_collection", "return_large_blocks"):
        monkeypatch.setattr(f"gateway.serving.{name}", lambda *_: None)  # they change this process
    aws = {"region": "us-east-1", "endpoint_url": start_local().url}
    chat = {"endpoint_name": "my-endpoint", "content_type": "text/plain"}
    routes = {"chat": chat, "streamed": {**chat, "stream": "raw"}}
    settings = Settings.model_validate({"aws": aws, "routes": routes, "server": {"port": 0}})
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    signals = Signals()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serve(settings, on_ready=ready.set_result, signals=signals))
        url = (await ready).replace("http", "ws", 1)
        before = there()  # what other tests have left to this process; held, so that it stays
        known = set(map(id, before))
        gc.disable()
        try:
            await converse(url)
            deadline = time.monotonic() + 10 * UNIT
            while left := set(map(id, there())) - known:
                assert time.monotonic() < deadline, [
                    (type(one), str(one)) for one in there() if id(one) in left
                ]
                await asyncio.sleep(0.01)  # nobody tells when an object is freed
        finally:
            gc.enable()
        signals.handle()


def test_the_memory_of_large_bodies_goes_with_them() -> None:
    """Where they leave it to the process, a hundred megabytes stay behind."""
    program = [sys.executable, "-c", LARGE_AND_SMALL]
    left = subprocess.run(program, capture_output=True, check=True, text=True)
    assert int(left.stdout) < 30_000_000
