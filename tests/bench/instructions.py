"""How many instructions a message takes, counted by valgrind: a figure that can be a gate.

A time depends on what else the machine does; a count of the same work does not. It does depend on
the interpreter and the libraries, so what was stored says with which it was counted.
"""

import asyncio
import cProfile
import importlib.metadata
import os
import platform
import pstats
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from tests.bench import counted
from tests.bench.contenders import TRANSPORTS
from tests.bench.own import leave_the_platform_out
from tests.bench.processes import ENVIRONMENT
from tests.bench.run import LIBRARIES, PARTS, processor

STORED = Path(__file__).with_name("instructions.json")
ROOM = 0.05
"""How much more than what is stored is let pass."""
GATED = ("lean", counted.OWN)
"""What is compared; most of a call through aiobotocore is not this gateway's own code."""
LOGGED, LOGS_ROOM = "lean", 0.05
"""A line for each turn, as JSON, may take so much more than what is stored."""

_TOTALS = re.compile(r"^totals: (\d+)", re.MULTILINE)


class Stored(msgspec.Struct):
    """What was counted, and with what.

    Attributes:
        versions: Of the interpreter and of libraries, and the processor.
        instructions: Per message, for streams per part, by transport and phase.
    """

    versions: dict[str, str]
    instructions: dict[str, dict[str, int]]


def versions() -> dict[str, str]:
    """Of what is here, and the processor: libc's code is chosen by what it can do."""
    libraries = (*LIBRARIES, "httptools", "websockets")
    return {
        "processor": processor(),
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        **{library: importlib.metadata.version(library) for library in libraries},
    }


def count(transport: str, *more: str) -> dict[str, int]:
    """Instructions per message by phase; takes half a minute or more.

    Args:
        transport: The gateway's way to the platform, or `counted.OWN` for none at all.
        more: `counted.LOGS`, or nothing.
    """
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "out"
        done = subprocess.run(
            [
                "valgrind",
                "--tool=callgrind",
                "--dump-before=getppid",
                f"--callgrind-out-file={out}",
                sys.executable,
                "-m",
                "tests.bench.counted",
                transport,
                *more,
            ],
            env=os.environ | ENVIRONMENT | {"PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=False,
            timeout=1800,
        )
        # Each dump holds what was counted since the one before; every other one is a phase.
        dumps = [out.with_name(f"out.{index + 1}") for index in range(2 * len(counted.PHASES))]
        if done.returncode != 0 or not dumps[-1].exists():
            raise RuntimeError(f"nothing was counted:\n{done.stdout}\n{done.stderr}")
        totals = []
        for dump in dumps[1::2]:
            match = _TOTALS.search(dump.read_text())
            assert match is not None
            totals.append(int(match[1]))
    per = {
        phase: messages * (PARTS if phase == "stream" else 1)
        for phase, (_, _, messages) in counted.PHASES.items()
    }
    return {phase: round(total / per[phase]) for phase, total in zip(per, totals, strict=True)}


def check_logs() -> int:
    """Count with a line of the log for each turn, and print what that costs; returns the exit code:
    1 where it is more than `LOGS_ROOM`.
    """
    stored = msgspec.json.decode(STORED.read_bytes(), type=Stored).instructions[LOGGED]
    lines, failed = [], False
    for phase, number in count(LOGGED, counted.LOGS).items():
        more = number / stored[phase] - 1
        failed |= more > LOGS_ROOM
        lines.append(f"{LOGGED:12} {phase:8} {number:>10,} {more:+8.1%}")
    print("\n".join(lines))  # noqa: T201
    return int(failed)


def check(*, store: bool, profile: int) -> int:
    """Count, compare and print; returns the exit code: 1 where there are too many.

    Args:
        store: Count every way to the platform, and take the counts for the stored ones.
        profile: Print so many of Python's functions by their own time instead.
    """
    if profile:
        return _profile(profile)
    ways = (*TRANSPORTS, counted.OWN) if store else GATED
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        counts = dict(zip(ways, pool.map(count, ways), strict=True))
    if store:
        data = msgspec.json.encode(Stored(versions(), counts))
        STORED.write_bytes(msgspec.json.format(data, indent=2) + b"\n")
    stored = msgspec.json.decode(STORED.read_bytes(), type=Stored)
    lines, failed = [], False
    for transport, phases in counts.items():
        for phase, number in phases.items():
            before = stored.instructions.get(transport, {}).get(phase)
            change = "nothing stored" if before is None else f"{number / before - 1:+.1%}"
            too_many = before is not None and number > before * (1 + ROOM)
            failed |= too_many or before is None
            verdict = "  more than is let pass" if too_many else ""
            lines.append(f"{transport:12} {phase:8} {number:>10,} {change:>8}{verdict}")
    here = versions()
    differing = [
        f"  {name} is {here.get(name)}, was {was}"
        for name, was in stored.versions.items()
        if here.get(name) != was
    ]
    if differing:
        lines += [
            "not as when the counts were stored, and the likely cause of a change:",
            *differing,
        ]
    if failed:
        lines.append("what to do is in docs/performance.md, under Instructions")
    print("\n".join(lines))  # noqa: T201
    return int(failed)


def _profile(top: int) -> int:
    os.environ |= ENVIRONMENT
    for transport in (*TRANSPORTS, counted.OWN):
        if transport == counted.OWN:
            leave_the_platform_out()
        for phase in counted.PHASES:
            print(f"\n{transport}, {phase}")  # noqa: T201
            profiler = cProfile.Profile()
            running = False

            def between(profiler: cProfile.Profile = profiler) -> None:
                nonlocal running
                running = not running
                if running:
                    profiler.enable()
                else:
                    profiler.disable()

            with asyncio.Runner(loop_factory=counted.Loop) as runner:
                runner.run(counted.main(transport, phases=[phase], between=between))
            pstats.Stats(profiler).sort_stats("tottime").print_stats(top)
    return 0
