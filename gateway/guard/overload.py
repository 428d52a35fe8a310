"""How much an endpoint is asked, and whether it is asked at all."""

from collections.abc import Callable

BACKOFF = 0.9
"""What is left of the limit when the endpoint has been asked too much."""

SLOW = 2.0
"""A reply that takes this much longer than replies did before says the same."""

SHORT, LONG = 1 / 10, 1 / 600
"""How much one reply changes what is known of the last few, and of replies in the long run."""

FAILURES = 5
"""So many calls that fail one after the other open the breaker."""

OPEN_SECONDS, MAX_OPEN_SECONDS = 1.0, 30.0
"""How long it is open: doubled each time that a probe fails."""


class AdaptiveLimit:
    """How many turns may be at the model: additive increase, multiplicative decrease.

    The rule is that of Chiu and Jain, "Analysis of the increase and decrease algorithms for
    congestion avoidance in computer networks" (1989), with replies for acknowledgements; that a
    reply which takes much longer than others counts as a loss is from Netflix's concurrency-limits.

    Args:
        most: The limit to begin with, and never to exceed.

    Attributes:
        limit: How many there may be now.
    """

    def __init__(self, most: int) -> None:
        self.limit = most
        self._most = float(most)
        self._exact = float(most)
        self._short = self._long = 0.0
        self._decreased = 0.0

    def replied(self, seconds: float, now: float, in_flight: int) -> None:
        """A turn was answered.

        Args:
            seconds: How long it took.
            now: The time in seconds of a clock that is never set.
            in_flight: How many there were.
        """
        if not self._long:
            self._short = self._long = seconds
        self._short += (seconds - self._short) * SHORT
        self._long += (seconds - self._long) * LONG
        if in_flight * 2 < self._exact:
            return  # it has not been tried
        if self._short > SLOW * self._long:
            self.overloaded(now)
        else:
            self._set(min(self._most, self._exact + 1 / self._exact))

    def overloaded(self, now: float) -> None:
        """The endpoint was asked too much; what it says of one moment counts once."""
        if now - self._decreased >= max(self._short, 0.1):
            self._decreased = now
            self._set(max(1.0, self._exact * BACKOFF))

    def _set(self, limit: float) -> None:
        self._exact = limit
        self.limit = int(limit)


class Breaker:
    """Says whether an endpoint is asked at all.

    Args:
        clock: Seconds of a clock that is never set.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures = 0
        self._until = 0.0
        self._seconds = OPEN_SECONDS
        self._probing = False

    def wait(self) -> float:
        """The seconds until it may be asked; 0 where it may. Then a probe is under way, if too many
        calls have failed.
        """
        if self._failures < FAILURES:
            return 0.0
        left = self._until - self._clock()
        if left > 0:
            return left
        if self._probing:
            return self._seconds
        self._probing = True
        return 0.0

    def succeeded(self) -> None:
        """The endpoint has answered."""
        self._failures = 0
        self._seconds = OPEN_SECONDS
        self._probing = False

    def failed(self) -> None:
        """It has not, and not because of what it was asked."""
        self._failures += 1
        if self._failures >= FAILURES:
            if self._probing:
                self._seconds = min(MAX_OPEN_SECONDS, self._seconds * 2)
            self._probing = False
            self._until = self._clock() + self._seconds

    def unknown(self) -> None:
        """Nobody has waited for an answer."""
        self._probing = False
