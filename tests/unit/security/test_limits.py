"""How many and how fast."""

import pytest

from gateway.security.limits import RESTING, Account, Bucket, LocalAccounts
from gateway.security.principals import Principal, PrincipalLimits

LIMITS = PrincipalLimits(connections=2, sessions=1, messages_per_second=10.0, bytes_per_second=1000)
ADA, BOB = Principal(name="key:ada"), Principal(name="key:bob")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def connected(accounts: LocalAccounts, principal: Principal) -> Account:
    account = await accounts.connect(principal)
    assert account is not None
    return account


def test_a_bucket_lets_a_burst_through_and_then_its_rate() -> None:
    bucket = Bucket(10.0, 0.0)
    assert bucket.take(20, 0.0) == 0
    assert bucket.take(1, 0.0) == pytest.approx(0.1)
    assert bucket.take(5, 0.1) == pytest.approx(0.4), "what was refused has taken nothing"
    assert bucket.take(1, 0.1) == 0
    assert bucket.take(20, 1000.0) == 0, "it holds no more than a burst"
    assert bucket.take(1, 1000.0) > 0
    bucket.give_back(1)
    assert bucket.take(1, 1000.0) == 0


def test_as_many_small_ones_are_a_burst() -> None:
    bucket = Bucket(10.0, 12345.6)
    assert [bucket.take(1, 12345.6) for _ in range(20)] == [0.0] * 20
    assert bucket.take(1, 12345.6) == pytest.approx(0.1)


@pytest.mark.parametrize("rate", [0.25, 1.0, 20.0])
def test_what_is_left_is_what_can_be_taken(rate: float) -> None:
    bucket, now = Bucket(rate, 0.0), 5.0
    assert bucket.allowance(now).left == bucket.allowance(now).messages == max(1, int(2 * rate))
    for _ in range(3):
        allowance = bucket.allowance(now)
        for left in range(allowance.left, 0, -1):
            assert bucket.allowance(now).left == left
            assert bucket.take(1, now) == 0
        assert bucket.allowance(now).left == 0
        assert bucket.take(1, now) > 0
        seconds = bucket.allowance(now).seconds
        assert bucket.allowance(now + seconds).left == allowance.messages
        now += seconds / 2


def test_what_is_more_than_a_burst_has_room_where_nothing_came_before() -> None:
    bucket = Bucket(10.0, 0.0)
    assert bucket.take(1000, 0.0) == 0
    assert bucket.take(1, 0.0) == pytest.approx(98.1)
    bucket = Bucket(10.0, 0.0)
    assert bucket.take(1, 0.0) == 0
    assert bucket.take(1000, 0.0) == pytest.approx(0.1)


async def test_connections_and_sessions_are_counted_for_each() -> None:
    accounts = LocalAccounts(LIMITS)
    assert [bool(await accounts.connect(ADA)) for _ in range(3)] == [True, True, False]
    assert await accounts.connect(BOB)
    assert [await accounts.open_session(ADA.name) for _ in range(2)] == [True, False]
    assert await accounts.open_session(BOB.name)
    accounts.disconnect(ADA.name)
    accounts.end_session(ADA.name)
    assert await accounts.connect(ADA)
    assert await accounts.open_session(ADA.name)


async def test_messages_and_bytes_are_counted_for_each() -> None:
    clock = Clock()
    accounts = LocalAccounts(LIMITS, clock)
    ada, bob = await connected(accounts, ADA), await connected(accounts, BOB)
    assert [ada.take(10) for _ in range(20)] == [0.0] * 20
    assert ada.take(10) == pytest.approx(0.1)
    assert [ada.allowance().left, bob.allowance().left] == [0, 20]
    assert bob.take(2000) == 0
    assert [bob.take(500) for _ in range(5)] == [pytest.approx(0.5)] * 5
    left = [0.0] * 19 + [pytest.approx(0.1)]
    assert [bob.take(0) for _ in range(20)] == left, "what was refused counts no message"
    clock.now += 0.5
    assert [bob.take(500), ada.take(0)] == [0, 0]


