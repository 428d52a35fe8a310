"""Helps those who log: what others have written is short there, harmless to a terminal, and not too
frequent, and lines of which there are many are quick.
"""

import time
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from msgspec import structs
from msgspec.structs import StructConfig


def printable(text: str, most: int) -> str:
    """The beginning of a text, on one line.

    Args:
        text: Whatever it is.
        most: How many characters of it are kept.
    """
    shown = "".join(c if c.isprintable() else "\ufffd" for c in text[:most])
    return shown if len(text) <= most else f"{shown}…"


class Seldom:
    """Lets each thing be said once in a while, and only so many in all.

    Args:
        most: How many things may be said in one period.
        seconds: How long that is.
        clock: Tells the time in seconds.
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
        """How often others were left unsaid before this one; None where it is to be left too."""
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
    """Lets so many lines of a kind be logged in each period, and counts the others.

    Args:
        most: How many lines of one kind may be logged in one period.
        seconds: How long that is.
        clock: Tells the time in seconds.
    """

    def __init__(
        self, most: int, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._kinds: dict[str, tuple[float, int]] = {}  # when a period ends, and its lines

    def suppressed(self, kind: str) -> int | None:
        """How many lines of this kind were suppressed before this one; None where it is to be too.

        Args:
            kind: One of few: each is kept.
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
    """A line of which there may be many: a struct whose tag is the event.

    Attributes:
        level: The name of its level.
        logger: Whose it is: for the log to fill in, as the next two.
        timestamp: When.
        replica: Where.
    """

    __struct_config__: ClassVar[StructConfig]
    level: str
    logger: str
    timestamp: str
    replica: str | None


def log_quickly(logger: Any) -> Callable[[Line], None]:
    """What logs such lines, in a quick way where the log has one.

    Args:
        logger: Bound.
    """

    def log(line: Any) -> None:
        said = {name: value for name, value in structs.asdict(line).items() if value is not None}
        for name in ("logger", "timestamp"):
            del said[name]
        getattr(logger, said.pop("level"))(line.__struct_config__.tag, **said)

    if not hasattr(type(logger), "quick"):  # structlog's generic logger itself has any attribute
        return log
    quick: Callable[[Line], None] = logger.quick
    return quick
