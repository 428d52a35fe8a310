"""Reloads files when they have changed, or on SIGHUP."""

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path

import structlog

log = structlog.stdlib.get_logger("gateway.security")

LOOK_SECONDS = 5.0
"""Seconds between checks for changes."""


class _Watched:
    """Files that are loaded together.

    Attributes:
        files: Their paths.
        read: Loads them.
        done: Their state when they were loaded; None after a failure, which makes the next check
            load them again.
        seen: Their state at the last check.
        told: Their state and error when a failure was last logged.
    """

    __slots__ = ("done", "files", "read", "seen", "told")

    def __init__(self, files: Collection[Path], read: Callable[[], None]) -> None:
        self.files = files
        self.read = read
        self.done: object = self.state()
        self.seen: object = None
        self.told: object = None

    def state(self) -> object:
        """Return a value that changes when a file does."""
        return [_stamp(file) for file in self.files]


class Reloader:
    """Watches files, and reloads them."""

    def __init__(self) -> None:
        self._all: list[_Watched] = []

    def add(self, files: Collection[Path], load: Callable[[], None]) -> None:
        """Watch files.

        Args:
            files: Paths of files that are loaded together.
            load: Loads them. If it fails, it must keep what was loaded before.
        """
        self._all.append(_Watched(files, load))

    async def run(self) -> None:
        """Check for changes until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.load(changed=True)

    def load(self, *, changed: bool = False) -> None:
        """Reload files.

        Args:
            changed: Only those that have changed or failed to load, and are the same as at the last
                check: a file may still be being written.
        """
        for each in self._all:
            state = each.state()
            settled, each.seen = state == each.seen, state
            if changed and (state == each.done or not settled):
                continue
            names = [str(file) for file in each.files]
            try:
                each.read()
            except Exception as error:  # noqa: BLE001 - whatever it is, the old ones are good
                each.done, before = None, each.told
                each.told = state, str(error)
                if not changed or each.told != before:
                    log.warning(
                        "files could not be reloaded",
                        files=names,
                        why=str(error),
                    )
            else:
                each.done, each.told = state, None
                log.info("files reloaded", files=names)


def _stamp(file: Path) -> object:
    try:
        stat = file.stat()
    except OSError:
        return None
    # The change time differs after a change of owner or mode.
    return stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_ctime_ns
