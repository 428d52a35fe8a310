"""The runner where its surroundings fail: a model, a store or a session that breaks its promise."""

import asyncio
import random

import pytest
from structlog.testing import capture_logs

from gateway.errors import CloseCode, ErrorCode, Failure, Outcome
from gateway.protocol import messages as wire
from gateway.runner import Route
from gateway.session import effects as do
from gateway.session import events as on
from gateway.session.events import Timer
from gateway.session.policy import Opening, Policy
from gateway.session.ports import ModelReply, ModelSession, SessionRecord
from gateway.session.session import Session
from tests.support.sessions import (
    BUSY,
    REFUSED,
    BrokenStore,
    Connection,
    WatchedStore,
    breaks,
    done,
    refuses,
    running,
)
from tests.support.timing import UNIT


async def test_an_adapter_that_breaks_its_promise_fails_the_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as f:
        monkeypatch.setattr(f.model, "invoke", lambda *_, **__: breaks())
        runner = await f.open()
        runner.handle(wire.MessageSend(id="a", text="x"))
        await f.until(lambda: done(runner, "a"))
        failed = done(runner, "a")
        assert failed is not None
        assert failed.error
        assert (failed.error.code, failed.error.outcome) == (ErrorCode.INTERNAL, Outcome.UNKNOWN)


async def test_an_adapter_that_breaks_when_it_opens() -> None:
    async with running() as f:
        f.model.opens = breaks
        await f.open()
        await f.until(lambda: f.connection.ended)
        assert f.connection.ended == [(CloseCode.UNAVAILABLE, "internal")]
        assert len(f.sessions) == 0


async def test_a_call_that_fails_is_one_line_for_the_operator() -> None:
    async with running() as f:
        f.model.answers = BUSY
        f.model.closes = refuses(REFUSED)
        runner = await f.open(retries=1, retry_seconds=0.01)
        with capture_logs() as logs:
            runner.handle(wire.MessageSend(id="a", text="x"))
            await f.until(lambda: done(runner, "a"))
            f.model.opens = refuses(REFUSED)
            other = await f.open()
            await f.until(lambda: len(f.sessions) == 1)
            runner.handle(wire.SessionClose())
            await f.until(lambda: f.model.closed)
            await asyncio.sleep(0)
        same = {"event": "call failed", "route": "chat"}
        turn = same | {
            "log_level": "warning",
            "call": "turn",
            "session": runner.session.id,
            "error": "throttled",
            "outcome": "not_invoked",
            "message": "Wait a bit.",
        }
        refused = same | {
            "log_level": "error",
            "error": "unavailable",
            "outcome": "not_invoked",
            "message": "ada is not authorized",
            "status": 403,
        }
        assert logs == [
            turn,
            turn,  # each call that is made again is one
            refused | {"call": "open", "session": other.session.id},
            refused | {"call": "close", "session": runner.session.id},
        ]


async def test_a_turn_that_is_cancelled_before_it_begins_ends_at_once() -> None:
    async with running() as f:
        runner = await f.open(opening=Opening.NONE)
        runner.handle(wire.MessageSend(id="a", text="x"))
        runner.handle(wire.MessageCancel(id="a"))
        runner.handle(wire.MessageCancel(id="a"))
        ended = done(runner, "a")
        assert ended is not None
        assert ended.status == "cancelled"


async def test_a_session_that_breaks_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as f:
        other = await f.open()
        f.connection = Connection()
        f.model.waits.clear()
        runner = await f.open()
        await f.until(lambda: runner.log.last)
        runner.handle(wire.MessageSend(id="a", text="x"))
        await f.until(lambda: f.model.invoked)
        handle = Session.handle
        monkeypatch.setattr(
            Session,
            "handle",
            lambda self, *event: breaks() if self is runner.session else handle(self, *event),
        )
        runner.handle(wire.SessionClose())
        assert f.connection.ended == [(CloseCode.INTERNAL, "internal")]
        await f.until(lambda: f.model.closed)
        assert len(f.sessions) == 1
        f.model.waits.set()
        other.handle(wire.MessageSend(id="b", text="x"))
        await f.until(lambda: done(other, "b"))


async def test_a_store_that_fails_is_survived() -> None:
    async with running(BrokenStore(max_sessions=10)) as f:
        runner = await f.open()
        runner.handle(wire.MessageSend(id="a", text="x"))
        await f.until(lambda: done(runner, "a"))
        runner.handle(wire.SessionClose())
        await f.until(lambda: f.connection.ended)
        assert f.model.closed == ["m"]


