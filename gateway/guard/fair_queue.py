"""A queue that no one fills for all others."""

from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """What waits, with a line for each principal, and each line served in its turn.

    Attributes:
        size: How many wait.
    """

    def __init__(self) -> None:
        self.size = 0
        self._lines: OrderedDict[str, deque[T]] = OrderedDict()

    def add(self, principal: str, item: T) -> None:
        """Let it wait."""
        self._lines.setdefault(principal, deque()).append(item)
        self.size += 1

    def pop(self) -> T:
        """The first of the line whose turn it is."""
        principal, line = next(iter(self._lines.items()))
        item = line.popleft()
        self.size -= 1
        if line:
            self._lines.move_to_end(principal)
        else:
            del self._lines[principal]
        return item

    def remove(self, principal: str, item: T) -> None:
        """It waits no longer."""
        line = self._lines[principal]
        line.remove(item)
        self.size -= 1
        if not line:
            del self._lines[principal]

    def longest(self) -> str:
        """The principal with the longest line."""
        return max(self._lines, key=lambda principal: len(self._lines[principal]))

    def drop(self, principal: str) -> T:
        """The newest of a line, which waits no longer."""
        item = self._lines[principal][-1]
        self.remove(principal, item)
        return item
