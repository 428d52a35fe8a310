"""Thousands of idle sessions that are resumed at another replica when theirs is killed: how long
that takes, and what the store holds of each.
"""

import asyncio
import json
import os
import resource
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from tests.bench.processes import MEASURED, REST
from tests.chaos.fleet import Fleet, environment, fleet
from tests.chaos.trial import Say, empty
from tests.support.timing import UNIT

PROCESSES = 2
"""Of clients."""

BAR_SECONDS = 10.0

GATHER_SECONDS, WAIT_SECONDS = 300 * UNIT, 120 * UNIT

LINE_BYTES = 2**24


def raise_limit(sockets: int) -> None:
    """Let this process, and those that it starts, have so many sockets each.

    Raises:
        SystemExit: They may not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = sockets + 500
    if soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise SystemExit(f"{wanted} open files are needed, and {hard} are allowed: ulimit -n")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Death:
    """What has come of one.

    Attributes:
        sessions: How many there were.
        seconds: How long after the death each client had its session, in order.
        counts: What its clients met with.
        memory: What the store used in bytes: before, with all sessions, and afterwards.
        wrong: What is.
    """

    def __init__(self, sessions: int) -> None:
        self.sessions = sessions
        self.seconds: list[float] = []
        self.counts: Counter[str] = Counter()
        self.memory: list[int] = []
        self.wrong: list[str] = []

    def after(self, share: float) -> float:
        """Within how many seconds this share of all had its session."""
        return self.seconds[min(len(self.seconds) - 1, int(len(self.seconds) * share))]


async def _client(stack: AsyncExitStack, there: Fleet, count: int) -> Process:
    one, other = there.gateways
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "tests.chaos.idle", str(one.port), str(other.port), str(count)],
        stdout=PIPE,
        limit=LINE_BYTES,
        env=environment(),
    )

    async def end() -> None:
        process.kill()
        await process.wait()

    stack.push_async_callback(end)
    return process


async def _line(process: Process) -> bytes:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise AssertionError("clients have ended too early")
    return line


def _memory(there: Fleet) -> int:
    return int(there.valkey.ask("INFO", "memory")["used_memory"])


async def die(count: int, lease: float, folder: Path) -> Death:
    """Open so many sessions at one of two replicas, kill it, and look on."""
    empty(folder)
    raise_limit(count)
    death = Death(count)
    os.sched_setaffinity(0, REST)  # which whatever is started inherits
    async with AsyncExitStack() as stack:
        there = await stack.enter_async_context(fleet(folder, 2, lease, 120.0, 30.0))
        death.memory.append(await asyncio.to_thread(_memory, there))
        parts = [count // PROCESSES + (i < count % PROCESSES) for i in range(PROCESSES)]
        clients = [await _client(stack, there, part) for part in parts if part]
        async with asyncio.timeout(GATHER_SECONDS):
            await asyncio.gather(*map(_line, clients))
        await asyncio.sleep(2)
        death.memory.append(await asyncio.to_thread(_memory, there))
        one, other = there.gateways
        one.stays_away = 3600.0
        os.sched_setaffinity(other.pid, MEASURED)  # clients and the store are not on its machine
        killed = time.monotonic()
        one.kill()
        async with asyncio.timeout(WAIT_SECONDS):
            told: list[dict[str, Any]] = [
                json.loads(line) for line in await asyncio.gather(*map(_line, clients))
            ]
        await asyncio.sleep(2)
        death.memory.append(await asyncio.to_thread(_memory, there))
        lines = there.logs()
    for each in told:
        death.seconds += [at - killed for at in each["resumed"]]
        death.counts.update(each["counts"])
        death.wrong += each["wrong"]
    death.seconds.sort()
    death.wrong += [line for line in lines if "Traceback" in line or "failed" in line][:10]
    return death


async def main(count: int, lease: float, folder: Path, say: Say) -> int:
    """Do it, and tell of it; returns how much is wrong."""
    death = await die(count, lease, folder)
    before, during, after = death.memory
    say(f"{count} sessions, lease {lease:g} s")
    for share in (0.01, 0.5, 0.9, 0.99):
        say(f"| {share:.0%} resumed after | {death.after(share):.2f} s |")
    say(f"| all resumed after | {death.seconds[-1]:.2f} s (bar {BAR_SECONDS:g} s) |")
    say(f"| store, a session | {(during - before) / count:.0f} bytes |")
    say(f"| the same, resumed | {(after - before) / count:.0f} bytes |")
    say(f"| clients met with | {', '.join(f'{k} {v}' for k, v in death.counts.items())} |")
    for what in death.wrong:
        say(f"- {what}")
    return len(death.wrong)
