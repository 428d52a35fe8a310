"""What a store of sessions promises, in memory and in Valkey, which runs here as it does elsewhere.

Each test has two of them: the same sessions, as two replicas see them.
"""

import asyncio
import time
from typing import Any

import pytest

from gateway.session.storage import NOBODY, Fenced, Glimpse, Outdated, Saved, Store, Title
from tests.contract.conftest import Two, until
from tests.support.timing import UNIT
from tests.support.valkey import A, change, claimed, part

B = Title("b", 1)
EVERY_BYTE = bytes(range(256))
LONG = 1000.0
SHORT = 0.05


@pytest.fixture(autouse=True)
def transport() -> None:
    """No store calls a model."""


@pytest.fixture
def store(two: Two) -> Store:
    """For what one replica does alone."""
    return two.one


async def kept(store: Store, session_id: str = "s") -> Saved:
    """All that is kept of a session, which has another owner then."""
    glimpse = await store.glimpse(session_id)
    assert glimpse is not None
    return await claimed(store, session_id, glimpse.title, "whoever looks")


class Writer:
    """Writes a session, one change after the other."""

    def __init__(self, store: Store, session_id: str = "s") -> None:
        self._store = store
        self._id = session_id
        self.title = A
        self.number = 0

    async def write(self, **fields: Any) -> None:
        self.number += 1
        changed = change(**{"whole": self.number == 1, **fields})
        await self._store.save(self._id, self.title, self.number, changed, seconds=LONG)

    async def look(self) -> Saved:
        """All that is kept; the session is claimed for it, and goes on."""
        saved = await claimed(self._store, self._id, self.title, self.title.owner + "'")
        assert saved.number == self.number
        self.title = saved.title
        return saved


async def gone(store: Store, session_id: str = "s") -> None:
    """Wait until a session is kept no more."""

    async def is_gone() -> bool:
        return await store.glimpse(session_id) is None

    await until(is_gone)


# What is written


async def test_what_is_written_is_what_the_next_owner_has(two: Two) -> None:
    written = change(
        head=b"head" + EVERY_BYTE,
        turns={"m1": EVERY_BYTE, "m2": b"{}"},
        ended=[b"one", EVERY_BYTE],
        said=[EVERY_BYTE, b"two", b"two"],
        events=EVERY_BYTE,
        last=7,
    )
    await two.one.save("s", A, 1, written, seconds=LONG)
    assert await two.other.glimpse("s") == Glimpse(A, written.head)
    assert await two.other.claim("s", A, "b") == Saved(
        title=Title("b", 2),
        number=1,
        head=written.head,
        turns=written.turns,
        ended=written.ended,
        said=written.said,
        events=[EVERY_BYTE],
    )
    assert await two.one.glimpse("s") == Glimpse(Title("b", 2), written.head)


async def test_a_change_adds_to_what_is_there(store: Store) -> None:
    first = change(turns={"m1": b"1"}, ended=[b"a"], said=[b"x"], events=b"[1,2]", last=2)
    await store.save("s", A, 1, first, seconds=LONG)
    await store.save("s", A, 2, part(head=b"newer", last=2), seconds=LONG)
    more = part(head=b"newest", turns={"m2": b"2"}, ended=[b"b"], said=[b"y"], events=b"3", last=3)
    await store.save("s", A, 3, more, seconds=LONG)
    assert await kept(store) == Saved(
        title=Title("whoever looks", 2),
        number=3,
        head=b"newest",
        turns={"m1": b"1", "m2": b"2"},
        ended=[b"a", b"b"],
        said=[b"x", b"y"],
        events=[b"[1,2]", b"3"],
    )


async def test_a_whole_write_leaves_nothing_of_what_was_there(store: Store) -> None:
    full = change(turns={"m": b"1"}, ended=[b"a"], said=[b"x"], events=b"long ago", last=90)
    await store.save("s", A, 1, full, seconds=LONG)
    await store.save("s", A, 2, change(head=b"new", events=b"again", last=3), seconds=LONG)
    saved = await kept(store)
    assert (saved.number, saved.head, saved.turns) == (2, b"new", {})
    assert (saved.ended, saved.said, saved.events) == ([], [], [b"again"])


