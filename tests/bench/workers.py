"""``python -m tests.bench.workers``: what two workers carry, beside what one does.

Two workers share a core, which are one gateway's, or those of two gateways that know nothing of
each other: two processes on a core slow each other down, whoever they are. Whatever sends, answers
and keeps has another. Counted is the CPU time of each worker: a core is full where the busiest
worker has used all of its time, and what all of them have answered by then is what they carry, each
with a core of its own. So neither the load generator, nor the machine's size, nor what else it does
is part of the figure; how evenly connections are dealt out is.
"""

import argparse
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Self

from gateway.local.valkey import running
from tests.bench.driver import Run
from tests.bench.processes import MEASURED, REST, Process
from tests.support.tree import children, descendants

CONFIG = """
[aws]
region = "us-east-1"
endpoint_url = "{upstream}"
[server]
workers = {workers}
log_level = "WARNING"
[routes.chat]
endpoint_name = "reply-1024"
content_type = "text/plain"
stream = "off"
"""
STORE = """
[store]
kind = "valkey"
url = "{valkey.url}"
password = "{valkey.password}"
"""
CLIENTS, FLIGHT = 200, 32
"""Of each worker: connections, and messages under way at once."""
WARM_UP = 1.0
BAR = 1.7
"""Two are to carry that many times what one does."""


class Sample(NamedTuple):
    """One measurement.

    Attributes:
        messages: Answered.
        cpu: CPU time of each worker, in seconds.
        store: The store's.
    """

    messages: int
    cpu: Sequence[float]
    store: float

    @property
    def carried(self) -> float:
        """Messages a second, where each worker has a core and the busiest one's is full."""
        return self.messages / max(self.cpu)


def cpu(pid: int) -> float:
    """CPU time of a process so far, in seconds."""
    return time.clock_gettime(~pid << 3 | 2)  # clock_getcpuclockid(3)


class Gateway:
    """A gateway under load, with a store of its own; or one that keeps sessions itself. A context.

    Args:
        upstream: Where the platform is.
        workers: How many it has.
        shares: Whether it has a store.
    """

    def __init__(self, upstream: str, workers: int, *, shares: bool) -> None:
        self._upstream = upstream
        self._workers = workers
        self._shares = shares
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        enter = self._stack.enter_context
        directory = enter(tempfile.TemporaryDirectory())
        there = descendants(os.getpid())
        valkey = enter(running())
        (self._store,) = (
            pid
            for pid in set(descendants(os.getpid())) - set(there)
            if name(pid) == "valkey-server"
        )
        os.sched_setaffinity(self._store, REST)
        config = Path(directory, "gateway.toml")
        text = CONFIG.format(upstream=self._upstream, workers=self._workers)
        config.write_text(text + (STORE.format(valkey=valkey) if self._shares else ""))
        serve = ["gateway", "serve", "--config", str(config), "--port", "0"]
        gateway = enter(Process(serve, cores=MEASURED, log=Path(directory, "gateway.log")))
        url = gateway.url().replace("http", "ws", 1) + "/ws/chat"
        self._pids = children(gateway.pid) or [gateway.pid]
        way = ["tests.bench.load", "json", url]
        self._load = enter(Process(way, cores=REST, log=Path(directory, "load.log")))
        self._load.connect(CLIENTS * self._workers)
        self._load.run(Run(seconds=WARM_UP, flight=FLIGHT * self._workers))
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self._pids:  # they would drain, beside what is measured next
            os.kill(pid, signal.SIGKILL)
        self._stack.close()

    def measure(self, seconds: float) -> Sample:
        """Let it work."""
        pids = [*self._pids, self._store]
        before = [cpu(pid) for pid in pids]
        result = self._load.run(Run(seconds=seconds, flight=FLIGHT * self._workers))
        *used, kept = (cpu(pid) - was for pid, was in zip(pids, before, strict=True))
        return Sample(result.messages, used, kept)


def measure(workers: int, *, shares: bool, seconds: float) -> list[Sample]:
    """What gateways carry that have two workers together."""
    with (
        tempfile.TemporaryDirectory() as directory,
        Process(["tests.bench.upstream"], cores=REST, log=Path(directory, "up.log")) as upstream,
        ExitStack() as stack,
        ThreadPoolExecutor() as threads,
    ):
        url = upstream.url()
        gateways = [
            stack.enter_context(Gateway(url, workers, shares=shares)) for _ in range(2 // workers)
        ]
        return [*threads.map(lambda gateway: gateway.measure(seconds), gateways)]


def name(pid: int) -> str:
    """What a process is called."""
    return Path(f"/proc/{pid}/comm").read_text().strip()


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.workers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0)
    given = parser.parse_args()
    samples: dict[tuple[int, bool], list[Sample]] = {(1, False): [], (1, True): [], (2, True): []}
    for _ in range(given.rounds):
        for workers, shares in random.sample([*samples], len(samples)):
            samples[workers, shares] += measure(workers, shares=shares, seconds=given.seconds)
    print(table(samples))  # noqa: T201
    one, two = (statistics.median(s.carried for s in samples[n, True]) for n in (1, 2))
    print(f"\ntwo carry {two / one:.2f} times what one does; the bar is {BAR}")  # noqa: T201
    return 0 if two / one >= BAR else 1


def table(samples: dict[tuple[int, bool], list[Sample]]) -> str:
    """Medians."""
    lines = [
        "| workers | store | messages/s that they carry | CPU/message | the store's | load of the "
        "busiest |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (workers, shares), some in samples.items():
        carried = statistics.median(sample.carried for sample in some)
        each = statistics.median(sum(sample.cpu) / sample.messages for sample in some)
        kept = statistics.median(sample.store / sample.messages for sample in some)
        most = statistics.median(max(sample.cpu) / sum(sample.cpu) for sample in some)
        lines.append(
            f"| {workers} | {'Valkey' if shares else 'memory'} | {carried:,.0f} | "
            f"{each * 1e6:.0f} µs | {kept * 1e6:.0f} µs | {most:.1%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