async def test_who_has_nothing_is_forgotten_when_its_buckets_are_full() -> None:
    clock = Clock()
    accounts = LocalAccounts(LIMITS, clock)
    ada = await connected(accounts, ADA)
    for _ in range(20):
        ada.take(10)
    accounts.disconnect(ADA.name)
    assert len(accounts) == 0
    ada = await connected(accounts, ADA)
    assert ada.take(10) > 0, "coming back makes nothing good"
    accounts.disconnect(ADA.name)
    clock.now += 2.0
    ada = await connected(accounts, ADA)
    assert ada.take(10) == 0


async def test_a_debt_outlives_a_connection() -> None:
    clock = Clock()
    accounts = LocalAccounts(LIMITS, clock)
    ada = await connected(accounts, ADA)
    ada.take(100 * int(LIMITS.bytes_per_second))
    for _ in range(9):
        accounts.disconnect(ADA.name)
        clock.now += 10.5
        ada = await connected(accounts, ADA)
        assert ada.take(10) > 0
    clock.now += 5.0
    assert ada.take(10) == 0


async def test_limits_of_its_own_hold_from_its_next_connection() -> None:
    accounts = LocalAccounts(LIMITS)
    await accounts.connect(ADA)
    large = PrincipalLimits(connections=9, sessions=9, messages_per_second=1000, bytes_per_second=9)
    assert await accounts.connect(Principal(name=ADA.name, limits=large))
    assert await accounts.connect(Principal(name=ADA.name, limits=large))
    assert [await accounts.open_session(ADA.name) for _ in range(2)] == [True, True]


async def test_other_limits_hold_for_who_is_there() -> None:
    accounts = LocalAccounts(LIMITS, Clock())
    ada = await connected(accounts, ADA)
    await connected(accounts, ADA)
    small = PrincipalLimits(connections=1, sessions=9, messages_per_second=1, bytes_per_second=1000)
    accounts.change(Principal(name=ADA.name, limits=small))
    assert [ada.take(10) for _ in range(3)] == [0, 0, pytest.approx(1.0)]
    assert [await accounts.open_session(ADA.name) for _ in range(2)] == [True, True]
    accounts.disconnect(ADA.name)
    assert not await accounts.connect(Principal(name=ADA.name, limits=small)), "one is still there"
    accounts.change(ADA)
    assert await accounts.connect(ADA)
    accounts.change(BOB)
    assert len(accounts) == 1, "who has nothing is not counted"


async def test_no_more_than_so_many_are_remembered() -> None:
    accounts = LocalAccounts(LIMITS, clock=lambda: 0.0)
    for number in range(RESTING + 10):
        name = f"key:{number}"
        (await connected(accounts, Principal(name=name))).take(1)
        accounts.disconnect(name)
    assert len(accounts) == 0
    assert len(accounts._resting) == RESTING


async def test_sessions_count_whether_or_not_anybody_is_connected() -> None:
    two = PrincipalLimits(connections=1, sessions=2, messages_per_second=1, bytes_per_second=1)
    accounts = LocalAccounts(two, Clock())
    assert [await accounts.open_session(ADA.name) for _ in range(3)] == [True, True, False]
    accounts.end_session(ADA.name)
    assert [await accounts.open_session(ADA.name) for _ in range(2)] == [True, False]
    assert len(accounts) == 1
    for _ in range(2):
        accounts.end_session(ADA.name)
    assert len(accounts) == 0


async def test_another_rate_of_bytes_holds_for_who_is_there() -> None:
    accounts = LocalAccounts(LIMITS, Clock())
    ada = await connected(accounts, ADA)
    slow = PrincipalLimits(connections=1, sessions=1, messages_per_second=10, bytes_per_second=100)
    accounts.change(Principal(name=ADA.name, limits=slow))
    assert ada.take(200) == 0
    assert ada.take(100) == pytest.approx(1.0)
