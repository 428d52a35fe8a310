"""All sessions of a gateway: that there is room for them, and how they end with it."""

import asyncio
import logging
import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway import keeping, route, runner
from gateway import sessions as module
from gateway.budget import ByteBudget
from gateway.errors import CloseCode, Outcome
from gateway.protocol import messages as wire
from gateway.route import Route
from gateway.session import keys
from gateway.session.policy import Policy
from gateway.session.ports import ModelSession
from gateway.session.snapshot import Snapshot
from gateway.session.storage import NOBODY, Title
from gateway.sessions import PastNewest, Sessions, TooManySessions
from tests.support.sessions import Connection, Model, WatchedStore, done, running
from tests.support.timing import UNIT


async def test_a_full_gateway_takes_no_session() -> None:
    async with running(max_sessions=1) as f:
        await f.open()
        with pytest.raises(TooManySessions):
            await f.open()
        assert len(f.sessions) == 1


async def test_nobody_opens_a_session_while_the_gateway_drains() -> None:
    async with running() as f:
        await f.open()
        await f.sessions.drain()
        assert f.connection.ended == [(CloseCode.RESTARTING, "unavailable")]
        with pytest.raises(TooManySessions):
            await f.open()
        f.sessions.stop_draining()  # too late to matter


async def test_a_session_that_was_asked_for_when_the_gateway_began_to_drain() -> None:
    async with running(store := WatchedStore()) as f:
        f.sessions.draining = True
        with pytest.raises(TooManySessions):
            await f.open()
        assert len(f.sessions) == len(store) == 0


async def test_what_the_store_is_told_of_a_session() -> None:
    async with running(store := WatchedStore()) as f:
        runner = await f.open(resume_seconds=30, idle_seconds=600.0, log_events=7)
        assert runner.session.principal == "anonymous"
        assert runner.log.bounds.max_events == 7
        await f.until(lambda: store.done)
        head = store.done[0]
        assert isinstance(head, Snapshot)
        assert (head.id, len(head.id)) == (runner.session.id, 32)
        assert (head.route, head.principal) == ("chat", "anonymous")
        assert (head.model, head.last) == (ModelSession("m"), 1)
        assert store.titles == [(Title("here", 1), 1, 630.0 + keeping.SPARE_SECONDS)]
        runner.handle(wire.SessionClose())
        await f.until(lambda: f.connection.ended)


async def test_another_s_session_is_looked_for_like_one_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work: list[str] = []

    def count(name: str) -> None:
        does = getattr(keys, name)

        def counted(*args: Any) -> Any:
            work.append(name)
            return does(*args)

        monkeypatch.setattr(keys, name, counted)

    count("compare_digest")
    async with running() as f:
        runner = await f.open(resume_seconds=30)
        route, others = runner.route, Route(Policy(route="other"), f.model)
        key = f.connection.key

        def find(session: str, key: bytes, principal: str = "anonymous") -> object:
            work.clear()
            return f.sessions.find(session, key, route=route, principal=principal)

        assert find(runner.session.id, key) is runner
        found = [*work]
        assert len(found) == 1
        for tried in (
            ("absent", key),
            (runner.session.id, key, "eve"),
            (runner.session.id, keys.digest("guessed")),
        ):
            assert find(*tried) is None
            assert work == found
        route = others
        assert find(runner.session.id, key) is None
        assert work == found


async def test_running_turns_finish_before_the_gateway_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SPREAD_SECONDS", 0.0)
    async with running(drain_seconds=3600.0) as f:
        f.model.waits.clear()
        await f.open()
        f.connection = Connection()
        runner = await f.open()
        await f.until(lambda: runner.log.last)
        assert f.sessions.draining is False
        runner.handle(wire.MessageSend(id="a", text="x"))
        draining = asyncio.create_task(f.sessions.drain())
        await f.until(lambda: len(f.sessions) == 1)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not draining.done(), "one of the two has ended"
        f.model.waits.set()
        with capture_logs() as logs:
            await draining
        assert logs == []
        ended = done(runner, "a")
        assert ended is not None
        assert ended.status == "completed"
        assert len(f.sessions) == 0
        await f.sessions.drain()


