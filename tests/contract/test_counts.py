"""What a store counts for all replicas, in memory and in Valkey, which runs as it does elsewhere.

Each test has two of them: the same counts, as two replicas see them.
"""

import asyncio
from collections.abc import Sequence

import pytest

from gateway.session.storage import Count, CountStore, Outdated, Use
from tests.contract.conftest import Two, until
from tests.support.timing import UNIT
from tests.support.valkey import Server, opened

LONG = 1000.0
SHORT = 0.05
NEAR = 20 * UNIT
"""So many seconds are nothing where there are thousands."""


@pytest.fixture(autouse=True)
def transport() -> None:
    """No store calls a model."""


async def begin(store: CountStore, replica: str, seconds: float = LONG) -> None:
    """A replica that has nothing begins to count."""
    assert list(await store.count(replica, [], whole=True, seconds=seconds)) == []


async def more(
    store: CountStore, replica: str, *, here: int = 0, wanted: int = 1, most: int = 3
) -> int:
    """How many more connections it gets."""
    counts = [Count("connections", here, wanted, most)]
    (given,) = await store.count(replica, counts, whole=False, seconds=LONG)
    return given


# How many


async def test_all_together_have_no_more_than_they_may(two: Two) -> None:
    await begin(two.one, "a")
    await begin(two.other, "b")
    assert await more(two.one, "a", wanted=2) == 2
    assert await more(two.other, "b", wanted=2) == 1, "what there is room for"
    assert await more(two.one, "a", here=2) == 0
    assert await more(two.other, "b", here=0, wanted=0) == 0, "its own has gone"
    assert await more(two.one, "a", here=2) == 1


async def test_what_is_here_counts_however_many_there_may_be(two: Two) -> None:
    await begin(two.one, "a")
    await begin(two.other, "b")
    assert await more(two.one, "a", here=5, wanted=1) == 0
    assert await more(two.other, "b") == 0
    assert await more(two.other, "b", most=7, wanted=9) == 2


async def test_one_that_begins_to_count_is_seen_by_those_who_did_before(two: Two) -> None:
    await begin(two.one, "a")
    await begin(two.other, "b")
    assert await more(two.one, "a") == 1
    await begin(two.other, "late")
    assert await more(two.other, "late", wanted=3) == 2
    assert await more(two.one, "a", here=1) == 0


async def test_each_thing_is_counted_by_itself_and_in_order(two: Two) -> None:
    await begin(two.one, "a")
    await begin(two.other, "b")
    counts = [Count("x", 1, 1, 9), Count("y", 0, 5, 3), Count("z", 4, 0, 1), Count("w", 0, 0, 1)]
    assert list(await two.one.count("a", counts, whole=False, seconds=LONG)) == [1, 3, 0, 0]
    counts = [Count(what, 0, 10, 10) for what in "wxyz"]
    assert list(await two.other.count("b", counts, whole=False, seconds=LONG)) == [10, 8, 7, 6]


async def test_whoever_asks_at_once_gets_no_more_than_there_is(two: Two) -> None:
    names = [f"replica-{number}" for number in range(10)]
    for name in names:
        await begin(two.one, name)
    given = await asyncio.gather(
        *[more(two[i % 2], name, wanted=3, most=17) for i, name in enumerate(names)]
    )
    assert sum(given) == 17


async def test_all_that_is_said_replaces_what_was_there(two: Two) -> None:
    await begin(two.one, "a")
    await begin(two.other, "b")
    assert await more(two.one, "a", wanted=3) == 3
    counts = [Count("sessions", 1, 1, 2)]
    assert list(await two.one.count("a", counts, whole=True, seconds=LONG)) == [1]
    assert await more(two.other, "b", wanted=3) == 3
    counts = [Count("sessions", 0, 1, 2)]
    assert list(await two.other.count("b", counts, whole=False, seconds=LONG)) == [0]


async def test_what_is_not_heard_of_any_more_does_not_count(two: Two) -> None:
    await begin(two.other, "b")
    counts = [Count("connections", 3, 0, 3)]
    await two.one.count("a", counts, whole=True, seconds=SHORT)

    async def is_gone() -> bool:
        return await more(two.other, "b", wanted=3) == 3

    await until(is_gone)
    with pytest.raises(Outdated):
        await two.one.count("a", counts, whole=False, seconds=SHORT)
    assert list(await two.one.count("a", counts, whole=True, seconds=LONG)) == [0]
    assert await more(two.other, "b", here=0, wanted=1, most=3) == 0


async def test_it_counts_for_as_long_as_it_is_heard_of(two: Two) -> None:
    await begin(two.other, "b")
    counts = [Count("connections", 3, 0, 3)]
    await two.one.count("a", counts, whole=True, seconds=SHORT)
    await two.one.count("a", [], whole=True, seconds=LONG)
    assert await more(two.one, "a", wanted=2) == 2
    await asyncio.sleep(2 * SHORT)
    assert await more(two.other, "b", wanted=3) == 1


async def test_who_has_never_counted_has_to_say_all(two: Two) -> None:
    with pytest.raises(Outdated):
        await more(two.one, "a")
    await begin(two.one, "a", seconds=0)
    with pytest.raises(Outdated):
        await more(two.one, "a")


# How much


async def use(store: CountStore, name: str, *uses: tuple[float, float]) -> Sequence[float]:
    """In how many seconds it has come back."""
    seconds: Sequence[float] = await store.use(name, [Use(*each) for each in uses])
    return seconds


async def test_what_all_have_used_comes_back_with_time(two: Two) -> None:
    assert await use(two.one, "ada", (1.0, 0), (1.0, 0)) == [0, 0]
    assert await use(two.one, "ada", (2.0, 10_000), (1.0, 0)) == [5000, 0]
    first, second = await use(two.other, "ada", (1.0, 5000), (0.5, 500))
    assert first == pytest.approx(10_000, abs=NEAR)
    assert second == 1000
    assert await use(two.other, "bob", (1.0, 0), (1.0, 0)) == [0, 0]

    async def has_come_back() -> bool:
        first, second = await use(two.one, "ada", (9.0, 0), (9.0, 0))
        assert 0 <= 10_000 - first < NEAR
        assert 0 <= 1000 - second < NEAR
        return first < 10_000 - SHORT and second < 1000 - SHORT

    await until(has_come_back)


async def test_what_has_come_back_is_forgotten(two: Two) -> None:
    (seconds,) = await use(two.one, "ada", (1000.0, SHORT * 1000))
    assert seconds == pytest.approx(SHORT)
    while seconds:
        await asyncio.sleep(SHORT / 2)
        (seconds,) = await use(two.other, "ada", (1000.0, 0))
    (seconds,) = await use(two.one, "ada", (1000.0, 1))
    assert seconds == pytest.approx(0.001)


async def test_rates_can_be_small_and_large(two: Two) -> None:
    slow, fast = await use(two.one, "ada", (1e-3, 1), (1e12, 1))
    assert slow == pytest.approx(1000)
    assert fast < SHORT


async def test_valkey_keeps_nothing_for_good_and_no_names(server: Server) -> None:
    async with opened(server.url) as store:
        await begin(store, "a")
        await more(store, "a")
        await use(store, "digest", (1.0, 1), (1.0, 1))
    keys = sorted(server.ask("KEYS", "*"))
    assert keys == [b"sg:used:digest", b"sg:{counts}", b"sg:{counts}:a"]
    assert [server.ask("TTL", key) > 0 for key in keys] == [True, False, True]