async def test_sessions_have_nothing_to_do_with_each_other(store: Store) -> None:
    for name in ("s", "t", "{s}", "s:log", "é"):
        told = change(head=name.encode(), said=[name.encode()], events=name.encode(), last=1)
        await store.save(name, A, 1, told, seconds=LONG)
    await store.delete("t", A)
    for name in ("s", "{s}", "s:log", "é"):
        saved = await kept(store, name)
        assert (saved.head, saved.said, saved.events) == (
            name.encode(),
            [name.encode()],
            saved.said,
        )


# Turns, what is remembered, the log


async def test_turns_are_added_and_gone(store: Store) -> None:
    await store.save("s", A, 1, change(turns={"m1": b"1", "m2": b"2"}), seconds=LONG)
    await store.save("s", A, 2, part(turns={"m3": b"3"}, gone=["m1", "m9"]), seconds=LONG)
    await store.save("s", A, 3, part(turns={"m1": b"again"}, gone=["m2"]), seconds=LONG)
    assert (await kept(store)).turns == {"m3": b"3", "m1": b"again"}


async def test_a_turn_can_have_any_id(store: Store) -> None:
    ids = ["owner", "token", "t:", "", " ", "é", "1", "-1", "a\nb"]
    turns = {message_id: message_id.encode() for message_id in ids}
    await store.save("s", A, 1, change(turns=turns), seconds=LONG)
    await store.save("s", A, 2, part(gone=["token", " "]), seconds=LONG)
    saved = await kept(store)
    assert saved.turns == {name: turns[name] for name in ids if name not in {"token", " "}}
    assert saved.title == Title("whoever looks", 2)


@pytest.mark.parametrize("what", ["ended", "said"])
async def test_the_newest_are_kept_as_many_as_is_said(store: Store, what: str) -> None:
    writer = Writer(store)

    async def after(most: int, *new: bytes) -> Any:
        await writer.write(**{what: new, f"max_{what}": most})
        return getattr(await writer.look(), what)

    assert await after(3, b"1", b"2", b"3", b"4") == [b"2", b"3", b"4"]
    assert await after(3) == [b"2", b"3", b"4"]
    assert await after(4, b"5", b"6") == [b"3", b"4", b"5", b"6"]
    assert await after(2, b"7") == [b"6", b"7"]
    assert await after(1) == [b"7"], "there is nothing new, but less is kept"
    assert await after(0, b"8") == []
    assert await after(2, b"9") == [b"9"]
    assert await after(0) == [], "one that was too large has taken the others with it"
    assert await after(2) == []


async def test_a_piece_of_the_log_is_kept_while_an_event_of_it_is(store: Store) -> None:
    writer = Writer(store)

    async def after(last: int, first: int, piece: bytes | None = None) -> Any:
        await writer.write(events=piece, last=last, first=first)
        return (await writer.look()).events

    assert await after(3, 1, b"1-3") == [b"1-3"]
    assert await after(5, 2, b"4-5") == [b"1-3", b"4-5"]
    assert await after(5, 3) == [b"1-3", b"4-5"]
    assert await after(6, 4, b"6") == [b"4-5", b"6"]
    assert await after(6, 6) == [b"6"]
    assert await after(20, 15, b"7-20") == [b"7-20"]
    assert await after(20, 21) == []
    assert await after(21, 21, b"21") == [b"21"]


async def test_a_log_that_is_written_whole_may_begin_with_other_numbers(store: Store) -> None:
    writer = Writer(store)
    await writer.write(events=b"90-99", last=99, first=90)
    await writer.write(whole=True, events=b"5", last=5, first=5)
    assert (await writer.look()).events == [b"5"]
    await writer.write(events=b"6", last=6, first=5)
    assert (await writer.look()).events == [b"5", b"6"]


# Who may write


async def refused(
    store: Store, title: Title, number: int, why: type[Exception], *, session_id: str = "s"
) -> None:
    """Nothing is written, be it whole or not."""
    before = await store.glimpse(session_id)
    for whole in (False, True):
        wrong = change(whole=whole, head=b"wrong", said=[b"wrong"], events=b"wrong", last=99)
        with pytest.raises(why):
            await store.save(session_id, title, number, wrong, seconds=LONG)
    assert await store.glimpse(session_id) == before


async def test_who_has_lost_a_session_to_another_writes_nothing(two: Two) -> None:
    await two.one.save("s", A, 1, change(said=[b"x"]), seconds=LONG)
    mine = await claimed(two.other)
    for number in (1, 2, 9):
        await refused(two.one, A, number, Fenced)
    await two.other.save("s", mine.title, 2, part(head=b"on"), seconds=LONG)
    saved = await kept(two.other)
    assert (saved.number, saved.head, saved.said, saved.events) == (2, b"on", [b"x"], [])


