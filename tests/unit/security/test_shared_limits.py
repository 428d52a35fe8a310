"""How many and how fast over several replicas, in a time that passes as fast as it can."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import pytest

from gateway.security.limits import BURST_SECONDS, Account
from gateway.security.principals import Principal, PrincipalLimits
from gateway.security.shared import ALL_SECONDS, CHUNK_SECONDS, TELL_SECONDS, SharedAccounts
from gateway.session.storage import Count, StoreUnavailable, Use
from gateway.stores.memory import MemoryStore
from tests.fuzz.stack import Hurried

LATENCY = 0.001
TIMEOUT = 2.0
LEASE = 3.0
LIMITS = PrincipalLimits(
    connections=4, sessions=3, messages_per_second=20.0, bytes_per_second=2000.0
)
ADA, BOB = Principal(name="key:ada"), Principal(name="key:bob")


class Store:
    """A store as far away as others are.

    Attributes:
        is_away: Whether it answers nothing.
        timeout: After how long nobody waits for it any more.
        calls: What it was asked, and when.
    """

    def __init__(self) -> None:
        self.clock = asyncio.get_running_loop().time
        self.memory = MemoryStore(clock=self.clock)
        self.is_away = False
        self.timeout = TIMEOUT
        self.calls: list[tuple[float, str]] = []

    async def _reach(self, what: str) -> None:
        self.calls.append((self.clock(), what))
        await asyncio.sleep(LATENCY / 2)
        if self.is_away:
            await asyncio.sleep(self.timeout)
            raise StoreUnavailable

    async def count(
        self, replica: str, counts: Sequence[Count], *, whole: bool, seconds: float
    ) -> Sequence[int]:
        await self._reach("count")
        given = await self.memory.count(replica, counts, whole=whole, seconds=seconds)
        await asyncio.sleep(LATENCY / 2)
        return given

    def use(self, name: str, uses: Sequence[Use]) -> asyncio.Task[Sequence[float]]:
        async def used() -> Sequence[float]:
            await self._reach("use")
            seconds = await self.memory.use(name, uses)
            await asyncio.sleep(LATENCY / 2)
            return seconds

        return asyncio.create_task(used())

    def asked(self, what: str) -> int:
        """How often it was asked that."""
        return sum(call == what for _, call in self.calls)

    def there(self) -> int:
        """How much it has counted."""
        return sum(sum(has.values()) for has, _ in self.memory._counts.values())


class Replicas:
    """Several that share it."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.store = Store()
        self._stack = stack
        self._runs: dict[SharedAccounts, asyncio.Task[None]] = {}

    async def start(self, limits: PrincipalLimits = LIMITS) -> SharedAccounts:
        """One more, which has told the store that it is there."""
        name = f"replica-{len(self._runs)}"
        accounts = SharedAccounts(name, self.store, limits, LEASE, self.store.clock)
        self._runs[accounts] = asyncio.create_task(accounts.run())
        self._stack.push_async_callback(self.kill, accounts)
        await asyncio.sleep(2 * LATENCY)
        return accounts

    async def two(self, limits: PrincipalLimits = LIMITS) -> tuple[SharedAccounts, SharedAccounts]:
        """Two more."""
        return await self.start(limits), await self.start(limits)

    async def kill(self, accounts: SharedAccounts) -> None:
        """It tells nothing any more."""
        self._runs[accounts].cancel()
        await asyncio.wait([self._runs[accounts]])


@asynccontextmanager
async def replicas() -> AsyncIterator[Replicas]:
    async with AsyncExitStack() as stack:
        yield Replicas(stack)


@pytest.fixture
def hurried() -> Callable[[Callable[[Replicas], Coroutine[Any, Any, None]]], None]:
    """Runs a test whose time does not pass but is skipped."""

    def run(test: Callable[[Replicas], Coroutine[Any, Any, None]]) -> None:
        async def whole() -> None:
            async with replicas() as r:
                await test(r)

        with asyncio.Runner(loop_factory=Hurried) as runner:
            runner.run(whole())

    return run


Run = Callable[[Callable[[Replicas], Coroutine[Any, Any, None]]], None]


