"""Which processes a program has started, and whether they are still there, from ``/proc``."""

import asyncio
from collections.abc import Iterable
from pathlib import Path

from tests.support.timing import UNIT


def _stat(pid: int) -> tuple[str, int] | None:
    """The state and the parent of a process; None where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, parent, *_ = text.rpartition(")")[2].split()
    return state, int(parent)


def alive(pid: int) -> bool:
    """Whether it runs; one that has ended and that nobody has asked about does not."""
    stat = _stat(pid)
    return stat is not None and stat[0] != "Z"


def children(pid: int) -> list[int]:
    """Those that it has started itself, and that run."""
    pids = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal())
    return sorted(each for each in pids if (_stat(each) or ("", 0))[1] == pid and alive(each))


def descendants(pid: int) -> list[int]:
    """Those, and all that they have started."""
    return [each for child in children(pid) for each in (child, *descendants(child))]


async def gone(pids: Iterable[int]) -> None:
    """Wait until none of them runs."""
    async with asyncio.timeout(30 * UNIT):
        while any(map(alive, pids)):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
