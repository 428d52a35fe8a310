"""The runner where its surroundings fail: a model, a store or a session that breaks its promise."""

import asyncio
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from gateway.admission import Refused
from gateway.budget import COUNTED_BYTES
from gateway.calls import LARGE_BYTES
from gateway.errors import WAIT_SECONDS, CloseCode, ErrorCode, Failure, Outcome
from gateway.logs import LogLimit
from gateway.protocol import messages as wire
from gateway.route import FAILURES_A_MINUTE, Route
from gateway.runner import SessionRunner
from gateway.session import events as on
from gateway.session.events import Timer
from gateway.session.keys import digest
from gateway.session.policy import Opening, Policy, Recovery
from gateway.session.ports import ModelReply, ModelSession
from gateway.session.session import Session
from tests.support.sessions import (
    BUSY,
    REFUSED,
    BrokenStore,
    Connection,
    breaks,
    done,
    refuses,
    running,
)


async def test_an_adapter_that_breaks_its_promise_fails_the_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as f:
        monkeypatch.setattr(f.model, "invoke", lambda *_, **__: breaks())
        runner = await f.open()
        await f.ask(runner, "a")
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
            await f.ask(runner, "a")
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


async def test_of_a_flood_of_calls_that_fail_not_each_is_logged() -> None:
    async with running() as f:
        runner = await f.open()
        with capture_logs() as logs:
            for number in range(FAILURES_A_MINUTE + 5):
                f.model.answers = REFUSED
                await f.ask(runner, str(number))
        assert len([line for line in logs if line["call"] == "turn"]) == FAILURES_A_MINUTE


