"""How many and how fast: what each principal has and uses at this moment."""

import time
from collections.abc import Callable
from typing import Protocol

from cachetools import TLRUCache

from gateway.admission import Allowance, SessionQuota
from gateway.security.principals import Principal, PrincipalLimits

BURST_SECONDS = 2.0
"""How much may come at once where nothing came before: as much as in this time."""

LEAST_SECONDS = 1e-6
"""What is less is no wait, but times that were rounded."""

RESTING = 10_000
"""How many principals are remembered that have nothing any more, until their buckets are full."""


class Bucket:
    """A token bucket: lets so much through in a second, and at once what was not used before.

    What is in it is known by when it is full again, as in the generic cell rate algorithm (ITU-T
    I.371).

    Args:
        rate: How much in a second.
        now: The time, in seconds of a clock that is never set.

    Attributes:
        rate: Can be changed.
        full_at: When it is full, or was, if nothing is taken from it.
    """

    __slots__ = ("full_at", "rate")

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self.full_at = now

    def take(self, amount: float, now: float) -> float:
        """Take so much; returns 0, or the seconds until there is room for it, and takes nothing.

        What is more than may come at once has room where nothing else came before it.
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
        """Put in again what was taken."""
        self.full_at -= amount / self.rate

    def allowance(self, now: float) -> Allowance:
        """How much may be taken."""
        missing = max(0.0, self.full_at - now)
        most = max(1, int(self.rate * BURST_SECONDS))
        left = int((BURST_SECONDS - missing) * self.rate + LEAST_SECONDS) if missing else most
        return Allowance(most, max(0, left), missing)


class Tally:
    """How many of something a principal has here.

    Args:
        most: See the attribute.

    Attributes:
        here: So many.
        most: So many it may have. Can be changed.
    """

    __slots__ = ("here", "most")

    def __init__(self, most: int) -> None:
        self.here = 0
        self.most = most


class Accounts(SessionQuota, Protocol):
    """What principals use, by their names."""

    async def connect(self, principal: Principal) -> "Account | None":
        """Count a connection; None where it has as many as it may."""
        ...

    def change(self, principal: Principal) -> None:
        """Its limits may be others now: hold it to them from now on, if it has anything here."""
        ...

    def disconnect(self, name: str) -> None:
        """A connection has gone."""
        ...


class Account(Protocol):
    """What a principal uses, to a connection of it."""

    def take(self, size: int) -> float:
        """Count a message; returns 0, or the seconds to wait where there were too many.

        Where others use the same, this goes by what was last heard of them: it may not wait.

        Args:
            size: About how many bytes it has.
        """
        ...

    def allowance(self) -> Allowance:
        """What it may still send."""
        ...


class LocalAccount:
    """What one principal uses.

    Args:
        limits: Its own.
        clock: Seconds of a clock that is never set.
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
        """When both buckets are full, if nothing is taken from them."""
        return max(self.messages.full_at, self.bytes.full_at)

    def change(self, limits: PrincipalLimits) -> None:
        """They may be others, since the file of keys is read again."""
        self.connections.most = limits.connections
        self.sessions.most = limits.sessions
        self.messages.rate = limits.messages_per_second
        self.bytes.rate = limits.bytes_per_second


class LocalAccounts:
    """`Accounts` in this process.

    Args:
        limits: Of whoever has none of its own.
        clock: Seconds of a clock that is never set.
    """

    def __init__(
        self, limits: PrincipalLimits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._accounts: dict[str, LocalAccount] = {}
        # Until their buckets are full, when a new account is the same.
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

    async def _add(self, name: str, tally: Tally) -> bool:  # noqa: ARG002 - others need it
        """Count one more, if there may be."""
        if tally.here >= tally.most:
            return False
        tally.here += 1
        return True

    def _remove(self, name: str, tally: Tally) -> None:
        """There is one less."""
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