async def test_who_gets_it_back_writes_as_what_it_is_now(two: Two) -> None:
    await two.one.save("s", A, 1, change(), seconds=LONG)
    await two.other.claim("s", A, "b")
    back = await claimed(two.one, before=Title("b", 2), replica="a")
    assert back.title == Title("a", 3)
    await refused(two.one, A, 2, Fenced)
    await refused(two.other, Title("b", 2), 2, Fenced)
    await two.one.save("s", back.title, 2, part(), seconds=LONG)


async def test_the_same_token_is_no_good_to_another(store: Store) -> None:
    await store.save("s", A, 1, change(), seconds=LONG)
    await refused(store, B, 2, Fenced)
    await refused(store, Title(NOBODY, 1), 2, Fenced)
    await store.save("s", A, 2, part(), seconds=LONG)


async def test_a_greater_token_writes_all_of_it_where_the_store_has_lost_the_claim(
    store: Store,
) -> None:
    await store.save("s", A, 5, change(said=[b"old"]), seconds=LONG)
    with pytest.raises(Outdated):
        await store.save("s", Title("b", 2), 6, part(said=[b"new"]), seconds=LONG)
    await store.save("s", Title("b", 2), 2, change(said=[b"new"]), seconds=LONG)
    await refused(store, A, 6, Fenced)
    saved = await kept(store)
    assert (saved.title.token, saved.number, saved.said) == (3, 2, [b"new"])


# Numbers


async def test_a_session_that_is_not_there_is_written_whole(store: Store) -> None:
    with pytest.raises(Outdated):
        await store.save("s", A, 1, part(), seconds=LONG)
    assert await store.glimpse("s") is None
    await store.save("s", A, 7, change(), seconds=LONG)
    await store.save("s", A, 8, part(), seconds=LONG)
    assert (await kept(store)).number == 8


@pytest.mark.parametrize("number", [1, 2, 3, 5, 100])
async def test_a_change_follows_the_one_before(store: Store, number: int) -> None:
    writer = Writer(store)
    for said in (b"1", b"2", b"3"):
        await writer.write(said=[said])
    with pytest.raises(Outdated):
        await store.save("s", A, number, part(head=b"wrong", said=[b"wrong"]), seconds=LONG)
    await writer.write(said=[b"4"])
    saved = await writer.look()
    assert (saved.head, saved.said) == (b"head", [b"1", b"2", b"3", b"4"])


async def test_a_whole_write_has_a_greater_number(store: Store) -> None:
    writer = Writer(store)
    for said in (b"1", b"2", b"3"):
        await writer.write(said=[said])
    for number in (1, 2, 3):
        await refused(store, A, number, Outdated)
    assert (await writer.look()).said == [b"1", b"2", b"3"]
    await store.save("s", writer.title, 50, change(said=[b"all"]), seconds=LONG)
    await store.save("s", writer.title, 51, part(said=[b"more"]), seconds=LONG)
    saved = await kept(store)
    assert (saved.number, saved.said) == (51, [b"all", b"more"])


async def test_numbers_and_tokens_can_be_large(store: Store) -> None:
    title, number = Title("a", 10**12), 10**13
    await store.save("s", title, number, change(), seconds=LONG)
    await store.save("s", title, number + 1, part(events=b"e", last=10**14), seconds=LONG)
    saved = await kept(store)
    assert (saved.title.token, saved.number) == (10**12 + 1, number + 1)
    await store.save("s", saved.title, number + 2, part(), seconds=LONG)
    assert await store.glimpse("s") == Glimpse(saved.title, b"head")


# Owners


async def test_a_session_that_is_released_waits_for_an_owner(two: Two) -> None:
    await two.one.save("s", A, 1, change(), seconds=LONG)
    last = part(head=b"last", said=[b"x"])
    await two.one.save("s", A, 2, last, seconds=LONG, release=True)
    nobodys = Title(NOBODY, 1)
    assert await two.other.glimpse("s") == Glimpse(nobodys, b"last")
    await refused(two.one, A, 3, Fenced)
    assert await two.other.claim("s", A, "b") is None
    saved = await claimed(two.other, before=nobodys)
    assert (saved.title, saved.head, saved.said) == (Title("b", 2), b"last", [b"x"])
    assert await two.one.claim("s", nobodys, "c") is None


