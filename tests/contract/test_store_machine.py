"""Valkey does what a store in memory does, whatever is asked of them, in whatever order.

Each step is done with both, and the answers are compared, exceptions too. What is kept for a time
only is in ``test_stores.py`` and ``test_counts.py``: two clocks agree on nothing to the last digit.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gateway.session.storage import (
    NOBODY,
    Change,
    Count,
    Fenced,
    Outdated,
    Saved,
    Store,
    Title,
    Use,
)
from gateway.stores.memory import MemoryStore
from tests.support import valkey
from tests.support.timing import UNIT

LONG = 1000.0
NEAR = 20 * UNIT
"""So many seconds are nothing where there are thousands."""

RESIGNED = 10.0**6
"""Whoever has been silent for so many seconds has never beaten, or resigned."""

SESSIONS = st.sampled_from(["s", "t"])
REPLICAS = st.sampled_from(["a", "b", "c"])
TITLES = st.builds(Title, st.sampled_from(["a", "b", NOBODY]), st.integers(0, 4))
USUALLY = st.sampled_from([True] * 5 + [False])
"""For what is allowed, so that sessions get far."""

NAMES = st.sampled_from(["r1", "r2", "r 3"])
MESSAGES = st.sampled_from(["m1", "m2", "m3", "owner"])
SAID = st.lists(st.binary(max_size=2), max_size=3)
MOST = st.integers(0, 3)
CHANGES = st.fixed_dictionaries(
    {
        "head": st.binary(max_size=3),
        "turns": st.dictionaries(MESSAGES, st.binary(max_size=2), max_size=2),
        "gone": st.lists(MESSAGES, max_size=2),
        "ended": SAID,
        "max_ended": MOST,
        "said": SAID,
        "max_said": MOST,
        "events": st.none() | st.binary(min_size=1, max_size=2),
    }
)


@pytest.fixture(autouse=True)
def transport() -> None:
    """No store calls a model."""


class Both(RuleBasedStateMachine):
    """Two stores, empty, that replicas think are one."""

    def __init__(self, runner: asyncio.Runner, shared: Store, server: valkey.Server) -> None:
        super().__init__()
        server.ask("FLUSHALL")
        self._runner = runner
        self._stores: tuple[Store, Store] = MemoryStore(), shared

    def each(self, what: Callable[[Store], Awaitable[object]]) -> Sequence[Any]:
        """What comes of it at either."""
        return self._runner.run(self._each(what))

    async def _each(self, what: Callable[[Store], Awaitable[object]]) -> Sequence[Any]:
        came: list[Any] = []
        for store in self._stores:
            try:
                came.append(await what(store))
            except (Fenced, Outdated) as error:
                came.append(type(error))
        return came

    def both(self, what: Callable[[Store], Awaitable[object]]) -> Any:
        """What comes of it; the same at both."""
        memory, shared = self.each(what)
        assert shared == memory
        return memory


class Sessions(Both):
    """Replicas at their worst, and their sessions."""

    def __init__(self, *both: Any) -> None:
        super().__init__(*both)
        self.titles: defaultdict[str, Title] = defaultdict(lambda: Title("a", 1))
        """Whose each session is, as far as was seen."""
        self.numbers: defaultdict[str, int] = defaultdict(int)
        self.last = 0
        self.tickets = 0

    # Sessions

    @rule(
        session_id=SESSIONS,
        known=USUALLY,
        title=TITLES,
        step=st.sampled_from([1] * 8 + [-1, 0, 2, 5]),
        whole=st.booleans(),
        fields=CHANGES,
        first=st.integers(0, 8),
        release=st.sampled_from([False] * 5 + [True]),
    )
    def save(
        self,
        session_id: str,
        known: bool,
        title: Title,
        step: int,
        whole: bool,
        fields: dict[str, Any],
        first: int,
        release: bool,
    ) -> None:
        if known:
            title = self.titles[session_id]
        number = max(0, self.numbers[session_id] + step)
        self.last += 2
        change = Change(
            whole=whole or not self.numbers[session_id],
            last=self.last,
            first=max(0, self.last - first),
            **fields,
        )
        came = self.both(
            lambda store: store.save(
                session_id, title, number, change, seconds=LONG, release=release
            )
        )
        if came is None:
            self.titles[session_id] = Title(NOBODY, title.token) if release else title
            self.numbers[session_id] = number

    @rule(session_id=SESSIONS)
    def glimpse(self, session_id: str) -> None:
        self.both(lambda store: store.glimpse(session_id))

    @rule(session_id=SESSIONS, known=USUALLY, title=TITLES, replica=REPLICAS)
    def claim(self, session_id: str, known: bool, title: Title, replica: str) -> None:
        before = self.titles[session_id] if known else title
        saved = self.both(lambda store: store.claim(session_id, before, replica))
        if saved is not None:
            assert isinstance(saved, Saved)
            self.titles[session_id] = saved.title

    @rule(session_id=SESSIONS, replicas=st.lists(REPLICAS, min_size=2, max_size=3, unique=True))
    def claim_one_after_the_other(self, session_id: str, replicas: list[str]) -> None:
        before = self.titles[session_id]
        for replica in replicas:
            self.claim(session_id, False, before, replica)

    @rule(session_id=SESSIONS, known=USUALLY, title=TITLES)
    def delete(self, session_id: str, known: bool, title: Title) -> None:
        over = self.titles[session_id] if known else title
        self.both(lambda store: store.delete(session_id, over))

    @rule(session_id=SESSIONS, replica=REPLICAS)
    def write_all_as_the_next_owner(self, session_id: str, replica: str) -> None:
        """As one that has claimed it while the store forgot that; so what is over can begin."""
        title = Title(replica, self.titles[session_id].token + 1)
        change = valkey.change(head=replica.encode(), last=self.last, first=self.last)
        number = self.numbers[session_id] + 1
        came = self.both(lambda store: store.save(session_id, title, number, change, seconds=LONG))
        if came is None:
            self.titles[session_id] = title
            self.numbers[session_id] = number

    @rule(replica=REPLICAS, session_ids=st.lists(SESSIONS, max_size=2))
    def disown(self, replica: str, session_ids: list[str]) -> None:
        """What is another's."""
        others = [each for each in session_ids if self.titles[each].owner != replica]
        self.both(lambda store: store.disown(replica, others))

    @invariant()
    def what_a_replica_owns_is_among_what_it_may_own(self) -> None:
        for session_id in ("s", "t"):
            glimpse = self.both(lambda store: store.glimpse(session_id))  # noqa: B023 - at once
            if glimpse is not None and glimpse.title.owner != NOBODY:
                owner = glimpse.title.owner
                for ids in self.each(lambda store: store.owned(owner, 10)):  # noqa: B023
                    assert session_id in ids

    # Replicas

    @rule(replica=REPLICAS)
    def beat(self, replica: str) -> None:
        memory, shared = (
            {name: age > RESIGNED for name, age in beats.ages.items()}
            for beats in self.each(lambda store: store.beat(replica))
        )
        assert memory == shared

    @rule(replica=REPLICAS)
    def resign(self, replica: str) -> None:
        self.both(lambda store: store.resign(replica))

    @precondition(lambda self: len(self.titles) > 0)
    @rule(replica=REPLICAS)
    def bury(self, replica: str) -> None:
        """One that owns nothing."""
        if all(title.owner != replica for title in self.titles.values()):
            self.both(lambda store: store.bury(replica))

    @rule(replica=REPLICAS, letters=st.lists(st.binary(max_size=3), min_size=1, max_size=4))
    def post(self, replica: str, letters: list[bytes]) -> None:
        self.both(lambda store: store.post(replica, letters))

    @rule(replica=REPLICAS)
    def collect(self, replica: str) -> None:
        self.both(lambda store: store.collect(replica, 0))

    # Tickets

    @rule(holder=st.binary(max_size=3), void=st.booleans())
    def add_ticket(self, holder: bytes, void: bool) -> None:
        self.tickets += 1
        expires_at = time.time() + (-LONG if void else LONG)
        self.both(lambda store: store.add_ticket(f"ticket {self.tickets}", holder, expires_at))

    @rule(which=st.integers(0, 5))
    def take_ticket(self, which: int) -> None:
        self.both(lambda store: store.take_ticket(f"ticket {which}"))

    # Records

    @rule(name=NAMES, record=st.binary(max_size=3))
    def put_record(self, name: str, record: bytes) -> None:
        self.both(lambda store: store.put_record(name, record, LONG))

    @rule(name=NAMES, record=st.binary(max_size=3))
    def add_record(self, name: str, record: bytes) -> None:
        self.both(lambda store: store.add_record(name, record, LONG))

    @rule(name=NAMES, record=st.binary(max_size=3))
    def replace_record(self, name: str, record: bytes) -> None:
        self.both(lambda store: store.replace_record(name, record, LONG))

    @rule(name=NAMES, takes=st.booleans())
    def get_record(self, name: str, takes: bool) -> None:
        self.both(lambda store: (store.take_record if takes else store.get_record)(name))

    @rule(name=NAMES)
    def delete_record(self, name: str) -> None:
        self.both(lambda store: store.delete_record(name))


