"""What the synchronous face adds to the client: threads that wait, and stop waiting."""

import asyncio
import contextlib
import inspect
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

import gateway.client as asynchronous
from gateway.client import (
    ConnectionFailed,
    MessageFailed,
    Notice,
    Opened,
    SavedSession,
    SessionClosed,
    Updated,
    sync,
)
from gateway.errors import Outcome
from tests.client.gateway import Peer, gateway
from tests.support.client import in_time
from tests.support.timing import UNIT


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """None is left behind."""
    yield
    assert [each for each in threading.enumerate() if each.name == "session-gateway"] == []


@contextmanager
def session_at(url: str, **options: Any) -> Iterator[sync.SessionClient]:
    times = {"close_timeout": 0.2 * UNIT, "open_timeout": 5 * UNIT}
    with sync.connect(url, **{**times, **options}) as session:
        yield session


def public(kind: type) -> dict[str, Any]:
    return {name: value for name, value in vars(kind).items() if not name.startswith("_")}


def test_it_has_the_names_of_the_other() -> None:
    ours, theirs = (
        inspect.signature(function) for function in (sync.connect, asynchronous.connect)
    )
    assert list(ours.parameters) == list(theirs.parameters)
    for name in ours.parameters:
        assert ours.parameters[name].default == theirs.parameters[name].default
    expected = public(asynchronous.SessionClient)
    del expected["start"]  # the block's
    assert public(sync.SessionClient).keys() == expected.keys()
    for name, method in public(sync.SessionClient).items():
        if inspect.isfunction(method):
            assert inspect.signature(method).parameters == (
                inspect.signature(expected[name]).parameters
            )
        assert not inspect.iscoroutinefunction(method)
    assert public(sync.Turn).keys() == {"id", "ended", "result", "cancel"}


async def test_parts_results_and_what_remains_after_the_block() -> None:
    async def scene(peer: Peer) -> None:
        await peer.open()
        first = await peer.accept(2, text="Hello", stream=True)
        await peer.delta(3, first, 0, "Hi ")
        await peer.delta(4, first, 1, "Ada")
        await peer.done(5, first, deltas=2)
        failing = await peer.accept(6)
        error = {"code": "model_error", "message": "No.", "retryable": False, "outcome": "invoked"}
        await peer.done(7, failing, status="failed", error=error)
        left = await peer.accept(8)
        await peer.delta(9, left, 0, "one ")
        await peer.delta(10, left, 1, "two")
        await peer.done(11, left, deltas=2)
        await peer.end(12)

    def use(url: str) -> None:
        with session_at(url) as session:
            assert (session.session_id, session.route, session.state) == ("s1", "chat", "open")
            assert session.expires_at is not None
            turn = session.send("Hello", stream=True)
            for part in turn:
                assert part == "Hi "
                break
            assert list(turn) == ["Ada"], "a second loop goes on where the first one stopped"
            assert list(turn) == []
            assert turn.ended
            assert turn.result().text == "Hi Ada"
            with pytest.raises(MessageFailed) as failed:
                list(session.send("fail"))
            assert failed.value.outcome is Outcome.INVOKED
            left = session.send("left", id="left")
            left.result()
        assert list(left) == ["one ", "two"]
        assert left.result().text == "one two"
        left.cancel()
        session.close()
        assert (left.id, session.state) == ("left", "closed")
        assert "closed" in repr(session)
        assert "ended" in repr(left)
        for late in (
            partial(session.send, "more"),
            session.save,
            session.detach,
            partial(session.refresh, "t"),
        ):
            with pytest.raises(SessionClosed):
                late()

    async with gateway(scene) as url:
        await in_time(asyncio.to_thread(use, url))


async def test_waiting_has_an_end() -> None:
    """A time-out does not stop the turn; the end of the session ends those who wait for it."""

    async def scene(peer: Peer) -> None:
        await peer.open()
        slow = await peer.accept(2)
        other = await peer.accept(3)
        await peer.expect("message.cancel", id=slow)
        await peer.done(4, slow, status="cancelled", outcome="unknown")
        await in_time(asyncio.to_thread(waits.wait))
        await peer.expect("session.close")
        await peer.done(5, other, status="cancelled", outcome="unknown")
        await peer.say("session.closed", event=6, reason="client")
        await peer.socket.close(1000)

    waits = threading.Event()

    def use(url: str) -> list[str]:
        found: list[str] = []
        with session_at(url) as session:
            slow, other = session.send("slow"), session.send("other")
            with pytest.raises(TimeoutError):
                slow.result(timeout=0.01)
            assert not slow.ended
            slow.cancel()
            assert slow.result().status == "cancelled"

            def wait(look: Callable[[], object]) -> None:
                waits.set()
                found.append(str(look()))

            waiting = [
                threading.Thread(target=wait, args=(look,))
                for look in (lambda: other.result().status, lambda: list(other))
            ]
            for thread in waiting:
                thread.start()
            waits.wait()
        for thread in waiting:
            thread.join()
        return sorted(found)

    async with gateway(scene) as url:
        assert await in_time(asyncio.to_thread(use, url)) == ["[]", "cancelled"]


async def test_several_threads_share_a_turn() -> None:
    count = 40

    async def scene(peer: Peer) -> None:
        await peer.open()
        turn = await peer.accept(2)
        for index in range(count):
            await peer.delta(3 + index, turn, index, f"{index} ")
        await peer.done(3 + count, turn, deltas=count)
        await peer.end(4 + count)

    def use(url: str) -> None:
        with session_at(url) as session:
            turn = session.send("Hello")
            parts: list[str | bytes] = []
            readers = [threading.Thread(target=lambda: parts.extend(turn)) for _ in range(3)]
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join()
            assert sorted(parts) == sorted(f"{index} " for index in range(count))

    async with gateway(scene) as url:
        await in_time(asyncio.to_thread(use, url))