async def test_a_session_can_be_released_with_all_of_it(two: Two) -> None:
    await two.one.save("s", A, 1, change(), seconds=LONG, release=True)
    await refused(two.one, A, 2, Fenced)
    assert await two.other.claim("s", Title(NOBODY, 1), "b") is not None


@pytest.mark.parametrize("release", [False, True])
async def test_one_of_many_that_claim_at_once_gets_it(two: Two, release: bool) -> None:
    await two.one.save("s", A, 1, change(said=[b"x"]), seconds=LONG, release=release)
    before = Title(NOBODY if release else "a", 1)
    asked = [two[i % 2].claim("s", before, f"r{i}") for i in range(50)]
    got = [saved for saved in await asyncio.gather(*asked) if saved is not None]
    assert len(got) == 1
    assert got[0].title.token == 2
    glimpse = await two.other.glimpse("s")
    assert glimpse is not None
    assert glimpse.title == got[0].title
    await two.one.save("s", got[0].title, 2, part(), seconds=LONG)


async def test_of_a_write_and_a_claim_at_once_no_one_loses_what_it_was_told_is_there(
    two: Two,
) -> None:
    for i in range(20):
        session_id = f"s{i}"
        await two.one.save(session_id, A, 1, change(), seconds=LONG)
        came = await asyncio.gather(
            two.one.save(session_id, A, 2, part(said=[b"x"]), seconds=LONG),
            two.other.claim(session_id, A, "b"),
            return_exceptions=True,
        )
        assert isinstance(came[1], Saved)
        if came[0] is None:
            assert (came[1].number, came[1].said) == (2, [b"x"])
        else:
            assert isinstance(came[0], Fenced)
            assert (came[1].number, came[1].said) == (1, [])


@pytest.mark.parametrize("before", [B, Title("a", 2), Title("a", 0), Title(NOBODY, 1)])
async def test_a_session_of_another_owner_than_was_seen_is_not_claimed(
    store: Store, before: Title
) -> None:
    await store.save("s", A, 1, change(), seconds=LONG)
    assert await store.claim("s", before, "c") is None
    assert await store.glimpse("s") == Glimpse(A, b"head")
    await store.save("s", A, 2, part(), seconds=LONG)


async def test_what_is_not_there_is_nobodys(store: Store) -> None:
    assert await store.glimpse("s") is None
    for before in (A, Title(NOBODY, 0)):
        assert await store.claim("s", before, "b") is None
    assert await store.glimpse("s") is None
    await store.save("s", A, 1, change(), seconds=LONG)


# Sessions that are over


async def test_a_session_that_is_over_is_nobodys(two: Two) -> None:
    full = change(turns={"m": b"1"}, said=[b"x"], ended=[b"a"], events=b"e", last=1)
    await two.one.save("s", A, 1, full, seconds=LONG)
    await two.one.delete("s", A)
    assert await two.other.glimpse("s") is None
    for before in (A, Title(NOBODY, 1), Title("a", 0)):
        assert await two.other.claim("s", before, "b") is None


async def test_a_session_that_is_over_is_not_written_again(store: Store) -> None:
    await store.save("s", Title("a", 3), 1, change(), seconds=LONG)
    await store.delete("s", Title("a", 3))
    for title in (Title("a", 3), Title("b", 3), Title(NOBODY, 3), Title("a", 2), A):
        for number in (1, 2, 9):
            await refused(store, title, number, Fenced)
    assert await store.claim("s", Title("a", 3), "b") is None


async def test_a_session_is_over_also_where_it_was_released(store: Store) -> None:
    await store.save("s", A, 1, change(), seconds=LONG, release=True)
    await store.delete("s", A)
    assert await store.claim("s", Title(NOBODY, 1), "b") is None
    await refused(store, A, 2, Fenced)


async def test_a_session_is_over_before_it_was_ever_written(store: Store) -> None:
    await store.delete("s", Title("a", 2))
    await refused(store, Title("a", 2), 1, Fenced)
    await refused(store, A, 1, Fenced)
    assert await store.glimpse("s") is None


