"""Reads files again when they have changed, or when the operator says so by SIGHUP."""

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

import structlog

log = structlog.stdlib.get_logger("gateway.security")

LOOK_SECONDS = 5.0
"""How often it is looked whether a file has changed."""


class Reloaded(NamedTuple):
    """What is read again.

    Attributes:
        files: Where it is.
        load: Reads it. Where that fails, what was read before stays.
    """

    files: Collection[Path]
    load: Callable[[], None]


class Reloader:
    """Reads files again while it runs."""

    def __init__(self) -> None:
        self._all: list[tuple[Reloaded, object]] = []
        self._seen: list[object] = []

    def add(self, files: Collection[Path], load: Callable[[], None]) -> None:
        """Read these again from now on.

        Args:
            files: They are read together.
            load: Reads them. Where that fails, what was read before is to stay.
        """
        each = Reloaded(files, load)
        self._all.append((each, _state(each)))
        self._seen.append(None)

    async def run(self) -> None:
        """Look for changes until this is cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.load(changed=True)

    def load(self, *, changed: bool = False) -> None:
        """Read all again.

        Args:
            changed: Only what has changed, and has been the same since the last look: a file may be
                half written.
        """
        for index, (each, before) in enumerate(self._all):
            state = _state(each)
            seen, self._seen[index] = self._seen[index], state
            if changed and (state == before or state != seen):
                continue
            self._all[index] = each, state
            names = [str(file) for file in each.files]
            try:
                each.load()
            except Exception as error:  # noqa: BLE001 - whatever it is, the old ones are good
                log.warning(
                    "files can't be read again; what was read before stays",
                    files=names,
                    why=str(error),
                )
            else:
                log.info("files read again", files=names)


def _state(each: Reloaded) -> object:
    """Differs when a file does."""
    return [_stamp(file) for file in each.files]


def _stamp(file: Path) -> object:
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
