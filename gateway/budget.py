"""How much of what clients send and are to be sent is held, over all of them, and who gives way.

Each session and each connection has bounds of its own; ten thousand of them at their bounds would
be more than a machine has. So there is one bound over all, and a rule that is felt by those who
hold the most: when it is reached, nobody who holds more than an equal share may add to it, and of
these the largest give back what they can. Who holds less notices nothing, also where that is not
enough: what they hold comes on top then, and is less than the limit again.
"""

from typing import Protocol

COUNTED_BYTES = 4096
"""How much more or less somebody may hold before the budget is told."""

ROOM = 0.9
"""Down to which part of the limit is given back, so that the largest are seldom looked for."""

STEP = 0.01
"""How much more than the limit, as a part of it, is held before who had nothing to give is asked
again; how much less, before the limit is the bound again.
"""


class Holder(Protocol):
    """Who holds bytes.

    Attributes:
        held: How many, as the budget has counted them.
    """

    held: int

    def give_back(self) -> None:
        """Hold less, by `ByteBudget.change`, if that can be."""
        ...


class ByteBudget:
    """Counts the bytes that are held.

    Args:
        limit: How many there may be.

    Attributes:
        total: How many there are.
        refused: How often there was no room for more.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = self.refused = 0
        self._holders: dict[int, Holder] = {}
        self._giving_back = False
        # Over how many bytes holders are asked to give back: the limit, or more where some of them
        # had nothing to give. They are not all asked again for each byte.
        self._bound = limit

    def change(self, holder: Holder, held: int) -> None:
        """Count what a holder has now; see to the bound.

        Args:
            holder: From now on it may be asked to give back, until it holds nothing.
            held: How many bytes it has in all.
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
        """Whether a holder may add so many bytes; it gives back what it can for them.

        The others give nothing: what is refused in the end is to cost its sender alone.

        Args:
            holder: May do so in any case where it then has no more than its share.
            size: How many bytes it would add.
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
        """Ask those who hold more than an equal share, the largest first."""
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
