"""How much an endpoint is asked, and whether it is asked at all."""

from collections.abc import Callable
from math import log

BACKOFF = 0.9
"""What is left of the limit when the endpoint has been asked too much."""

SLOW = 2.0
"""Replies that begin to take this much longer than they did before say the same."""

LEAST = 0.001
"""Seconds that make no difference."""

SHORT, LONG = 1 / 30, 1 / 600
"""How much one reply changes what is known of the last few, and of replies in the long run."""

SAMPLED = 8
"""While fewer than half of those are there that may be, one reply in so many is looked at."""

ADMITTED = 1 / 6
"""How much of what has become slower is taken for what replies take now, each time that the limit
goes down for it: turns that are longer than before are no sign of too many."""

FAILURES = 5
"""So many calls that fail one after the other open the breaker."""

OPEN_SECONDS, MAX_OPEN_SECONDS = 1.0, 30.0
"""How long it is open: doubled each time that a probe fails."""

PROBE_SECONDS = 10.0
"""How long a probe may say nothing before there is another."""


RESERVED = 10
"""One place in so many is reserved, and one at least where there are more than two."""

_SLOW = log(SLOW)


class AdaptiveLimit:
    """How many turns may be at the model: additive increase, multiplicative decrease.

    The rule is that of Chiu and Jain, "Analysis of the increase and decrease algorithms for
    congestion avoidance in computer networks" (1989), with replies for acknowledgements; that
    replies which take much longer than they did count as losses is from Netflix's
    concurrency-limits. Their times are compared as geometric means: among short turns there may
    always be some that take a hundred times as long.

    Args:
        most: The limit to begin with, and never to exceed.

    Attributes:
        limit: How many there may be now.
        reserved: How many of them are for those who do not have all of the others.
        share: How many one may have.
    """

    def __init__(self, most: int) -> None:
        self._most = float(most)
        self._short = self._long = 0.0  # logarithms of seconds
        self._mean = 0.0  # seconds
        self._decreased = 0.0
        self._untried = 0
        self._set(float(most))

    def replied(self, seconds: float, now: float, in_flight: int) -> None:
        """A reply has begun.

        Args:
            seconds: How long that took.
            now: The time in seconds of a clock that is never set.
            in_flight: How many turns there were.
        """
        exact = self._exact
        tried = in_flight * 2 >= exact
        if not tried:
            self._untried = (self._untried + 1) % SAMPLED
            if self._untried:
                return
        took = log(seconds + LEAST)
        if not self._long:
            self._short = self._long = took
        short = self._short = self._short + (took - self._short) * SHORT
        long = self._long = self._long + (took - self._long) * LONG
        if not tried:
            return
        self._mean += (seconds - self._mean) * SHORT
        if short - long > _SLOW:
            if self.overloaded(now):
                self._long += (short - long) * ADMITTED
        elif exact < self._most:
            self._set(min(self._most, exact + 1 / exact))

    def overloaded(self, now: float) -> bool:
        """The endpoint was asked too much; what it says of one moment counts once.

        Returns:
            Whether that was another moment.
        """
        if now - self._decreased < max(self._mean, 0.1):
            return False
        self._decreased = now
        self._set(max(1.0, self._exact * BACKOFF))
        return True

    def _set(self, exact: float) -> None:
        self._exact = exact
        self.limit = limit = int(exact)
        self.reserved = max(1, limit // RESERVED)
        self.share = limit - self.reserved if limit > 2 else limit


class Breaker:
    """Says whether an endpoint is asked at all.

    Each call is of a generation. There is another one whenever the endpoint has answered, the
    breaker opens, or there is another probe: what becomes of an older call says nothing of how the
    endpoint is now. So a client whose turns are never answered takes it away from no other whose
    turns are.

    Args:
        clock: Seconds of a clock that is never set.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures = 0
        self._generation = 0
        self._opened = 0
        self._until = 0.0
        self._seconds = OPEN_SECONDS

    @property
    def is_open(self) -> bool:
        """Whether too many calls have failed."""
        return self._failures >= FAILURES

    def wait(self) -> float:
        """The seconds until it may be asked; 0 where it may."""
        return max(0.0, self._until - self._clock()) if self.is_open else 0.0

    def ask(self) -> int | None:
        """The generation of a call that is made now; None where it may not be. While the breaker
        is open, this is the probe.
        """
        if self._failures >= FAILURES:
            now = self._clock()
            if now < self._until:
                return None
            self._generation += 1
            self._until = now + max(PROBE_SECONDS, self._seconds)
        return self._generation

    def succeeded(self, generation: int) -> None:
        """The endpoint has answered, or begun to."""
        if self._failures:
            if self.is_open and generation <= self._opened:
                return  # no probe
            self._failures = 0
            self._seconds = OPEN_SECONDS
        self._generation += 1

    def failed(self, generation: int) -> bool:
        """It has not, and not because of what it was asked.

        Returns:
            Whether that says something.
        """
        if generation != self._generation:
            return False
        if self.is_open:  # it was the probe
            self._seconds = min(MAX_OPEN_SECONDS, self._seconds * 2)
        else:
            self._failures += 1
            if self._failures == FAILURES:
                self._opened = self._generation
                self._generation += 1
        self._until = self._clock() + self._seconds
        return True

    def unknown(self, generation: int) -> None:
        """Nobody has waited for an answer, or it says nothing of the endpoint."""
        if self.is_open and generation == self._generation:
            self._until = self._clock()
