"""``python -m tests.bench.workers``: what two workers carry, beside what one does.

Workers have a core; whatever sends, answers and keeps has another. Counted is the CPU time of each
worker: a core is full where the busiest worker has used all of its time, and what all of them have
answered by then is what they carry, each with a core of its own. So neither the load generator, nor
the machine's size, nor what else it does is part of the figure; how evenly connections are dealt
out is.
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
from pathlib import Path
from typing import NamedTuple

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


def measure(workers: int, *, shares: bool, seconds: float) -> Sample:
    """So many workers under load, with a store of their own; or one that keeps sessions itself."""
    with (
        running() as valkey,
        tempfile.TemporaryDirectory() as directory,
        Process(["tests.bench.upstream"], cores=REST, log=Path(directory, "up.log")) as upstream,
    ):
        config = Path(directory, "gateway.toml")
        text = CONFIG.format(upstream=upstream.url(), workers=workers)
        config.write_text(text + (STORE.format(valkey=valkey) if shares else ""))
        (store,) = (pid for pid in descendants(os.getpid()) if name(pid) == "valkey-server")
        os.sched_setaffinity(store, REST)
        serve = ["gateway", "serve", "--config", str(config), "--port", "0"]
        with Process(serve, cores=MEASURED, log=Path(directory, "gateway.log")) as gateway:
            url = gateway.url().replace("http", "ws", 1) + "/ws/chat"
            pids = children(gateway.pid) or [gateway.pid]
            way = ["tests.bench.load", "json", url]
            with Process(way, cores=REST, log=Path(directory, "load.log")) as load:
                load.connect(CLIENTS * workers)
                load.run(Run(seconds=WARM_UP, flight=FLIGHT * workers))
                before = [cpu(pid) for pid in [*pids, store]]
                result = load.run(Run(seconds=seconds, flight=FLIGHT * workers))
                after = [cpu(pid) for pid in [*pids, store]]
            for pid in pids:  # they would drain, beside what is measured next
                os.kill(pid, signal.SIGKILL)
    *used, kept = (now - was for now, was in zip(after, before, strict=True))
    return Sample(result.messages, used, kept)


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
            sample = measure(workers, shares=shares, seconds=given.seconds)
            samples[workers, shares].append(sample)
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