async def test_a_connection_that_lags_is_left_and_the_session_ends() -> None:
    async with running() as f:
        runner = await f.open(log_events=8)
        await f.until(lambda: runner.log.last)
        for number in range(4):
            runner.handle(wire.MessageSend(id=f"{number}", text="x"))
        await f.until(lambda: f.connection.ended)
        assert f.connection.ended == [(CloseCode.TOO_SLOW, "too slow")]
        await f.until(lambda: f.model.closed)
        assert f.model.invoked == 4, "what was accepted was sent"
        runner.detach(f.connection.client)


async def test_who_comes_back_takes_over() -> None:
    async with running() as f:
        runner = await f.open(resume_seconds=30)
        route = runner.route
        await f.until(lambda: runner.log.last)
        first, second = f.connection, Connection()
        key = first.reader.resume_key
        find = f.sessions.find
        session_id = runner.session.id
        assert find(session_id, "wrong", route=route, principal="anonymous") is None
        assert find("unknown", key, route=route, principal="anonymous") is None
        assert find(session_id, key, route=route, principal="somebody") is None
        other = Route(Policy(route="other"), f.model)
        assert find(session_id, key, route=other, principal="anonymous") is None
        assert find(session_id, key, route=route, principal="anonymous") is runner
        client = runner.attach(second, key, 1)
        assert first.ended == [(CloseCode.TAKEN_OVER, "taken over")]
        resumed = second.reader.take()
        assert isinstance(resumed, wire.SessionResumed)
        assert resumed.resume_key == second.reader.resume_key != key
        runner.detach(first.client)
        runner.handle(wire.MessageCancel(id="unknown"), client)
        assert second.notices


async def test_who_is_behind_is_not_left_for_what_it_missed_while_away() -> None:
    async with running() as f:
        runner = await f.open(resume_seconds=30, log_events=8, queued_messages=100)
        await f.until(lambda: runner.log.last)
        f.model.waits.clear()
        key = f.connection.reader.resume_key
        runner.detach(f.connection.client)
        for number in range(6):
            runner.handle(wire.MessageSend(id=str(number), text="x"))
        behind = Connection()
        runner.attach(behind, key, 1)
        runner.handle(wire.MessageSend(id="6", text="x"))
        assert not behind.ended
        runner.handle(wire.MessageSend(id="7", text="x"))
        runner.handle(wire.MessageSend(id="8", text="x"))
        assert behind.ended == [(CloseCode.TOO_SLOW, "too slow")], "the log can't hold more for it"


async def test_who_comes_back_in_the_moment_of_being_left_stays() -> None:
    async with running() as f:
        runner = await f.open(resume_seconds=30, log_events=2)
        await f.until(lambda: runner.log.last)
        f.model.waits.clear()
        key = f.connection.reader.resume_key
        for number in range(3):
            runner.handle(wire.MessageSend(id=str(number), text="x"))
        assert f.connection.ended
        again = Connection()
        client = runner.attach(again, key, runner.log.last)
        await asyncio.sleep(0)
        runner.handle(wire.MessageCancel(id="unknown"), client)
        assert again.notices


async def test_a_session_without_a_connection_answers_who_asks() -> None:
    """As for a request: nobody takes the session over, and nobody else hears a refusal."""
    async with running() as f:
        route = Route(Policy(route="chat", resume_seconds=30), f.model)
        runner = await f.sessions.open(route, "anonymous")
        assert runner.start() is None
        await f.until(lambda: runner.log.last)
        asks, listens = Connection(), Connection()
        client = runner.subscribe(asks, runner.log.last)
        runner.subscribe(listens, 0)
        runner.handle(wire.MessageSend(id="a", text="x"), client)
        runner.handle(wire.MessageCancel(id="unknown"), client)
        assert [type(notice) for notice in asks.notices] == [wire.ErrorMessage]
        await f.until(lambda: done(runner, "a"))
        heard = []
        while (message := listens.reader.take()) is not None:
            heard.append(type(message))
        assert heard == [wire.SessionOpened, wire.MessageAccepted, wire.MessageDone]
        assert isinstance(asks.reader.take(), wire.MessageAccepted)
        assert not listens.notices
        assert not listens.ended
        runner.detach(client)
        runner.handle(wire.MessageCancel(id="unknown"), client)
        assert len(asks.notices) == 1, "it is gone"


