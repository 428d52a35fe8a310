"""What a session, its clients and its operator count on: order, timers, wakes, crashes, lines."""

import asyncio
import random

import pytest
import structlog
from msgspec import UNSET
from structlog.testing import capture_logs

from gateway.errors import CloseCode, ErrorCode, Failure, Outcome
from gateway.protocol import messages as wire
from gateway.session import effects as do
from gateway.session import events as on
from gateway.session.events import Timer
from gateway.session.ports import ModelReply, ModelSession
from gateway.session.session import Session
from gateway.session.snapshot import Snapshot
from tests.support.sessions import BUSY, Connection, WatchedStore, breaks, done, running
from tests.support.timing import UNIT


class TestTurnLines:
    async def test_one_for_each_that_ends(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO", "gateway.sessions")
        async with running(log_turns=True) as f:
            runner = await f.open()
            await f.until(lambda: runner.log.last)
            f.model.answers = Failure(code=ErrorCode.MODEL_ERROR, message="x")
            with capture_logs() as logs:
                runner.handle(wire.MessageSend(id="a", text="x"))
                await f.until(lambda: done(runner, "a"))
                f.model.answers = ModelReply(body=b"hi")
                runner.handle(wire.MessageSend(id="b", text="x"))
                await f.until(lambda: done(runner, "b"))
                last = done(runner, "b")
                assert last is not None
                assert last.content_type is UNSET, "the model named none"
        same = {
            "event": "turn",
            "log_level": "info",
            "route": "chat",
            "session": runner.session.id,
            "deltas": 0,
            "sagemaker_session": "m",
        }
        lines = [entry for entry in logs if entry["event"] == "turn"]
        for line in lines:
            times = ("duration_ms", "queued_ms", "upstream_ms", "gateway_us")
            assert all(0 <= line.pop(time) < 60_000 * UNIT for time in times)
        assert [line.pop("outcome", None) for line in lines] == ["not_invoked", None]
        assert lines == [
            same | {"id": "a", "status": "failed", "error": "model_error"},
            same | {"id": "b", "status": "completed"},
        ]

    async def test_none_where_nobody_reads_them(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO", "gateway.sessions")
        async with running() as f:
            runner = await f.open()
            with capture_logs() as logs:
                runner.handle(wire.MessageSend(id="a", text="x"))
                await f.until(lambda: done(runner, "a"))
        assert logs == []

    async def test_an_application_may_log_them_in_a_way_of_its_own(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "gateway.sessions")
        said: list[structlog.typing.EventDict] = []

        def keep(_logger: object, _level: str, event: structlog.typing.EventDict) -> str:
            said.append(event)
            raise structlog.DropEvent

        before = structlog.get_config()
        structlog.configure(wrapper_class=structlog.BoundLogger, processors=[keep])
        try:
            async with running(log_turns=True) as f:
                runner = await f.open()
                await f.ask(runner, "a")
                assert not f.connection.ended
        finally:
            structlog.configure(**before)
        assert [line["id"] for line in said if line["event"] == "turn"] == ["a"]


class TestCrash:
    async def test_nothing_of_it_goes_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with running(store := WatchedStore()) as f:
            f.model.waits.clear()
            runner = await f.open(resume_seconds=30)
            await f.until(lambda: runner.log.last)
            runner.handle(wire.MessageSend(id="a", text="x"))
            await f.until(lambda: f.model.invoked)
            listener = Connection()
            runner.subscribe(listener, 0)
            timers = [*runner._timers.values()]
            assert timers
            monkeypatch.setattr(runner.session, "policy", None)  # so that it breaks
            with capture_logs() as logs:
                runner.handle(wire.SessionClose())
            assert [(entry["event"], entry["session"]) for entry in logs] == [
                ("a session failed", runner.session.id)
            ]
            assert logs[0]["state"] == str(runner.session)
            for connection in (f.connection, listener):
                assert connection.ended == [(CloseCode.INTERNAL, "internal")]
                assert connection.aborted
            assert all(timer.cancelled() for timer in timers)
            await f.until(lambda: f.model.closed)
            assert f.model.calls[0].cancelled()
            assert f.model.closed == ["m"]
            await f.until(lambda: store.done[-1:] == [runner.session.id])
            assert len(f.sessions) == len(store) == 0
            assert (len(runner._subscribers), runner._timers) == (0, {})
            last = runner.log.last
            with capture_logs() as logs:
                runner.handle(wire.MessageSend(id="b", text="x"))
                runner.handle(on.Drain(force=True))
                runner.detach(f.connection.client)
            assert (runner.log.last, f.model.closed, logs) == (last, ["m"], [])

    async def test_what_the_model_opens_for_it_is_closed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with running() as f:
            opens = asyncio.Event()

            async def open_late(_principal: str) -> ModelSession:
                await opens.wait()
                return ModelSession("late")

            monkeypatch.setattr(f.model, "open", open_late)
            runner = await f.open()
            monkeypatch.setattr(runner.session, "policy", None)
            with capture_logs() as logs:
                runner.handle(wire.SessionClose())
                assert f.connection.aborted
                opens.set()
                await f.until(lambda: f.model.closed)
            assert f.model.closed == ["late"]
            assert [entry["event"] for entry in logs] == ["a session failed"]

    async def test_one_that_has_ended_breaks_without_an_echo(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with running(store := WatchedStore()) as f:
            runner = await f.open()
            await f.until(lambda: runner.log.last)
            runner.handle(wire.SessionClose())
            await f.until(lambda: f.connection.ended and len(store) == 0)
            written = len(store.done)
            monkeypatch.setattr(Session, "handle", lambda *_: breaks())
            runner.handle(on.Drain())
            await asyncio.sleep(0)
            assert (len(store.done), f.model.closed) == (written, ["m"])


class TestOrder:
    async def test_what_follows_from_an_event_comes_before_the_next_one(self) -> None:
        """Where a connection has something to say in the middle of it."""
        async with running() as f:
            runner = await f.open(resume_seconds=30)
            await f.until(lambda: runner.log.last)
            states: list[int] = []

            def wake(*, soon: bool) -> None:
                del soon
                if not states:
                    states.append(runner.log.last)
                    runner.handle(wire.MessageCancel(id="a"), f.connection.client)
                    runner.handle(wire.MessageCancel(id="b"), f.connection.client)
                    states.append(runner.log.last)

            f.connection.wake = wake  # type: ignore[method-assign]
            runner.handle(wire.MessageSend(id="a", text="x"), f.connection.client)
            assert states == [2, 2], "neither is heard before the turn has begun"
            ended = done(runner, "a")
            assert ended is not None
            assert ended.outcome is Outcome.UNKNOWN, "it was at the model"
            (notice,) = f.connection.notices
            assert isinstance(notice, wire.ErrorMessage)
            assert notice.id == "b"
            runner.handle(wire.MessageCancel(id="c"), f.connection.client)
            assert len(f.connection.notices) == 2, "and it goes on"

    async def test_a_call_that_is_cancelled_twice_at_once_ends_once(self) -> None:
        async with running() as f:
            runner = await f.open(resume_seconds=30)
            await f.until(lambda: runner.log.last)

            def wake(*, soon: bool) -> None:
                del soon
                f.connection.wake = Connection().wake  # type: ignore[method-assign]
                runner.handle(wire.MessageCancel(id="a"), f.connection.client)
                runner.handle(wire.MessageCancel(id="a"), f.connection.client)

            f.connection.wake = wake  # type: ignore[method-assign]
            runner.handle(wire.MessageSend(id="a", text="x"), f.connection.client)
            assert done(runner, "a") is runner.log.get(runner.log.last)
            assert f.connection.notices == []
            assert not f.connection.ended

    async def test_who_comes_and_goes_in_the_moment_of_the_end_is_told_nothing(self) -> None:
        async with running() as f:
            f.model.answers = ModelReply(body=b"hi", session_closed=True)
            runner = await f.open(resume_seconds=30)
            await f.until(lambda: runner.log.last)
            runner.handle(wire.MessageSend(id="a", text="x"))
            late = Connection()

            def wake(*, soon: bool) -> None:
                del soon
                f.connection.wake = Connection().wake  # type: ignore[method-assign]
                runner.detach(runner.subscribe(late, 0))

            f.connection.wake = wake  # type: ignore[method-assign]
            await f.until(lambda: f.connection.ended)
            assert (late.ended, late.news, late.reader.take()) == ([], [], None)
            assert not runner._crashed

    async def test_each_who_comes_in_the_moment_of_the_end_is_told_of_it(self) -> None:
        async with running() as f:
            f.model.answers = ModelReply(body=b"hi", session_closed=True)
            runner = await f.open(resume_seconds=30)
            await f.until(lambda: runner.log.last)
            runner.handle(wire.MessageSend(id="a", text="x"))
            late = [Connection(), Connection()]

            def close(code: CloseCode, reason: str) -> None:
                del code, reason
                for connection in late:
                    runner.subscribe(connection, 0)

            f.connection.close = close  # type: ignore[method-assign]
            await f.until(lambda: late[-1].ended)
            for connection in late:
                assert (connection.news, len(connection.ended)) == (["later"], 1)
                assert isinstance(connection.reader.take(), wire.SessionOpened)

    async def test_records_reach_the_store_in_order(self) -> None:
        async with running(store := WatchedStore()) as f:
            runner = await f.open()
            await f.until(lambda: store.done)
            runner.handle(wire.SessionClose())
            await f.until(lambda: store.done[-1:] == [runner.session.id])
            head = store.done[0]
            assert isinstance(head, Snapshot)
            assert (head.id, head.route) == (runner.session.id, "chat")
            assert (head.principal, head.model) == ("anonymous", ModelSession("m"))
            assert len(store) == 0

    async def test_what_was_to_be_written_of_a_session_does_not_outlive_it(self) -> None:
        async with running(store := WatchedStore()) as f:
            store.waits.clear()
            runner = await f.open()
            await f.until(lambda: runner.log.last)
            runner.handle(wire.SessionClose())
            await f.until(lambda: f.connection.ended)
            store.waits.set()
            await f.until(lambda: store.done[-1:] == [runner.session.id])
            assert len(store) == 0


class TestTimers:
    async def test_a_timer_is_spread_as_far_as_it_may_be(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []

        def uniform(least: float, most: float) -> float:
            asked.append((least, most))
            return most / 2

        async with running() as f:
            monkeypatch.setattr(random, "uniform", uniform)
            f.model.answers = BUSY
            runner = await f.open(retry_seconds=4.0, retry_max_seconds=4.0)
            await f.until(lambda: runner.log.last)
            asked.clear()
            now = asyncio.get_running_loop().time()
            runner.handle(wire.MessageSend(id="a", text="x"))
            await f.until(lambda: Timer.RETRY_TURN in runner._timers)
            assert asked == [(0, 4.0)]
            assert BUSY.retry_after is not None
            due = runner._timers[Timer.RETRY_TURN].when() - now - BUSY.retry_after
            assert 2.0 <= due < 2.0 + UNIT

    async def test_one_that_is_moved_or_cleared_does_not_fire(self) -> None:
        async with running() as f:
            runner = await f.open()
            await f.until(lambda: runner.log.last)
            now = asyncio.get_running_loop().time()
            first = runner._timers[Timer.IDLE]
            runner._perform(do.SetTimer(Timer.IDLE, now + 1000.0))
            second = runner._timers[Timer.IDLE]
            assert (first.cancelled(), second.cancelled(), second.when()) == (
                True,
                False,
                now + 1000.0,
            )
            runner._perform(do.SetTimer(Timer.IDLE, None))
            assert second.cancelled()
            assert Timer.IDLE not in runner._timers
            runner._perform(do.SetTimer(Timer.IDLE, None))

    async def test_one_that_is_due_fires(self) -> None:
        async with running() as f:
            await f.open(idle_seconds=0.01)
            await f.until(lambda: f.connection.ended)
            assert f.connection.ended == [(CloseCode.GONE, "session_lost")]
            assert f.model.closed == ["m"]


class TestWaking:
    async def test_what_is_waited_for_is_said_soon(self) -> None:
        async with running() as f:
            f.model.waits.clear()
            f.model.opens = lambda: ModelSession("m", 4_000_000_000.0)
            runner = await f.open(resume_seconds=30)
            await f.until(lambda: runner.log.last)
            assert f.connection.news == ["later", "soon"], "it reads; it is opened"
            runner.handle(wire.MessageSend(id="a", text="x"))
            assert f.connection.news[2:] == ["later"]
            f.model.waits.set()
            await f.until(lambda: done(runner, "a"))
            assert f.connection.news[3:] == ["soon"]
            again = Connection()
            runner.attach(again, f.connection.key, again.key, 1)
            assert again.news == ["now"]
            resumed = again.reader.take()
            assert isinstance(resumed, wire.SessionResumed)
            assert (resumed.session_id, resumed.last_event) == (runner.session.id, 3)
            assert (resumed.expires_at, resumed.lost) == ("2096-10-02T07:06:40Z", None)
            assert resumed.resume_key == again.reader.resume_key
            assert isinstance(again.reader.take(), wire.MessageAccepted)

    async def test_an_end_is_told_first(self) -> None:
        async with running() as f:
            runner = await f.open()
            await f.until(lambda: runner.log.last)
            runner.handle(wire.SessionClose())
            await f.until(lambda: f.connection.ended)
            assert f.connection.ended == [(CloseCode.NORMAL, "")]
            assert not f.connection.aborted
            assert len(runner._subscribers) == 0

    async def test_who_comes_back_to_what_has_ended_is_told_and_closed_alone(self) -> None:
        async with running() as f:
            f.model.answers = ModelReply(body=b"hi", session_closed=True)
            runner = await f.open(resume_seconds=30)
            await f.until(lambda: runner.log.last)
            runner.handle(wire.MessageSend(id="a", text="x"))
            await f.until(lambda: f.connection.ended)
            first, second = Connection(), Connection()
            runner.subscribe(first, 0)
            assert first.ended == [(CloseCode.GONE, "session_lost")]
            runner.attach(second, f.connection.key, second.key, 0)
            assert second.ended == [(CloseCode.GONE, "session_lost")]
            assert len(f.connection.ended) == len(first.ended) == 1
