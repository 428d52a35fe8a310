"""The limits of principals over all replicas that share a store.

Connections and sessions are counted here, and the store knows how many each replica has: it is
asked for one more. Rates are held without waiting: a replica goes by what it has last heard that
all have used, and tells soon what was used here. While the store does not answer, each replica
holds to the limits by itself.
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
"""As much as may be used in so much time, a replica uses before the others know of any of it."""

TELL_SECONDS = 1.0
"""How soon, or at most twice that, the others know of what is less than that; and how long a store
that has failed is not told."""

ALL_SECONDS = 60.0
"""How often the store is told all there is, so that nothing that went wrong stays."""


class SharedAccount(LocalAccount):
    """What one principal uses, here and elsewhere.

    Args:
        limits: Its own.
        clock: Seconds of a clock that is never set.
        store: Knows of all replicas.
        digest: Stands for the principal there.
        owing: Those that have something to tell.
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
        self._messages_used = self._bytes_used = 0  # since that was told
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
        """Tell what was used, with what is used until the loop comes to it, and hear of others."""
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
    """One more of something."""

    name: str
    tally: Tally
    answer: asyncio.Future[bool]


class SharedAccounts(LocalAccounts):
    """`Accounts` of all replicas.

    Args:
        replica: This one's name.
        store: Knows of all.
        limits: Of whoever has none of its own.
        lease_seconds: How long what is here counts when nothing more is heard of this replica.
        clock: Seconds of a clock that is never set.
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
        self._all_at = 0.0  # when all is to be told again
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
        account.tell()  # the others may have used much
        return account

    async def run(self) -> None:
        """Tell the store, and ask it, until this is cancelled."""
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
        """Tell the store what there is, or what has changed, and ask for what is wished for."""
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
        """The store can't be asked, or has not answered: what is here is within the limits."""
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
    """What stands for a principal: of one length, and not to be read."""
    return sha256(name.encode()).hexdigest()[:32]
