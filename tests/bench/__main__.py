"""``python -m tests.bench``: run the bench, and write down what has come of it."""

import argparse
import sys
from pathlib import Path

import msgspec

from tests.bench import instructions, report
from tests.bench.run import QUICK, WORKLOADS, Failed, Options, Results, bench

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "artifacts" / "bench.json"


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="measure, into a JSON file and a plot beside it")
    running.add_argument("--quick", action="store_true", help="only see that it works")
    running.add_argument("--full", action="store_true", help="as many idle connections as fit")
    running.add_argument("--rounds", type=int)
    running.add_argument("--seconds", type=float)
    running.add_argument("--seed", type=int)
    running.add_argument("--only", nargs="+", choices=list(WORKLOADS))
    running.add_argument("--into", type=Path, default=RESULTS)
    reporting = commands.add_parser("report", help="write docs/performance.md")
    reporting.add_argument("--results", type=Path, default=RESULTS)
    counting = commands.add_parser("instructions", help="count them, and compare")
    counting.add_argument("--store", action="store_true", help="take the count for the new figure")
    counting.add_argument("--profile", type=int, default=0, metavar="N", help="print the top N")
    counting.add_argument("--logs", action="store_true", help="with a line a turn: what it costs")
    given = parser.parse_args()
    match given.command:
        case "run":
            return _run(given)
        case "report":
            results = msgspec.json.decode(given.results.read_bytes(), type=Results)
            report.write(results, ROOT / "docs" / "performance.md")
            return 0
        case _ if given.logs:
            return instructions.check_logs()
        case _:
            return instructions.check(store=given.store, profile=given.profile)


def _run(given: argparse.Namespace) -> int:
    options = QUICK if given.quick else Options()
    for name in ("rounds", "seconds", "seed"):
        if getattr(given, name) is not None:
            setattr(options, name, getattr(given, name))
    if given.only:
        options.only = tuple(given.only)
    if given.full:
        options.idle = (2000, 20_000)
    try:
        results = bench(options, given.into)
    except Failed as error:
        print(f"bench: {error}", file=sys.stderr)  # noqa: T201
        return 1
    report.plot(results, given.into.with_suffix(".png"))
    print("\n".join(report.tables(results)))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
