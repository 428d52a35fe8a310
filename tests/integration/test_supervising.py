"""What the parent of workers does that no test can bring about from outside: forks that fail."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import CapturingLogger

from gateway import workers
from gateway.config import Settings
from gateway.process import Signals
from tests.support.fronts import free_port
from tests.support.timing import UNIT


@asynccontextmanager
async def supervised() -> AsyncIterator[list[int]]:
    """Two workers, with a store that is away; the processes that have served so far."""
    served: list[int] = []
    settings = Settings.model_validate(
        {
            "server": {"port": 0, "workers": 2, "drain_seconds": 0.1},
            "store": {"kind": "valkey", "url": f"valkey://127.0.0.1:{free_port()}"},
            "aws": {"region": "us-east-1", "endpoint_url": f"http://127.0.0.1:{free_port()}"},
            "routes": {"chat": {"endpoint_name": "my-endpoint"}},
        }
    )
    with Signals() as signals:
        work = workers.supervise(
            settings, on_ready=lambda _: None, on_worker=served.append, signals=signals
        )
        running = asyncio.create_task(work)
        try:
            await until(served, 2)
            yield served
        finally:
            signals.stop()
            await running


@pytest.fixture(autouse=True)
def log(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    """What is logged, of which no other test of this process notices anything."""
    monkeypatch.setattr(workers, "configure_logging", lambda *_: None)
    logger = CapturingLogger()
    monkeypatch.setattr(workers, "log", logger)
    return logger


async def until(served: list[int], count: int) -> None:
    async with asyncio.timeout(60 * UNIT):
        while len(served) < count:  # noqa: ASYNC110 - processes start
            await asyncio.sleep(0.01)


async def test_a_fork_that_fails_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, log: CapturingLogger
) -> None:
    spawn, failures = asyncio.create_subprocess_exec, [BlockingIOError(11, "no room"), None]

    async def fails_once(*command: str, **options: object) -> asyncio.subprocess.Process:
        if failures and (failure := failures.pop(0)) is not None:
            raise failure
        return await spawn(*command, **options)  # type: ignore[arg-type]

    async with supervised() as served:
        monkeypatch.setattr(asyncio, "create_subprocess_exec", fails_once)
        os.kill(served[0], signal.SIGKILL)
        await until(served, 3)
        os.kill(served[1], 0)  # the other is still there
    assert [call.kwargs["why"] for call in log.calls if "can't start" in call.args[0]] == [
        "no room"
    ]


async def test_one_that_hangs_is_killed_and_replaced(
    monkeypatch: pytest.MonkeyPatch, log: CapturingLogger
) -> None:
    monkeypatch.setattr(workers, "SILENT_SECONDS", 2 * workers.ALIVE_SECONDS)
    async with supervised() as served:
        os.kill(served[0], signal.SIGSTOP)
        await until(served, 3)
    assert "a worker hangs and is killed" in [call.args[0] for call in log.calls]
