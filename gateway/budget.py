"""How much of what clients send and are to be sent is held, over all of them, and who gives way.

Each session and each connection has bounds of its own; ten thousand of them at their bounds would
be more than a machine has. So there is one bound over all, and a rule that is felt by those who
hold the most: when it is reached, nobody who holds more than an equal share may add to it, and the
largest give back what they can. Who holds little notices nothing.
"""

from typing import Protocol

ROOM = 0.9
"""Down to which part of the limit is given back, so that the largest are seldom looked for."""


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
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        self._holders: dict[int, Holder] = {}
        self._giving_back = False

    def change(self, holder: Holder, held: int) -> None:
        """Count what a holder has now; see to the bound.

        Args:
            holder: From now on it may be asked to give back, until it holds nothing.
            held: How many bytes it has in all.
        """
        self.total += held - holder.held
        if held > 0:
            self._holders[id(holder)] = holder
        else:
            self._holders.pop(id(holder), None)
        holder.held = held
        if self.total > self.limit and not self._giving_back:
            self._give_back()

    def refuses(self, holder: Holder, size: int) -> bool:
        """Whether a holder may not add so many bytes: there is no room, and it has its share."""
        if self.total + size <= self.limit:
            return False
        return holder.held + size > self.limit // max(1, len(self._holders))

    def _give_back(self) -> None:
        self._giving_back = True
        try:
            for holder in sorted(self._holders.values(), key=lambda one: one.held, reverse=True):
                if self.total <= self.limit * ROOM:
                    return
                holder.give_back()
        finally:
            self._giving_back = False
