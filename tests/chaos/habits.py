"""How clients talk, whichever they are: how much, how fast, and how they leave."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos import texts
from tests.chaos.witness import Witness, watched

THINK_SECONDS = 2.0
"""The mean of the pauses between turns."""


@dataclass(frozen=True)
class Habits:
    """Of one client.

    Attributes:
        name: Of the client.
        chance: What it decides by.
        think: See `THINK_SECONDS`.
        steady: Whether it stays for as long as it is let.
    """

    name: str
    chance: random.Random
    think: float = THINK_SECONDS
    steady: bool = False

    def turn(self, number: int) -> tuple[str, bool]:
        """What to say next, and whether to ask for the reply in parts."""
        chance = self.chance
        parts = chance.choice([1, 4, 8, 8, 16, 30])
        pause = chance.choice([5, 20, 50, 100])
        return texts.turn(self.name, number, parts, pause), chance.random() < 0.75

    def pause(self) -> float:
        """How many seconds to think."""
        return min(self.chance.expovariate(1 / self.think), 5 * self.think)

    def burst(self) -> int:
        """How many turns to send at once."""
        return self.chance.choice([1, 1, 1, 2, 3])

    def cancels(self) -> float | None:
        """After how many seconds to cancel a turn, if at all."""
        return self.chance.uniform(0, 1) if self.chance.random() < 0.06 else None

    def length(self) -> int:
        """How many turns a session has."""
        return 10_000 if self.steady else self.chance.randint(2, 25)

    def leaves(self) -> bool:
        """Whether it ends a session by not coming back."""
        return self.chance.random() < 0.15

    def drops(self) -> bool:
        """Whether it drops its connection by itself before a turn, and comes back."""
        return not self.steady and self.chance.random() < 0.03


class Talker:
    """A client, with one session after the other.

    Args:
        url: Where to connect.
        habits: How it talks.
        witness: Judges it.
        where: Which process a connection goes to, by its own port.
    """

    def __init__(
        self, url: str, habits: Habits, witness: Witness, where: Callable[[int], str]
    ) -> None:
        self._url = url
        self._habits = habits
        self._witness = witness
        self._make = watched(witness, where)
        self._number = 0
        self._ending = False

    def stop(self) -> None:
        """Say nothing new, and end the session."""
        self._ending = True