async def test_who_has_lost_a_session_does_not_end_it(two: Two) -> None:
    await two.one.save("s", A, 1, change(said=[b"x"]), seconds=LONG)
    saved = await claimed(two.other)
    await two.one.delete("s", A)
    assert await two.other.glimpse("s") == Glimpse(Title("b", 2), b"head")
    await two.other.save("s", saved.title, 2, part(said=[b"y"]), seconds=LONG)
    assert (await kept(two.other)).said == [b"x", b"y"]


async def test_a_session_can_end_twice(store: Store) -> None:
    await store.save("s", A, 1, change(), seconds=LONG)
    for token in (1, 1, 3, 2):
        await store.delete("s", Title("a", token))
    await refused(store, Title("b", 3), 1, Fenced)
    with pytest.raises(Outdated):
        await store.save("s", Title("b", 4), 2, part(), seconds=LONG)
    await store.save("s", Title("b", 4), 1, change(said=[b"new"]), seconds=LONG)
    assert (await kept(store)).said == [b"new"]


# Time


async def test_a_session_is_kept_for_so_long(store: Store) -> None:
    full = change(turns={"m": b"1"}, said=[b"x"], ended=[b"a"], events=b"e", last=1)
    await store.save("s", A, 1, full, seconds=SHORT)
    await gone(store)
    assert await store.claim("s", A, "b") is None
    with pytest.raises(Outdated):
        await store.save("s", A, 2, part(), seconds=LONG)
    await store.save("s", A, 3, change(head=b"new"), seconds=LONG)
    saved = await kept(store)
    assert (saved.turns, saved.said, saved.ended, saved.events) == ({}, [], [], [])


async def test_a_write_keeps_a_session_for_longer(store: Store) -> None:
    await store.save("s", A, 1, change(), seconds=SHORT)
    await store.save("s", A, 2, change(), seconds=LONG)
    await store.save("t", A, 1, change(), seconds=SHORT)
    await gone(store, "t")
    assert await store.glimpse("s") is not None


async def test_a_claim_keeps_a_session_no_longer(store: Store) -> None:
    await store.save("s", A, 1, change(), seconds=SHORT)
    await store.claim("s", A, "b")
    await gone(store)


# Whose they are


async def owned(store: Store, replica: str) -> set[str]:
    return {*await store.owned(replica, 100)}


async def test_a_replica_owns_what_it_writes_and_what_it_claims(two: Two) -> None:
    for session_id in ("s", "t", "é"):
        await two.one.save(session_id, A, 1, change(), seconds=LONG)
    await two.one.save("u", B, 1, change(), seconds=LONG)
    assert await owned(two.other, "a") == {"s", "t", "é"}
    assert await owned(two.other, "b") == {"u"}
    await two.other.claim("s", A, "b")
    assert await owned(two.one, "a") == {"t", "é"}
    assert await owned(two.one, "b") == {"s", "u"}
    await two.one.delete("t", A)
    assert await owned(two.one, "a") == {"é"}
    assert await owned(two.one, "c") == set()


async def test_a_replica_owns_what_it_claims_of_nobody(two: Two) -> None:
    await two.one.save("s", A, 1, change(), seconds=LONG, release=True)
    await two.other.claim("s", Title(NOBODY, 1), "b")
    assert await owned(two.one, "b") == {"s"}


async def test_a_replica_that_claims_its_own_still_owns_it(store: Store) -> None:
    await store.save("s", A, 1, change(), seconds=LONG)
    assert (await claimed(store, replica="a")).title == Title("a", 2)
    assert await owned(store, "a") == {"s"}


async def test_a_replica_that_ends_what_it_has_lost_owns_what_it_has_got_back(two: Two) -> None:
    await two.one.save("s", A, 1, change(), seconds=LONG)
    await two.other.claim("s", A, "b")
    await two.one.claim("s", Title("b", 2), "a")
    await two.one.delete("s", A)
    assert await owned(two.one, "a") == {"s"}


async def test_a_replica_is_told_of_as_many_as_it_asks_for_and_not_always_the_same(
    store: Store,
) -> None:
    ids = {f"s{i}" for i in range(6)}
    for session_id in ids:
        await store.save(session_id, A, 1, change(), seconds=LONG)
    some = await store.owned("a", 4)
    assert len({*some}) == 4
    assert ids >= {*some}
    seen: set[str] = set()

    async def all_are_seen() -> bool:
        seen.update(await store.owned("a", 1))
        return seen == ids

    await until(all_are_seen)


