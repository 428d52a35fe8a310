"""Every property, with more and more inputs: ``python -m tests.fuzz [--minutes N] [PATH …]``.

Those that are tried at each run of the tests are tried here too, but other inputs each time. What
fails is kept in ``.hypothesis``, so that the next run of the tests begins with it.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from collections import Counter

PATHS = ("tests/fuzz", "tests/unit", "tests/contract/test_transports.py")
FIRST = 200
"""Inputs of each property in the first round; each round has twice as many."""

_NODE = re.compile(r"^(tests/\S+::.+):$")
_TRIED = re.compile(r"(\d+) passing, (\d+) failing, and \d+ invalid")


def tried(output: str) -> Counter[str]:
    """How many inputs there were of each property, by what Hypothesis says of itself."""
    counts: Counter[str] = Counter()
    name = ""
    for line in output.splitlines():
        if node := _NODE.match(line):
            name = node[1].partition("[")[0]
        elif found := _TRIED.search(line):
            counts[name] += sum(map(int, found.groups()))
    return counts


def main() -> int:
    """Try until the time is over, or something fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("paths", nargs="*", default=PATHS)
    given = parser.parse_args()
    end = time.monotonic() + given.minutes * 60
    total: Counter[str] = Counter()
    inputs, failed = FIRST, False
    while not failed:
        began = time.monotonic()
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "2", "-m", "hypothesis"]
        command += ["--hypothesis-profile=fuzz", "--hypothesis-show-statistics", *given.paths]
        environment = os.environ | {"FUZZ_INPUTS": str(inputs)}
        run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        total += tried(run.stdout)
        failed = run.returncode != 0
        print(f"{inputs} of each: {sum(total.values()):,} in all", flush=True)  # noqa: T201
        took = time.monotonic() - began
        if failed:
            print(run.stdout + run.stderr)  # noqa: T201
        left = end - time.monotonic()
        if left < took:
            break
        inputs *= 2 if left > 2 * took else 1
    print("\n| property | inputs |\n| --- | --: |")  # noqa: T201
    for name, count in sorted(total.items()):
        print(f"| `{name}` | {count:,} |")  # noqa: T201
    print(f"| all | {sum(total.values()):,} |")  # noqa: T201
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
