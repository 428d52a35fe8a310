"""Limits concurrent calls to an endpoint, and stops calling one that fails."""

from collections.abc import Callable
from math import log

BACKOFF = 0.9
"""Factor that the limit is multiplied by when the endpoint is overloaded."""

SLOW = 2.0
"""Factor by which the time to the first part must have grown to count as overload."""

LEAST = 0.001
"""Seconds added to each time before its logarithm is taken, so tiny differences don't count."""

SHORT, LONG = 1 / 30, 1 / 600
"""Weights of a reply in the moving averages of recent and of long-term reply times."""

SAMPLED = 8
"""Below half of the limit, only one reply in this many is sampled."""

ADMITTED = 1 / 6
"""Share of a slowdown that the long-term average adopts each time that the limit is decreased for
it: turns that just take longer than before are no sign of overload."""

FAILURES = 5
"""Consecutive failures that open the breaker."""

OPEN_SECONDS, MAX_OPEN_SECONDS = 1.0, 30.0
"""Initial and maximum seconds that the breaker stays open; doubled with each failed probe."""

PROBE_SECONDS = 10.0
"""Seconds without an answer to a probe after which another one is allowed."""


RESERVED = 10
"""One place in this many is reserved; at least one, if there are more than two."""

_SLOW = log(SLOW)


class AdaptiveLimit:
    """A limit on concurrent turns with additive increase and multiplicative decrease.

    The rule is that of Chiu and Jain, "Analysis of the increase and decrease algorithms for
    congestion avoidance in computer networks" (1989), with replies for acknowledgements. That
    replies which take much longer than before count as losses is from Netflix's
    concurrency-limits. Reply times are compared as geometric means, since a few turns may take a
    hundred times as long as the others.

    Args:
        most: The initial limit, which is also its maximum.

    Attributes:
        limit: Current maximum of concurrent turns.
        reserved: Places of these that are kept for principals which don't hold all of the others.
        share: Maximum of one principal.
    """

    def __init__(self, most: int) -> None:
        self._most = float(most)
        self._short = self._long = 0.0  # logarithms of seconds
        self._mean = 0.0  # seconds
        self._decreased = 0.0
        self._untried = 0
        self._set(float(most))

    def replied(self, seconds: float, now: float, in_flight: int) -> None:
        """Record the start of a reply.

        Args:
            seconds: Time from sending the turn to the start of its reply.
            now: Current time in seconds of a monotonic clock.
            in_flight: Number of concurrent turns.
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
        """Decrease the limit because of overload; once for all signs of the same overload.

        Returns:
            Whether the limit was decreased.
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
    """A circuit breaker.

    Each call belongs to a generation. A new generation starts whenever the endpoint has answered,
    the breaker opens, or a probe is sent: results of older calls say nothing about the endpoint's
    current state. So a client whose turns are never answered can't open the breaker for clients
    whose turns are.

    Args:
        clock: Returns seconds of a monotonic clock.
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
        """Whether too many consecutive calls have failed."""
        return self._failures >= FAILURES

    def wait(self) -> float:
        """Return the seconds until a call is allowed; 0 if one is allowed now."""
        return max(0.0, self._until - self._clock()) if self.is_open else 0.0

    def ask(self) -> int | None:
        """Return the generation of a call made now, or None if none is allowed. While the breaker
        is open, the call is its probe.
        """
        if self._failures >= FAILURES:
            now = self._clock()
            if now < self._until:
                return None
            self._generation += 1
            self._until = now + max(PROBE_SECONDS, self._seconds)
        return self._generation

    def succeeded(self, generation: int) -> None:
        """Record that the endpoint has answered, or started to."""
        if self._failures:
            if self.is_open and generation <= self._opened:
                return  # a call from before it opened
            self._failures = 0
            self._seconds = OPEN_SECONDS
        self._generation += 1

    def failed(self, generation: int) -> bool:
        """Record a failure that the request itself has not caused.

        Returns:
            Whether it counts: False for a call of an older generation.
        """
        if generation != self._generation:
            return False
        if self.is_open:  # the probe failed
            self._seconds = min(MAX_OPEN_SECONDS, self._seconds * 2)
        else:
            self._failures += 1
            if self._failures == FAILURES:
                self._opened = self._generation
                self._generation += 1
        self._until = self._clock() + self._seconds
        return True

    def unknown(self, generation: int) -> None:
        """Record a call that was cancelled, or whose result says nothing about the endpoint."""
        if self.is_open and generation == self._generation:
            self._until = self._clock()
