"""Replies that come later: when they are waited for, and by whom."""

import asyncio
import time

import pytest

from gateway.errors import ErrorCode, Failure, Outcome
from gateway.keeping import SPARE_SECONDS
from gateway.protocol import messages as wire
from gateway.runner import SessionRunner
from gateway.session.policy import Opening
from gateway.session.ports import ModelReply, Receipt
from gateway.session.snapshot import Snapshot
from tests.support.sessions import Alone, Fixture, WatchedStore, breaks, done, running

LATER = Receipt(id="i", reply_at="s3://b/i", failure_at=None, until=time.time() + 100_000)
REPLY = ModelReply(body=b"at last", content_type="text/plain")


async def submitted(f: Fixture, *, awaited: bool = True) -> SessionRunner:
    """A session with the turn ``a``, which the model has taken."""
    f.model.answers = LATER
    runner = await f.open(resume_seconds=30.0, opening=Opening.NONE)
    runner.handle(wire.MessageSend(id="a", text="x"))
    await f.until(lambda: not f.model.invoked or f.model.calls[-1].done())
    if awaited:
        await f.until(lambda: f.model.awaited)
    return runner


def status(runner: SessionRunner) -> tuple[str, object]:
    ended = done(runner, "a")
    assert ended is not None
    return ended.status, ended.text or ended.outcome


async def test_one_is_waited_for_and_told() -> None:
    async with running() as f:
        runner = await submitted(f)
        assert f.model.awaited == [LATER]
        f.model.waits_for[0].on_end(REPLY)
        assert status(runner) == ("completed", "at last")


async def test_it_is_waited_for_when_the_store_knows_where_it_will_be() -> None:
    async with running(store := WatchedStore()) as f:
        runner = await f.open(resume_seconds=30.0, opening=Opening.NONE)
        f.model.answers = LATER
        f.model.waits.clear()
        runner.handle(wire.MessageSend(id="a", text="x"))
        await f.until(lambda: f.model.invoked)
        await f.settled()
        store.waits.clear()
        f.model.waits.set()
        await f.until(f.model.calls[0].done)
        assert f.model.awaited == []
        store.waits.set()
        await f.until(lambda: f.model.awaited)
        head, (_, _, seconds) = store.done[-1], store.titles[-1]
        assert isinstance(head, Snapshot)
        assert head.running is not None
        assert head.running.receipt == LATER
        others = runner.session.policy.idle_seconds + 30 + SPARE_SECONDS
        assert seconds > others + 99_000, "it is not dropped before that"
        f.model.waits_for[0].on_end(REPLY)
        await f.settled()
        assert store.titles[-1][2] == others


async def test_one_that_is_cancelled_while_that_is_written_is_not() -> None:
    async with running(store := WatchedStore()) as f:
        runner = await f.open(resume_seconds=30.0, opening=Opening.NONE)
        f.model.answers = LATER
        f.model.waits.clear()
        runner.handle(wire.MessageSend(id="a", text="x"))
        await f.until(lambda: f.model.invoked)
        await f.settled()
        store.waits.clear()
        runner.handle(wire.MessageSend(id="b", text="x"))  # which is being written
        runner.handle(wire.MessageCancel(id="a"))
        f.model.waits.set()
        await f.until(f.model.calls[0].done)
        f.model.waits.clear()
        store.waits.set()
        await f.until(lambda: done(runner, "a"))
        assert status(runner) == ("cancelled", Outcome.UNKNOWN)
        assert f.model.awaited == []
        f.model.waits.set()


async def test_one_that_is_cancelled_later_is_not_waited_for_any_more() -> None:
    async with running() as f:
        runner = await submitted(f)
        runner.handle(wire.MessageCancel(id="a"))
        assert f.model.waits_for[0].cancelled
        assert status(runner) == ("cancelled", Outcome.UNKNOWN)


async def test_an_adapter_that_breaks_fails_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as f:
        monkeypatch.setattr(f.model, "wait", lambda *_, **__: breaks())
        runner = await submitted(f, awaited=False)
        await f.until(lambda: done(runner, "a"))
        ended = done(runner, "a")
        assert ended is not None
        assert ended.error
        assert (ended.error.code, ended.error.outcome) == (ErrorCode.INTERNAL, Outcome.UNKNOWN)


async def test_a_session_moves_and_is_waited_for_elsewhere() -> None:
    async with running(store := WatchedStore()) as one, running(store, "there") as other:
        runner = await submitted(one)
        await one.settled()
        other.add_route(resume_seconds=30.0, opening=Opening.NONE)
        runner.leave()
        assert one.model.waits_for[0].cancelled
        await one.until(lambda: not len(one.sessions))
        adopted = await other.adopt(runner.id, crashed=False)
        await other.until(lambda: other.model.awaited)
        assert other.model.awaited == [LATER]
        other.model.waits_for[0].on_end(REPLY)
        await other.until(lambda: done(adopted, "a"))
        assert status(adopted) == ("completed", "at last")


async def test_one_that_is_to_move_goes_when_its_turn_has_been_taken() -> None:
    async with running(store := WatchedStore()) as one, running(store, "there") as other:
        runner = await one.open(resume_seconds=30.0, opening=Opening.NONE)
        one.model.answers = LATER
        one.model.waits.clear()
        runner.handle(wire.MessageSend(id="a", text="x"))
        await one.until(lambda: one.model.invoked)
        runner.leave()
        assert not runner.is_gone
        one.model.waits.set()
        await one.until(lambda: not len(one.sessions))
        assert one.model.awaited == [], "it is for whoever has it now"
        other.add_route(resume_seconds=30.0, opening=Opening.NONE)
        adopted = await other.adopt(runner.id, crashed=False)
        await other.until(lambda: other.model.awaited)
        assert other.model.awaited == [LATER]
        other.model.waits_for[0].on_end(
            Failure(code=ErrorCode.TIMEOUT, message="Late.", outcome=Outcome.UNKNOWN)
        )
        await other.until(lambda: done(adopted, "a"))


async def test_a_gateway_that_drains_does_not_wait_for_it() -> None:
    async with running(WatchedStore(), drain_seconds=1000.0) as f:
        await submitted(f)
        await f.settled()
        await f.sessions.drain()
        assert f.model.waits_for[0].cancelled
        assert isinstance(f.shared, Alone)


async def test_nobody_waits_for_what_a_gateway_has_abandoned() -> None:
    async with running(WatchedStore()) as f:
        runner = await submitted(f)
        runner.abandon()
        assert f.model.waits_for[0].cancelled
        f.model.waits_for[0].on_end(REPLY)
        await asyncio.sleep(0)
        assert done(runner, "a") is None
