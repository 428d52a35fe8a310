"""What operators see and do of this process and of others, some of which do not answer."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from gateway.admin import console as module
from gateway.admin import questions as ask
from gateway.admin import watching
from gateway.admin.console import LATEST, Console
from gateway.admin.fleet import Alone, Ask, Fleet, NotFound, NotReached
from gateway.admin.views import SessionDetail
from gateway.admin.watching import TooManyWatch, Watch
from gateway.measures import TURNS
from gateway.protocol import messages as wire
from gateway.session.table import State
from gateway.telemetry.reading import Reading, Spread
from tests.support.sessions import Connection, Fixture, running
from tests.support.timing import UNIT

UNKNOWN = "0" * 32
BUCKETS = [0] * (len(TURNS) + 1)


class Desk:
    """Sessions that are here, and what an operator sees of them."""

    def __init__(self, f: Fixture) -> None:
        self.f = f
        self.reads = 0
        self.console = Console("here", f.sessions, self.read)

    async def read(self) -> Reading:
        self.reads += 1
        reading = Reading()
        reading.set("build_info", 1, "0")
        return reading

    async def open(self, number: int = 1, **policy: Any) -> list[str]:
        """Open sessions; returns their ids, in order."""
        ids = []
        for _ in range(number):
            self.f.connection = Connection()
            runner = await self.f.open(resume_seconds=30.0, **policy)
            await self.f.until(lambda runner=runner: runner.log.last)  # type: ignore[misc]
            ids.append(runner.id)
        return sorted(ids)

    async def ids(self, **asked: Any) -> list[str]:
        found = await self.console.list(ask.ListSessions(**{"limit": 100, **asked}))
        return [each.session_id for each in found]


@asynccontextmanager
async def desk() -> AsyncIterator[Desk]:
    async with running(max_sessions=100) as f:
        yield Desk(f)


class There:
    """Another replica, which answers, or is silent, or says what nobody understands."""

    def __init__(self, console: Console | None, garbage: bytes | None = None) -> None:
        self.console = console
        self.garbage = garbage
        self.kept: set[str] = set()

    async def others(self) -> Mapping[str, Ask]:
        return {"there": self.ask}

    async def ask(self, question: bytes, seconds: float) -> bytes | None:
        assert seconds > 0
        return self.garbage if self.console is None else await self.console.answer(question)

    async def knows(self, session_id: str) -> bool:
        return session_id in self.kept


class TestSessions:
    async def test_pages_and_filters(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "AT_ONCE", 2)
        async with desk() as here:
            ids = await here.open(5)
            other = await here.open(2, route="other")
            every = sorted(ids + other)
            assert await here.ids() == every
            assert await here.ids(limit=3) == every[:4], "one more, to see that there is"
            assert await here.ids(after=every[2]) == every[3:]
            assert await here.ids(prefix=every[0][:20]) == every[:1]
            assert await here.ids(route="other") == other
            assert await here.ids(principal="nony") == every
            assert await here.ids(principal="key:") == []
            assert await here.ids(state=State.ENDED) == []

    async def test_one_that_moves_is_listed_once_and_what_is_missing_is_said(self) -> None:
        async with desk() as here, desk() as there:
            await here.open(2)
            await there.open(3)
            moving = here.f.sessions.runners[0]
            there.f.sessions._runners[moving.id] = moving
            fleet = Fleet(here.console, There(there.console), {})
            first = await fleet.sessions(ask.ListSessions(limit=4))
            assert first.next == first.sessions[-1].session_id
            rest = await fleet.sessions(ask.ListSessions(limit=4, after=first.next))
            assert (rest.next, rest.missing) == (None, [])
            found = [each.session_id for each in [*first.sessions, *rest.sessions]]
            assert found == sorted({each.id for each in there.f.sessions.runners} | set(found))
            assert len(found) == 5
            del there.f.sessions._runners[moving.id]
            for garbage in (None, b"[1]"):
                alone = Fleet(here.console, There(None, garbage), {})
                page = await alone.sessions(ask.ListSessions(limit=4))
                assert (len(page.sessions), page.missing) == (2, ["there"])

    async def test_details_have_turns_and_no_words(self) -> None:
        async with desk() as here:
            (session_id,) = await here.open()
            (runner,) = here.f.sessions.runners
            for number in range(LATEST + 1):
                await here.f.ask(runner, f"m{number}")
            here.f.model.waits.clear()
            for message_id in ("a", "b"):
                runner.handle(wire.MessageSend(id=message_id, text="secret"))
            answer = await here.console.answer(ask.encode(ask.LookAt(session_id)))
            assert b"secret" not in answer
            detail = msgspec.json.decode(answer, type=SessionDetail)
            assert [turn.status for turn in detail.turns] == ["running", "queued"]
            assert all(turn.age_seconds is not None for turn in detail.turns)
            assert [turn.id for turn in detail.latest][:2] == ["m20", "m19"]
            assert (len(detail.latest), detail.ended) == (LATEST, LATEST + 1)
            assert detail.sagemaker_session is not None
            here.f.model.waits.set()

    async def test_closing_is_where_the_session_is(self) -> None:
        async with desk() as here, desk() as there:
            (session_id,) = await there.open()
            fleet = Fleet(here.console, There(there.console), {})
            assert (await fleet.look(session_id)).replica == "here", "as that one is called"
            assert await fleet.close(session_id) == "there"
            (runner,) = there.f.sessions.runners
            await there.f.until(lambda: runner.session.state is State.ENDED)
            assert (await fleet.look(session_id)).state is State.ENDED, "it can be looked at still"
            with pytest.raises(NotFound):
                await fleet.close(session_id)

    async def test_who_does_not_answer_is_not_waited_for_where_another_has_it(self) -> None:
        asked = asyncio.Event()

        class Silent(There):
            async def others(self) -> Mapping[str, Ask]:
                return {"silent": self.wait, **await super().others()}

            async def wait(self, _question: bytes, _seconds: float) -> None:
                asked.set()
                await asyncio.Event().wait()

        async with desk() as here, desk() as there, asyncio.timeout(20 * UNIT):
            (own,), (another,) = await here.open(), await there.open()
            fleet = Fleet(here.console, Silent(there.console), {})
            for session_id in (own, another):
                assert (await fleet.look(session_id)).session_id == session_id
            assert asked.is_set(), "all are asked at once"
            assert [await fleet.close(each) for each in (own, another)] == ["here", "there"]
            assert len(asyncio.all_tasks()) < 20

    async def test_what_is_not_found_is_not_there_or_not_reached(self) -> None:
        async with desk() as here:
            with pytest.raises(NotFound):
                await Fleet(here.console, Alone(), {}).look(UNKNOWN)
            there = There(Desk(here.f).console)
            fleet = Fleet(here.console, there, {})
            for look in (fleet.look, fleet.close):
                with pytest.raises(NotFound):
                    await look(UNKNOWN)
            there.kept.add(UNKNOWN)
            with pytest.raises(NotReached, match="is moving"):
                await fleet.look(UNKNOWN)
            with pytest.raises(NotReached, match="at there, which does not answer"):
                await Fleet(here.console, There(None), {}).close(UNKNOWN)


class TestReplicas:
    async def test_draining(self) -> None:
        async with desk() as here, desk() as there:
            fleet = Fleet(here.console, There(there.console), {})
            assert not await fleet.drain("there"), "it is nobody's to end"
            drained: list[str] = []
            for each in (here, there):
                each.console.on_drain = lambda: drained.append("x")
            assert await fleet.drain("there")
            assert await fleet.drain("here")
            assert len(drained) == 2
            with pytest.raises(NotFound):
                await fleet.drain("nowhere")
            with pytest.raises(NotReached):
                await Fleet(here.console, There(None), {}).drain("there")

    async def test_who_does_not_answer_is_shown(self) -> None:
        async with desk() as here:
            fleet = Fleet(here.console, There(None), {"chat": "e"})
            states = (await fleet.replicas()).replicas
            assert [(each.name, each.answers) for each in states] == [
                ("here", True),
                ("there", False),
            ]
            routes = await fleet.routes()
            assert ([each.route for each in routes.routes], routes.missing) == (
                ["chat"],
                ["there"],
            )

    @pytest.mark.parametrize(
        ("numbers", "spreads", "understood"),
        [
            (
                {"turns": [(("chat", "paused", "", ""), 1.0)], "fresh": [(("a", "b"), 1.0)]},
                {},
                True,
            ),
            ({}, {"turn_duration_seconds": [(("chat",), Spread(BUCKETS, 0.0))]}, True),
            ({"build_info": []}, {}, False),
            ({"sessions": [(("chat", "ready", "true", "further"), 1.0)]}, {}, False),
            ({}, {"turn_duration_seconds": [(("chat",), Spread([*BUCKETS, 0], 0.0))]}, False),
            ({}, {"turn_duration_seconds": [(("chat", "further"), Spread(BUCKETS, 0.0))]}, False),
        ],
    )
    async def test_one_of_another_version_hides_no_other(
        self, numbers: Any, spreads: Any, understood: bool
    ) -> None:
        told = Reading({"build_info": [(("9",), 1.0)], **numbers}, spreads)
        if not told.numbers["build_info"]:
            del told.numbers["build_info"]
        async with desk() as here:
            fleet = Fleet(here.console, There(None, msgspec.json.encode(told)), {"chat": "e"})
            states = (await fleet.replicas()).replicas
            assert [each.answers for each in states] == [True, understood]
            routes = await fleet.routes()
            assert routes.missing == ([] if understood else ["there"])
            assert routes.routes[0].turns.get("paused", 0) == ("turns" in numbers)

    async def test_several_who_ask_at_once_have_it_read_once(self) -> None:
        async with desk() as here:
            await asyncio.gather(*[here.console.reading() for _ in range(9)])
            assert here.reads == 1


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "EACH_SECONDS", 0.01)
    monkeypatch.setattr(module, "FRESH_SECONDS", 0.0)


@pytest.mark.usefixtures("quick")
class TestWatching:
    async def test_it_is_looked_once_for_all_and_only_while_somebody_watches(self) -> None:
        async with desk() as here, asyncio.timeout(20 * UNIT):
            watch = Watch(Fleet(here.console, Alone(), {}), here.f.sessions.spawn)
            assert here.reads == 0
            both = [watch.watch(), watch.watch()]
            for each in both:
                await anext(each)
            before, looks = here.reads, watch._number
            for _ in range(5):
                for each in both:
                    await anext(each)
            assert here.reads - before <= watch._number - looks + 1, "once for all of them"
            for each in both:
                await each.aclose()
            before = here.reads
            await asyncio.sleep(0.05)
            assert here.reads == before
            await anext(again := watch.watch())
            await again.aclose()

    async def test_there_are_only_so_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(watching, "MOST_WATCH", 1)
        async with desk() as here, asyncio.timeout(20 * UNIT):
            watch = Watch(Fleet(here.console, Alone(), {}), here.f.sessions.spawn)
            watch.check()
            await anext(one := watch.watch())
            with pytest.raises(TooManyWatch):
                watch.check()
            await one.aclose()
            watch.check()

    async def test_what_can_not_be_seen_is_seen_the_next_time(self) -> None:
        async with desk() as here, asyncio.timeout(20 * UNIT):
            whole, fails = here.read, [True, False]

            async def read() -> Reading:
                if fails and fails.pop(0):
                    raise ZeroDivisionError
                return await whole()

            console = Console("here", here.f.sessions, read)
            watch = Watch(Fleet(console, Alone(), {}), here.f.sessions.spawn)
            await anext(seen := watch.watch())
            await seen.aclose()
            assert not fails

    async def test_it_ends_with_what_is_watched(self) -> None:
        async with desk() as here, asyncio.timeout(20 * UNIT):
            watch = Watch(Fleet(here.console, Alone(), {}), here.f.sessions.spawn)
            await anext(drains := watch.watch())
            await here.f.sessions.drain()
            async for _ in drains:
                pass
            assert here.console.is_over
        async with desk() as here, asyncio.timeout(20 * UNIT):
            watch = Watch(Fleet(here.console, Alone(), {}), here.f.sessions.spawn)
            await anext(closes := watch.watch())
            await watch.close()
            async for _ in closes:
                pass
