"""What is kept of sessions in the store, and that it is there before anything is done about it."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from unittest.mock import AsyncMock

import pytest
from structlog.testing import capture_logs

from gateway.health import Health
from gateway.keeping import BEHIND_SECONDS, SPARE_SECONDS
from gateway.protocol import messages as wire
from gateway.runner import SessionRunner
from gateway.session.ports import ModelReply, ModelSession
from gateway.session.snapshot import Snapshot
from gateway.session.storage import StoreUnavailable
from tests.support.sessions import Connection, Fixture, WatchedStore, breaks, done, running
from tests.support.timing import UNIT


async def busy(f: Fixture, **policy: Any) -> SessionRunner:
    """A session with the turn ``a`` at the model, all of it stored."""
    runner = await f.open(resume_seconds=30.0, **policy)
    f.model.waits.clear()
    runner.handle(wire.MessageSend(id="a", text="x"))
    await f.until(lambda: f.model.invoked)
    await f.settled()
    return runner


def stored(store: WatchedStore) -> Snapshot:
    """The newest head that was written."""
    head = store.done[-1]
    assert isinstance(head, Snapshot)
    return head


class TestOrder:
    async def test_what_follows_from_what_has_waited_is_written_before_it_is_done(self) -> None:
        async with running(store := WatchedStore()) as f:
            runner = await busy(f)
            store.waits.clear()
            runner.handle(wire.MessageSend(id="b", text="x"))
            runner.handle(wire.MessageCancel(id="a"))
            store.let_through()
            await f.until(f.model.calls[0].cancelled)
            assert (runner.log.last, runner.log.told) == (4, 3), "the end is not stored"
            assert f.model.invoked == 1, "the store does not know that b is sent"
            store.waits.set()
            await f.until(lambda: f.model.invoked == 2)
            running_there = stored(store).running
            assert running_there is not None
            assert running_there.id == "b"
            assert runner.log.told == 4
            f.model.waits.set()

    async def test_nothing_more_is_done_of_a_session_that_has_broken_meanwhile(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with running(store := WatchedStore()) as f:
            runner = await f.open(resume_seconds=30.0)
            await f.until(lambda: store.done)
            await f.settled()
            store.waits.clear()
            runner.touch()
            listener = Connection()
            monkeypatch.setattr(listener, "wake", lambda **_: breaks())
            runner.subscribe(listener, 0)
            runner.handle(wire.MessageSend(id="a", text="x"))
            with capture_logs() as logs:
                store.waits.set()
                await f.until(lambda: store.done[-1] == runner.id)
            assert [line["event"] for line in logs] == ["a session failed"]
            assert f.model.invoked == 0


class TestBehind:
    async def test_parts_that_come_during_a_write_are_written_after_it(self) -> None:
        async with running(store := WatchedStore()) as f:
            runner = await busy(f, streams=True)
            store.waits.clear()
            runner.handle(wire.MessageSend(id="b", text="x"))
            f.model.streams[0](["one", "two"])
            store.waits.set()
            await f.settled()
            assert (stored(store).last, runner.log.told) == (3, 5)
            keeper = runner._keeper
            assert keeper is not None
            assert keeper._behind is not None
            now = asyncio.get_running_loop().time()
            assert keeper._behind.when() <= now + BEHIND_SECONDS
            await f.until(lambda: stored(store).last == 5)
            f.model.waits.set()


class TestTold:
    async def test_who_reads_all_that_it_may_is_not_too_slow_for_what_it_may_not(self) -> None:
        class Quick(Connection):
            def wake(self, *, soon: bool) -> None:
                super().wake(soon=soon)
                asyncio.get_running_loop().call_soon(self.read)

        async with running(store := WatchedStore()) as f:
            f.connection = Quick()
            runner = await busy(f, log_bytes=20_000)
            f.model.answers = ModelReply(body=b"x" * 12_000, content_type="text/plain")
            store.waits.clear()
            f.model.waits.set()
            await f.until(lambda: runner.log.last == 3)
            runner.handle(wire.MessageSend(id="b", text="x"))
            runner.handle(wire.MessageSend(id="c", text="x"))
            assert runner.log.told == 2
            store.waits.set()
            await f.until(lambda: done(runner, "c"))
            assert not f.connection.ended


class TestRaw:
    """Nobody can come back for what is over a raw connection."""

    @pytest.mark.parametrize("resume_seconds", [0.0, 120.0], ids=["raw", "resumable"])
    async def test_who_takes_it_over_sends_nothing_and_closes_what_is_open(
        self, resume_seconds: float
    ) -> None:
        async with running(store := WatchedStore()) as f, running(store, "other") as other:
            f.model.waits.clear()
            runner = await f.open()
            for name in ("a", "b", "c"):
                runner.handle(wire.MessageSend(id=name, text="x"))
            await f.until(lambda: store.done)
            head = stored(store)
            assert (head.running, head.waiting, head.ended) == (None, (), ())
            assert head.model == ModelSession("m")
            runner.abandon()
            other.add_route(resume_seconds=resume_seconds)  # it may be another by now
            await other.adopt(runner.id)
            await other.until(lambda: other.model.closed)
            assert (other.model.asked, other.model.closed) == ([], ["m"])

    async def test_what_was_being_closed_is_closed_again(self) -> None:
        async with running(store := WatchedStore()) as f, running(store, "other") as other:
            runner = await f.open()
            await f.until(lambda: store.done)
            f.model.waits_to_close.clear()
            runner.handle(wire.SessionClose())
            await f.until(lambda: f.model.closed)
            await f.settled()
            runner.abandon()
            other.add_route()
            with capture_logs() as logs:
                await other.adopt(runner.id)
                await other.until(lambda: other.model.closed)
            assert other.model.closed == ["m"]
            assert logs == []
            f.model.waits_to_close.set()

    async def test_it_is_written_where_the_models_session_is_another(self) -> None:
        async with running(store := WatchedStore()) as f:
            runner = await f.open()
            await f.until(lambda: store.done)
            await f.ask(runner, "a")
            assert len(store.done) == 1
            f.model.answers = ModelReply(body=b"hi", new_session=ModelSession("another"))
            await f.ask(runner, "b")
            await f.until(lambda: stored(store).model == ModelSession("another"))

    async def test_it_is_written_again_before_the_store_forgets_it(self) -> None:
        async with running(store := WatchedStore()) as f:
            runner = await f.open(idle_seconds=600.0)
            await f.until(lambda: store.done)
            await f.settled()
            keeper, now = runner._keeper, asyncio.get_running_loop().time()
            assert keeper is not None
            assert store.titles[-1][-1] == 600.0 + SPARE_SECONDS
            written = []
            for seconds in (0.4, 0.6):
                keeper.take([], now + seconds * (600.0 + SPARE_SECONDS))
                await f.settled()
                written.append(len(store.done))
            assert written == [1, 2]


ANOTHER = ModelSession("another")


class TestFenced:
    """Another replica has the session, which this one does not know yet."""

    async def test_what_has_taken_its_place_at_the_model_is_closed(self) -> None:
        async with running(store := WatchedStore()) as f, running(store, "other") as other:
            runner = await self._at_model(f)
            await self._take_over(runner, other)
            await self._replace(f, runner)
            await self._find_out(f, runner)
            assert f.model.closed == ["another"], "the other has `m`"

    async def test_also_what_it_was_about_to_close(self) -> None:
        async with running(store := WatchedStore()) as f, running(store, "other") as other:
            runner = await self._at_model(f)
            await self._take_over(runner, other)
            store.waits.clear()
            await self._replace(f, runner)
            runner.handle(wire.SessionClose())
            store.waits.set()
            await self._find_out(f, runner)
            assert f.model.closed == ["another"]

    async def test_but_not_what_only_ends_at_another_time(self) -> None:
        async with running(store := WatchedStore()) as f, running(store, "other") as other:
            runner = await self._at_model(f)
            await self._take_over(runner, other)
            await self._replace(f, runner, ModelSession("m", 4e9))
            await self._find_out(f, runner)
            assert f.model.closed == []

    @pytest.mark.parametrize(("arrives", "closed"), [(True, []), (False, ["another"])])
    async def test_what_counts_is_whether_the_store_knows(
        self, monkeypatch: pytest.MonkeyPatch, *, arrives: bool, closed: list[str]
    ) -> None:
        async with running(store := WatchedStore()) as f, running(store, "other") as other:
            runner = await self._at_model(f)
            with monkeypatch.context() as patch:
                patch.setattr(store, "save", partial(_lost, store.save if arrives else _never))
                await self._replace(f, runner)
                await f.until(lambda: not f.shared.health.is_up)
            await self._take_over(runner, other)
            runner.touch()
            await self._find_out(f, runner)
            assert f.model.closed == closed

    async def test_what_cant_be_found_out_is_left_to_expire(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with running(store := WatchedStore()) as f, running(store, "other") as other:
            runner = await self._at_model(f)
            await self._take_over(runner, other)
            monkeypatch.setattr(store, "glimpse", AsyncMock(side_effect=StoreUnavailable))
            await self._replace(f, runner)
            await self._find_out(f, runner)
            assert f.model.closed == []

    async def _at_model(self, f: Fixture) -> SessionRunner:
        """A session that has a turn at the model."""
        runner = await f.open(resume_seconds=30.0)
        f.model.waits.clear()
        runner.handle(wire.MessageSend(id="a", text="x"))
        await f.until(lambda: f.model.invoked)
        await f.settled()
        return runner

    async def _take_over(self, runner: SessionRunner, other: Fixture) -> None:
        other.add_route(resume_seconds=30.0)
        await other.adopt(runner.id)

    async def _replace(
        self, f: Fixture, runner: SessionRunner, model: ModelSession = ANOTHER
    ) -> None:
        """The reply comes with another session."""
        f.model.answers = ModelReply(body=b"hi", new_session=model)
        f.model.waits.set()
        await f.until(lambda: runner.session.model == model)

    async def _find_out(self, f: Fixture, runner: SessionRunner) -> None:
        await f.until(lambda: runner.is_gone)
        await asyncio.sleep(0)
        await f.settled()
        await asyncio.sleep(0)


async def _never(*_: object, **__: object) -> None:
    pass


def _lost(save: Callable[..., Awaitable[None]], *args: Any, **options: Any) -> asyncio.Task[None]:
    async def lose() -> None:
        await save(*args, **options)
        raise StoreUnavailable

    return asyncio.get_running_loop().create_task(lose())


class TestHealth:
    async def test_it_has_settled_when_nothing_follows_from_what_was_asked(self) -> None:
        health = Health(asyncio.get_running_loop().time)
        first = health.begin()
        waiting = asyncio.create_task(health.settled())
        await asyncio.sleep(0)
        health.end(first)
        second = health.begin()
        for _ in range(3):
            await asyncio.sleep(0)
        assert not waiting.done()
        health.end(second)
        async with asyncio.timeout(UNIT):
            await waiting

    async def test_a_session_that_cant_be_written_leaves_no_doubt_of_the_store(self) -> None:
        async with running(WatchedStore()) as f:
            with capture_logs() as logs:
                route = f.add_route(resume_seconds=30.0)
                broken = await f.sessions.open(route, "no text: \ud800")
                broken.start(f.connection.key, f.connection)
                await f.until(lambda: f.connection.ended)
            assert [line["event"] for line in logs] == ["a session failed"]
            await f.settled()
            f.connection = Connection()
            await f.ask(await f.open(resume_seconds=30.0), "a")

    async def test_nor_does_a_store_that_breaks_its_promise(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with running(store := WatchedStore()) as f:
            monkeypatch.setattr(store, "save", lambda *_, **__: breaks())
            with capture_logs() as logs:
                await f.open(resume_seconds=30.0)
                await f.until(lambda: f.connection.ended)
            assert [line["event"] for line in logs] == ["a session failed"]
            await f.settled()
