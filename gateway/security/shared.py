"""Limits of principals across all replicas that share a store.

Connections and sessions are counted locally and reported to the store, which is asked for each
additional one. Rate limits never wait: a replica goes by the last known usage of all replicas, and
soon reports its own. While the store is unavailable, each replica applies the limits on its own.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from hashlib import sha256
from typing import NamedTuple

from gateway.security.limits import RESTING, LocalAccount, LocalAccounts, Tally
from gateway.security.principals import PrincipalLimits
from gateway.session.storage import (
    BEATS,
    Count,
    CountStore,
    Outdated,
    Pending,
    StoreUnavailable,
    Use,
)

CHUNK_SECONDS = 0.25
"""A replica may use this many seconds' worth of a rate before it reports it."""

TELL_SECONDS = 1.0
"""Seconds until smaller usage is reported (at most twice as many), and pause after the store has
failed."""

ALL_SECONDS = 60.0
"""Seconds between full reports to the store, which correct any error."""


class SharedAccount(LocalAccount):
    """A principal's usage, in this and other replicas.

    Args:
        limits: Its limits.
        clock: Returns seconds of a monotonic clock.
        store: Counts the usage of all replicas.
        digest: Identifies the principal in the store.
        owing: Collects accounts with unreported usage.
    """

    __slots__ = (
        "_bytes_used",
        "_digest",
        "_is_telling",
        "_many",
        "_messages_used",
        "_much",
        "_owing",
        "_quiet_until",
        "_store",
    )

    def __init__(
        self,
        limits: PrincipalLimits,
        clock: Callable[[], float],
        store: CountStore,
        digest: str,
        owing: set["SharedAccount"],
    ) -> None:
        super().__init__(limits, clock)
        self.change(limits)
        self._store = store
        self._digest = digest
        self._owing = owing
        self._messages_used = self._bytes_used = 0  # since the last report
        self._is_telling = False
        self._quiet_until = 0.0

    def take(self, size: int) -> float:
        """See `Account.take`."""
        wait = LocalAccount.take(self, size)
        if not wait:
            if not self._messages_used:
                self._owing.add(self)
            self._messages_used += 1
            self._bytes_used += size
            if self._messages_used >= self._many or self._bytes_used >= self._much:
                self.tell()
        return wait

    def change(self, limits: PrincipalLimits) -> None:
        """See `LocalAccount.change`."""
        super().change(limits)
        self._many = CHUNK_SECONDS * limits.messages_per_second
        self._much = CHUNK_SECONDS * limits.bytes_per_second

    def tell(self) -> None:
        """Report usage when the loop next runs, and get that of other replicas."""
        if not self._is_telling:
            self._is_telling = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        now, messages, size = self._clock(), self._messages_used, self._bytes_used
        self._messages_used = self._bytes_used = 0
        self._owing.discard(self)
        if now < self._quiet_until:
            self._is_telling = False
            return
        uses = Use(self.messages.rate, messages), Use(self.bytes.rate, size)
        self._store.use(self._digest, uses).add_done_callback(partial(self._hear, now))

    def _hear(self, told_at: float, told: Pending) -> None:
        self._is_telling = False
        if told.exception() is not None:
            self._quiet_until = self._clock() + TELL_SECONDS
            return
        uses = (self.messages, self._messages_used), (self.bytes, self._bytes_used)
        for (bucket, used), seconds in zip(uses, told.result(), strict=True):
            bucket.full_at = max(bucket.full_at, told_at + seconds + used / bucket.rate)
        if self._messages_used >= self._many or self._bytes_used >= self._much:
            self.tell()


class _Wish(NamedTuple):
    """A request for one more of something."""

    name: str
    tally: Tally
    answer: asyncio.Future[bool]


