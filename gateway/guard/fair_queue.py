"""A queue that no one fills for all others."""

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

_NONE: Mapping[str, int] = {}


class FairQueue(Generic[T]):
    """What waits, with a line for each principal.

    Attributes:
        size: How many wait.
    """

    def __init__(self) -> None:
        self.size = 0
        self._lines: OrderedDict[str, OrderedDict[T, None]] = OrderedDict()

    def add(self, principal: str, item: T) -> None:
        """Let it wait."""
        self._lines.setdefault(principal, OrderedDict())[item] = None
        self.size += 1

    def next_up(self, held: Mapping[str, int] = _NONE) -> str | None:
        """Who is served next: of those with the fewest places who was served the longest ago.

        Args:
            held: How many places each has that has any; so no more of them are looked at, and one.

        Returns:
            The principal; None where nobody waits.
        """
        found, least = None, 0
        for principal in self._lines:
            there = held.get(principal, 0)
            if found is None or there < least:
                found, least = principal, there
            if not least:
                break
        return found

    def first(self, principal: str) -> T:
        """Who has waited the longest in a line."""
        return next(iter(self._lines[principal]))

    def pop(self, principal: str) -> T:
        """The first of a line, which goes to the end of all lines then."""
        line = self._lines[principal]
        item, _ = line.popitem(last=False)
        self._lines.move_to_end(principal)
        self._shorten(principal, line)
        return item

    def remove(self, principal: str, item: T) -> None:
        """It waits no longer, if it did."""
        line = self._lines.get(principal)
        if line is not None and item in line:
            del line[item]
            self._shorten(principal, line)

    def longest(self) -> str:
        """The principal with the longest line; of equals the one that is served last."""
        return max(reversed(self._lines), key=lambda principal: len(self._lines[principal]))

    def drop(self, principal: str) -> T:
        """The newest of a line, which waits no longer."""
        line = self._lines[principal]
        item, _ = line.popitem()
        self._shorten(principal, line)
        return item

    def _shorten(self, principal: str, line: OrderedDict[T, None]) -> None:
        """One of a line waits no longer."""
        self.size -= 1
        if not line:
            del self._lines[principal]
