"""A limit on the memory that all sessions and connections together hold for messages.

Each session and connection has limits of its own, but ten thousand of them at their limits would
exceed a machine's memory. When the global limit is reached, holders of more than an equal share may
not add to it, and the largest of them free what they can. Those that hold less are not affected,
even if that is not enough: what they hold is then in addition to the limit, and less than it.
"""

from typing import Protocol

COUNTED_BYTES = 4096
"""Change in a holder's bytes after which it reports to the budget."""

ROOM = 0.9
"""Share of the limit down to which bytes are freed, so that this happens rarely."""

STEP = 0.01
"""Hysteresis, as a share of the limit: how far the total must grow before holders that had nothing
to free are asked again, and how far below the limit it must fall to reset that.
"""


class Holder(Protocol):
    """An object that holds bytes.

    Attributes:
        held: Number of bytes, as the budget has counted them.
    """

    held: int

    def give_back(self) -> None:
        """Free bytes, if possible, and report that by `ByteBudget.change`."""
        ...


class ByteBudget:
    """Counts the bytes that are held.

    Args:
        limit: Maximum of all holders together.

    Attributes:
        total: Current number of bytes.
        refused: How often a holder was not admitted.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = self.refused = 0
        self._holders: dict[int, Holder] = {}
        self._giving_back = False
        # Total above which holders are asked to free bytes: the limit, or more if some of them had
        # nothing to free, so that they are not all asked again for each byte.
        self._bound = limit

    def change(self, holder: Holder, held: int) -> None:
        """Update what a holder has, and enforce the limit.

        Args:
            holder: May be asked to free bytes, as long as it holds any.
            held: Its total number of bytes.
        """
        before, holder.held = holder.held, held
        self.total += held - before
        if not held:
            self._holders.pop(id(holder), None)
        elif not before:
            self._holders[id(holder)] = holder
        if self._giving_back:
            return
        if self.total > self._bound:
            self._give_back()
        elif self.total <= self.limit * (1 - STEP):
            self._bound = self.limit

    def admits(self, holder: Holder, size: int) -> bool:
        """Whether a holder may add bytes; it frees what it can for them.

        Others are not asked to free anything: a message that is refused in the end must only cost
        its sender.

        Args:
            holder: Always admitted if it stays within an equal share.
            size: Number of bytes to add.
        """
        if self._fits(holder, size):
            return True
        holder.give_back()
        fits = self._fits(holder, size)
        self.refused += not fits
        return fits

    def _fits(self, holder: Holder, size: int) -> bool:
        return self.total + size <= self.limit or holder.held + size <= self._share

    @property
    def _share(self) -> int:
        return self.limit // max(1, len(self._holders))

    def _give_back(self) -> None:
        """Ask holders of more than an equal share to free bytes, the largest first."""
        share = self._share
        large = [holder for holder in self._holders.values() if holder.held > share]
        large.sort(key=lambda holder: holder.held, reverse=True)
        self._giving_back = True
        try:
            for holder in large:
                if self.total <= self.limit * ROOM:
                    break
                holder.give_back()
        finally:
            self._giving_back = False
            self._bound = max(self.limit, self.total + int(self.limit * STEP))
