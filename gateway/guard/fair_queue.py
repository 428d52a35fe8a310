"""A fair queue: no principal can fill it at the expense of the others."""

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

_NONE: Mapping[str, int] = {}


class FairQueue(Generic[T]):
    """A queue with a line for each principal.

    Attributes:
        size: Number of items in the queue.
    """

    def __init__(self) -> None:
        self.size = 0
        self._lines: OrderedDict[str, OrderedDict[T, None]] = OrderedDict()

    def add(self, principal: str, item: T) -> None:
        """Append an item to a principal's line."""
        self._lines.setdefault(principal, OrderedDict())[item] = None
        self.size += 1

    def next_up(self, held: Mapping[str, int] = _NONE) -> str | None:
        """Choose the principal to serve next: the one with the fewest places, and of equals the one
        that was served the longest ago.

        Args:
            held: Number of places held, by principal; those with none may be missing. At most one
                principal more than it has is examined.

        Returns:
            The principal; None if the queue is empty.
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
        """Return the oldest item of a line."""
        return next(iter(self._lines[principal]))

    def pop(self, principal: str) -> T:
        """Remove and return the oldest item of a line, which becomes the last line to be served."""
        line = self._lines[principal]
        item, _ = line.popitem(last=False)
        self._lines.move_to_end(principal)
        self._shorten(principal, line)
        return item

    def remove(self, principal: str, item: T) -> None:
        """Remove an item, if it is in the queue."""
        line = self._lines.get(principal)
        if line is not None and item in line:
            del line[item]
            self._shorten(principal, line)

    def longest(self) -> str:
        """Return the principal with the longest line; of equals, the one served last."""
        return max(reversed(self._lines), key=lambda principal: len(self._lines[principal]))

    def drop(self, principal: str) -> T:
        """Remove and return the newest item of a line."""
        line = self._lines[principal]
        item, _ = line.popitem()
        self._shorten(principal, line)
        return item

    def _shorten(self, principal: str, line: OrderedDict[T, None]) -> None:
        """Account for an item that was removed from a line."""
        self.size -= 1
        if not line:
            del self._lines[principal]