async def test_what_is_disowned_is_not_listed_any_more(two: Two) -> None:
    for session_id in ("s", "t", "u"):
        await two.one.save(session_id, A, 1, change(), seconds=LONG)
    await two.other.disown("a", ["s", "u", "never there"])
    assert await owned(two.one, "a") == {"t"}
    await two.other.disown("a", [])
    await two.other.disown("c", ["t"])
    assert await owned(two.one, "a") == {"t"}
    assert await two.one.glimpse("s") is not None


# Replicas


async def test_a_replica_that_beats_learns_of_the_others(two: Two) -> None:
    assert {*(await two.one.beat("a")).ages} == {"a"}
    ages = (await two.other.beat("b")).ages
    assert {*ages} == {"a", "b"}
    assert ages["a"] >= ages["b"] == 0


async def test_a_replica_that_beats_learns_what_time_it_is(two: Two) -> None:
    before = time.time()
    times = [(await store.beat("a")).now for store in (two.one, two.other, two.one)]
    assert times == sorted(times)
    assert before - 0.001 <= times[0], "it may be rounded"
    assert times[-1] <= time.time() + 0.001


async def test_who_is_silent_gets_older_and_who_beats_does_not(two: Two) -> None:
    await two.one.beat("a")

    async def is_older() -> bool:
        ages = (await two.other.beat("b")).ages
        assert ages["b"] == 0
        return ages["a"] > 0.1

    await until(is_older)
    ages = (await two.one.beat("a")).ages
    assert ages["b"] >= ages["a"] == 0


async def test_the_last_beat_of_one_that_resigns_is_very_long_ago(two: Two) -> None:
    await two.one.beat("a")
    await two.one.resign("a")
    assert (await two.other.beat("b")).ages["a"] > 10**6
    await two.one.beat("a")
    assert (await two.other.beat("b")).ages["a"] < 10**6


async def test_nothing_is_left_of_one_that_is_buried(two: Two) -> None:
    await two.one.beat("a")
    await two.one.save("s", A, 1, change(), seconds=LONG)
    await two.other.post("a", [b"letter"])
    await two.other.post("b", [b"letter"])
    await two.other.bury("a")
    assert {*(await two.other.beat("b")).ages} == {"b"}
    assert await owned(two.other, "a") == set()
    assert await two.one.collect("a", SHORT) == []
    assert await two.one.collect("b", SHORT) == [b"letter"]
    await two.other.bury("nobody that was ever there")


# Letters


async def collected(store: Store, replica: str, count: int) -> list[bytes]:
    """So many letters, in as many pieces as they come in."""
    came: list[bytes] = []
    async with asyncio.timeout(20 * UNIT):
        while len(came) < count:
            came += await store.collect(replica, 1.0)
    return came


async def test_letters_come_in_the_order_posted_each_once(two: Two) -> None:
    letters = [f"{i}".encode() + EVERY_BYTE for i in range(1000)]
    assert await two.one.post("b", letters[:3]) == 3
    assert await two.one.post("b", letters[3:4]) == 4
    assert await two.one.post("c", [b"not yours"]) == 1
    assert await two.one.post("b", letters[4:]) == 1000
    assert await collected(two.other, "b", 1000) == letters
    assert await two.other.collect("b", SHORT) == []
    assert await two.one.post("b", [b"next"]) == 1
    assert await two.other.collect("b", SHORT) == [b"next"]


async def test_who_waits_for_letters_has_them_as_they_are_posted(two: Two) -> None:
    for letter in (b"1", b"2", b"3"):
        waiting = asyncio.create_task(two.other.collect("b", 20 * UNIT))
        for _ in range(3):
            await two.other.beat("b")
        assert not waiting.done()
        await two.one.post("b", [letter])
        assert await waiting == [letter]


async def test_who_waits_in_vain_gets_nothing(store: Store) -> None:
    assert await store.collect("b", SHORT) == []
    assert await store.collect("b", 0) == []
    await store.post("b", [b"1"])
    assert await store.collect("b", 0) == [b"1"]


async def test_who_stops_waiting_takes_no_letters_with_it(two: Two) -> None:
    waiting = asyncio.create_task(two.other.collect("b", 20 * UNIT))
    await two.other.beat("b")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    async def comes() -> bool:
        await two.one.post("b", [b"letter"])
        return bool(await two.other.collect("b", SHORT))

    await until(comes)


