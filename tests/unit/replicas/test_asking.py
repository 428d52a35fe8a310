"""Questions that replicas ask each other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from msgspec import Raw

from gateway.replicas import asking, letters
from gateway.replicas.asking import Answerer, Asking
from gateway.replicas.peers import Peers
from gateway.session.storage import Beats, Glimpse, StoreUnavailable, Title, Unreadable
from gateway.stores.memory import MemoryStore
from tests.support.timing import UNIT


class Store(MemoryStore):
    """It may be away."""

    fails: type[Exception] | None = None

    async def beat(self, replica: str) -> Beats:
        if self.fails is not None:
            raise StoreUnavailable
        return await super().beat(replica)

    async def glimpse(self, session_id: str) -> Glimpse | None:
        if self.fails is not None:
            raise self.fails
        return Glimpse(Title("", 1), b"") if session_id == "kept" else None


async def echo(question: bytes) -> bytes:
    """Answer that it was asked."""
    return b'{"asked": %b}' % question


class Post:
    """Two replicas, and the letters between them."""

    def __init__(self, store: Store, tasks: asyncio.TaskGroup, answerer: Answerer) -> None:
        self.sent: list[letters.Letter] = []
        self.replicas = {
            name: Asking(
                name,
                Peers(name, store, 60.0, missed=lambda _: None),
                store,
                self.post,
                tasks.create_task,
                answerer=answerer,
            )
            for name in ("one", "other")
        }

    def post(self, replica: str, letter: letters.Letter) -> None:
        self.sent.append(letter)
        read = letters.decode(letters.encode(letter))
        assert isinstance(read, letters.Ask | letters.Answer)
        if replica in self.replicas:
            self.replicas[replica].take(read)


@asynccontextmanager
async def two(store: Store | None = None, answerer: Answerer = echo) -> AsyncIterator[Post]:
    async with asyncio.TaskGroup() as tasks:
        yield Post(store or Store(), tasks, answerer)


async def test_an_answer() -> None:
    async with two() as post:
        one = post.replicas["one"]
        answers = await asyncio.gather(*[one.ask("other", b"%d" % n, UNIT) for n in range(3)])
        assert answers == [b'{"asked": %d}' % n for n in range(3)]
        one.take(letters.Answer(link="one?1", answer=Raw(b"1")))  # nobody waits for it any more


async def test_who_does_not_answer_or_does_not_know_the_question() -> None:
    async def newer(_question: bytes) -> bytes:
        raise ValueError

    async with two(answerer=newer) as post:
        assert await post.replicas["one"].ask("other", b"1", 0.01) is None
        assert await post.replicas["one"].ask("nobody", b"1", 0.01) is None


async def test_what_is_heard_when_nobody_waits_any_more_is_not_done() -> None:
    """As by a replica that was paused: it is to drain when it is asked, and not later."""
    async with two() as post:
        one, other = post.replicas["one"], post.replicas["other"]
        assert await one.ask("nobody", b"1", 0.01) is None
        (late,) = post.sent
        assert isinstance(late, letters.Ask)
        other.take(late)
        await asyncio.sleep(0)
        assert post.sent == [late]


async def test_only_so_many_are_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "MOST_ASKED", 1)
    may_answer = asyncio.Event()

    async def wait(question: bytes) -> bytes:
        await may_answer.wait()
        return question

    async with two(answerer=wait) as post:
        one = post.replicas["one"]
        first = asyncio.create_task(one.ask("other", b"1", 20 * UNIT))
        await asyncio.sleep(0)
        assert await one.ask("other", b"2", 0.01) is None
        may_answer.set()
        assert await first == b"1"
        assert await one.ask("other", b"3", 20 * UNIT) == b"3"


async def test_who_else_there_is() -> None:
    store = Store()
    async with two(store) as post:
        one = post.replicas["one"]
        assert await one.others() == {}
        await store.beat("other")
        others = await one.others()
        assert [*others] == ["other"], "though it has come since"
        assert await others["other"](b"1", UNIT) == b'{"asked": 1}'
        store.fails = StoreUnavailable
        assert [*await one.others()] == ["other"], "as far as is known"
        store.fails = None
        await store.resign("other")
        assert await one.others() == {}


async def test_whether_there_is_a_session() -> None:
    store = Store()
    async with two(store) as post:
        one = post.replicas["one"]
        assert [await one.knows(each) for each in ("kept", "gone")] == [True, False]
        for failure in (StoreUnavailable, Unreadable):
            store.fails = failure
            assert await one.knows("gone"), "nobody can say"
