"""The client against scripts: whatever breaks, a reply comes once, in order, or is known not to."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from gateway.client import (
    ConnectionFailed,
    Disconnected,
    MessageFailed,
    Notice,
    Opened,
    Refused,
    Renewed,
    ReplyTooLarge,
    Resumed,
    SessionClient,
    SessionClosed,
    Updated,
    backoff,
    connect,
)
from gateway.client.closing import FIRST_DELAY, MAX_DELAY
from gateway.errors import ErrorCode, Outcome
from tests.client.gateway import Peer, gateway
from tests.support.client import in_time
from tests.support.timing import UNIT


def quickly() -> Iterator[float]:
    return itertools.repeat(0.01)


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - what it waits for is not the test's own
        await asyncio.sleep(0.01)


@asynccontextmanager
async def session_at(url: str, **options: Any) -> AsyncIterator[tuple[SessionClient, list[Notice]]]:
    notices: list[Notice] = []
    times = {"close_timeout": 0.2 * UNIT, "open_timeout": 5 * UNIT, "delays": quickly}
    client = connect(url, on_notice=notices.append, **{**times, **options})
    async with asyncio.timeout(20 * UNIT), client as session:
        yield session, notices


class TestTurns:
    async def test_a_streamed_reply_in_parts_and_whole(self) -> None:
        async def scene(peer: Peer) -> None:
            await peer.open()
            message_id = await peer.accept(2, text="Hello", stream=True, accept="text/plain")
            await peer.delta(3, message_id, 0, "Hi ")
            await peer.delta(4, message_id, 1, "Ada")
            await peer.done(
                5,
                message_id,
                deltas=2,
                duration_ms=1500,
                content_type="text/plain",
                invoked_production_variant="A",
            )
            await peer.expect("event.ack", event=5)
            acknowledged.set()
            await peer.end(6)

        acknowledged = asyncio.Event()
        async with gateway(scene) as url, session_at(url) as (session, _):
            assert "open" in repr(session)
            assert (session.session_id, session.route) == ("s1", "chat")
            assert session.expires_at == datetime(2027, 1, 15, 8, 20, tzinfo=UTC)
            turn = session.send("Hello", stream=True, accept="text/plain")
            assert [part async for part in turn] == ["Hi ", "Ada"]
            reply = await turn
            assert (reply.text, reply.bytes, reply.complete) == ("Hi Ada", b"Hi Ada", True)
            assert (reply.status, reply.deltas, reply.duration) == ("completed", 2, 1.5)
            assert (reply.content_type, reply.variant) == ("text/plain", "A")
            assert [part async for part in turn] == []
            await acknowledged.wait()
        assert "closed" in repr(session)
        with pytest.raises(SessionClosed):
            session.send("more")

    @pytest.mark.parametrize("codec", ["json", "msgpack"])
    async def test_bodies_of_every_form(self, codec: Any) -> None:
        packed = codec == "msgpack"

        async def scene(peer: Peer) -> None:
            await peer.open()
            one = await peer.accept(2, **({"bytes": b"\0"} if packed else {"base64": "AA=="}))
            await peer.done(3, one, **({"bytes": b"\xff"} if packed else {"base64": "/w=="}))
            two = await peer.accept(4, json={"a": [1, None]})
            await peer.done(5, two, json={"b": "é"})
            await peer.done(7, await peer.accept(6, json=None), text="")
            await peer.done(9, await peer.accept(8, json={"a": [1, None]}), text="")
            await peer.done(11, await peer.accept(10, json=["a"]), text="")
            await peer.done(13, await peer.accept(12, json=5), text="")
            await peer.end(14)

        async with gateway(scene) as url, session_at(url, codec=codec) as (session, _):
            assert (await session.send(b"\0")).bytes == b"\xff"
            turn = session.send(json={"a": [1, None]})
            assert [json.loads(part) async for part in turn] == [{"b": "é"}]
            assert (await turn).json() == {"b": "é"}
            assert (await session.send(json=None)).text == ""
            for body in ({"a": [1, None]}, ["a"]):
                await session.send(body)
            await session.send(json=5)

    async def test_what_is_no_message_is_not_sent(self) -> None:
        async def scene(peer: Peer) -> None:
            await peer.open(message_bytes=200)
            await peer.end(2)

        async with gateway(scene) as url, session_at(url, max_turns=0) as (session, _):
            with pytest.raises(TypeError):
                session.send()
            with pytest.raises(TypeError):
                session.send("a", json=1)
            for body in (5, 1.5, True, ("a",), object()):
                with pytest.raises(TypeError, match=f"a list, not {type(body).__name__}; .* json="):
                    session.send(body)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="unsupported"):
                session.send({"a": object()})
            for wrong in ({"id": "a b"}, {"content_type": "a\nb"}, {"unknown": "x"}):
                with pytest.raises(ValueError, match=r"\$|unknown"):
                    session.send("a", **wrong)  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="surrogates"):
                session.send("\ud800")
            with pytest.raises(MessageFailed) as large:
                await session.send("x" * 200)
            assert large.value.code is ErrorCode.TOO_LARGE
            with pytest.raises(MessageFailed) as full:
                await session.send("x")
            assert full.value.code is ErrorCode.QUEUE_FULL
            assert full.value.retryable

    async def test_what_a_reply_looks_like(self) -> None:
        async def scene(peer: Peer) -> None:
            await peer.open()
            await peer.done(3, await peer.accept(2), text="Hello\n\x1b[2J")
            await peer.done(5, await peer.accept(4), text="é" * 100, dropped_turns=3)
            await peer.done(7, await peer.accept(6), base64="/w==")
            long = await peer.accept(8)
            for number in range(10):
                await peer.delta(9 + number, long, number, "x" * 1000)
                await peer.heard()
            await peer.done(19, long, deltas=10)
            await peer.end(20)

        async with gateway(scene) as url, session_at(url, max_reply_bytes=5000) as (session, _):
            reply = await session.send("a")
            assert repr(reply) == r"<Reply 'Hello\n\x1b[2J' completed>"
            assert reply.dropped_turns == 0
            reply = await session.send("b")
            assert repr(reply) == f"<Reply '{'é' * 60}…' completed>"
            assert reply.dropped_turns == 3
            assert repr(await session.send("c")) == "<Reply of 1 bytes completed>"
            turn = session.send("d")
            assert len([part async for part in turn]) == 10
            assert repr(await turn) == "<Reply taken in parts completed>"

    async def test_failures(self) -> None:
        async def scene(peer: Peer) -> None:
            await peer.open()
            message_id = await peer.accept(2)
            await peer.delta(3, message_id, 0, "so far")
            error = {
                "code": "stream_broken",
                "message": "It broke off.",
                "retryable": False,
                "outcome": "invoked",
            }
            await peer.done(4, message_id, status="failed", deltas=1, error=error)
            refused = await peer.expect("message.send")
            await peer.say(
                "error",
                code="queue_full",
                message="Full.",
                id=refused["id"],
                retryable=True,
                retry_after=2,
            )
            await peer.say("error", code="bad_message", message="What?", retryable=False)
            await peer.say("session.later", event=5, unheard=True)
            await peer.say("later", unheard=True)
            await peer.end(6)

        async with gateway(scene) as url, session_at(url) as (session, notices):
            turn = session.send("a")
            parts = aiter(turn)
            assert await anext(parts) == "so far"
            with pytest.raises(MessageFailed, match="broke off") as failed:
                await anext(parts)
            assert (failed.value.code, failed.value.outcome) == ("stream_broken", "invoked")
            with pytest.raises(MessageFailed):
                await turn
            with pytest.raises(MessageFailed) as failed:
                await session.send("b")
            assert failed.value.outcome is Outcome.NOT_INVOKED
            assert (failed.value.retryable, failed.value.retry_after) == (True, 2)
            await until(lambda: notices[-1] == Refused(ErrorCode.BAD_MESSAGE, "What?"))

    async def test_cancelling(self) -> None:
        async def scene(peer: Peer) -> None:
            await peer.open()
            message_id = await peer.accept(2)
            await peer.delta(3, message_id, 0, "One, ")
            await peer.expect("message.cancel", id=message_id)
            await peer.done(4, message_id, status="cancelled", deltas=1, outcome="unknown")
            await peer.end(5)

        async with gateway(scene) as url, session_at(url) as (session, _):
            turn = session.send("count")
            async for _part in turn:
                break
            await turn.cancel()
            await turn.cancel()
            reply = await turn
            assert (reply.status, reply.complete, reply.text) == ("cancelled", False, "One, ")
            assert reply.outcome is Outcome.UNKNOWN

    async def test_a_reply_that_is_not_read_stays_within_its_bound(self) -> None:
        async def scene(peer: Peer) -> None:
            await peer.open()
            for message_id in ("unread", "read"):
                await peer.expect("message.send", id=message_id)
            await peer.say("message.accepted", event=2, id="unread", queued=0)
            await peer.say("message.accepted", event=3, id="read", queued=1)
            for number in range(10):
                await peer.delta(4 + number, "unread", number, "x" * 1000)
            await peer.expect("message.cancel", id="unread")
            await peer.done(14, "unread", status="cancelled", deltas=10)
            for number in range(10):
                await peer.delta(15 + number, "read", number, "x" * 1000)
                await peer.heard()
            await peer.done(25, "read", deltas=10)
            await peer.end(26)

        async with gateway(scene) as url, session_at(url, max_reply_bytes=5000) as (session, _):
            unread, read = session.send("a", id="unread"), session.send("b", id="read")
            assert len([part async for part in read]) == 10
            reply = await read
            assert reply.complete
            with pytest.raises(ReplyTooLarge):
                reply.text  # noqa: B018
            with pytest.raises(ReplyTooLarge):
                await unread

    async def test_events_are_acknowledged_every_so_often(self) -> None:
        async def scene(peer: Peer) -> None:
            await peer.open()
            message_id = await peer.accept(2)
            for number in range(70):
                await peer.delta(3 + number, message_id, number, "x")
                await asyncio.sleep(0)
            first = await peer.expect("event.ack")
            second = await peer.expect("event.ack")
            assert 32 <= first["event"] < second["event"] <= 72
            assert second["event"] - first["event"] >= 32
            await peer.done(73, message_id, deltas=70)
            await peer.expect("event.ack", event=73)
            acknowledged.set()
            await peer.end(74)

        acknowledged = asyncio.Event()
        async with gateway(scene) as url, session_at(url) as (session, _):
            assert (await session.send("hi")).text == "x" * 70
            await acknowledged.wait()

    async def test_waiting_is_not_the_turn(self) -> None:
        async def scene(peer: Peer) -> None:
            await peer.open()
            message_id = await peer.accept(2)
            await waited.wait()
            await peer.done(3, message_id, text="late")
            await peer.end(4)

        waited = asyncio.Event()
        async with gateway(scene) as url, session_at(url) as (session, _):
            turn = session.send("hi")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(turn, 0.01 * UNIT)
            assert not turn.ended
            waited.set()
            with pytest.raises(ValueError, match="is running"):
                session.send("hi", id=turn.id)
            assert (await turn).text == "late"
            assert "ended" in repr(turn)


class TestNotices:
    async def test_what_the_session_says(self) -> None:
        async def scene(peer: Peer) -> None:
            await peer.open()
            await peer.say("session.updated", event=2, expires_at="2027-01-15T09:00:00Z")
            await peer.say(
                "session.renewed", event=3, reason="expiring", context="replayed", expires_at=None
            )
            await peer.say("session.expiring", event=4, expires_at="2027-01-15T09:00:00.5Z")
            await peer.say("pong", data="x")
            for event, context in ((5, "partial"), (6, "of a later gateway")):
                await peer.say(
                    "session.renewed", event=event, reason="lost", context=context, expires_at=None
                )
            await peer.done(8, await peer.accept(7), text="ok")
            await peer.end(9)

        async with gateway(scene) as url, session_at(url) as (session, notices):
            await session.send("a")
        then = datetime(2027, 1, 15, 9, tzinfo=UTC)
        assert notices[1:3] == [Updated(then), Renewed("expiring", "replayed", None)]
        assert isinstance(notices[0], Opened)
        assert [notice.context for notice in notices[4:] if isinstance(notice, Renewed)] == [
            "partial",
            "of a later gateway",
        ]

    async def test_a_callback_that_fails_is_the_loops_to_report(self) -> None:
        async def scene(peer: Peer) -> None:
            await peer.open()
            await peer.done(3, await peer.accept(2), text="ok")
            await peer.end(4)

        def fail(_: Notice) -> None:
            raise RuntimeError("mine")

        reported: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: reported.append(told))
        async with gateway(scene) as url, connect(url, on_notice=fail) as session:
            assert (await session.send("a")).text == "ok"
        assert str(reported[0]["exception"]) == "mine"


class TestBreaks:
    """One turn of two parts; the connection breaks at each point, with the events after it on
    their way or not yet said.
    """

    @pytest.mark.parametrize("accepted_first", [False, True])
    async def test_before_it_is_acknowledged(self, accepted_first: bool) -> None:
        """The message was read or not; either way it goes out again under its id."""

        async def first(peer: Peer) -> None:
            await peer.open()
            await peer.expect("message.send", id="m", text="hi")

        async def second(peer: Peer) -> None:
            await peer.resume(1, 2 if accepted_first else 1)
            if accepted_first:
                await peer.expect("message.send", id="m", text="hi")
                await peer.say("message.duplicate", id="m", status="running")
                await peer.say("message.accepted", event=2, id="m", queued=0)
            else:
                await peer.accept(2, id="m", text="hi")
            await peer.done(3, "m", text="once")
            await peer.end(4)

        async with gateway(first, second) as url, session_at(url) as (session, notices):
            assert (await session.send("hi", id="m")).text == "once"
        assert [type(notice) for notice in notices] == [Opened, Disconnected, Resumed]

    @pytest.mark.parametrize("cut", [2, 3, 4])
    async def test_between_its_events(self, cut: int) -> None:
        async def event(peer: Peer, number: int) -> None:
            match number:
                case 2:
                    await peer.say("message.accepted", event=2, id="m", queued=0)
                case 3 | 4:
                    await peer.delta(number, "m", number - 3, "ab"[number - 3])
                case 5:
                    await peer.done(5, "m", deltas=2)

        async def first(peer: Peer) -> None:
            await peer.open()
            await peer.expect("message.send", id="m")
            for number in range(2, cut + 1):
                await event(peer, number)
            await peer.socket.close(1012)

        async def second(peer: Peer) -> None:
            await peer.resume(cut, 5)
            for number in range(2, 6):  # more than was asked for: what is known must not count
                await event(peer, number)
            await peer.end(6)

        async with gateway(first, second) as url, session_at(url) as (session, _):
            turn = session.send("hi", id="m")
            assert [part async for part in turn] == ["a", "b"]
            assert (await turn).complete

    async def test_again_and_again(self) -> None:
        """Each key dies; the newest one is shown, also where the answer came to nothing."""
        parts = 8

        async def first(peer: Peer) -> None:
            await peer.open()
            await peer.accept(2)
            await peer.heard()

        def later(number: int) -> Any:
            async def scene(peer: Peer) -> None:
                await peer.resume(2 + number, parts + 3, "k1" + "'" * number)
                if number < parts:
                    await peer.delta(3 + number, "m", number, f"{number}")
                    await peer.heard()
                    return
                await peer.done(parts + 3, "m", deltas=parts)
                await peer.end(parts + 4)

            return scene

        scenes = [first, *(later(number) for number in range(parts + 1))]
        async with gateway(*scenes) as url, session_at(url) as (session, _):
            assert (await session.send("hi", id="m")).text == "01234567"

    async def test_messages_wait_for_a_connection_and_keep_their_order(self) -> None:
        away = asyncio.Event()

        async def first(peer: Peer) -> None:
            await peer.open()
            await peer.expect("message.send", id="1")
            peer.drop()

        async def second(peer: Peer) -> None:
            await peer.expect("session.open")
            await in_time(away.wait())
            await peer.socket.close(4503, "unavailable")

        async def third(peer: Peer) -> None:
            await peer.resume(1, 1)
            for number in range(3):
                await peer.accept(2 + number, id=f"{number + 1}")
            for number in range(3):
                await peer.done(5 + number, f"{number + 1}", text=f"{number + 1}")
            await peer.end(8)

        async with gateway(first, second, third) as url, session_at(url) as (session, _):
            turns = [session.send("hi", id="1")]
            await until(lambda: session.state != "open")
            turns += [session.send("hi", id=name) for name in "234"]
            await turns.pop().cancel()  # never written, so it never will be
            away.set()
            assert [(await turn).text for turn in turns] == ["1", "2", "3"]

    async def test_a_cancel_is_not_forgotten(self) -> None:
        async def first(peer: Peer) -> None:
            await peer.open()
            await peer.accept(2, id="m")
            await peer.expect("message.cancel", id="m")

        async def second(peer: Peer) -> None:
            await peer.resume(2, 2)
            await peer.expect("message.cancel", id="m")
            await peer.done(3, "m", status="cancelled", outcome="unknown")
            await peer.end(4)

        async with gateway(first, second) as url, session_at(url) as (session, _):
            turn = session.send("hi", id="m")
            await until(lambda: turn.accepted)
            await turn.cancel()
            assert (await turn).status == "cancelled"

    async def test_silence(self) -> None:
        """The socket is there and the gateway is not: pings find out."""
        heartbeat = 0.25 * UNIT

        async def first(peer: Peer) -> None:
            await peer.expect("session.open")
            await peer.say(
                "session.opened",
                event=1,
                session_id="s1",
                resume_key="k1",
                expires_at=None,
                route="chat",
                limits={"message_bytes": 1000, "queued_messages": 1, "resume_seconds": 60},
                heartbeat_seconds=heartbeat,
            )
            peer.socket.transport.pause_reading()
            await asyncio.sleep(4 * heartbeat)

        async def second(peer: Peer) -> None:
            await peer.resume(1, 1)
            await peer.end(2)

        async with gateway(first, second) as url, session_at(url) as (_, notices):
            await until(lambda: Resumed(None) in notices)
            await asyncio.sleep(3 * heartbeat)
        assert len(notices) == 3


class TestGaps:
    async def test_parts_in_a_gap_make_a_reply_incomplete(self) -> None:
        async def first(peer: Peer) -> None:
            await peer.open()
            await peer.accept(2, id="m")
            await peer.delta(3, "m", 0, "a")
            await peer.heard()

        async def second(peer: Peer) -> None:
            await peer.resume(3, 6, lost=[4, 5])
            await peer.delta(6, "m", 3, "d")
            await peer.expect("message.send", id="m")
            await peer.say("message.duplicate", id="m", status="running")
            await peer.done(7, "m", deltas=4)
            await peer.end(8)

        async with gateway(first, second) as url, session_at(url) as (session, notices):
            turn = session.send("hi", id="m")
            assert [part async for part in turn] == ["a", "d"]
            assert not (await turn).complete
        assert Resumed((4, 5)) in notices

    @pytest.mark.parametrize("status", ["completed", "cancelled", "failed"])
    @pytest.mark.parametrize("early", [False, True])
    async def test_an_end_in_a_gap(self, status: str, early: bool) -> None:
        """The message's id is asked for again: it has ended, and its end can't be had."""

        async def first(peer: Peer) -> None:
            await peer.open()
            await peer.accept(2, id="m")
            await peer.delta(3, "m", 0, "a")
            await peer.heard()

        async def second(peer: Peer) -> None:
            await peer.resume(3, 5, lost=[4, 4])
            await peer.expect("message.send", id="m")
            if early:
                await peer.say("message.duplicate", id="m", status=status)
            await peer.say("session.updated", event=5, expires_at=None)
            if not early:
                await peer.say("message.duplicate", id="m", status=status)
            await peer.end(6)

        async with gateway(first, second) as url, session_at(url) as (session, _):
            turn = session.send("hi", id="m")
            if status == "failed":
                with pytest.raises(MessageFailed) as failed:
                    await turn
                assert failed.value.outcome is Outcome.UNKNOWN
            else:
                reply = await turn
                assert (reply.status, reply.complete, reply.text) == (status, False, "a")

    async def test_an_end_after_a_gap_that_the_duplicate_ran_ahead_of(self) -> None:
        async def first(peer: Peer) -> None:
            await peer.open()
            await peer.accept(2, id="m")
            await peer.delta(3, "m", 0, "a")
            await peer.heard()

        async def second(peer: Peer) -> None:
            await peer.resume(3, 6, lost=[4, 4])
            await peer.expect("message.send", id="m")
            await peer.say("message.duplicate", id="m", status="completed")
            await peer.delta(5, "m", 2, "c")
            await peer.done(6, "m", deltas=3, content_type="text/plain")
            await peer.end(7)

        async with gateway(first, second) as url, session_at(url) as (session, _):
            reply = await session.send("hi", id="m")
            assert (reply.text, reply.complete) == ("ac", False)
            assert reply.content_type == "text/plain"

    async def test_a_refusal_after_a_gap_proves_nothing(self) -> None:
        async def first(peer: Peer) -> None:
            await peer.open()
            await peer.expect("message.send", id="m")

        async def second(peer: Peer) -> None:
            await peer.resume(1, 4, lost=[2, 4])
            await peer.expect("message.send", id="m")
            await peer.say("error", id="m", code="session_lost", message="Late.", retryable=False)
            await peer.end(5)

        async with gateway(first, second) as url, session_at(url) as (session, _):
            with pytest.raises(MessageFailed) as failed:
                await session.send("hi", id="m")
            assert failed.value.outcome is Outcome.UNKNOWN

    async def test_resuming_something_else_is_a_violation(self) -> None:
        async def first(peer: Peer) -> None:
            await peer.open()
            await peer.say("session.updated", event=2, expires_at=None)
            await peer.heard()

        async def second(peer: Peer) -> None:
            await peer.resume(2, 0)
            await peer.socket.wait_closed()
            assert peer.socket.close_code == 4400

        async with gateway(first, second) as url, session_at(url) as (session, _):
            await until(lambda: session.state == "closed")
            with pytest.raises(SessionClosed, match="protocol"):
                session.send("hi")

    @pytest.mark.parametrize("skipped", [[2], [4], [3, 4], [6]], ids=str)
    async def test_events_that_were_skipped_are_had_by_resuming(self, skipped: list[int]) -> None:
        async def turn(peer: Peer, events: Iterable[int]) -> None:
            for event in events:
                match event:
                    case 2:
                        await peer.say("message.accepted", event=2, id="m", queued=0)
                    case 3 | 4 | 5:
                        await peer.delta(event, "m", event - 3, "abc"[event - 3])
                    case 6:
                        await peer.done(6, "m", deltas=3)
                    case 7:
                        await peer.say("session.updated", event=7, expires_at=None)

        async def first(peer: Peer) -> None:
            await peer.open()
            await peer.expect("message.send", id="m")
            await turn(peer, (event for event in range(2, 8) if event not in skipped))
            await peer.socket.wait_closed()
            assert peer.socket.close_code == 4400

        async def second(peer: Peer) -> None:
            await peer.resume(skipped[0] - 1, 7)
            if skipped[0] == 2:
                await peer.expect("message.send", id="m")
                await peer.say("message.duplicate", id="m", status="completed")
            await turn(peer, range(2, 8))  # what is known must not count
            await peer.end(8)

        async with gateway(first, second) as url, session_at(url) as (session, notices):
            sent = session.send("hi", id="m")
            assert [part async for part in sent] == ["a", "b", "c"]
            assert (await sent).complete
            await until(lambda: Updated(None) in notices)
        which = "events 3 to 4" if len(skipped) == 2 else f"event {skipped[0]}"
        (lost,) = [notice for notice in notices if isinstance(notice, Disconnected)]
        assert (lost.reason, lost.code) == (f"the gateway skipped {which}", None)
        assert Resumed(None) in notices

    async def test_each_place_is_resumed_after_once(self) -> None:
        async def first(peer: Peer) -> None:
            await peer.open()
            await peer.accept(2, id="m")
            await peer.delta(4, "m", 1, "b")
            await peer.socket.wait_closed()

        async def second(peer: Peer) -> None:
            await peer.resume(2, 5)
            await peer.delta(3, "m", 0, "a")
            await peer.done(5, "m", deltas=2)
            await peer.socket.wait_closed()

        async def third(peer: Peer) -> None:
            await peer.resume(3, 5, "k1'")
            await peer.delta(4, "m", 1, "b")
            await peer.done(5, "m", deltas=2)
            await peer.end(6)

        async with gateway(first, second, third) as url, session_at(url) as (session, _):
            reply = await session.send("hi", id="m")
            assert (reply.text, reply.complete) == ("ab", True)

    @pytest.mark.parametrize("lost", [None, [6, 6]], ids=["silently", "beside-a-loss"])
    async def test_events_that_are_skipped_again_end_the_session(
        self, lost: list[int] | None
    ) -> None:
        async def first(peer: Peer) -> None:
            await peer.open()
            await peer.accept(2, id="m")
            await peer.delta(3, "m", 0, "a")
            await peer.delta(6, "m", 3, "d")
            await peer.socket.wait_closed()

        async def second(peer: Peer) -> None:
            await peer.resume(3, 6, lost=lost)
            if lost is None:
                await peer.delta(6, "m", 3, "d")
            await peer.socket.wait_closed()
            assert peer.socket.close_code == 4400

        words = "the gateway skipped events 4 to 5"
        async with gateway(first, second) as url, session_at(url) as (session, notices):
            turn = session.send("hi", id="m")
            parts = aiter(turn)
            assert await anext(parts) == "a"
            with pytest.raises(
                MessageFailed, match=f"{words}; the model may or may not have"
            ) as failed:
                await anext(parts)
            assert failed.value.outcome is Outcome.UNKNOWN
            with pytest.raises(SessionClosed, match=f"^{words}$") as closed:
                session.send("more")
            assert closed.value.code == 4400
        assert (Resumed(None) in notices) == (lost is None)

    async def test_a_session_whose_first_event_is_skipped(self) -> None:
        async def scene(peer: Peer) -> None:
            await peer.expect("session.open")
            await peer.say("session.updated", event=2, expires_at=None)
            await peer.socket.wait_closed()

        async with gateway(scene, scene) as url:
            with pytest.raises(ConnectionFailed, match=r"the gateway skipped event 1$"):
                async with connect(url, delays=quickly):
                    pass


class TestCloses:
    @pytest.mark.parametrize("code", [1000, 1007, 1009, 4400, 4401, 4403, 4404, 4409])
    async def test_those_that_are_final(self, code: int) -> None:
        async def scene(peer: Peer) -> None:
            await peer.open()
            await peer.accept(2)
            await peer.socket.close(code)

        async with gateway(scene) as url, session_at(url, token="t") as (session, _):
            with pytest.raises(MessageFailed) as failed:
                await session.send("hi")
            assert failed.value.outcome is Outcome.UNKNOWN
            assert not failed.value.retryable
            with pytest.raises(SessionClosed) as closed:
                session.send("more")
            assert closed.value.code == code

    @pytest.mark.parametrize("code", [1001, 1011, 1012, 4408, 4413, 4429, 4503])
    async def test_those_after_which_it_resumes(self, code: int) -> None:
        async def first(peer: Peer) -> None:
            await peer.open()
            await peer.accept(2, id="m")
            await peer.socket.close(code)

        async def second(peer: Peer) -> None:
            await peer.resume(2, 3)
            await peer.done(3, "m", text="ok")
            await peer.end(4)

        async with gateway(first, second) as url, session_at(url) as (session, notices):
            assert (await session.send("hi", id="m")).text == "ok"
        (lost,) = [notice for notice in notices if isinstance(notice, Disconnected)]
        assert lost.code == code
        assert (lost.retry_in >= 1) == (code in {4429, 4503})

    async def test_retry_after_is_kept_to(self) -> None:
        async def first(peer: Peer) -> None:
            await peer.expect("session.open")
            await peer.say(
                "error", code="rate_limited", message="Slowly.", retryable=True, retry_after=1.2
            )
            await peer.socket.close(4429)

        async def second(peer: Peer) -> None:
            await peer.open()
            await peer.end(2)

        async with gateway(first, second) as url, session_at(url) as (_, notices):
            assert Disconnected("Slowly.", 4429, 1.2) in notices

    @pytest.mark.parametrize("resuming", [False, True])
    async def test_gone(self, resuming: bool) -> None:
        """What was written has an unknown outcome; what was not goes to the next session."""
        away = asyncio.Event()

        async def first(peer: Peer) -> None:
            await peer.open()
            await peer.accept(2, id="accepted")
            await peer.expect("message.send", id="written")
            await peer.socket.close(1011 if resuming else 4410)

        async def gone(peer: Peer) -> None:
            await peer.expect("session.open", session_id="s1")
            await in_time(away.wait())
            await peer.socket.close(4410, "session_lost")

        async def second(peer: Peer) -> None:
            assert "session_id" not in await peer.expect("session.open")
            await in_time(away.wait())
            await peer.opened("s2", "k2")
            await peer.accept(2, id="waited")
            await peer.done(3, "waited", text="ok")
            await peer.end(4)

        scenes = (first, gone, second) if resuming else (first, second)
        async with gateway(*scenes) as url, session_at(url) as (session, notices):
            accepted, written = session.send("1", id="accepted"), session.send("2", id="written")
            await until(lambda: session.state != "open")
            waited = session.send("3", id="waited")
            away.set()
            for turn in (accepted, written):
                with pytest.raises(MessageFailed) as failed:
                    await turn
                assert failed.value.code is ErrorCode.SESSION_LOST
                assert failed.value.outcome is Outcome.UNKNOWN
            assert (await waited).text == "ok"
            assert session.session_id == "s2"
        opened = [notice for notice in notices if isinstance(notice, Opened)]
        assert [notice.replaces for notice in opened] == [None, "s1"]

    async def test_what_was_said_for_one_session_is_not_said_to_another(self) -> None:
        away = asyncio.Event()

        async def first(peer: Peer) -> None:
            await peer.open()

        async def gone(peer: Peer) -> None:
            await peer.expect("session.open", session_id="s1")
            await in_time(away.wait())
            await peer.socket.close(4410)

        async def second(peer: Peer) -> None:
            await peer.open("s2", "k2")
            await peer.end(2)

        async with (
            gateway(first, gone, second) as url,
            session_at(url, carry_over=False) as (session, _),
        ):
            await until(lambda: session.state != "open")
            waited = session.send("hi")
            away.set()
            with pytest.raises(MessageFailed, match="not sent: the session is gone") as failed:
                await waited
            assert failed.value.outcome is Outcome.NOT_INVOKED
            assert failed.value.retryable
            await until(lambda: session.session_id == "s2")

    async def test_a_new_session_is_opened_at_once_however_long_the_gateway_was_away(self) -> None:
        async def first(peer: Peer) -> None:
            await peer.open()

        async def full(peer: Peer) -> None:
            await peer.expect("session.open", session_id="s1")

        async def gone(peer: Peer) -> None:
            await peer.expect("session.open", session_id="s1")
            await peer.socket.close(4410)

        async def second(peer: Peer) -> None:
            await peer.open("s2", "k2")
            await peer.end(2)

        waits = partial(itertools.repeat, 0.4)
        async with (
            gateway(first, full, gone, second) as url,
            session_at(url, delays=waits) as (session, notices),
        ):
            await until(lambda: session.session_id == "s2")
        lost = [notice for notice in notices if isinstance(notice, Disconnected)]
        assert [notice.retry_in for notice in lost] == [0.4, 0.4, 0.25]

    async def test_sessions_that_end_as_they_open_are_not_opened_in_a_loop(self) -> None:
        async def brief(peer: Peer) -> None:
            await peer.open()
            await peer.socket.close(4410)

        async def last(peer: Peer) -> None:
            await peer.open("s2")
            await peer.end(2)

        waits = partial(itertools.repeat, 0.4)
        async with (
            gateway(brief, brief, last) as url,
            session_at(url, delays=waits) as (session, notices),
        ):
            await until(lambda: session.session_id == "s2")
        lost = [notice for notice in notices if isinstance(notice, Disconnected)]
        assert [notice.retry_in for notice in lost] == [0.25, 0.4]

    async def test_leaving_while_the_gateway_is_away(self) -> None:
        async def first(peer: Peer) -> None:
            await peer.open()
            await peer.accept(2)

        async with (
            gateway(first) as url,
            session_at(url, delays=partial(itertools.repeat, 9.0)) as (
                session,
                _,
            ),
        ):
            written = session.send("hi")
            await until(lambda: session.state == "waiting")
            waiting = session.send("hi")
        with pytest.raises(MessageFailed) as failed:
            await written
        assert failed.value.outcome is Outcome.UNKNOWN
        with pytest.raises(MessageFailed, match="not sent") as failed:
            await waiting
        assert failed.value.retryable

    async def test_a_session_that_ends_proves_what_it_has_not_accepted(self) -> None:
        async def first(peer: Peer) -> None:
            await peer.open()
            await peer.expect("message.send")
            await peer.say("session.closed", event=2, reason="idle")
            await peer.socket.close(4410)

        async with (
            gateway(first) as url,
            session_at(url, reopen=False) as (session, _),
        ):
            with pytest.raises(MessageFailed) as failed:
                await session.send("hi")
            assert failed.value.outcome is Outcome.NOT_INVOKED
            assert failed.value.retryable
            with pytest.raises(SessionClosed) as closed:
                session.send("more")
            assert closed.value.code == 4410

    async def test_nothing_is_resumed_that_the_gateway_does_not_keep(self) -> None:
        async def first(peer: Peer) -> None:
            await peer.open(resume_seconds=0)
            await peer.accept(2)

        async def second(peer: Peer) -> None:
            assert "session_id" not in await peer.expect("session.open")
            await peer.opened("s2")
            await peer.end(2)

        async with gateway(first, second) as url, session_at(url) as (session, _):
            with pytest.raises(MessageFailed):
                await session.send("hi")
            await until(lambda: session.session_id == "s2")

    async def test_a_gateway_that_stays_away(self) -> None:
        async def first(peer: Peer) -> None:
            await peer.open()
            await peer.accept(2)

        async with gateway(first) as url:
            waits = partial(itertools.repeat, 0.2)
            context = session_at(url, reconnect_timeout=0.3, delays=waits)
            session, _ = await context.__aenter__()
            turn = session.send("hi")
            await until(lambda: session.state == "waiting")
        with pytest.raises(MessageFailed) as failed:
            await in_time(turn)
        assert failed.value.outcome is Outcome.UNKNOWN
        await context.__aexit__(None, None, None)


class TestTokens:
    async def test_a_new_one_after_4401(self) -> None:
        shown: list[str] = []

        def showing(peer: Peer) -> None:
            assert peer.socket.request is not None
            shown.append(peer.socket.request.headers["Authorization"])

        async def first(peer: Peer) -> None:
            showing(peer)
            await peer.open()
            await peer.socket.close(4401)

        async def second(peer: Peer) -> None:
            showing(peer)
            await peer.resume(1, 1)
            await peer.socket.close(4401)

        async def refused(peer: Peer) -> None:
            showing(peer)
            await peer.expect("session.open", session_id="s1")
            await peer.socket.close(4401)

        tokens = iter("abcd")

        async def token() -> str:
            return next(tokens)

        async with (
            gateway(first, second, refused) as url,
            session_at(url, token=token) as (session, _),
        ):
            await until(lambda: session.state == "closed")
        assert shown == ["Bearer a", "Bearer b", "Bearer c"]

    async def test_refreshing(self) -> None:
        async def first(peer: Peer) -> None:
            await peer.open()
            await peer.expect("auth.refresh", token="b")

        async def second(peer: Peer) -> None:
            assert peer.socket.request is not None
            assert peer.socket.request.headers["Authorization"] == "Bearer b"
            await peer.resume(1, 1)
            await peer.end(2)

        async with (
            gateway(first, second) as url,
            session_at(url, token="a") as (session, notices),
        ):
            await session.refresh("b")
            await until(lambda: Resumed(None) in notices)

    async def test_one_that_can_not_be_had(self) -> None:
        async def token() -> str:
            raise LookupError("no token")

        with pytest.raises(ConnectionFailed, match="no token") as failed:
            async with connect("ws://127.0.0.1:9/ws", token=token):
                pass
        assert isinstance(failed.value.__cause__, LookupError)


class TestOpening:
    @pytest.mark.parametrize(
        ("status", "body", "code", "words"),
        [
            (403, '{"detail": "Not this page."}', 4403, "HTTP 403: Not this page.$"),
            (403, "Not this", 4403, "HTTP 403: the server is not a session-gateway"),
            (403, "", 4403, "HTTP 403: the server is not a session-gateway: .* /ws"),
            (404, "Not found", 4404, "HTTP 404: the server is not a session-gateway: .* /ws"),
            (401, "", 4401, "HTTP 401: the key or token is missing"),
            (418, "no", None, "HTTP 418"),
        ],
    )
    async def test_refused_before_there_is_a_websocket(
        self, status: int, body: str, code: int | None, words: str
    ) -> None:
        asked = 0

        def refuse(socket: ServerConnection, _: Request) -> Response:
            nonlocal asked
            asked += 1
            return socket.respond(status, body)

        async def never(_: ServerConnection) -> None: ...

        async with serve(never, "127.0.0.1", 0, process_request=refuse) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            with pytest.raises(ConnectionFailed, match=words) as failed:
                async with connect(f"ws://127.0.0.1:{port}/ws"):
                    pass
        assert failed.value.code == code
        assert asked == 1

    async def test_another_websocket_server(self) -> None:
        async def wait(socket: ServerConnection) -> None:
            await socket.wait_closed()

        async with serve(wait, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            with pytest.raises(ConnectionFailed, match="the server is not a session-gateway"):
                async with connect(f"ws://127.0.0.1:{port}/ws"):
                    pass

    async def test_nobody_listens(self) -> None:
        with pytest.raises(ConnectionFailed, match=r"[Cc]onnect"):
            async with connect("ws://127.0.0.1:9/ws"):
                pass

    async def test_this_machine_is_reached_past_any_proxy(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.delenv("no_proxy", raising=False)

        async def scene(peer: Peer) -> None:
            await peer.open()
            await peer.end(2)

        async with gateway(scene) as url, connect(url):
            pass
        with pytest.raises(ConnectionFailed):
            async with connect("ws://gateway.example.com/ws"):
                pass

    async def test_no_address(self) -> None:
        with pytest.raises(ValueError, match="http"):
            async with connect("http://127.0.0.1/ws"):
                pass

    @pytest.mark.parametrize("code", [4401, 4403, 4404, 4406])
    async def test_refused(self, code: int) -> None:
        async def scene(peer: Peer) -> None:
            await peer.expect("session.open")
            await peer.socket.close(code)

        async with gateway(scene) as url:
            with pytest.raises(ConnectionFailed) as failed:
                async with connect(url):
                    pass
            assert failed.value.code == code

    async def test_refused_for_good(self) -> None:
        """The close code alone would let it come back."""

        async def scene(peer: Peer) -> None:
            await peer.expect("session.open")
            await peer.say("error", code="unavailable", message="Misconfigured.", retryable=False)
            await peer.socket.close(4503)

        async with gateway(scene) as url:
            with pytest.raises(ConnectionFailed, match="Misconfigured") as failed:
                async with connect(url):
                    pass
            assert failed.value.code == 4503

    async def test_a_session_open_that_is_not_understood(self) -> None:
        async def scene(peer: Peer) -> None:
            await peer.expect("session.open")
            await peer.say("error", code="bad_message", message="What?", retryable=False)
            await peer.socket.wait_closed()

        async with gateway(scene) as url:
            with pytest.raises(ConnectionFailed, match=r"What\?"):
                async with connect(url):
                    pass

    async def test_one_that_is_full_for_too_long(self) -> None:
        async def scene(peer: Peer) -> None:
            await peer.expect("session.open")
            await peer.socket.close(4503)

        async with gateway(scene) as url:
            address = url.replace("ws://", "ws://me:secret@")
            patience, waits = 0.5 * UNIT, partial(itertools.repeat, 600.0)
            within = f"no session was opened within {patience:g} s: the gateway is full"
            words = rf"^ws://\*{{3}}@127\S+: {within}"
            with pytest.raises(ConnectionFailed, match=words):
                async with connect(address, open_timeout=patience, delays=waits):
                    pass

    async def test_lost_before_the_session_was_there(self) -> None:
        async def first(peer: Peer) -> None:
            await peer.expect("session.open")

        async def second(peer: Peer) -> None:
            assert "session_id" not in await peer.expect("session.open")
            await peer.opened()
            await peer.end(2)

        async with gateway(first, second) as url, session_at(url):
            pass

    async def test_nonsense(self) -> None:
        async def scene(peer: Peer) -> None:
            await peer.expect("session.open")
            await peer.socket.send("{")
            await peer.socket.wait_closed()

        async with gateway(scene) as url:
            with pytest.raises(ConnectionFailed, match="protocol") as failed:
                async with connect(url):
                    pass
            assert failed.value.code == 4400

    async def test_an_exception_in_the_block_is_the_callers_and_closes_the_session(self) -> None:
        async def scene(peer: Peer) -> None:
            await peer.open()
            await peer.end(2)

        async with gateway(scene) as url:
            with pytest.raises(KeyError):
                async with connect(url):
                    raise KeyError


def test_waits_grow_and_are_bounded() -> None:
    runs = [list(itertools.islice(backoff(), 20)) for _ in range(200)]
    assert max(max(run) for run in runs) <= MAX_DELAY
    assert max(run[0] for run in runs) <= FIRST_DELAY
    assert max(run[-1] for run in runs) > MAX_DELAY / 2
    assert len({run[0] for run in runs}) > 100