async def test_waiting_for_letters_holds_up_nothing_else(two: Two) -> None:
    waiting = [asyncio.create_task(two.one.collect(f"r{i}", 20 * UNIT)) for i in range(10)]
    await two.one.save("s", A, 1, change(), seconds=LONG)
    assert await two.one.glimpse("s") is not None
    for i in range(10):
        await two.one.post(f"r{i}", [b"letter"])
    assert await asyncio.gather(*waiting) == [[b"letter"]] * 10


# Tickets


async def test_a_ticket_is_good_once(two: Two) -> None:
    await two.one.add_ticket("digest", EVERY_BYTE, time.time() + LONG)
    await two.one.add_ticket("another", b"another", time.time() + LONG)
    assert await two.other.take_ticket("digest") == EVERY_BYTE
    assert await two.other.take_ticket("digest") is None
    assert await two.one.take_ticket("digest") is None
    assert await two.one.take_ticket("never there") is None
    assert await two.one.take_ticket("another") == b"another"


async def test_one_of_many_that_show_a_ticket_at_once_is_let_in(two: Two) -> None:
    await two.one.add_ticket("digest", b"holder", time.time() + LONG)
    came = await asyncio.gather(*[two[i % 2].take_ticket("digest") for i in range(50)])
    assert [each for each in came if each is not None] == [b"holder"]


async def test_a_ticket_is_void_when_its_time_is_over(store: Store) -> None:
    expires_at = time.time() + SHORT
    await store.add_ticket("digest", b"holder", expires_at)
    await store.add_ticket("later", b"holder", expires_at + LONG)
    await store.add_ticket("before", b"holder", expires_at - LONG)

    async def is_past() -> bool:
        """By the store's clock, which may be rounded."""
        return (await store.beat("a")).now > expires_at + 0.001

    await until(is_past)
    assert await store.take_ticket("digest") is None
    assert await store.take_ticket("before") is None
    assert await store.take_ticket("later") == b"holder"


# Records


async def test_a_record_is_what_was_put_last(two: Two) -> None:
    assert await two.other.get_record("name") is None
    await two.one.put_record("name", b"before", LONG)
    await two.one.put_record("name", EVERY_BYTE, LONG)
    await two.one.put_record("another", b"", LONG)
    for _ in range(2):
        assert await two.other.get_record("name") == EVERY_BYTE
    assert await two.other.get_record("another") == b""


async def test_a_record_can_be_deleted(two: Two) -> None:
    await two.one.put_record("name", b"record", LONG)
    assert await two.other.delete_record("name")
    assert not await two.other.delete_record("name")
    assert await two.one.get_record("name") is None


async def test_one_of_many_that_take_a_record_at_once_has_it(two: Two) -> None:
    await two.one.put_record("name", b"record", LONG)
    came = await asyncio.gather(*[two[i % 2].take_record("name") for i in range(50)])
    assert (came.count(b"record"), came.count(None)) == (1, 49)
    assert await two.one.get_record("name") is None


async def test_one_of_many_that_add_a_record_at_once_does(two: Two) -> None:
    added = await asyncio.gather(
        *[two[i % 2].add_record("name", b"%d" % i, LONG) for i in range(50)]
    )
    assert added.count(True) == 1
    assert await two.one.get_record("name") == b"%d" % added.index(True)
    await two.one.delete_record("name")
    assert await two.other.add_record("name", b"again", LONG)


async def test_a_record_that_is_gone_is_not_replaced(two: Two) -> None:
    assert not await two.one.replace_record("name", b"none", LONG)
    assert await two.one.get_record("name") is None
    await two.one.put_record("name", b"record", LONG)
    assert await two.other.replace_record("name", b"another", LONG)
    assert await two.one.get_record("name") == b"another"


async def test_a_record_that_is_asked_for_can_be_kept_for_longer(store: Store) -> None:
    for name in ("short", "long"):
        await store.put_record(name, b"record", SHORT)
    assert await store.get_record("long", LONG) == b"record"
    assert await store.get_record("none", LONG) is None

    async def is_gone() -> bool:
        return await store.get_record("short") is None

    await until(is_gone)
    assert await store.get_record("long") == b"record"


async def test_a_record_is_gone_when_its_time_is_over(store: Store) -> None:
    await store.put_record("name", b"record", SHORT)
    await store.put_record("later", b"record", LONG)

    async def is_gone() -> bool:
        return await store.get_record("name") is None

    await until(is_gone)
    assert await store.take_record("name") is None
    assert await store.get_record("later") == b"record"