async def test_those_that_do_not_finish_in_time_are_cancelled() -> None:
    async with running(drain_seconds=0.01) as f:
        f.model.waits.clear()
        runner = await f.open()
        await f.until(lambda: runner.log.last)
        runner.handle(wire.MessageSend(id="a", text="x"))
        with capture_logs() as logs:
            await f.sessions.drain()
        assert logs == [{"event": "the drain time is over", "log_level": "warning", "sessions": 1}]
        ended = done(runner, "a")
        assert ended is not None
        assert ended.error
        assert ended.error.outcome is Outcome.UNKNOWN
        assert len(f.sessions) == 0


async def test_an_operator_need_not_wait() -> None:
    async with running(drain_seconds=3600.0) as f:
        f.model.waits.clear()
        runner = await f.open()
        await f.until(lambda: runner.log.last)
        runner.handle(wire.MessageSend(id="a", text="x"))
        f.sessions.stop_draining()  # too early to matter
        draining = asyncio.create_task(f.sessions.drain())
        await f.until(lambda: f.sessions.draining)
        await asyncio.sleep(0)
        f.sessions.stop_draining()
        await draining
        assert f.connection.ended == [(CloseCode.RESTARTING, "unavailable")]
        f.sessions.stop_draining()


async def test_a_session_that_comes_while_the_gateway_drains_is_handed_on() -> None:
    store = WatchedStore()
    async with running(store) as f, running(store, "other", drain_seconds=3600.0) as other:
        runner = await f.open(resume_seconds=3600.0)
        await f.until(lambda: store.done)
        runner.abandon()
        busy = await other.open(resume_seconds=3600.0)
        other.model.waits.clear()
        busy.handle(wire.MessageSend(id="a", text="x"))
        await other.until(lambda: other.model.invoked)
        draining = asyncio.create_task(other.sessions.drain())
        await other.until(lambda: other.sessions.draining)
        await other.adopt(runner.id)
        await other.until(lambda: not other.sessions.knows(runner.id))
        assert not draining.done()
        other.model.waits.set()
        async with asyncio.timeout(10 * UNIT):
            await draining
        for session in (runner, busy):
            glimpse = await store.glimpse(session.id)
            assert glimpse is not None
            assert glimpse.title.owner == NOBODY


@pytest.mark.parametrize("crashed", [True, False])
async def test_who_has_more_than_is_left_of_a_session_knows_that_a_part_of_it_is_lost(
    crashed: bool,
) -> None:
    async with running(store := WatchedStore()) as f, running(store, "other") as other:
        runner = await f.open(resume_seconds=30.0)
        await f.until(lambda: store.done)
        key = f.connection.key
        runner.abandon()
        route = other.add_route(resume_seconds=30.0)
        again = await other.adopt(runner.id, crashed=crashed)
        client = Connection().resuming(runner.id, key, 9, route)
        with capture_logs() as logs:
            if crashed:
                assert await other.sessions.resume(client) is None
            else:
                with pytest.raises(PastNewest) as past:
                    await other.sessions.resume(client)
                assert past.value.newest == 1
        lost = [line["event"] for line in logs] == ["the store has lost part of a session"]
        assert (lost, again.session.is_over) == (crashed, crashed)


async def test_one_that_has_come_back_meanwhile_stays() -> None:
    async with running(store := WatchedStore()) as f:
        runner = await f.open(resume_seconds=30.0)
        await f.until(lambda: store.done)
        runner.leave()
        await f.until(lambda: len(f.sessions) == 0)
        again = await f.adopt(runner.id, crashed=False)
        assert not f.sessions.ended(runner)
        assert f.sessions.runners == [again]