async def test_what_was_not_logged_is_counted_for_each_reason() -> None:
    async with running() as f:
        runner = await f.open(retries=0)
        now = [0.0]
        runner.route.failures = LogLimit(1, 60, clock=lambda: now[0])
        with capture_logs() as logs:
            for number, failure in enumerate([REFUSED, REFUSED, REFUSED, BUSY]):
                f.model.answers = failure
                await f.ask(runner, str(number))
            now[0] = 60.0
            f.model.answers = REFUSED
            await f.ask(runner, "last")
        assert [(line["error"], line.get("suppressed")) for line in logs] == [
            ("unavailable", None),
            ("throttled", None),
            ("unavailable", 2),
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
        f.model.answers = ModelReply(body=b"small")
        await f.ask(runner, "b")


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
    """Where nobody can come back, nothing waits for it."""
    async with running(BrokenStore()) as f:
        runner = await f.open()
        await f.ask(runner, "a")
        runner.handle(wire.SessionClose())
        await f.until(lambda: f.connection.ended)
        assert f.model.closed == ["m"]


async def test_a_store_that_fails_takes_no_turns_and_no_sessions() -> None:
    async with running(BrokenStore()) as f:
        runner = await f.open(resume_seconds=30)
        await f.until(lambda: not runner._health or not runner._health.is_up)
        assert runner.log.told == 0, "what is not stored is not told"
        runner.receive(wire.MessageSend(id="a", text="x"), f.connection.client, 1)
        (notice,) = f.connection.notices
        assert isinstance(notice, wire.ErrorMessage)
        assert (notice.code, notice.id) == (ErrorCode.UNAVAILABLE, "a")
        assert (notice.retryable, notice.retry_after) == (True, WAIT_SECONDS)
        assert f.model.invoked == 0
        assert not f.sessions.can_keep
        with pytest.raises(Refused):
            await f.open()


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
        key = first.key
        find = f.sessions.find
        session_id = runner.session.id
        assert find(session_id, digest("wrong"), route=route, principal="anonymous") is None
        assert find("unknown", key, route=route, principal="anonymous") is None
        assert find(session_id, key, route=route, principal="somebody") is None
        other = Route(Policy(route="other"), f.model)
        assert find(session_id, key, route=other, principal="anonymous") is None
        assert find(session_id, key, route=route, principal="anonymous") is runner
        client = runner.attach(second, key, second.key, 1)
        assert first.ended == [(CloseCode.TAKEN_OVER, "taken over")]
        resumed = second.reader.take()
        assert isinstance(resumed, wire.SessionResumed)
        assert runner.session.accepts(digest(resumed.resume_key))
        assert digest(resumed.resume_key) != key
        runner.detach(first.client)
        runner.handle(wire.MessageCancel(id="unknown"), client)
        assert second.notices


async def test_who_is_behind_is_not_left_for_what_it_missed_while_away() -> None:
    async with running() as f:
        runner = await f.open(resume_seconds=30, log_events=8, queued_messages=100)
        await f.until(lambda: runner.log.last)
        f.model.waits.clear()
        key = f.connection.key
        runner.detach(f.connection.client)
        for number in range(6):
            runner.handle(wire.MessageSend(id=str(number), text="x"))
        behind = Connection()
        runner.attach(behind, key, behind.key, 1)
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
        key = f.connection.key
        for number in range(3):
            runner.handle(wire.MessageSend(id=str(number), text="x"))
        assert f.connection.ended
        again = Connection()
        client = runner.attach(again, key, again.key, runner.log.last)
        await asyncio.sleep(0)
        runner.handle(wire.MessageCancel(id="unknown"), client)
        assert again.notices


async def test_a_session_without_a_connection_answers_who_asks() -> None:
    """As for a request: nobody takes the session over, and nobody else hears a refusal."""
    async with running() as f:
        route = Route(Policy(route="chat", resume_seconds=30), f.model)
        runner = await f.sessions.open(route, "anonymous")
        assert runner.start(digest("key")) is None
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
        assert not listens.ended


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
        assert not f.connection.ended


async def test_who_is_gone_is_awaited() -> None:
    async with running() as f:
        runner = await f.open(resume_seconds=30)
        await f.until(lambda: runner.log.last)
        runner.handle(wire.EventAck(event=1), f.connection.client)
        assert runner.log.first == 2, "what it has is dropped"
        runner.detach(f.connection.client)
        awaited = runner._timers[Timer.DETACHED]
        runner.detach(f.connection.client)
        assert runner._timers[Timer.DETACHED] is awaited


async def test_what_is_over_is_kept_nowhere() -> None:
    async with running() as f:
        f.model.answers = BUSY
        runner = await f.open(retry_seconds=0.01)
        await f.until(lambda: runner.log.last)
        runner.handle(wire.MessageSend(id="a", text="x"))
        await f.until(lambda: Timer.RETRY_TURN in runner._timers)
        f.model.answers = ModelReply(body=b"hi")
        await f.until(lambda: done(runner, "a"))
        assert runner._calls._calls == {}
        assert Timer.RETRY_TURN not in runner._timers


class TestBudget:
    """What is held for all: those who hold the most give way, and the others notice nothing."""

    async def test_a_session_that_holds_much_takes_no_more(self) -> None:
        async with running(budget=20_000) as f:
            f.model.waits.clear()
            large = await f.open(resume_seconds=30)
            connection, f.connection = f.connection, Connection()
            small = await f.open(resume_seconds=30)
            await f.until(lambda: large.log.last and small.log.last)
            assert connection.reader.take(), "it is not behind"
            first = wire.MessageSend(id="a", text="x" * 15_000)
            large.receive(first, connection.client, 15_000)
            large.receive(wire.MessageSend(id="b", text="x" * 9000), connection.client, 9000)
            (refused,) = connection.notices
            assert isinstance(refused, wire.ErrorMessage)
            assert (refused.code, refused.id) == (ErrorCode.QUEUE_FULL, "b")
            assert refused.message == (
                "The gateway's buffers are full, and much of it is yours; send it again later."
            )
            assert (refused.retryable, refused.retry_after) == (True, WAIT_SECONDS)
            assert not large.session.knows("b")
            large.receive(wire.MessageSend(id="b", text="x" * 9000), 99, 9000)  # who has gone
            large.receive(first, connection.client, 15_000)
            assert isinstance(connection.notices[-1], wire.MessageDuplicate)
            small.receive(wire.MessageSend(id="c", text=""), f.connection.client, 0)
            small.receive(wire.MessageSend(id="c", text="y"), f.connection.client, 1)
            assert isinstance(f.connection.notices.pop(), wire.ErrorMessage)
            small.receive(wire.MessageSend(id="d", text="x" * 5000), f.connection.client, 5000)
            assert not f.connection.notices, "it has its share"
            f.model.waits.set()
            await f.until(lambda: done(large, "a") and done(small, "d"))
            large.receive(wire.MessageSend(id="b", text="x" * 9000), connection.client, 9000)
            await f.until(lambda: done(large, "b"))

    async def test_the_largest_log_is_shortened_and_who_comes_back_is_told(self) -> None:
        async with running(budget=30_000) as f:
            f.model.answers = ModelReply(body=b"x" * 3000, content_type="text/plain")
            small = await f.open(resume_seconds=30)
            f.connection = Connection()
            large = await f.open(resume_seconds=30)
            await f.until(lambda: large.log.last and small.log.last)
            key = f.connection.key
            large.detach(f.connection.client)
            for number in range(12):
                large.handle(wire.MessageSend(id=str(number), text="x"))
                await f.until(lambda: done(large, str(number)))  # noqa: B023
            assert f.sessions.budget.total <= 30_000
            assert small.log.first == 1
            again = Connection()
            large.attach(again, key, again.key, 1)
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

    async def test_all_that_a_session_holds_is_counted(self) -> None:
        async with running() as f:
            f.model.answers = ModelReply(body=b"y" * 5000, content_type="text/plain")
            runner = await f.open(resume_seconds=30, on_lost=Recovery.REPLAY)
            runner.handle(wire.MessageSend(id="a", text="x" * 6000))
            await f.until(lambda: done(runner, "a"))
            f.model.waits.clear()
            large = wire.MessageSend(id="b", text="x" * 7000)
            runner.receive(large, f.connection.client, 7000)
            kept = runner.session.history.transcript.bytes
            assert kept >= 6000
            held = runner.log.held + runner.session.turns.queue.bytes + kept
            assert f.sessions.budget.total == pytest.approx(held, abs=COUNTED_BYTES)
            assert held > 18_000
            runner.give_back()
            held = runner.log.held + runner.session.turns.queue.bytes + kept
            assert f.sessions.budget.total == held
            f.model.waits.set()

    async def test_what_a_client_has_acknowledged_is_counted_no_longer(self) -> None:
        async with running() as f:
            f.model.answers = ModelReply(body=b"y" * 20_000, content_type="text/plain")
            runner = await f.open(opening=Opening.NONE, resume_seconds=30)
            await f.ask(runner, "a")
            assert f.sessions.budget.total > 20_000
            runner.handle(wire.EventAck(event=runner.log.last))
            assert f.sessions.budget.total < COUNTED_BYTES

    async def test_nothing_is_counted_of_a_session_that_ends_while_nobody_is_there(self) -> None:
        async with running() as f:
            f.model.answers = ModelReply(body=b"y" * 20_000, content_type="text/plain")
            runner = await f.open(opening=Opening.NONE, resume_seconds=30)
            await f.ask(runner, "a")
            runner.detach(f.connection.client)
            runner.handle(on.Drain(force=True))
            assert len(f.sessions) == 0
            assert f.sessions.budget.total == 0

    async def test_half_of_the_log_is_given_back(self) -> None:
        async with running() as f:
            f.model.answers = ModelReply(body=b"y" * 3000, content_type="text/plain")
            runner = await f.open(resume_seconds=30)
            for number in range(8):
                await f.ask(runner, str(number))
            whole = runner.log.held
            quick = Connection()
            runner.subscribe(quick, 0)
            quick.read()
            runner.give_back()
            assert whole * 0.35 < runner.log.held <= whole / 2
            assert f.connection.ended == [(CloseCode.TOO_SLOW, "too slow")]
            assert not quick.ended

    async def test_who_leaves_and_has_read_on_is_not_cut(self) -> None:
        async with running() as f:
            f.model.answers = ModelReply(body=b"y" * 3000, content_type="text/plain")
            runner = await f.open()
            quick, slow = f.connection, Connection()
            runner.subscribe(slow, 0)
            for number in range(4):
                await f.ask(runner, str(number))
            quick.read()
            runner.handle(wire.SessionClose())
            await f.until(lambda: quick.ended)
            runner.give_back()
            assert slow.ended[1:] == [(CloseCode.TOO_SLOW, "too slow")]
            assert len(quick.ended) == 1

    async def test_who_has_only_waited_for_company_is_not_behind(self) -> None:
        class Waiting(Connection):
            def flush(self) -> None:
                self.read()

        async with running(budget=30_000) as f:
            f.connection = Waiting()
            f.model.answers = ModelReply(body=b"x" * 3000, content_type="text/plain")
            runner = await f.open(resume_seconds=30)
            await f.until(lambda: runner.log.last)
            for number in range(12):
                await f.ask(runner, str(number))
            assert runner.log.first > 1
            assert not f.connection.ended

    async def test_what_is_unread_of_a_session_that_is_over_is_held(self) -> None:
        async with running() as f:
            f.model.answers = ModelReply(body=b"x" * 9000, content_type="text/plain")
            runner = await f.open(opening=Opening.NONE, resume_seconds=0)
            for number in range(3):
                await f.ask(runner, str(number))
            runner.handle(wire.SessionClose())
            assert f.connection.ended == [(CloseCode.NORMAL, "")]
            assert len(f.sessions) == 0
            assert f.sessions.budget.total == pytest.approx(runner.log.held, abs=COUNTED_BYTES)
            assert runner.log.held > 27_000
            runner.detach(f.connection.client)
            assert f.sessions.budget.total == 0

    async def test_who_is_slow_to_read_the_last_of_it_is_cut_where_room_is_needed(self) -> None:
        async with running(budget=30_000) as f:
            f.model.answers = ModelReply(body=b"x" * 9000, content_type="text/plain")
            runner = await f.open(opening=Opening.NONE, resume_seconds=0)
            slow, f.connection = f.connection, Connection()
            for number in range(3):
                await f.ask(runner, str(number))
            runner.handle(wire.SessionClose())
            other = await f.open(opening=Opening.NONE)
            assert len(slow.ended) == 1
            other.handle(wire.MessageSend(id="a", text="x"))
            await f.until(lambda: done(other, "a"))
            assert slow.ended[1:] == [(CloseCode.TOO_SLOW, "too slow")]
            assert f.sessions.budget.total == pytest.approx(other.log.held, abs=COUNTED_BYTES)
            runner.detach(slow.client)

    async def test_nothing_is_held_for_a_session_that_is_over(self) -> None:
        async with running() as f:
            f.model.answers = ModelReply(body=b"x" * 5000, content_type="text/plain")
            runner = await f.open()
            await f.ask(runner, "a")
            assert f.sessions.budget.total > 5000
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
        quick.read()
        runner.handle(wire.EventAck(event=1), f.connection.client)
        assert slow.ended == [(CloseCode.TOO_SLOW, "too slow")]
        assert slow.reader.take() is None, "and skips nothing silently"
        assert not quick.ended
        late = Connection()
        runner.subscribe(late, 0)
        assert late.reader.lost == (1, 1)


async def test_one_of_two_that_has_not_read_what_the_other_has_done_with_is_closed() -> None:
    async with running() as f:
        runner = await f.open(resume_seconds=30)
        await f.until(lambda: runner.log.last)
        slow = Connection()
        runner.subscribe(slow, 0)
        runner.handle(wire.EventAck(event=1), f.connection.client)
        assert slow.ended == [(CloseCode.TOO_SLOW, "too slow")]


async def test_who_is_behind_is_closed_at_the_next_event() -> None:
    async with running() as f:
        f.model.answers = ModelReply(body=b"y" * 6000, content_type="text/plain")
        runner = await f.open(resume_seconds=30, log_bytes=10_000)
        runner.handle(wire.MessageSend(id="a", text="x"))
        f.connection.read()
        await f.until(lambda: done(runner, "a"))
        assert not f.connection.ended, "one is under way, however large"
        f.model.waits.clear()
        runner.handle(wire.MessageSend(id="b", text="x"))
        assert f.connection.ended == [(CloseCode.TOO_SLOW, "too slow")]
        f.model.waits.set()


async def test_the_end_is_kept_until_who_has_asked_for_it_has_received_it() -> None:
    async with running() as f:
        runner = await f.open(resume_seconds=30)
        await f.until(lambda: runner.log.last)
        along = Connection()
        runner.subscribe(along, 0)
        runner.handle(wire.SessionClose())
        await f.until(lambda: f.connection.ended)
        runner.read_by(f.connection.reader)
        assert len(f.sessions) == 1, "it has not read it"
        along.read()
        f.connection.read()
        runner.read_by(along.reader)
        assert len(f.sessions) == 1, "who reads along decides nothing"
        runner.read_by(f.connection.reader)
        assert len(f.sessions) == 0
        assert not runner._crashed


async def test_an_end_that_nobody_has_asked_for_is_kept() -> None:
    async with running() as f:
        f.model.answers = ModelReply(body=b"x", session_closed=True)
        runner = await f.open(resume_seconds=30)
        runner.handle(wire.MessageSend(id="a", text="x"))
        await f.until(lambda: f.connection.ended)
        f.connection.read()
        runner.read_by(f.connection.reader)
        assert len(f.sessions) == 1


async def test_clients_of_a_session_that_was_set_up_again_have_other_numbers() -> None:
    async with running() as f:
        runner = await f.open()
        runner.subscribe(Connection(), 0)
        again = SessionRunner(runner.session, runner.log, runner.route, f.sessions)
        assert again.subscribe(Connection(), 0) == 3


async def test_what_the_model_is_given() -> None:
    async with running() as f:
        runner = await f.open(streams=True)
        await f.until(lambda: runner.log.last)
        f.model.parts = ["a", "b"]
        f.model.answers = ModelReply(body=None, content_type="text/plain")
        runner.handle(wire.MessageSend(id="a", text="x", accept="text/plain"))
        await f.until(lambda: done(runner, "a"))
        ((request, session, affinity),) = f.model.asked
        assert (request.body, request.accept, request.stream) == (b"x", "text/plain", True)
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
        assert failed.error.message == ("The gateway failed; the reason is in its log.")
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
    async with running(BrokenStore()) as f:
        with capture_logs() as logs:
            runners = [await f.open(opening=Opening.NONE, resume_seconds=30) for _ in range(2)]
            await f.until(lambda: logs)
            for runner in runners:
                runner.handle(wire.SessionClose())
            await asyncio.sleep(0)
        why = runners[0].id
        line = {"event": "the store does not answer", "log_level": "error", "why": why}
        assert logs == [line], "once, until it answers"


@pytest.mark.parametrize("code", [ErrorCode.INTERNAL, ErrorCode.MODEL_ERROR])
async def test_what_the_gateway_has_done_itself_is_an_error(code: ErrorCode) -> None:
    async with running() as f:
        f.model.answers = Failure(code=code, message="x", outcome=Outcome.INVOKED)
        runner = await f.open()
        with capture_logs() as logs:
            await f.ask(runner, "a")
        assert [entry["log_level"] for entry in logs] == [
            "error" if code is ErrorCode.INTERNAL else "warning"
        ]


async def test_large_replies_take_turns() -> None:
    async with running() as f:
        f.model.answers = ModelReply(body=bytes(LARGE_BYTES + 1), content_type="text/plain")
        f.model.waits.clear()
        runners = [await f.open() for _ in range(3)]
        await f.until(lambda: all(runner.log.last for runner in runners))
        for runner in runners:
            runner.handle(wire.MessageSend(id="a", text="x"))
        turns = [0]

        def count() -> None:
            ended = [done(runner, "a") for runner in runners]
            if sum(bool(each) for each in ended) > turns[-1]:
                turns.append(sum(bool(each) for each in ended))
            if turns[-1] < len(runners):
                asyncio.get_running_loop().call_soon(count)

        f.model.waits.set()
        count()
        await f.until(lambda: turns[-1] == len(runners))
        assert turns == [0, 1, 2, 3]


async def test_a_large_reply_alone_is_not_held_up() -> None:
    wrong: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, what: wrong.append(what))
    async with running() as f:
        f.model.answers = ModelReply(body=bytes(LARGE_BYTES + 1), content_type="text/plain")
        runner = await f.open()
        for name in ("a", "b"):
            await f.ask(runner, name)
    assert not wrong


@pytest.mark.parametrize("body", [b"small", None])
async def test_other_replies_take_no_turn(
    body: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as f:
        f.model.answers = ModelReply(body=body)
        runner = await f.open()
        waiting: list[Callable[[], None]] = []
        monkeypatch.setattr(f.sessions.large, "enter", waiting.append)
        await f.ask(runner, "a")
        assert not waiting


async def test_a_large_reply_that_is_cancelled_before_its_turn_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as f:
        f.model.answers = ModelReply(body=bytes(LARGE_BYTES + 1), content_type="text/plain")
        runner = await f.open()
        waiting: list[Callable[[], None]] = []
        monkeypatch.setattr(f.sessions.large, "enter", waiting.append)
        runner.handle(wire.MessageSend(id="a", text="x"))
        await f.until(lambda: waiting)
        runner.handle(wire.MessageCancel(id="a"))
        waiting[0]()
        ended = done(runner, "a")
        assert ended is not None
        assert ended.status == "cancelled"
        f.model.answers = ModelReply(body=b"small")
        await f.ask(runner, "b")
