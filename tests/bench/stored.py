"""What the store costs: the gateway with Valkey against the gateway that keeps everything itself.

``python -m tests.bench.stored`` prints a table, in a few minutes. The two take turns, so that what
is compared was measured within the same seconds; CPU time is of the gateway's process alone.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections import defaultdict
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


class Side:
    """A gateway and the clients of one route."""

    def __init__(self, folder: Path, upstream: str, store: str, route: str, way: str) -> None:
        folder.mkdir()
        config = folder / "gateway.toml"
        config.write_text(CONFIG.format(upstream=upstream) + store)
        command = ["gateway", "serve", "--config", str(config), "--port", "0"]
        self.gateway = Process(command, cores=MEASURED, log=folder / "gateway.log")
        url = self.gateway.url().replace("http", "ws", 1) + f"/ws/{route}"
        self.load = Process(["tests.bench.load", way, url], cores=REST, log=folder / "load.log")

    def measure(self, clients: int, seconds: float) -> tuple[float, float]:
        """CPU a message and the median of the time to its answer, both in seconds."""
        self.load.connect(clients)
        self.load.run(Run(seconds=0.3))
        before = self.gateway.cpu()
        result = self.load.run(Run(seconds=seconds))
        return (self.gateway.cpu() - before) / result.messages, result.p50

    def stop(self) -> None:
        """End both."""
        for process in (self.load, self.gateway):
            process.__exit__()


def _median(measured: list[tuple[float, float]], which: int) -> float:
    return statistics.median(each[which] for each in measured)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 64, 256])
    options = parser.parse_args()
    os.sched_setaffinity(0, REST)  # which the store inherits: it is on another machine
    found: defaultdict[tuple[str, int, str], list[tuple[float, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name, server() as store:
        folder = Path(name)
        log = folder / "upstream.log"
        with Process(["tests.bench.upstream"], cores=REST, log=log) as upstream:
            url = upstream.url()
            number = 0
            for _ in range(options.rounds):
                for route in ("reply-1024", "burst-200-40"):
                    for clients in options.clients:
                        for kind in ("memory", "valkey"):
                            number += 1
                            config = "" if kind == "memory" else STORE.format(url=store.url)
                            side = Side(folder / str(number), url, config, route, "json")
                            try:
                                measured = side.measure(clients, options.seconds)
                            finally:
                                side.stop()
                            found[route, clients, kind].append(measured)
                            sys.stderr.write(f"{route} {clients} {kind} {measured}\n")
    for route in ("reply-1024", "burst-200-40"):
        for clients in options.clients:
            memory, valkey = found[route, clients, "memory"], found[route, clients, "valkey"]
            cpu = statistics.median(v[0] / m[0] for m, v in zip(memory, valkey, strict=True))
            before, after = _median(memory, 0) * 1e6, _median(valkey, 0) * 1e6
            sys.stdout.write(
                f"{route} {clients:4d} clients: CPU {before:.0f} -> {after:.0f} us ({cpu:.2f}), "
                f"p50 {_median(memory, 1) * 1e3:.2f} -> {_median(valkey, 1) * 1e3:.2f} ms\n"
            )


if __name__ == "__main__":
    main()
