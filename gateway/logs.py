"""Helpers for logging: untrusted text is shortened and escaped, repeated lines are limited, and
frequent lines are fast.
"""

import time
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from msgspec import structs
from msgspec.structs import StructConfig


def printable(text: str, most: int) -> str:
    """Return the beginning of a text, on one line.

    Args:
        text: Any text.
        most: Maximum number of characters.
    """
    shown = "".join(c if c.isprintable() else "\ufffd" for c in text[:most])
    return shown if len(text) <= most else f"{shown}…"


class Seldom:
    """Limits messages: each one once in a period, and only so many in all.

    Args:
        most: Maximum number of different messages in one period.
        seconds: Length of a period.
        clock: Returns the time in seconds.
    """

    def __init__(
        self, most: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._said: set[str] = set()
        self._ends = 0.0
        self._unsaid = 0

    def unsaid(self, thing: str) -> int | None:
        """Return how many were dropped since the last one, or None if this one is to be dropped."""
        now = self._clock()
        if now >= self._ends:
            self._said.clear()
            self._ends = now + self._seconds
        if thing in self._said or len(self._said) >= self._most:
            self._unsaid += 1
            return None
        self._said.add(thing)
        unsaid, self._unsaid = self._unsaid, 0
        return unsaid


class LogLimit:
    """Limits log lines of each kind, and counts those it suppresses.

    Args:
        most: Maximum number of lines of one kind in one period.
        seconds: Length of a period.
        clock: Returns the time in seconds.
    """

    def __init__(
        self, most: int, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._kinds: dict[str, tuple[float, int]] = {}  # end of the period, lines in it

    def suppressed(self, kind: str) -> int | None:
        """Return how many lines of a kind were suppressed before this one; None to suppress it too.

        Args:
            kind: One of a few, since all are kept.
        """
        now = self._clock()
        ends, lines = self._kinds.get(kind, (now, 0))
        suppressed = 0
        if now >= ends:
            suppressed = max(0, lines - self._most)
            ends, lines = now + self._seconds, 0
        self._kinds[kind] = ends, lines + 1
        return suppressed if lines < self._most else None


class Line(Protocol):
    """A frequent log line: a struct whose tag is the event.

    Attributes:
        level: Name of its level.
        logger: Name of its logger; set by the log, as the next two.
        timestamp: Time of the event.
        replica: Name of this replica.
    """

    __struct_config__: ClassVar[StructConfig]
    level: str
    logger: str
    timestamp: str
    replica: str | None


def log_quickly(logger: Any) -> Callable[[Line], None]:
    """Return a function that logs such lines, on a fast path if the logger has one.

    Args:
        logger: A bound logger.
    """

    def log(line: Any) -> None:
        said = {name: value for name, value in structs.asdict(line).items() if value is not None}
        for name in ("logger", "timestamp"):
            del said[name]
        getattr(logger, said.pop("level"))(line.__struct_config__.tag, **said)

    if not hasattr(type(logger), "quick"):  # structlog's generic logger has any attribute
        return log
    quick: Callable[[Line], None] = logger.quick
    return quick