async def connected(accounts: SharedAccounts, principal: Principal = ADA) -> Account:
    account = await accounts.connect(principal)
    assert account is not None
    return account


async def told() -> None:
    """Wait until what has changed is known to the store."""
    await asyncio.sleep(3 * LATENCY)


# How many


def test_connections_and_sessions_are_counted_over_all(hurried: Run) -> None:
    async def test(r: Replicas) -> None:
        one, other = await r.two()
        assert [bool(await one.connect(ADA)) for _ in range(3)] == [True] * 3
        assert [bool(await other.connect(ADA)) for _ in range(2)] == [True, False]
        assert await one.connect(ADA) is None
        assert await other.connect(BOB)
        assert [await other.open_session(ADA.name) for _ in range(3)] == [True] * 3
        assert not await one.open_session(ADA.name)
        one.disconnect(ADA.name)
        other.end_session(ADA.name)
        await told()
        assert await other.connect(ADA)
        assert await one.open_session(ADA.name)
        assert r.store.there() == 4 + 3 + 1

    hurried(test)


def test_who_comes_at_once_everywhere_is_counted_exactly(hurried: Run) -> None:
    async def test(r: Replicas) -> None:
        limits = PrincipalLimits(
            connections=50, sessions=9, messages_per_second=1, bytes_per_second=1
        )
        all_of_them = [await r.start(limits) for _ in range(3)]
        for _ in range(3):
            came = [(each, each.connect(ADA)) for _ in range(30) for each in all_of_them]
            accounts = await asyncio.gather(*[connect for _, connect in came])
            there = [each for (each, _), account in zip(came, accounts, strict=True) if account]
            assert len(there) == 50 == r.store.there()
            for each in there:
                each.disconnect(ADA.name)
            await told()
            assert r.store.there() == 0

    hurried(test)


def test_many_at_once_are_one_round_trip(hurried: Run) -> None:
    async def test(r: Replicas) -> None:
        one = await r.start()
        before = r.store.asked("count")
        names = [f"key:{number}" for number in range(100)]
        await asyncio.gather(*[connected(one, Principal(name=name)) for name in names])
        assert r.store.asked("count") - before <= 2
        for name in names:
            one.disconnect(name)
        await told()
        assert r.store.asked("count") - before <= 4
        assert (len(one), r.store.there()) == (0, 0)

    hurried(test)


def test_who_is_refused_for_what_it_has_elsewhere_leaves_nothing(hurried: Run) -> None:
    async def test(r: Replicas) -> None:
        one, other = await r.two()
        for _ in range(LIMITS.connections):
            await connected(one)
        for _ in range(LIMITS.sessions):
            assert await one.open_session(ADA.name)
        assert await other.connect(ADA) is None
        assert not await other.open_session(ADA.name)
        assert len(other) == 0
        assert r.store.there() == LIMITS.connections + LIMITS.sessions

    hurried(test)