class SharedAccounts(LocalAccounts):
    """`Accounts` across replicas.

    Args:
        replica: This replica's name.
        store: Counts the usage of all replicas.
        limits: Default limits.
        lease_seconds: How long this replica's counts are valid without another report.
        clock: Returns seconds of a monotonic clock.
    """

    def __init__(
        self,
        replica: str,
        store: CountStore,
        limits: PrincipalLimits,
        lease_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(limits, clock)
        self._replica = replica
        self._store = store
        self._lease_seconds = lease_seconds
        self._pause = min(TELL_SECONDS, lease_seconds / BEATS)
        self._is_up = False
        self._all_at = 0.0  # time of the next full report
        self._news: dict[str, LocalAccount] = {}
        self._have_news = asyncio.Event()
        self._wishes: list[_Wish] = []
        self._owing: set[SharedAccount] = set()

    def adopt_session(self, name: str) -> None:
        """See `SessionQuota.adopt_session`."""
        super().adopt_session(name)
        self._has_changed(name)

    async def _add(self, name: str, tally: Tally) -> bool:
        if not await super()._add(name, tally):
            return False
        self._has_changed(name)
        if not self._is_up:
            return True
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._wishes.append(_Wish(name, tally, answer))
        try:
            return await answer
        except asyncio.CancelledError:
            if not answer.cancelled() and answer.result():
                self._remove(name, tally)
            raise

    def _remove(self, name: str, tally: Tally) -> None:
        self._has_changed(name)
        super()._remove(name, tally)

    def _has_changed(self, name: str) -> None:
        self._news[name] = self._accounts[name]
        self._have_news.set()

    def _new(self, name: str, limits: PrincipalLimits) -> LocalAccount:
        account = SharedAccount(limits, self._clock, self._store, _digest(name), self._owing)
        account.tell()  # get what the other replicas have used
        return account

    async def run(self) -> None:
        """Report to the store and send it requests until cancelled."""
        tell_at = self._clock()
        try:
            while True:
                try:
                    await self._count()
                except Outdated:
                    continue
                except StoreUnavailable:
                    await asyncio.sleep(self._pause)
                    continue
                try:
                    async with asyncio.timeout(self._pause):
                        await self._have_news.wait()
                except TimeoutError:
                    pass
                if self._clock() >= tell_at:
                    tell_at = self._clock() + TELL_SECONDS
                    for account in self._owing:
                        account.tell()
        finally:
            self._be_alone()

    async def _count(self) -> None:
        """Report counts to the store, all or those that have changed, and send pending requests."""
        now = self._clock()
        whole = not self._is_up or now >= self._all_at
        told = self._accounts if whole else self._news
        wishes, self._wishes, self._news = self._wishes, [], {}
        self._have_news.clear()
        wanted = Counter(wish.tally for wish in wishes)
        tallies = {
            f"{kind}:{_digest(name)}": tally
            for name, account in told.items()
            for kind, tally in (("c", account.connections), ("s", account.sessions))
            if tally.here or not whole
        }
        counts = [
            Count(what, tally.here - wanted[tally], wanted[tally], tally.most)
            for what, tally in tallies.items()
        ]
        try:
            given = await self._store.count(
                self._replica, counts, whole=whole, seconds=self._lease_seconds
            )
        except BaseException:
            self._be_alone(wishes)
            raise
        self._is_up = True
        if whole:
            self._all_at = now + ALL_SECONDS
        left = dict(zip(tallies.values(), given, strict=True))
        for wish in wishes:
            left[wish.tally] -= 1
            self._answer(wish, granted=left[wish.tally] >= 0)

    def _be_alone(self, wishes: Sequence[_Wish] = ()) -> None:
        """Grant pending requests, since the store is unavailable and local limits allow them."""
        self._is_up = False
        for wish in [*wishes, *self._wishes]:
            self._answer(wish, granted=True)
        self._wishes = []

    def _answer(self, wish: _Wish, *, granted: bool) -> None:
        if wish.answer.cancelled():
            self._remove(wish.name, wish.tally)
            return
        wish.answer.set_result(granted)
        if not granted:
            super()._remove(wish.name, wish.tally)


@lru_cache(RESTING)
def _digest(name: str) -> str:
    """Identify a principal in the store by a digest: of fixed length, and unreadable."""
    return sha256(name.encode()).hexdigest()[:32]
