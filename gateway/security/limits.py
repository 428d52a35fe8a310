"""Quotas and rate limits of principals within one process."""

import time
from collections.abc import Callable
from typing import Protocol

from cachetools import TLRUCache

from gateway.admission import Allowance, SessionQuota
from gateway.security.principals import Principal, PrincipalLimits

BURST_SECONDS = 2.0
"""Size of a bucket, as seconds of its rate."""

LEAST_SECONDS = 1e-6
"""Waits shorter than this are rounding errors."""

RESTING = 10_000
"""Idle principals whose buckets are kept until they are full again."""


class Bucket:
    """A token bucket.

    Its level is stored as the time when it will be full again, as in the generic cell rate
    algorithm (ITU-T I.371).

    Args:
        rate: Tokens per second.
        now: Current time, in seconds of a monotonic clock.

    Attributes:
        rate: Tokens per second; can be changed.
        full_at: When it is full again, if nothing more is taken.
    """

    __slots__ = ("full_at", "rate")

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self.full_at = now

    def take(self, amount: float, now: float) -> float:
        """Take tokens. Returns 0; or, and then takes none, the seconds until there are enough.

        A full bucket gives any amount, even more than its size.
        """
        missing = self.full_at - now
        if missing <= 0:
            self.full_at = now + amount / self.rate
            return 0.0
        seconds = amount / self.rate
        wait = min(missing + seconds - BURST_SECONDS, missing)
        if wait > LEAST_SECONDS:
            return wait
        self.full_at += seconds
        return 0.0

    def give_back(self, amount: float) -> None:
        """Return tokens that were taken."""
        self.full_at -= amount / self.rate

    def allowance(self, now: float) -> Allowance:
        """Return how much may be taken now."""
        missing = max(0.0, self.full_at - now)
        most = max(1, int(self.rate * BURST_SECONDS))
        left = int((BURST_SECONDS - missing) * self.rate + LEAST_SECONDS) if missing else most
        return Allowance(most, max(0, left), missing)


class Tally:
    """A count of something that a principal has, with a maximum.

    Args:
        most: The maximum.

    Attributes:
        here: Current number in this process.
        most: The maximum; can be changed.
    """

    __slots__ = ("here", "most")

    def __init__(self, most: int) -> None:
        self.here = 0
        self.most = most


class Accounts(SessionQuota, Protocol):
    """Usage of principals, by name."""

    async def connect(self, principal: Principal) -> "Account | None":
        """Count a connection; returns None if the principal is at its limit."""
        ...

    def change(self, principal: Principal) -> None:
        """Apply a principal's limits, which may have changed, if it has an account."""
        ...

    def disconnect(self, name: str) -> None:
        """Count a closed connection."""
        ...


class Account(Protocol):
    """A principal's usage, as one of its connections sees it."""

    def take(self, size: int) -> float:
        """Count a message; returns 0, or the seconds to wait if the rate limit is exceeded.

        With shared limits, this goes by the last known usage of other replicas, since it can't
        wait.

        Args:
            size: Approximate size in bytes.
        """
        ...

    def allowance(self) -> Allowance:
        """Return what the principal may still send."""
        ...


class LocalAccount:
    """A principal's usage in this process.

    Args:
        limits: Its limits.
        clock: Returns seconds of a monotonic clock.
    """

    __slots__ = ("_clock", "bytes", "connections", "messages", "sessions")

    def __init__(self, limits: PrincipalLimits, clock: Callable[[], float]) -> None:
        self._clock, now = clock, clock()
        self.connections = Tally(limits.connections)
        self.sessions = Tally(limits.sessions)
        self.messages = Bucket(limits.messages_per_second, now)
        self.bytes = Bucket(limits.bytes_per_second, now)

    def take(self, size: int) -> float:
        """See `Account.take`."""
        now = self._clock()
        wait = self.messages.take(1, now)
        if not wait and (wait := self.bytes.take(size, now)):
            self.messages.give_back(1)
        return wait

    def allowance(self) -> Allowance:
        """See `Account.allowance`."""
        return self.messages.allowance(self._clock())

    @property
    def full_at(self) -> float:
        """When both buckets are full again, if nothing more is taken."""
        return max(self.messages.full_at, self.bytes.full_at)

    def change(self, limits: PrincipalLimits) -> None:
        """Apply limits, which may have changed since the file of keys was reloaded."""
        self.connections.most = limits.connections
        self.sessions.most = limits.sessions
        self.messages.rate = limits.messages_per_second
        self.bytes.rate = limits.bytes_per_second


class LocalAccounts:
    """`Accounts` within this process.

    Args:
        limits: Default limits.
        clock: Returns seconds of a monotonic clock.
    """

    def __init__(
        self, limits: PrincipalLimits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._accounts: dict[str, LocalAccount] = {}
        # Kept until their buckets are full: then a new account is equivalent.
        self._resting: TLRUCache[str, LocalAccount] = TLRUCache(
            RESTING, lambda _name, account, _now: account.full_at, timer=clock
        )

    def __len__(self) -> int:
        return len(self._accounts)

    async def connect(self, principal: Principal) -> Account | None:
        """See `Accounts.connect`."""
        limits = principal.limits or self._limits
        account = self._account(principal.name, limits)
        account.change(limits)
        return account if await self._add(principal.name, account.connections) else None

    def change(self, principal: Principal) -> None:
        """See `Accounts.change`."""
        account = self._accounts.get(principal.name)
        if account is not None:
            account.change(principal.limits or self._limits)

    def disconnect(self, name: str) -> None:
        """See `Accounts.disconnect`."""
        self._remove(name, self._accounts[name].connections)

    async def open_session(self, name: str) -> bool:
        """See `SessionQuota.open_session`."""
        return await self._add(name, self._account(name, self._limits).sessions)

    def adopt_session(self, name: str) -> None:
        """See `SessionQuota.adopt_session`."""
        self._account(name, self._limits).sessions.here += 1

    def end_session(self, name: str) -> None:
        """See `SessionQuota.end_session`."""
        self._remove(name, self._accounts[name].sessions)

    async def _add(self, name: str, tally: Tally) -> bool:  # noqa: ARG002 - used by subclasses
        """Increment a count, if it is below its maximum."""
        if tally.here >= tally.most:
            return False
        tally.here += 1
        return True

    def _remove(self, name: str, tally: Tally) -> None:
        """Decrement a count."""
        tally.here -= 1
        account = self._accounts[name]
        if not account.connections.here and not account.sessions.here:
            self._resting[name] = self._accounts.pop(name)

    def _account(self, name: str, limits: PrincipalLimits) -> LocalAccount:
        account = self._accounts.get(name) or self._resting.pop(name, None)
        if account is None:
            account = self._new(name, limits)
        self._accounts[name] = account
        return account

    def _new(self, name: str, limits: PrincipalLimits) -> LocalAccount:  # noqa: ARG002
        return LocalAccount(limits, self._clock)