@pytest.mark.parametrize(
    ("spread", "count", "pause"), [(None, 4, 0.1), (9999.0, 4, 450.0), (9999.0, 1, 1800.0)]
)
async def test_sessions_end_one_after_the_other_within_half_of_the_time(
    spread: float | None, count: int, pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SPREAD_SECONDS", spread or module.SPREAD_SECONDS)
    async with running(drain_seconds=3600.0) as f:
        connections = []
        for _ in range(count):
            runner = await f.open()
            connections.append(f.connection)
            f.connection = Connection()
            await f.until(lambda runner=runner: runner.log.last)  # type: ignore[misc]
        sleep, paused = asyncio.sleep, []

        async def sleeping(seconds: float) -> None:
            paused.append((seconds, sum(bool(connection.ended) for connection in connections)))
            for _ in range(10):
                await sleep(0)

        with monkeypatch.context() as patch:
            patch.setattr(asyncio, "sleep", sleeping)
            await f.sessions.drain()
    assert paused == [(pause, ended) for ended in range(count)]


async def test_background_work_that_fails_ends_nothing_else() -> None:
    async def fails() -> None:
        raise ZeroDivisionError

    async with running(drain_seconds=3600.0) as f:
        runner = await f.open()
        with capture_logs() as logs:
            await f.sessions.spawn(fails())
        assert [line["event"] for line in logs] == ["a background task failed"]
        await f.until(lambda: runner.log.last)


async def test_a_gateway_without_sessions_has_nothing_to_wait_for() -> None:
    async with running(drain_seconds=3600.0) as f:
        await f.sessions.drain()
        assert f.sessions.draining


async def test_leaving_ends_all_and_waits_for_the_last_words() -> None:
    async with running(store := WatchedStore()) as f:
        f.model.waits.clear()
        runner = await f.open()
        await f.until(lambda: runner.log.last)
        runner.handle(wire.MessageSend(id="a", text="x"))
        f.model.waits_to_close.clear()
        asyncio.get_running_loop().call_later(0.01, f.model.waits_to_close.set)
    assert f.sessions.draining
    assert f.connection.ended == [(CloseCode.RESTARTING, "unavailable")]
    assert f.model.closed == ["m"]
    assert f.model.calls[0].cancelled()
    assert store.done[-1] == runner.session.id
    assert len(store) == 0


async def test_a_model_that_is_slow_to_close_does_not_hold_the_gateway_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patience = module.LAST_SECONDS / 500
    monkeypatch.setattr(module, "LAST_SECONDS", patience)
    async with running() as f:
        runner = await f.open()
        await f.until(lambda: runner.log.last)
        f.model.waits_to_close.clear()
        before = time.monotonic()
    assert time.monotonic() - before >= patience
    assert f.model.closed == ["m"]
    assert f.model.gave_up_closing, "and nothing of it goes on"


async def test_what_is_done_is_kept_nowhere() -> None:
    async with running() as f:
        runner = await f.open()
        await f.until(lambda: runner.log.last)
        runner.handle(wire.SessionClose())
        await f.until(lambda: f.connection.ended)
        await f.until(lambda: not f.sessions._running)


async def test_what_goes_wrong_meanwhile_is_not_hidden() -> None:
    connections = []

    async def fails() -> None:
        async with running() as f:
            runner = await f.open()
            await f.until(lambda: runner.log.last)
            connections.append(f.connection)
            raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:
        await fails()
    assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]
    assert connections[0].ended


@pytest.mark.parametrize("log", [module.log, route.log, runner.log])
def test_lines_are_of_the_logger_that_levels_are_set_for(log: Any) -> None:
    assert log._logger_factory_args == (runner._log.name,) == ("gateway.sessions",)


async def test_turns_are_logged_as_loudly_as_is_asked_for() -> None:
    quiet = Sessions({}, max_sessions=1, budget=ByteBudget(1000), drain_seconds=1.0)
    loud = Sessions({}, max_sessions=1, budget=ByteBudget(1000), drain_seconds=1.0, log_turns=True)
    assert (quiet.turn_level, loud.turn_level) == (logging.DEBUG, logging.INFO)


async def test_routes_are_those_that_were_given() -> None:
    routes = {"chat": Route(Policy(route="chat"), Model())}
    sessions = Sessions(routes, max_sessions=1, budget=ByteBudget(1000), drain_seconds=1.0)
    assert sessions.routes is routes


async def test_a_second_signal_may_come_when_the_drain_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closing = asyncio.Event()

    async def close(_: object) -> None:
        await closing.wait()

    async with running(drain_seconds=0.0) as f:
        monkeypatch.setattr(f.model, "close", close)
        await f.open()
        await f.until(lambda: f.connection.reader.is_behind)
        with capture_logs() as logs:
            draining = asyncio.create_task(f.sessions.drain())
            await f.until(lambda: logs)
        f.sessions.stop_draining()
        closing.set()
        await draining


async def test_no_timer_fires_when_all_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LAST_SECONDS", 0.0)
    failed: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
    async with running() as f:

        async def never(_: object) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(f.model, "close", never)
        runner = await f.open(close_seconds=0.01)
        await f.until(lambda: runner.log.last)
    await asyncio.sleep(0.02)
    assert not failed
