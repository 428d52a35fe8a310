"""Random conversations over connections that break, on either side of the gateway.

`SCHEDULES` and `SEED` in the environment say how many, and from which seed on; a seed that fails is
named, and replays with `SCHEDULES=1 SEED=n`.
"""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.support.processes import gateway, local
from tests.support.proxy import proxy_to
from tests.support.schedule import Result, play, schedule

SCHEDULES = int(os.environ.get("SCHEDULES", "200"))
SEED = int(os.environ.get("SEED", "1"))
WORKERS = 2

CONFIG = """
[server]
heartbeat_seconds = 5

[aws]
region = "us-east-1"
endpoint_url = "{url}"
read_timeout_seconds = 0.5

[routes.chat]
endpoint_name = "my-endpoint"
content_type = "text/plain; charset=utf-8"
stream = "raw"
retry_seconds = 0.02
"""


async def test_each_event_comes_once_and_no_turn_runs_twice(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    seeds = iter(range(SEED, SEED + SCHEDULES))
    results: list[Result] = []

    async def work(number: int) -> None:
        async with AsyncExitStack() as stack:
            platform = await stack.enter_async_context(proxy_to(sagemaker.url))
            config = tmp_path / f"{number}.toml"
            config.write_text(CONFIG.format(url=platform.url))
            process = await asyncio.to_thread(stack.enter_context, gateway(config))
            for seed in seeds:
                try:
                    results.append(await play(schedule(seed), process, platform, "chat"))
                except Exception as error:  # noqa: BLE001 - whatever it is, it has a seed
                    pytest.fail(f"SCHEDULES=1 SEED={seed}: {error!r}\n{process.output}")

    with local() as sagemaker:
        async with asyncio.TaskGroup() as tasks:
            for number in range(WORKERS):
                tasks.create_task(work(number))
    outcomes = Counter(outcome for result in results for outcome in result.outcomes)
    connections = sum(result.connections for result in results)
    lost = sum(result.closed is not None for result in results)
    summary = f"{len(results)} schedules, {connections} connections, {lost} lost: {outcomes}"
    record_property("summary", summary)
    sys.stderr.write(f"\n{summary}\n")
    assert len(results) == SCHEDULES
    assert outcomes["completed"] > SCHEDULES, "most of what is sent is answered"
