"""The bench works: a short run of it, and its message path without sockets."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.bench import counted, page, report, upstream
from tests.bench.instructions import GATED, STORED, Stored
from tests.bench.run import WORKLOADS, Results

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_a_quick_run_measures_everything(tmp_path: Path) -> None:
    into = tmp_path / "bench.json"
    command = [sys.executable, "-m", "tests.bench", "run", "--quick", "--into", str(into)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = msgspec.json.decode(into.read_bytes(), type=Results)
    assert {sample.workload for sample in results.samples} == set(WORKLOADS)
    assert all(sample.cpu > 0 or sample.bytes > 0 for sample in results.samples)
    assert into.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    document = tmp_path / "performance.md"
    document.write_text(f"Before.\n{report.BEGIN}\nold\n{report.END}\nAfter.\n")
    report.write(results, document)
    written = document.read_text()
    assert written.startswith("Before.\n")
    assert written.endswith("After.\n")
    assert "old" not in written
    assert "| plain aiobotocore call |" in written
    assert "| gateway, json, stock uvicorn |" in written
    assert "over TLS to the platform" in written


@pytest.mark.long
def test_the_page_is_measured() -> None:
    command = [sys.executable, "-m", "tests.bench.page"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ")[0].removeprefix("| ") for line in done.stdout.splitlines()]
    assert [name for name in page.WORK if name in rows] == list(page.WORK)
    stored = (ROOT / "docs" / "performance.md").read_text()
    assert all(f"| {name} |" in stored for name in page.WORK)


@pytest.mark.parametrize("made", [upstream.json_text, upstream.chat_request, upstream.chat_reply])
def test_bodies_are_json_of_the_size_that_is_asked_for(made: Callable[[int], bytes]) -> None:
    assert len(made(1024)) == 1024
    assert json.loads(made(1024))


def test_every_phase_that_is_counted_goes_through() -> None:
    boundaries: list[None] = []
    with asyncio.Runner(loop_factory=counted.Loop) as runner:
        runner.run(counted.main("lean", between=lambda: boundaries.append(None)))
    assert len(boundaries) == 2 * len(counted.PHASES)


def test_a_count_is_stored_for_every_phase() -> None:
    stored = msgspec.json.decode(STORED.read_bytes(), type=Stored)
    assert set(GATED) <= set(stored.instructions)
    assert all(set(phases) == set(counted.PHASES) for phases in stored.instructions.values())
    assert json.loads(STORED.read_text())["versions"]["python"]
