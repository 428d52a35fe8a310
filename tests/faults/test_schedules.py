"""Random conversations in which connections break, on either side of the gateway, and sessions are
lost, expire, are stopped and are taken over.

`SCHEDULES` and `SEED` in the environment say how many, and from which seed on; a seed that fails is
named, and replays with `SCHEDULES=1 SEED=n`.
"""

import asyncio
import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.support.processes import aside, gateway, local
from tests.support.proxy import proxy_to
from tests.support.schedule import ROUTES, Result, Stage, play, schedule

SCHEDULES = int(os.environ.get("SCHEDULES", "40"))
SEED = int(os.environ.get("SEED", "1"))
WORKERS = 4

CONFIG = """
[server]
heartbeat_seconds = 5

[aws]
region = "us-east-1"
endpoint_url = "{url}"
transport = "{transport}"
read_timeout_seconds = 0.5
"""


@pytest.mark.schedules
async def test_each_event_comes_once_and_no_turn_runs_twice(
    tmp_path: Path, transport: str, record_property: Callable[[str, object], None]
) -> None:
    seeds = iter(range(SEED, SEED + SCHEDULES))
    results: list[Result] = []

    async def work(number: int) -> None:
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            sagemaker = await enter(aside(local("--expires", "absent")))
            between = await enter(proxy_to(sagemaker.url))
            config = tmp_path / f"{number}.toml"
            config.write_text(CONFIG.format(url=between.url, transport=transport) + ROUTES)
            stage = Stage(await enter(aside(gateway(config))), sagemaker, between)
            for seed in seeds:
                begin = len(stage.gateway.lines)
                try:
                    results.append(await play(schedule(seed), stage))
                except Exception:  # noqa: BLE001 - whatever it is, it has a seed
                    log = "".join(stage.gateway.lines[begin:])
                    why = traceback.format_exc()
                    pytest.fail(f"SCHEDULES=1 SEED={seed}: {schedule(seed)}\n{why}\n{log}")

    async with asyncio.TaskGroup() as tasks:
        for number in range(WORKERS):
            tasks.create_task(work(number))
    outcomes = Counter(outcome for result in results for outcome in result.outcomes)
    ended = Counter(result.ended for result in results if result.ended)
    connections = sum(result.connections for result in results)
    renewals = sum(result.renewals for result in results)
    summary = (
        f"{len(results)} schedules, {connections} connections, {renewals} renewals; "
        f"ended: {dict(ended)}; outcomes: {dict(outcomes)}"
    )
    record_property("summary", summary)
    sys.stderr.write(f"\n{summary}\n")
    assert len(results) == SCHEDULES
    assert SCHEDULES < 100 or outcomes["completed"] > SCHEDULES, "most of what is sent is answered"
