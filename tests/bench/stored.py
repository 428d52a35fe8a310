"""What the store costs: the gateway with Valkey against the gateway that keeps everything itself.

``python -m tests.bench.stored`` prints a table, in a few minutes. The two take turns, so that what
is compared was measured within the same seconds; CPU time is of the gateway's process alone.
"""

import argparse
import itertools
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.bench.driver import Run
from tests.bench.processes import MEASURED, REST, Process
from tests.support.valkey import server

CONFIG = """\
[server]
max_connections = 50000
log_level = "WARNING"
[aws]
region = "us-east-1"
endpoint_url = "{upstream}"
[routes.reply-1024]
endpoint_name = "reply-1024"
content_type = "text/plain"
[routes.burst-200-40]
endpoint_name = "burst-200-40"
content_type = "text/plain"
stream = "raw"
"""
STORE = """\
[store]
kind = "valkey"
url = "{url}/0"
"""
ROUTES = ("reply-1024", "burst-200-40")
Measured = tuple[float, float]


class Side:
    """A gateway and the clients of one route."""

    def __init__(
        self, folder: Path, upstream: str, store: str, route: str, way: str, clients: int
    ) -> None:
        folder.mkdir()
        config = folder / "gateway.toml"
        config.write_text(CONFIG.format(upstream=upstream) + store)
        command = ["gateway", "serve", "--config", str(config), "--port", "0"]
        self.gateway = Process(command, cores=MEASURED, log=folder / "gateway.log")
        url = self.gateway.url().replace("http", "ws", 1) + f"/ws/{route}"
        self.load = Process(["tests.bench.load", way, url], cores=REST, log=folder / "load.log")
        self.load.connect(clients)
        self.load.run(Run(seconds=0.5))

    def measure(self, seconds: float) -> Measured:
        """CPU a message and the median of the time to its answer, both in seconds."""
        before = self.gateway.cpu()
        result = self.load.run(Run(seconds=seconds))
        return (self.gateway.cpu() - before) / result.messages, result.p50

    def stop(self) -> None:
        """End both."""
        for process in (self.load, self.gateway):
            process.__exit__()


def _median(measured: Sequence[Measured], which: int) -> float:
    return statistics.median(each[which] for each in measured)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 64, 256])
    options = parser.parse_args()
    os.sched_setaffinity(0, REST)  # which the store inherits: it is on another machine
    with tempfile.TemporaryDirectory() as name, server() as store:
        log = Path(name) / "upstream.log"
        with Process(["tests.bench.upstream"], cores=REST, log=log) as upstream:
            url = upstream.url()
            stores = ("", STORE.format(url=store.url))
            for route, clients in itertools.product(ROUTES, options.clients):
                folder = Path(name) / f"{route}-{clients}"
                folder.mkdir()
                memory, valkey = sides = [
                    Side(folder / kind, url, config, route, "json", clients)
                    for kind, config in zip(("memory", "valkey"), stores, strict=True)
                ]
                try:
                    rounds = [
                        (memory.measure(options.seconds), valkey.measure(options.seconds))
                        for _ in range(options.rounds)
                    ]
                finally:
                    for side in sides:
                        side.stop()
                _print(route, clients, rounds)


def _print(route: str, clients: int, rounds: list[tuple[Measured, Measured]]) -> None:
    memory, valkey = zip(*rounds, strict=True)
    ratio = statistics.median(after[0] / before[0] for before, after in rounds)
    before, after = _median(memory, 0) * 1e6, _median(valkey, 0) * 1e6
    sys.stdout.write(
        f"{route} {clients:4d} clients: CPU {before:.0f} -> {after:.0f} us ({ratio:.2f}), "
        f"p50 {_median(memory, 1) * 1e3:.2f} -> {_median(valkey, 1) * 1e3:.2f} ms\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
