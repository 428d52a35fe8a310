"""The runner where its surroundings fail: a model, a store or a session that breaks its promise.

The model and the store here stand for what no real one can be made to do.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.errors import CloseCode, ErrorCode, Failure, Outcome
from gateway.protocol import messages as wire
from gateway.runner import Route, SessionRunner, Sessions
from gateway.session.policy import Opening, Policy
from gateway.session.ports import (
    Call,
    Evicted,
    ModelError,
    ModelReply,
    ModelRequest,
    ModelSession,
    OnEnd,
    OnParts,
    SessionRecord,
    StoreFull,
)
from gateway.session.session import Session
from gateway.stores.memory import MemoryStore
from tests.support.timing import UNIT


class Model:
    """Answers until it is told to do something else."""

    def __init__(self) -> None:
        self.opens: Callable[[], ModelSession] = lambda: ModelSession("m")
        self.waits = asyncio.Event()
        self.waits.set()
        self.closed: list[str] = []
        self.closes: Callable[[], object] = lambda: None
        self.answers: ModelReply | Failure = ModelReply(body=b"hi")
        self.invoked = 0

    async def open(self) -> ModelSession:
        return self.opens()

    def invoke(
        self,
        request: ModelRequest,
        session: ModelSession | None,
        *,
        affinity: str,
        on_parts: OnParts,
        on_end: OnEnd,
    ) -> Call:
        del request, session, on_parts
        assert len(affinity) == 32
        self.invoked += 1
        return asyncio.create_task(self._answer(on_end))

    async def _answer(self, on_end: OnEnd) -> None:
        await self.waits.wait()
        on_end(self.answers)

    async def close(self, session: ModelSession) -> None:
        self.closed.append(session.id)
        self.closes()


class Connection:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.position = 0
        self.resume_key = ""
        self.resumed: list[tuple[wire.SessionResumed, int]] = []
        self.notices: list[wire.Notice] = []
        self.ended: list[tuple[CloseCode, str]] = []
        self.woken = asyncio.Event()

    def begin(self, resumed: wire.SessionResumed, after: int) -> None:
        self.resumed.append((resumed, after))
        self.position = after

    def wake(self, *, soon: bool) -> None:
        del soon
        self.woken.set()

    def tell(self, notice: wire.Notice) -> None:
        self.notices.append(notice)

    def close(self, code: CloseCode, reason: str) -> None:
        self.ended.append((code, reason))

    def abandon(self, code: CloseCode, reason: str) -> None:
        self.ended.append((code, reason))


class BrokenStore(MemoryStore):
    """Fails at whatever is asked of it after the first."""

    puts = 0

    async def put(self, record: SessionRecord) -> None:
        self.puts += 1
        if self.puts > 1:
            raise ConnectionError
        await super().put(record)

    async def delete(self, session_id: str) -> None:
        raise ConnectionError(session_id)

    async def expire(self) -> None:
        raise ConnectionError


class Fixture:
    def __init__(self, sessions: Sessions, model: Model) -> None:
        self.sessions = sessions
        self.model = model
        self.connection = Connection()

    async def open(self, **policy: Any) -> SessionRunner:
        policy.setdefault("resume_seconds", 0.0)
        route = Route(Policy(route="chat", **policy), self.model)
        return await self.sessions.open(route, "anonymous", self.connection)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10 * UNIT):
            while not condition():
                self.connection.woken.clear()
                await asyncio.sleep(0)


def done(runner: SessionRunner, message_id: str) -> wire.MessageDone | None:
    for number in range(runner.session.log.first, runner.session.log.last + 1):
        event = runner.session.log.get(number)
        if isinstance(event, wire.MessageDone) and event.id == message_id:
            return event
    return None


@asynccontextmanager
async def running(
    store: Callable[[Evicted], MemoryStore] | None = None, drain_seconds: float = 10.0
) -> AsyncIterator[Fixture]:
    make = store or (lambda evicted: MemoryStore(max_sessions=10, evicted=evicted))
    async with Sessions({}, make, drain_seconds=drain_seconds) as sessions:
        yield Fixture(sessions, Model())


def breaks() -> Any:
    raise ZeroDivisionError


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


def refuses(failure: Failure) -> Callable[[], Any]:
    def refuse() -> Any:
        raise ModelError(failure)

    return refuse


REFUSED = Failure(
    code=ErrorCode.UNAVAILABLE,
    message="Its operator must mend this.",
    retryable=False,
    facts={"status": 403, "message": "ada is not authorized"},
)
BUSY = Failure(code=ErrorCode.THROTTLED, message="Wait a bit.", retry_after=0.01)


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
        await f.until(lambda: runner.session.log.last)
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


async def test_a_store_that_fails_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.runner.SWEEP_SECONDS", 0)
    async with running(lambda evicted: BrokenStore(max_sessions=10, evicted=evicted)) as f:
        runner = await f.open()
        runner.handle(wire.MessageSend(id="a", text="x"))
        await f.until(lambda: done(runner, "a"))
        runner.handle(wire.SessionClose())
        await f.until(lambda: f.connection.ended)
        assert f.model.closed == ["m"]


async def test_a_record_that_the_store_drops_ends_its_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.runner.SWEEP_SECONDS", 0)
    now = [1000.0]
    async with running(
        lambda evicted: MemoryStore(max_sessions=1, evicted=evicted, clock=lambda: now[0])
    ) as f:
        await f.open()
        await f.until(f.connection.woken.is_set)
        with pytest.raises(StoreFull):
            await f.open()
        now[0] = 4e9
        await f.until(lambda: f.model.closed)
        await f.until(lambda: len(f.sessions) == 0)


async def test_nobody_opens_a_session_while_the_gateway_drains() -> None:
    async with running() as f:
        await f.open()
        await f.sessions.drain()
        assert f.connection.ended == [(CloseCode.RESTARTING, "unavailable")]
        with pytest.raises(StoreFull):
            await f.open()
        f.sessions.hurry()  # too late to matter


async def test_a_connection_that_lags_is_left_and_the_session_ends() -> None:
    async with running() as f:
        runner = await f.open(log_events=8)
        await f.until(lambda: runner.session.log.last)
        for number in range(4):
            runner.handle(wire.MessageSend(id=f"{number}", text="x"))
        await f.until(lambda: f.connection.ended)
        assert f.connection.ended == [(CloseCode.TOO_SLOW, "too slow")]
        await f.until(lambda: f.model.closed)
        assert f.model.invoked == 4, "what was accepted was sent"
        runner.detach(f.connection)


async def test_who_comes_back_takes_over() -> None:
    async with running() as f:
        runner = await f.open(resume_seconds=30)
        route = runner._route
        await f.until(lambda: runner.session.log.last)
        first, second = f.connection, Connection()
        key = first.resume_key
        find = f.sessions.find
        session_id = runner.session.id
        assert find(session_id, "wrong", route=route, principal="anonymous") is None
        assert find("unknown", key, route=route, principal="anonymous") is None
        assert find(session_id, key, route=route, principal="somebody") is None
        other = Route(Policy(route="other"), f.model)
        assert find(session_id, key, route=other, principal="anonymous") is None
        assert find(session_id, key, route=route, principal="anonymous") is runner
        runner.attach(second, key, 1)
        assert first.ended == [(CloseCode.TAKEN_OVER, "taken over")]
        assert second.resumed[0][0].resume_key == second.resume_key != key
        runner.detach(first)
        runner.handle(wire.MessageCancel(id="unknown"))
        assert second.notices


async def test_who_is_behind_is_not_left_for_what_it_missed_while_away() -> None:
    async with running() as f:
        runner = await f.open(resume_seconds=30, log_events=8, queued_messages=100)
        await f.until(lambda: runner.session.log.last)
        f.model.waits.clear()
        key = f.connection.resume_key
        runner.detach(f.connection)
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
        await f.until(lambda: runner.session.log.last)
        f.model.waits.clear()
        key = f.connection.resume_key
        for number in range(3):
            runner.handle(wire.MessageSend(id=str(number), text="x"))
        assert f.connection.ended
        again = Connection()
        runner.attach(again, key, runner.session.log.last)
        await asyncio.sleep(0)
        runner.handle(wire.MessageCancel(id="unknown"))
        assert again.notices