FEW = st.integers(0, 4)
COUNTS = st.lists(
    st.builds(Count, st.sampled_from(["x", "y", "z"]), FEW, FEW, st.integers(1, 6)),
    max_size=3,
    unique_by=lambda count: count.what,
)


class Counters(Both):
    """What is counted for all replicas."""

    @rule(
        replica=REPLICAS,
        counts=COUNTS,
        whole=st.sampled_from([False, False, True]),
        seconds=st.sampled_from([LONG] * 5 + [0.0]),
    )
    def count(self, replica: str, counts: list[Count], whole: bool, seconds: float) -> None:
        self.both(lambda store: store.count(replica, counts, whole=whole, seconds=seconds))

    @rule(
        name=st.sampled_from(["ada", "bob"]),
        amounts=st.tuples(*[st.integers(0, 10)] * 2),
        rates=st.tuples(*[st.sampled_from([1e-3, 2e-3])] * 2),
    )
    def use(self, name: str, amounts: tuple[int, int], rates: tuple[float, float]) -> None:
        uses = [Use(*each) for each in zip(rates, amounts, strict=True)]
        memory, shared = self.each(lambda store: store.use(name, uses))
        assert list(memory) == pytest.approx(list(shared), abs=NEAR)


@pytest.mark.parametrize("machine", [Sessions, Counters])
def test_valkey_answers_as_a_store_in_memory_does(
    machine: type[Both], server: valkey.Server
) -> None:
    opened = valkey.opened(server.url)
    with asyncio.Runner() as runner:
        shared = runner.run(opened.__aenter__())
        try:
            run_state_machine_as_test(
                lambda: machine(runner, shared, server),  # type: ignore[arg-type]
                settings=settings(stateful_step_count=30),
            )
        finally:
            runner.run(opened.__aexit__(None, None, None))