def test_who_has_gone_before_it_was_counted_does_not_count(
    hurried: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(r: Replicas) -> None:
        one = await r.start()
        for pause in (0.0, LATENCY / 4, LATENCY * 3 / 4):
            name = f"key:{pause}"
            connecting = asyncio.create_task(one.connect(Principal(name=name)))
            await asyncio.sleep(pause)
            connecting.cancel()
            await asyncio.wait([connecting])
            assert connecting.cancelled()
        await told()
        real, answered = one._answer, asyncio.create_task(one.connect(ADA))

        def answer(wish: Any, *, granted: bool) -> None:
            real(wish, granted=granted)
            answered.cancel()  # in the same moment

        monkeypatch.setattr(one, "_answer", answer)
        await asyncio.wait([answered])
        assert answered.cancelled()
        await told()
        assert (len(one), r.store.there()) == (0, 0)

    hurried(test)


def test_a_session_counts_where_it_is(hurried: Run) -> None:
    async def test(r: Replicas) -> None:
        one, other = await r.two()
        for _ in range(3):
            assert await one.open_session(ADA.name)
        one.end_session(ADA.name)  # it moves
        other.adopt_session(ADA.name)
        await told()
        assert r.store.there() == 3
        assert not await one.open_session(ADA.name)
        other.adopt_session(ADA.name)  # which is more than there may be
        other.end_session(ADA.name)
        await told()
        assert not await one.open_session(ADA.name)
        other.end_session(ADA.name)
        await told()
        assert await one.open_session(ADA.name)

    hurried(test)


def test_what_a_dead_replica_had_does_not_stay(hurried: Run) -> None:
    async def test(r: Replicas) -> None:
        one, other = await r.two()
        for _ in range(4):
            await connected(one)
        await r.kill(one)
        assert await other.connect(ADA) is None
        await asyncio.sleep(LEASE + LATENCY)
        assert [bool(await other.connect(ADA)) for _ in range(5)] == [True] * 4 + [False]

    hurried(test)


def test_who_stays_counts_for_as_long_as_it_does(hurried: Run) -> None:
    async def test(r: Replicas) -> None:
        one, other = await r.two()
        for _ in range(4):
            await connected(one)
        await asyncio.sleep(100 * LEASE)
        assert await other.connect(ADA) is None

    hurried(test)


def test_limits_that_change_hold_everywhere(hurried: Run) -> None:
    async def test(r: Replicas) -> None:
        one, other = await r.two()
        for each in (one, other):
            await connected(each)
        small = PrincipalLimits(
            connections=2, sessions=1, messages_per_second=1, bytes_per_second=1000
        )
        for each in (one, other):
            each.change(Principal(name=ADA.name, limits=small))
        assert await one.connect(Principal(name=ADA.name, limits=small)) is None
        assert await one.open_session(ADA.name)
        assert not await other.open_session(ADA.name)
        other.change(ADA)
        assert await other.open_session(ADA.name)
        assert await other.connect(ADA)

    hurried(test)


# A store that is away


def test_without_a_store_each_holds_to_the_limits(hurried: Run) -> None:
    async def test(r: Replicas) -> None:
        one, other = await r.two()
        await connected(one)
        r.store.is_away = True
        began = r.store.clock()
        await connected(one)
        assert r.store.clock() - began <= 2 * TIMEOUT, "whoever it surprises waits for it"
        began = r.store.clock()
        assert [bool(await one.connect(ADA)) for _ in range(3)] == [True, True, False]
        assert r.store.clock() == began, "nobody else does"
        await asyncio.sleep(2 * TIMEOUT)
        assert [bool(await other.connect(ADA)) for _ in range(5)] == [True] * 4 + [False]
        r.store.is_away = False
        await asyncio.sleep(TIMEOUT + 2 * TELL_SECONDS)
        assert r.store.there() == 8
        for _ in range(4):
            one.disconnect(ADA.name)
        await told()
        assert await one.connect(ADA) is None
        other.disconnect(ADA.name)
        await told()
        assert await one.connect(ADA)

    hurried(test)


def test_a_gateway_begins_without_a_store(hurried: Run) -> None:
    async def test(r: Replicas) -> None:
        r.store.is_away = True
        one = await r.start()
        assert [bool(await one.connect(ADA)) for _ in range(5)] == [True] * 4 + [False]
        r.store.is_away = False
        await asyncio.sleep(TIMEOUT + 2 * TELL_SECONDS)
        assert await (await r.start()).connect(ADA) is None

    hurried(test)


def test_who_waits_when_a_replica_ends_is_counted_here(hurried: Run) -> None:
    async def test(r: Replicas) -> None:
        one = await r.start()
        r.store.is_away = True
        waiting = [asyncio.create_task(one.connect(ADA)) for _ in range(2)]
        await asyncio.sleep(LATENCY)
        waiting.append(asyncio.create_task(one.connect(ADA)))
        await asyncio.sleep(0)
        await r.kill(one)
        assert all(await asyncio.gather(*waiting))
        assert await one.connect(ADA)
        r.store.is_away = False
        other = await r.start()
        waiting = [asyncio.create_task(other.connect(BOB))]
        await asyncio.sleep(0)  # the store has not been asked yet
        await r.kill(other)
        assert await waiting[0]

    hurried(test)


def test_a_store_that_has_lost_it_all_is_told_again(hurried: Run) -> None:
    async def test(r: Replicas) -> None:
        one, other = await r.two()
        for _ in range(4):
            await connected(one)
        r.store.memory._counts.clear()
        await asyncio.sleep(TELL_SECONDS + LATENCY * 5)
        assert r.store.there() == 4
        assert await other.connect(ADA) is None
        r.store.memory._counts.clear()
        await connected(other)
        await told()
        assert r.store.there() == 1, "whoever notices says at once all that it has"

    hurried(test)


def test_what_went_wrong_does_not_stay(hurried: Run) -> None:
    async def test(r: Replicas) -> None:
        one, _other = await r.two()
        await connected(one)
        for counts, _ in r.store.memory._counts.values():
            counts["c:nobody's"] = 7
        await asyncio.sleep(ALL_SECONDS + 2 * TELL_SECONDS)
        assert r.store.there() == 1

    hurried(test)


# How fast


async def flood(account: Account, seconds: float, *, every: float, size: int = 0) -> int:
    """Send and send; returns how many came through."""
    loop, count = asyncio.get_running_loop(), 0
    until = loop.time() + seconds
    while loop.time() < until:
        if not account.take(size):
            count += 1
        await asyncio.sleep(every)
    return count


@pytest.mark.parametrize(("size", "rate"), [(0, 20.0), (500, 4.0)])
def test_rates_hold_over_all(hurried: Run, size: int, rate: float) -> None:
    async def test(r: Replicas) -> None:
        accounts = [await connected(await r.start()) for _ in range(3)]
        flooded = partial(flood, every=0.005, size=size)
        came = await asyncio.gather(*[flooded(account, 60.0) for account in accounts])
        chunk = max(1, rate * CHUNK_SECONDS)
        least = rate * 60
        most = least + rate * BURST_SECONDS + len(accounts) * (chunk + 1)
        assert least <= sum(came) <= most

    hurried(test)


def test_alone_it_is_as_it_was(hurried: Run) -> None:
    async def test(r: Replicas) -> None:
        account = await connected(await r.start())
        for _ in range(3):
            assert [account.take(10) for _ in range(40)] == [0.0] * 40
            assert account.take(10) == pytest.approx(0.05, abs=2 * LATENCY)
            await asyncio.sleep(BURST_SECONDS + 2 * LATENCY)
        for _ in range(8):
            assert [account.take(10) for _ in range(5)] == [0.0] * 5
            await asyncio.sleep(LATENCY * 0.7)
        wait = account.take(10)
        assert 0 < wait <= 0.05
        await asyncio.sleep(wait + 2 * LATENCY)
        assert account.take(10) == 0
        assert account.take(3990) > 0, "bytes that are refused count no message"

    hurried(test)


def test_what_was_used_elsewhere_is_known_to_who_connects(hurried: Run) -> None:
    async def test(r: Replicas) -> None:
        one, other = await r.two()
        here = await connected(one)
        assert [here.take(0) for _ in range(40)] == [0.0] * 40
        await told()
        one.disconnect(ADA.name)
        there = await connected(other)
        await told()
        assert there.take(0) > 0
        assert (await connected(other, BOB)).take(0) == 0

    hurried(test)


def test_a_burst_everywhere_counts_in_the_end(hurried: Run) -> None:
    async def test(r: Replicas) -> None:
        one, other = await r.two()
        accounts = [await connected(each) for each in (one, other)]
        for account in accounts:
            assert [account.take(0) for _ in range(40)] == [0.0] * 40
        came = await asyncio.gather(*[flood(account, 4.0, every=0.01) for account in accounts])
        assert sum(came) <= 40 + 2 * 5 + 1, "as much as comes back in the time after the first two"

    hurried(test)


def test_what_is_less_than_a_chunk_is_told_too(hurried: Run) -> None:
    async def test(r: Replicas) -> None:
        one, other = await r.two()
        here, there = await connected(one), await connected(other)
        for _ in range(10):
            assert [here.take(0) for _ in range(4)] == [0.0] * 4
            await asyncio.sleep(LATENCY / 3)
        assert [there.take(0) for _ in range(5)] == [0.0] * 5
        await told()
        assert [there.take(0) for _ in range(5)][-1] > 0
        one.disconnect(ADA.name)
        other.disconnect(ADA.name)
        await asyncio.sleep(2 * TELL_SECONDS + 5 * LATENCY)
        assert (one._owing, other._owing) == (set(), set())

    hurried(test)


def test_how_often_the_store_is_asked(hurried: Run) -> None:
    async def test(r: Replicas) -> None:
        account = await connected(await r.start())
        before, counted = r.store.asked("use"), r.store.asked("count")
        assert await flood(account, 100.0, every=0.01) >= 2000
        assert r.store.asked("use") - before <= 100 * (1 / CHUNK_SECONDS + 1 / TELL_SECONDS) + 8
        assert r.store.asked("count") - counted <= 100 / TELL_SECONDS + 2
        before = r.store.asked("use")
        await asyncio.sleep(100.0)
        assert r.store.asked("use") - before <= 1, "nothing to tell"

    hurried(test)


def test_without_a_store_each_holds_to_the_rates(hurried: Run) -> None:
    async def test(r: Replicas) -> None:
        one, other = await r.two()
        accounts = [await connected(each) for each in (one, other)]
        r.store.is_away = True
        before = r.store.asked("use")
        came = await asyncio.gather(*[flood(account, 30.0, every=0.01) for account in accounts])
        assert all(30 * 20 <= each <= 32 * 20 + 1 for each in came)
        assert r.store.asked("use") - before <= 2 * 30 / TIMEOUT
        r.store.is_away = False
        await asyncio.sleep(TIMEOUT + TELL_SECONDS + BURST_SECONDS)
        came = await asyncio.gather(*[flood(account, 30.0, every=0.01) for account in accounts])
        assert 30 * 20 <= sum(came) <= 32 * 20 + 2 * (5 + 1) + 20

    hurried(test)


def test_a_store_that_fails_at_once_is_not_asked_all_the_time(hurried: Run) -> None:
    async def test(r: Replicas) -> None:
        account = await connected(await r.start())
        r.store.is_away, r.store.timeout = True, 0.0
        before = len(r.store.calls)
        assert await flood(account, 30.0, every=0.01) >= 30 * 20
        assert len(r.store.calls) - before <= 2 * 30 / TELL_SECONDS + 2

    hurried(test)


def test_another_rate_holds_everywhere(hurried: Run) -> None:
    async def test(r: Replicas) -> None:
        one, other = await r.two()
        accounts = [await connected(each) for each in (one, other)]
        slow = PrincipalLimits(
            connections=4, sessions=3, messages_per_second=2.0, bytes_per_second=2000.0
        )
        for each in (one, other):
            each.change(Principal(name=ADA.name, limits=slow))
        came = await asyncio.gather(*[flood(account, 60.0, every=0.01) for account in accounts])
        assert 60 * 2 <= sum(came) <= 62 * 2 + 2 * 2
        fast = PrincipalLimits(
            connections=4, sessions=3, messages_per_second=200.0, bytes_per_second=2000.0
        )
        one.change(Principal(name=ADA.name, limits=fast))
        await asyncio.sleep(10.0)
        before = r.store.asked("use")
        assert await flood(accounts[0], 10.0, every=0.002) >= 10 * 200
        assert r.store.asked("use") - before <= 12 / CHUNK_SECONDS + 10 / TELL_SECONDS + 1

    hurried(test)


def test_names_are_not_in_the_store(hurried: Run) -> None:
    async def test(r: Replicas) -> None:
        one = await r.start()
        name = "jwt:" + "ada@example.com" * 1000
        account = await connected(one, Principal(name=name))
        account.take(1)
        await asyncio.sleep(2 * TELL_SECONDS)
        ((counts, _),) = r.store.memory._counts.values()
        for key in [*counts, *r.store.memory._used]:
            assert "ada" not in key
            assert len(key) < 40

    hurried(test)
