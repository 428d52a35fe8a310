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

    def next_up(self, *, but: str | None = None) -> str | None:
        """Whose turn it is; None where nobody's.

        Args:
            but: Whose it is not.
        """
        return next((principal for principal in self._lines if principal != but), None)

    def pop(self, principal: str | None = None) -> T:
        """The first of a line, which goes to the end of all lines then.

        Args:
            principal: Whose; None for whose turn it is.
        """
        if principal is None:
            principal = next(iter(self._lines))
        line = self._lines[principal]
        item = line.popleft()
        self.size -= 1
        if line:
            self._lines.move_to_end(principal)
        else:
            del self._lines[principal]
        return item

    def remove(self, principal: str, item: T) -> None:
        """It waits no longer, if it did."""
        line = self._lines.get(principal)
        if line is None or item not in line:
            return
        line.remove(item)
        self.size -= 1
        if not line:
            del self._lines[principal]

    def longest(self) -> str:
        """The principal with the longest line; of equals the one that is served last."""
        return max(reversed(self._lines), key=lambda principal: len(self._lines[principal]))

    def drop(self, principal: str) -> T:
        """The newest of a line, which waits no longer."""
        line = self._lines[principal]
        item = line.pop()
        self.size -= 1
        if not line:
            del self._lines[principal]
        return item