async def test_who_has_gone_before_the_session_could_take_it_in_is_not_read_to() -> None:
    async with running() as f:
        runner = await f.open(resume_seconds=30)
        await f.until(lambda: runner.log.last)
        late = Connection()

        def leave(*_: object, soon: bool) -> None:
            del soon
            f.connection.wake = Connection().wake  # type: ignore[method-assign]
            runner.detach(runner.subscribe(late, 0))

        f.connection.wake = leave  # type: ignore[method-assign]
        runner.handle(wire.MessageSend(id="a", text="x"), f.connection.client)
        assert late.reader.take() is None


class TestBudget:
    """What is held for all: those who hold the most give way, and the others notice nothing."""

    async def test_a_session_that_holds_much_takes_no_more(self) -> None:
        async with running(budget=20_000) as f:
            f.model.waits.clear()
            large = await f.open(resume_seconds=30)
            connection, f.connection = f.connection, Connection()
            small = await f.open(resume_seconds=30)
            await f.until(lambda: large.log.last and small.log.last)
            first = wire.MessageSend(id="a", text="x" * 15_000)
            large.receive(first, connection.client, 15_000)
            large.receive(wire.MessageSend(id="b", text="x" * 9000), connection.client, 9000)
            (refused,) = connection.notices
            assert isinstance(refused, wire.ErrorMessage)
            assert (refused.code, refused.id) == (ErrorCode.QUEUE_FULL, "b")
            assert refused.retryable
            small.receive(wire.MessageSend(id="c", text="x" * 5000), f.connection.client, 5000)
            assert not f.connection.notices, "it has its share"
            f.model.waits.set()
            await f.until(lambda: done(large, "a") and done(small, "c"))
            large.receive(wire.MessageSend(id="b", text="x" * 9000), connection.client, 9000)
            await f.until(lambda: done(large, "b"))

    async def test_the_largest_log_is_shortened_and_who_comes_back_is_told(self) -> None:
        async with running(budget=30_000) as f:
            f.model.answers = ModelReply(body=b"x" * 3000, content_type="text/plain")
            small = await f.open(resume_seconds=30)
            f.connection = Connection()
            large = await f.open(resume_seconds=30)
            await f.until(lambda: large.log.last and small.log.last)
            key = f.connection.reader.resume_key
            large.detach(f.connection.client)
            for number in range(12):
                large.handle(wire.MessageSend(id=str(number), text="x"))
                await f.until(lambda: done(large, str(number)))  # noqa: B023
            assert f.sessions.budget.total <= 30_000
            assert small.log.first == 1
            again = Connection()
            large.attach(again, key, 1)
            resumed = again.reader.take()
            assert isinstance(resumed, wire.SessionResumed)
            assert resumed.lost == (2, large.log.first - 1)
            assert done(large, "11")

    async def test_who_reads_it_and_is_far_behind_is_too_slow(self) -> None:
        async with running(budget=30_000) as f:
            f.model.answers = ModelReply(body=b"x" * 3000, content_type="text/plain")
            runner = await f.open(resume_seconds=30)
            await f.until(lambda: runner.log.last)
            for number in range(12):
                runner.handle(wire.MessageSend(id=str(number), text="x"))
                await f.until(lambda: done(runner, str(number)) or f.connection.ended)  # noqa: B023
            assert f.connection.ended == [(CloseCode.TOO_SLOW, "too slow")]

    async def test_what_is_unread_of_a_session_that_is_over_is_held(self) -> None:
        async with running() as f:
            f.model.answers = ModelReply(body=b"x" * 9000, content_type="text/plain")
            runner = await f.open(opening=Opening.NONE)
            for number in range(3):
                runner.handle(wire.MessageSend(id=str(number), text="x"))
                await f.until(lambda: done(runner, str(number)))  # noqa: B023
            runner.handle(wire.SessionClose())
            assert f.connection.ended == [(CloseCode.NORMAL, "")]
            assert len(f.sessions) == 0
            assert f.sessions.budget.total == runner.log.held > 27_000
            runner.detach(f.connection.client)
            assert f.sessions.budget.total == 0

    async def test_who_is_slow_to_read_the_last_of_it_is_cut_where_room_is_needed(self) -> None:
        async with running(budget=30_000) as f:
            f.model.answers = ModelReply(body=b"x" * 9000, content_type="text/plain")
            runner = await f.open(opening=Opening.NONE)
            slow, f.connection = f.connection, Connection()
            for number in range(3):
                runner.handle(wire.MessageSend(id=str(number), text="x"))
                await f.until(lambda: done(runner, str(number)))  # noqa: B023
            runner.handle(wire.SessionClose())
            other = await f.open(opening=Opening.NONE)
            assert len(slow.ended) == 1
            other.handle(wire.MessageSend(id="a", text="x"))
            await f.until(lambda: done(other, "a"))
            assert slow.ended[1:] == [(CloseCode.TOO_SLOW, "too slow")]
            assert f.sessions.budget.total == other.log.held
            runner.detach(slow.client)

    async def test_nothing_is_held_for_a_session_that_is_over(self) -> None:
        async with running() as f:
            runner = await f.open()
            runner.handle(wire.MessageSend(id="a", text="x"))
            await f.until(lambda: done(runner, "a"))
            assert f.sessions.budget.total > 0
            runner.handle(wire.SessionClose())
            await f.until(lambda: len(f.sessions) == 0)
            runner.detach(f.connection.client)
            assert f.sessions.budget.total == 0


