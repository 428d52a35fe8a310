"""What a store counts for all replicas, in memory and in Valkey, which runs as it does elsewhere.

Each test has two of them: the same counts, as two replicas see them.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from gateway.session.storage import Count, CountStore, Outdated, Use
from gateway.stores.memory import MemoryStore
from gateway.stores.valkey import valkey_store
from tests.support import valkey
from tests.support.timing import UNIT

LONG = 1000.0
SHORT = 0.05
NEAR = 20 * UNIT
"""So many seconds are nothing where there are thousands."""


@pytest.fixture(autouse=True)
def transport() -> None:
    """No store calls a model."""


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.stores.valkey.TIMEOUT_SECONDS", NEAR)


@pytest.fixture(scope="module")
def server() -> Iterator[valkey.Server]:
    """One for all tests."""
    with valkey.server() as started:
        yield started


@pytest.fixture(scope="module")
def cluster() -> Iterator[valkey.Cluster]:
    """One for all tests."""
    with valkey.cluster() as started:
        yield started


class Two(NamedTuple):
    """One store, as two replicas have it."""

    one: CountStore
    other: CountStore


@pytest.fixture(params=["memory", "plain", "cluster"])
async def two(request: pytest.FixtureRequest) -> AsyncIterator[Two]:
    """Each kind of store, empty."""
    if request.param == "memory":
        memory = MemoryStore()
        yield Two(memory, memory)
        return
    servers: valkey.Server | valkey.Cluster = request.getfixturevalue(
        "server" if request.param == "plain" else "cluster"
    )
    for node in servers.nodes if isinstance(servers, valkey.Cluster) else [servers]:
        node.ask("FLUSHALL")
    async with AsyncExitStack() as stack:
        yield Two(*[await stack.enter_async_context(valkey_store(servers.url)) for _ in range(2)])


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
    await begin(two.one, "a", SHORT)
    counts = [Count("connections", 3, 0, 3)]
    await asyncio.sleep(2 * SHORT)
    with pytest.raises(Outdated):
        await two.one.count("a", counts, whole=False, seconds=SHORT)
    assert await more(two.other, "b", wanted=3) == 3
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
    await asyncio.sleep(SHORT)
    first, second = await use(two.one, "ada", (9.0, 0), (9.0, 0))
    assert 0 < 10_000 - first < NEAR
    assert SHORT < 1000 - second < NEAR


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


def test_valkey_keeps_nothing_for_good_and_no_names(server: valkey.Server) -> None:
    async def count() -> None:
        async with valkey_store(server.url) as store:
            await begin(store, "a")
            await more(store, "a")
            await use(store, "digest", (1.0, 1), (1.0, 1))

    server.ask("FLUSHALL")
    asyncio.run(count())
    keys = sorted(server.ask("KEYS", "*"))
    assert keys == [b"sg:used:digest", b"sg:{counts}", b"sg:{counts}:a"]
    assert [server.ask("TTL", key) > 0 for key in keys] == [True, False, True]


# The same in any order

REPLICAS = st.sampled_from(["a", "b", "c"])
FEW = st.integers(0, 4)
COUNTS = st.lists(
    st.builds(Count, st.sampled_from(["x", "y", "z"]), FEW, FEW, st.integers(1, 6)),
    max_size=3,
    unique_by=lambda count: count.what,
)


class Counters(RuleBasedStateMachine):
    """Two stores that replicas think are one."""

    def __init__(self, runner: asyncio.Runner, shared: CountStore, server: valkey.Server) -> None:
        super().__init__()
        server.ask("FLUSHALL")
        self._runner = runner
        self._stores = MemoryStore(), shared

    @rule(
        replica=REPLICAS,
        counts=COUNTS,
        whole=st.sampled_from([False, False, True]),
        seconds=st.sampled_from([LONG] * 5 + [0.0]),
    )
    def count(self, replica: str, counts: list[Count], whole: bool, seconds: float) -> None:
        async def given(store: CountStore) -> list[int] | None:
            try:
                return list(await store.count(replica, counts, whole=whole, seconds=seconds))
            except Outdated:
                return None

        memory, shared = (self._runner.run(given(store)) for store in self._stores)
        assert memory == shared

    @rule(
        name=st.sampled_from(["ada", "bob"]),
        amounts=st.tuples(*[st.integers(0, 10)] * 2),
        rates=st.tuples(*[st.sampled_from([1e-3, 2e-3])] * 2),
    )
    def use(self, name: str, amounts: tuple[int, int], rates: tuple[float, float]) -> None:
        uses = list(zip(rates, amounts, strict=True))
        memory, shared = (self._runner.run(use(store, name, *uses)) for store in self._stores)
        assert list(memory) == pytest.approx(list(shared), abs=NEAR)


def test_valkey_counts_as_a_store_in_memory_does(server: valkey.Server) -> None:
    opened = valkey_store(server.url)

    class Here(Counters):
        def __init__(self) -> None:
            super().__init__(runner, shared, server)

    with asyncio.Runner() as runner:
        shared = runner.run(opened.__aenter__())
        try:
            run_state_machine_as_test(Here, settings=settings(stateful_step_count=30))
        finally:
            runner.run(opened.__aexit__(None, None, None))
