"""What HTTP costs: a message as a request against the plain SDK call, and parts as server-sent
events against those over WebSocket.

``python -m tests.bench.requests`` prints a table, in a minute or two. All take turns, so that what
is compared was measured within the same seconds; CPU time is of the gateway's process alone, or of
the one that calls the SDK.
"""

import argparse
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.bench.driver import Run
from tests.bench.processes import MEASURED, REST, Process
from tests.bench.stored import CONFIG

WHOLE, PARTS = "reply-1024", "burst-200-40"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--clients", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)

        def started(command: list[str], cores: set[int]) -> Process:
            log = folder / f"{len([*folder.iterdir()])}.log"
            return stack.enter_context(Process(command, cores=cores, log=log))

        upstream = started(["tests.bench.upstream"], REST).url()
        config = folder / "gateway.toml"
        config.write_text(CONFIG.format(upstream=upstream))
        gateway = started(["gateway", "serve", "--config", str(config), "--port", "0"], MEASURED)
        url = gateway.url()
        sockets, sessions = url.replace("http", "ws", 1) + "/ws", url + "/v1/routes"
        plain = started(["tests.bench.plain", upstream, WHOLE], MEASURED)
        ways = {
            "SDK": (plain, plain),
            "WebSocket": (
                gateway,
                started(["tests.bench.load", "json", f"{sockets}/{WHOLE}"], REST),
            ),
            "HTTP": (
                gateway,
                started(["tests.bench.load", "post", f"{sessions}/{WHOLE}/sessions"], REST),
            ),
            "parts over WebSocket": (
                gateway,
                started(["tests.bench.load", "json", f"{sockets}/{PARTS}"], REST),
            ),
            "parts as events": (
                gateway,
                started(["tests.bench.load", "sse", f"{sessions}/{PARTS}/sessions"], REST),
            ),
        }
        found: dict[str, list[float]] = {way: [] for way in ways}
        for _, load in ways.values():
            load.connect(options.clients)
            load.run(Run(seconds=0.5))
        for _ in range(options.rounds):
            for way, (measured, load) in ways.items():
                before = measured.cpu()
                result = load.run(Run(seconds=0.6))  # connections are closed that are idle for 5 s
                found[way].append((measured.cpu() - before) / result.messages)
        for way, of in (
            ("HTTP", "SDK"),
            ("WebSocket", "SDK"),
            ("parts as events", "parts over WebSocket"),
        ):
            ratio = statistics.median(a / b for a, b in zip(found[way], found[of], strict=True))
            mine, other = (statistics.median(found[each]) * 1e6 for each in (way, of))
            sys.stdout.write(f"{way}: {mine:.0f} us, {of}: {other:.0f} us ({ratio:.2f})\n")


if __name__ == "__main__":
    main()