async def test_a_program_with_a_loop_of_its_own_and_notices() -> None:
    async def scene(peer: Peer) -> None:
        await peer.open()
        first = await peer.accept(2, text="hi")
        await peer.say("session.updated", event=3, expires_at=None)
        second = await peer.accept(4, text="from a notice")
        await peer.done(5, first, text="ok")
        await peer.done(6, second, text="ok")
        await peer.end(7)

    async def use(url: str) -> None:
        told: list[Notice] = []
        waited: list[BaseException] = []
        turns: list[sync.Turn] = []

        def on_notice(notice: Notice) -> None:
            told.append(notice)
            if isinstance(notice, Opened):
                return  # there is no session yet to send with
            turns.append(session.send("from a notice"))
            try:
                turns[0].result()
            except RuntimeError as error:
                waited.append(error)

        def token() -> str:
            assert threading.current_thread() is not threading.main_thread()
            return "t"

        with session_at(url, on_notice=on_notice, token=token) as session:
            assert session.send("hi").result().text == "ok"
            assert turns[0].result().text == "ok"
        assert [type(notice) for notice in told] == [Opened, Updated]
        (error,) = waited
        assert "on_notice" in str(error)

    async with gateway(scene) as url:
        await in_time(asyncio.to_thread(lambda: asyncio.run(use(url))))


async def test_what_fails_leaves_no_thread() -> None:
    with pytest.raises(ConnectionFailed), sync.connect("ws://127.0.0.1:9/ws"):
        pass
    with (
        pytest.raises(ValueError, match="is not a WebSocket address"),
        sync.connect("http://127.0.0.1:9/ws"),
    ):
        pass

    async def scene(peer: Peer) -> None:
        await peer.open()
        await peer.end(2)

    def use(url: str) -> None:
        with pytest.raises(ZeroDivisionError), session_at(url):
            raise ZeroDivisionError

    async with gateway(scene) as url:
        await in_time(asyncio.to_thread(use, url))


async def test_leaving_and_going_on() -> None:
    async def first(peer: Peer) -> None:
        await peer.open()
        await peer.accept(2, id="a")
        await peer.delta(3, "a", 0, "Hello ")
        await peer.socket.wait_closed()

    async def second(peer: Peer) -> None:
        await peer.resume(3, 3)
        await peer.delta(4, "a", 1, "Ada")
        await peer.done(5, "a", deltas=2)
        await peer.end(6)

    def use(url: str) -> None:
        with session_at(url) as session:
            turn = session.send("1", id="a")
            assert next(iter(turn)) == "Hello "
            saved = session.detach()
            assert isinstance(saved, SavedSession)
            with pytest.raises(MessageFailed, match="was detached"):
                turn.result()
        with session_at(url, resume=saved) as session:
            assert list(session.resumed["a"]) == ["Ada"]

    async with gateway(first, second) as url:
        await in_time(asyncio.to_thread(use, url))


PROGRAM = """
import sys
from gateway.client.sync import connect

with connect(sys.argv[1]) as session:
    session.send("one").result()
    turn = session.send("two")
    {waits}
"""


@pytest.mark.parametrize("waits", ["turn.result()", "list(turn)", "turn.cancel()"])
async def test_an_interrupt_closes_the_session(waits: str) -> None:
    """Ctrl-C in a program that waits: it ends as ever, and its session does too."""

    async def scene(peer: Peer) -> None:
        await peer.open()
        await peer.done(3, await peer.accept(2), text="ok")
        await peer.accept(4)
        if "cancel" in waits:
            await peer.expect("message.cancel")
        process.send_signal(signal.SIGINT)
        await peer.end(5)

    async with gateway(scene) as url:
        program = PROGRAM.format(waits=waits)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, url), stderr=asyncio.subprocess.PIPE
        )
        _, err = await in_time(process.communicate())
        assert process.returncode == -signal.SIGINT
        assert err.decode().strip().endswith("KeyboardInterrupt")


LEFT = """
import os, sys
from gateway.client import SessionClosed
from gateway.client.sync import connect

def parts():
    with connect(sys.argv[1]) as session:
        yield session.send("one").result().text
        yield "is not asked for"

def child(session):
    if os.fork():
        assert os.wait()[1] == 0
        return
    try:
        session.send("one").result()
    except SessionClosed:
        sys.exit()

{leaves}
"""


@pytest.mark.parametrize(
    "leaves",
    [
        "block = connect(sys.argv[1]); session = block.__enter__(); session.send('one').result()",
        "all = parts(); next(all)",
        "with connect(sys.argv[1]) as session: child(session); session.send('one').result()",
    ],
    ids=["a block", "a generator", "a child"],
)
async def test_what_is_left_open_lets_the_program_end(leaves: str) -> None:
    """Also in a process that is forked, which has the block and not its thread."""

    async def scene(peer: Peer) -> None:
        await peer.open()
        await peer.done(3, await peer.accept(2, text="one"), text="ok")
        if "child" in leaves:
            await peer.end(4)
        await peer.socket.wait_closed()

    async with gateway(scene) as url:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", LEFT.format(leaves=leaves), url), stderr=asyncio.subprocess.PIPE
        )
        try:
            _, err = await in_time(process.communicate())
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        assert (process.returncode, err.decode()) == (0, "")