async def test_who_reads_along_and_has_not_read_what_another_has_done_with_is_closed() -> None:
    async with running() as f:
        runner = await f.open(resume_seconds=30)
        await f.until(lambda: runner.log.last)
        slow, quick = Connection(), Connection()
        runner.subscribe(slow, 0)
        runner.subscribe(quick, 0)
        while quick.reader.take() is not None:
            pass
        runner.handle(wire.EventAck(event=1), f.connection.client)
        assert slow.ended == [(CloseCode.TOO_SLOW, "too slow")]
        assert slow.reader.take() is None, "and skips nothing silently"
        assert not quick.ended
        late = Connection()
        runner.subscribe(late, 0)
        assert late.reader.lost == (1, 1)


async def test_what_the_model_is_given() -> None:
    async with running() as f:
        runner = await f.open(streams=True)
        await f.until(lambda: runner.log.last)
        f.model.parts = ["a", "b"]
        f.model.answers = ModelReply(body=None, content_type="text/plain")
        runner.handle(wire.MessageSend(id="a", text="x"))
        await f.until(lambda: done(runner, "a"))
        ((request, session, affinity),) = f.model.asked
        assert (request.body, request.stream) == (b"x", True)
        assert session == ModelSession("m")
        assert affinity == runner.session.id
        parts = [runner.log.get(number) for number in (3, 4)]
        assert [part.text for part in parts if isinstance(part, wire.MessageDelta)] == ["a", "b"]


async def test_what_is_said_of_an_adapter_that_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as f:
        runner = await f.open()
        await f.until(lambda: runner.log.last)
        f.model.closes = breaks
        monkeypatch.setattr(f.model, "invoke", lambda *_, **__: breaks())
        with capture_logs() as logs:
            runner.handle(wire.MessageSend(id="a", text="x"))
            runner.handle(wire.SessionClose())
            await f.until(lambda: f.connection.ended)
            f.model.opens = breaks
            f.connection = Connection()
            other = await f.open(retries=0)
            await f.until(lambda: f.connection.ended)
        failed = done(runner, "a")
        assert failed is not None
        assert failed.error
        assert failed.error.message == (
            "The gateway failed; its operator finds the reason in its log."
        )
        notice = f.connection.notices[0]
        assert isinstance(notice, wire.ErrorMessage)
        assert notice.code is ErrorCode.INTERNAL
        same = {"event": "an adapter failed", "exc_info": True, "log_level": "error"}
        assert logs == [
            same | {"session": runner.session.id},
            same | {"session": runner.session.id},
            same | {"session": other.session.id},
        ]


async def test_what_is_said_of_a_store_that_fails() -> None:
    async with running(BrokenStore(max_sessions=10)) as f:
        with capture_logs() as logs:
            runner = await f.open(opening=Opening.NONE)
            runner.handle(wire.SessionClose())
            await f.until(lambda: logs)
        assert logs == [
            {
                "event": "the store failed",
                "exc_info": True,
                "log_level": "error",
                "session": runner.session.id,
            }
        ]


