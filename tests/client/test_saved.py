"""A session that one process saves and another goes on with."""

import asyncio
import json

import pytest
from websockets.exceptions import ConnectionClosedOK

from gateway.client import (
    ConnectionFailed,
    MessageFailed,
    Opened,
    Resumed,
    SavedSession,
    SessionClosed,
    connect,
)
from gateway.errors import Outcome
from tests.client.gateway import LIMITS, Peer, gateway
from tests.client.test_session import session_at, until
from tests.support.client import in_time

SAVED = json.dumps(
    {
        "session_id": "s1",
        "resume_key": "k1",
        "last_event": 3,
        "route": "chat",
        "limits": LIMITS,
        "heartbeat_seconds": 30.0,
        "accepted": ["accepted"],
        "written": ["written"],
    }
)


async def test_leaving_and_going_on() -> None:
    """What was under way is named; its rest comes to the one that goes on."""

    async def first(peer: Peer) -> None:
        await peer.open()
        await peer.accept(2, id="a")
        await peer.delta(3, "a", 0, "Hello ")
        await peer.expect("message.send", id="b")
        with pytest.raises(ConnectionClosedOK):  # and no `session.close`
            await peer.receive()

    async def second(peer: Peer) -> None:
        await peer.resume(3, 6)
        await peer.delta(4, "a", 1, "Ada")
        await peer.say("message.accepted", event=5, id="b", queued=1)
        await peer.done(6, "a", deltas=2)
        await peer.done(7, "b", text="ok")
        await peer.end(8)

    async with gateway(first, second) as url:
        async with session_at(url) as (session, _):
            a, b = session.send("1", id="a"), session.send("2", id="b")
            assert await anext(aiter(a)) == "Hello "
            await until(lambda: b.written)
            saved = await session.detach()
            for turn in (a, b):
                with pytest.raises(MessageFailed, match="was detached") as failed:
                    await turn
                assert failed.value.outcome is Outcome.UNKNOWN
            with pytest.raises(SessionClosed, match="was detached"):
                session.send("3")
            with pytest.raises(SessionClosed):
                session.save()
        assert isinstance(saved, SavedSession)
        assert "k1" in saved
        assert "k1" not in repr(saved)
        async with session_at(url, resume=json.loads(json.dumps(saved))) as (session, notices):
            assert (session.session_id, session.route) == ("s1", "chat")
            a, b = session.resumed["a"], session.resumed["b"]
            assert [part async for part in a] == ["Ada"]
            reply = await a
            assert not reply.complete
            assert "incomplete" in repr(reply)
            assert (await b).text == "ok"
        assert notices == [Resumed(None)]


async def test_saving_while_it_goes_on() -> None:
    async def first(peer: Peer) -> None:
        await peer.open()
        await peer.done(3, await peer.accept(2), text="ok")
        await peer.socket.wait_closed()

    async def second(peer: Peer) -> None:
        await peer.resume(3, 3)
        await peer.end(4)

    async with gateway(first, second) as url, session_at(url, close_timeout=0.0) as (session, _):
        await session.send("hi")
        saved = session.save()
        assert session.state == "open"
        async with session_at(url, resume=saved):
            pass


@pytest.mark.parametrize("lost", [None, [4, 4]])
async def test_what_nothing_is_heard_of(lost: list[int] | None) -> None:
    """A message that no event speaks of can't be asked about: its text is not here."""

    async def scene(peer: Peer) -> None:
        await peer.resume(3, 5, lost=lost)
        if lost is None:
            await peer.delta(4, "accepted", 5, "…")
        await peer.say("session.updated", event=5, expires_at=None)
        if lost is None:
            await peer.done(6, "accepted", deltas=6)
        again = await peer.expect("message.send", id="written", text="again")
        await peer.say("message.duplicate", id=again["id"], status="completed")
        await peer.end(7 if lost is None else 6)

    async with gateway(scene) as url, session_at(url, resume=SAVED) as (session, _):
        accepted, written = session.resumed["accepted"], session.resumed["written"]
        with pytest.raises(MessageFailed, match="not known") as failed:
            await written
        assert failed.value.outcome is Outcome.UNKNOWN
        if lost is None:
            assert (await accepted).text == "…"
        else:
            with pytest.raises(MessageFailed):
                await accepted
        reply = await session.send("again", id="written")
        assert (reply.status, reply.complete, reply.text) == ("completed", False, "")


async def test_a_connection_that_breaks_before_all_is_here() -> None:
    async def first(peer: Peer) -> None:
        await peer.resume(3, 5)

    async def second(peer: Peer) -> None:
        await peer.resume(3, 5, "k1'")
        await peer.say("message.accepted", event=4, id="written", queued=0)
        await peer.done(5, "accepted", text="1")
        await peer.expect("message.cancel", id="written")
        await peer.done(6, "written", status="cancelled", outcome="not_invoked")
        await peer.end(7)

    async with gateway(first, second) as url, session_at(url, resume=SAVED) as (session, _):
        accepted, written = session.resumed["accepted"], session.resumed["written"]
        assert (await accepted).text == "1"
        await written.cancel()
        assert (await written).outcome is Outcome.NOT_INVOKED


@pytest.mark.parametrize("reopen", [True, False])
async def test_one_that_is_gone(reopen: bool) -> None:
    async def gone(peer: Peer) -> None:
        await peer.expect("session.open", session_id="s1", resume_key="k1", last_event=3)
        await peer.socket.close(4410)

    async def another(peer: Peer) -> None:
        assert "session_id" not in await peer.expect("session.open")
        await peer.opened("s2", "k2")
        await peer.end(2)

    async with gateway(gone, *([another] if reopen else [])) as url:
        if not reopen:
            with pytest.raises(ConnectionFailed, match="gone") as failed:
                async with connect(url, resume=SAVED, reopen=False):
                    pass
            assert failed.value.code == 4410
            return
        async with session_at(url, resume=SAVED) as (session, notices):
            assert session.session_id == "s2"
            with pytest.raises(MessageFailed, match="gone"):
                await session.resumed["accepted"]
        assert [notice.replaces for notice in notices if isinstance(notice, Opened)] == ["s1"]


async def test_nothing_to_save() -> None:
    async def first(peer: Peer) -> None:
        await peer.open()
        await peer.socket.close(4410)

    async def second(peer: Peer) -> None:
        await peer.expect("session.open")
        await in_time(asked.wait())
        await peer.opened("s2", "k2")
        await peer.end(2)

    asked = asyncio.Event()
    async with gateway(first, second) as url, session_at(url) as (session, _):
        await until(lambda: session.session_id is None)
        with pytest.raises(SessionClosed, match="at the moment"):
            session.save()
        asked.set()
        await until(lambda: session.session_id == "s2")


@pytest.mark.parametrize("wrong", ["", "{}", "k1", SAVED.replace("3,", '"3",'), "\ud800"])
async def test_what_was_never_saved(wrong: str) -> None:
    with pytest.raises(ValueError, match="resume") as failed:
        async with connect("ws://127.0.0.1:9/ws", resume=wrong):
            pass
    assert "k1" not in str(failed.value)
