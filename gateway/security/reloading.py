"""Reads files again when they have changed, or when the operator says so by SIGHUP."""

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path

import structlog

log = structlog.stdlib.get_logger("gateway.security")

LOOK_SECONDS = 5.0
"""How often it is looked whether a file has changed."""


class _Watched:
    """What is read again.

    Attributes:
        files: Where it is.
        read: Reads it.
        done: How the files were when they were read; None where that has failed, and they are to be
            read at the next look as well.
        seen: How they were at the last look.
        told: How they were, and what was wrong with them, when that was logged last.
    """

    __slots__ = ("done", "files", "read", "seen", "told")

    def __init__(self, files: Collection[Path], read: Callable[[], None]) -> None:
        self.files = files
        self.read = read
        self.done: object = self.state()
        self.seen: object = None
        self.told: object = None

    def state(self) -> object:
        """Differs when a file does."""
        return [_stamp(file) for file in self.files]


class Reloader:
    """Reads files again while it runs."""

    def __init__(self) -> None:
        self._all: list[_Watched] = []

    def add(self, files: Collection[Path], load: Callable[[], None]) -> None:
        """Read these again from now on.

        Args:
            files: They are read together.
            load: Reads them. Where that fails, what was read before is to stay.
        """
        self._all.append(_Watched(files, load))

    async def run(self) -> None:
        """Look for changes until this is cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.load(changed=True)

    def load(self, *, changed: bool = False) -> None:
        """Read all again.

        Args:
            changed: Only what has changed or could not be read, and has been the same since the
                last look: a file may be half written.
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
    # The last of them differs where an owner or a mode does.
    return stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_ctime_ns