@pytest.mark.parametrize("code", [ErrorCode.INTERNAL, ErrorCode.MODEL_ERROR])
async def test_what_the_gateway_has_done_itself_is_an_error(code: ErrorCode) -> None:
    async with running() as f:
        f.model.answers = Failure(code=code, message="x", outcome=Outcome.INVOKED)
        runner = await f.open()
        with capture_logs() as logs:
            runner.handle(wire.MessageSend(id="a", text="x"))
            await f.until(lambda: done(runner, "a"))
        assert [entry["log_level"] for entry in logs] == [
            "error" if code is ErrorCode.INTERNAL else "warning"
        ]


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
        same = {
            "event": "turn",
            "log_level": "info",
            "route": "chat",
            "session": runner.session.id,
            "deltas": 0,
        }
        lines = [entry for entry in logs if entry["event"] == "turn"]
        assert all(0 <= line.pop("duration_ms") < 60_000 * UNIT for line in lines)
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
            assert len(f.sessions) == len(store) == 0
            assert store.done[-1] == runner.session.id
            last = runner.log.last
            runner.handle(wire.MessageSend(id="b", text="x"))
            runner.handle(on.Drain(force=True))
            runner.detach(f.connection.client)
            assert (runner.log.last, f.model.closed) == (last, ["m"])

    async def test_what_the_model_opens_for_it_is_closed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with running() as f:
            opens = asyncio.Event()

            async def open_late() -> ModelSession:
                await opens.wait()
                return ModelSession("late")

            monkeypatch.setattr(f.model, "open", open_late)
            runner = await f.open()
            monkeypatch.setattr(runner.session, "policy", None)
            runner.handle(wire.SessionClose())
            assert f.connection.aborted
            opens.set()
            await f.until(lambda: f.model.closed)
            assert f.model.closed == ["late"]

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

    async def test_records_reach_the_store_in_order(self) -> None:
        async with running(store := WatchedStore()) as f:
            store.waits.clear()
            runner = await f.open()
            await f.until(lambda: runner.log.last)
            runner.handle(wire.SessionClose())
            await f.until(lambda: f.connection.ended)
            assert store.done == []
            store.waits.set()
            await f.until(lambda: len(store.done) == 2)
            record, deleted = store.done
            assert isinstance(record, SessionRecord)
            assert (record.id, record.route) == (runner.session.id, "chat")
            assert (record.principal, record.model) == ("anonymous", ModelSession("m"))
            assert record.expires_at is not None
            assert deleted == runner.session.id
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
            runner = await f.open(resume_seconds=30)
            await f.until(lambda: runner.log.last)
            assert f.connection.news == ["later", "soon"], "it reads; it is opened"
            runner.handle(wire.MessageSend(id="a", text="x"))
            assert f.connection.news[2:] == ["later"]
            f.model.waits.set()
            await f.until(lambda: done(runner, "a"))
            assert f.connection.news[3:] == ["soon"]
            again = Connection()
            runner.attach(again, f.connection.reader.resume_key, 1)
            assert again.news == ["now"]
            resumed = again.reader.take()
            assert isinstance(resumed, wire.SessionResumed)
            assert (resumed.session_id, resumed.last_event) == (runner.session.id, 3)
            assert (resumed.expires_at, resumed.lost) == (None, None)
            assert len(resumed.resume_key) == 43, "32 bytes"
            assert isinstance(again.reader.take(), wire.MessageAccepted)

    async def test_an_end_is_told_first(self) -> None:
        async with running() as f:
            runner = await f.open()
            await f.until(lambda: runner.log.last)
            runner.handle(wire.SessionClose())
            await f.until(lambda: f.connection.ended)
            assert f.connection.ended == [(CloseCode.NORMAL, "")]
            assert not f.connection.aborted
            assert runner._subscribers == {}

    async def test_who_comes_back_to_what_has_ended_is_told_and_closed_alone(self) -> None:
        async with running() as f:
            f.model.answers = ModelReply(body=b"hi", session_closed=True)
            runner = await f.open(resume_seconds=30)
            await f.until(lambda: runner.log.last)
            key = f.connection.reader.resume_key
            runner.handle(wire.MessageSend(id="a", text="x"))
            await f.until(lambda: f.connection.ended)
            first, second = Connection(), Connection()
            runner.subscribe(first, 0)
            assert first.ended == [(CloseCode.GONE, "session_lost")]
            runner.attach(second, key, 0)
            assert second.ended == [(CloseCode.GONE, "session_lost")]
            assert len(f.connection.ended) == len(first.ended) == 1
