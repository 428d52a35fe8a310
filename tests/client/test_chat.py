"""The terminal chat as a program: from a pipe, and in a terminal that a test types into."""

import asyncio
import contextlib
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input

from gateway.client.notices import Disconnected, Expiring, Notice, Refused, Renewed, Resumed
from gateway.client.terminal import Input
from gateway.client.words import in_words
from gateway.errors import ErrorCode
from tests.client.gateway import Peer, gateway
from tests.support.client import in_time
from tests.support.timing import UNIT

CTRL_C, CTRL_D = "\x03", "\x04"
ERASED = "\x1b[2K"
"""A line of the terminal is."""
ASKED = "The model has forgotten the conversation. Send this anyway? [y/N]"
Result = tuple[int | None, str, str]


async def piped(url: str, text: str, *arguments: str) -> Result:
    """Chat with this text as the input: the exit code, the output and the errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "chat", url, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await in_time(process.communicate(text.encode()))
    return process.returncode, out.decode(), err.decode()


class Terminal:
    """A chat in a terminal."""

    def __init__(self, fd: int, process: asyncio.subprocess.Process) -> None:
        self.fd = fd
        self.process = process
        self.screen = ""
        self._position = 0

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self.fd, text.encode())

    def look(self) -> None:
        """Take in what has been written."""
        with contextlib.suppress(BlockingIOError):
            self.screen += os.read(self.fd, 4096).decode(errors="replace")

    async def shows(self, text: str) -> None:
        """Wait for that text, after what was waited for before."""
        async with asyncio.timeout(20 * UNIT):
            while text not in self.screen[self._position :]:
                await asyncio.sleep(0.01)
                try:
                    self.look()
                except OSError as error:
                    raise AssertionError(f"no {text!r} in:\n{self.screen}") from error
        self._position = self.screen.index(text, self._position) + len(text)


@asynccontextmanager
async def terminal(
    url: str, interrupts: signal.Handlers = signal.SIG_DFL
) -> AsyncIterator[Terminal]:
    """A chat in a terminal of its own, started with Ctrl-C at its default or ignored."""
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)

    def prepare() -> None:
        os.login_tty(theirs)  # so that its keys send signals
        signal.signal(signal.SIGINT, interrupts)  # whatever the tests were started with

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "chat", url),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=prepare,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
    )
    os.close(theirs)
    try:
        yield Terminal(ours, process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(ours)


async def test_lines_in_and_replies_out() -> None:
    async def scene(peer: Peer) -> None:
        await peer.open()
        one = await peer.accept(2, text="My name is Ada.")
        await peer.delta(3, one, 0, "Hello ")
        await peer.delta(4, one, 1, "Ada\x1b[2J")
        await peer.done(5, one, deltas=2)
        two = await peer.accept(6, text="[bold]né[/]")
        await peer.done(7, two, text="[red]as it is[/]\n")
        await peer.end(8)

    async with gateway(scene) as url:
        code, out, err = await piped(url, "My name is Ada.\n\n[bold]né[/]\n")
    assert (code, out) == (0, "Hello Ada[2J\n[red]as it is[/]\n")
    assert "Session s1 on chat expires on 2027-01-15" in err


async def test_what_fails_is_said_and_the_rest_goes_on() -> None:
    async def scene(peer: Peer) -> None:
        await peer.open()
        error = {
            "code": "throttled",
            "message": "Too busy.",
            "retryable": True,
            "outcome": "not_invoked",
        }
        await peer.done(3, await peer.accept(2), status="failed", error=error)
        await peer.done(5, await peer.accept(4), text="ok")
        await peer.accept(6)
        await peer.socket.close(4409)

    async with gateway(scene) as url:
        code, out, err = await piped(url, "a\nb\nc\nd\n")
    assert (code, out) == (1, "ok\n")
    assert "Too busy. (throttled, not_invoked) You can send it again." in err
    assert "The session has ended: another connection took the session over" in err


async def test_nobody_listens() -> None:
    code, out, err = await piped("ws://127.0.0.1:9/ws", "hi\n", "--route", "chat")
    assert (code, out) == (1, "")
    assert err.startswith("session-gateway: ws://127.0.0.1:9/ws/chat: ")
    assert "session-gateway demo" in err
    assert err.count("\n") == 1


async def test_an_error_repeats_no_password() -> None:
    _, _, err = await piped("ws://me:secret@127.0.0.1:9/ws", "hi\n")
    assert err.startswith("session-gateway: ws://***@127.0.0.1:9/ws: ")
    code, _, err = await piped("ws://secret@127.0.0.1:9/ws", "hi\n")
    assert code == 2
    assert (
        "ws://***@127.0.0.1:9/ws is not a WebSocket address: username provided without password"
        in err
    )


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:9", "such as http://127.0.0.1:9"),
        ("http://127.0.0.1:9/ws/one", "the route one, and not chat"),
        ("http://127.0.0.1:99999", "ort"),
    ],
)
async def test_no_address(address: str, words: str) -> None:
    code, _, err = await piped(address, "", "--route", "chat")
    assert code == 2
    assert words in err
    assert err.count("\n") == 1


async def test_the_gateways_own_address() -> None:
    async def scene(peer: Peer) -> None:
        assert peer.socket.request is not None
        assert peer.socket.request.path == "/ws/chat"
        await peer.open()
        await peer.end(2)

    async with gateway(scene) as url:
        base = url.replace("ws://", "http://").removesuffix("/ws")
        code, _, err = await piped(base, "", "--route", "chat")
    assert code == 0, err


async def test_a_script_ends_with_its_session() -> None:
    """What is left of it was written for that one, and nobody can be asked."""

    async def scene(peer: Peer) -> None:
        await peer.open()
        await peer.done(3, await peer.accept(2, text="/new"), text="ok", dropped_turns=0)
        error = {
            "code": "session_lost",
            "message": "It is gone.",
            "retryable": False,
            "outcome": "not_invoked",
        }
        await peer.done(5, await peer.accept(4, text="/help"), status="failed", error=error)
        await peer.say("session.closed", event=6, reason="lost")
        await peer.socket.close(4410)

    async with gateway(scene) as url:
        code, out, err = await piped(url, "/new\n/help\nthree\nfour\n")
    assert (code, out) == (1, "ok\n")
    assert "It is gone. (session_lost, not_invoked)" in err
    assert err.count("has ended: the session is gone. The rest of the input was not sent.") == 1
    assert " s in all" not in err
    assert "waiting" not in out + err


async def test_what_no_longer_fits_is_said_when_it_begins_and_has_doubled() -> None:
    dropped = [0, 1, 1, 2, 3, 5]

    async def scene(peer: Peer) -> None:
        await peer.open()
        for number, turns in enumerate(dropped):
            event = 2 + 2 * number
            await peer.done(event + 1, await peer.accept(event), text="ok", dropped_turns=turns)
        await peer.end(2 + 2 * len(dropped))

    async with gateway(scene) as url:
        code, _, err = await piped(url, "a\n" * len(dropped))
    assert code == 0
    assert [line for line in err.splitlines() if "too long" in line] == [
        f"The conversation is too long for the model: the oldest {turns} left out."
        for turns in ("turn was", "2 turns were", "5 turns were")
    ]


async def test_in_a_terminal() -> None:
    ids: list[str] = []

    async def first(peer: Peer) -> None:
        await peer.open()
        one = await peer.accept(2, text="Count")
        await peer.delta(3, one, 0, "One, ")
        await peer.expect("message.cancel", id=one)
        await peer.done(4, one, status="cancelled", deltas=1, outcome="unknown")
        await in_time(stopped.wait())
        await peer.say("session.renewed", event=5, reason="lost", context="lost", expires_at=None)
        ids.append(await peer.accept(6, text="More"))
        await peer.delta(7, ids[0], 0, "Tw")
        await in_time(begun.wait())

    async def second(peer: Peer) -> None:
        await peer.resume(7, 9)
        await peer.delta(8, ids[0], 1, "o.")
        await peer.done(9, ids[0], deltas=2)
        await peer.end(10)

    stopped, begun = asyncio.Event(), asyncio.Event()
    async with gateway(first, second) as url, terminal(url) as chat:
        await chat.shows("Session s1 on chat")
        await chat.shows("you>")
        chat.type("Count\r")
        await chat.shows("One, ")
        chat.type(CTRL_C)
        await chat.shows("Stopped.")
        stopped.set()
        await chat.shows("the model has forgotten the conversation.")
        await chat.shows("you>")
        chat.type("More\r")
        await chat.shows("Tw")
        begun.set()
        await chat.shows("Disconnected")
        await chat.shows("Nothing was lost")
        await chat.shows("o.")
        await chat.shows("you>")
        chat.type(CTRL_C)
        await chat.shows("Press Ctrl-C again to quit")
        chat.type(CTRL_C)
        assert await in_time(chat.process.wait()) == 0


async def test_waiting_and_timing() -> None:
    """Something moves until the first part is there."""

    async def scene(peer: Peer) -> None:
        await peer.open()
        one = await peer.accept(2, text="interrupted")
        await in_time(waiting.wait())
        await peer.delta(3, one, 0, "One, ")
        await peer.delta(4, one, 1, "two")
        await peer.done(5, one, deltas=2)
        await peer.done(7, await peer.accept(6), text="whole")
        await peer.end(8)

    waiting = asyncio.Event()
    async with gateway(scene) as url, terminal(url) as chat:
        await chat.shows("you>")
        chat.type("interrupted\r")
        await chat.shows("waiting")
        waiting.set()
        await chat.shows(ERASED)
        await chat.shows("One, two")
        await chat.shows(" s to the first part, ")
        await chat.shows(" s in all")
        await chat.shows("you>")
        chat.type("More\r")
        await chat.shows("whole")
        await chat.shows(" s\x1b")
        await chat.shows("you>")
        chat.type(CTRL_D)
        assert await in_time(chat.process.wait()) == 0


async def test_commands() -> None:
    async def first(peer: Peer) -> None:
        await peer.open()
        await peer.done(3, await peer.accept(2, text="/etc is full"), text="ok")
        await peer.end(4)

    async def second(peer: Peer) -> None:
        await peer.open("s2", "k2")
        await peer.end(2)

    async with gateway(first, second) as url, terminal(url) as chat:
        await chat.shows("Session s1")
        await chat.shows("Type /help for the commands")
        await chat.shows("you>")
        chat.type("/help\r")
        await chat.shows("/new    start a new session")
        await chat.shows("type // instead")
        await chat.shows("you>")
        chat.type("/etc is full\r")
        await chat.shows("Unknown command /etc. Type /help for the commands.")
        await chat.shows("To send it to the model, type: //etc is full")
        await chat.shows("you>")
        chat.type("//etc is full\r")
        await chat.shows("ok")
        await chat.shows("you>")
        chat.type("/new\r")
        await chat.shows("Session s2")
        await chat.shows("you>")
        chat.type("/quit\r")
        assert await in_time(chat.process.wait()) == 0


async def test_an_interrupt_clears_the_line() -> None:
    async def scene(peer: Peer) -> None:
        await peer.open()
        await peer.done(3, await peer.accept(2, text="that"), text="ok")
        await peer.end(4)

    async with gateway(scene) as url, terminal(url) as chat:
        await chat.shows("you>")
        for _ in range(3):  # each but the first comes after an empty line was interrupted
            chat.type("this")
            await chat.shows("this")
            chat.type(CTRL_C)
            await chat.shows("you>")
            chat.type(CTRL_C)
            await chat.shows("Press Ctrl-C again to quit")
            await chat.shows("you>")
        chat.type("that\r")
        await chat.shows("ok")
        await chat.shows("you>")
        os.kill(chat.process.pid, signal.SIGINT)  # no key, and the same
        await chat.shows("Press Ctrl-C again to quit")
        await chat.shows("you>")
        os.kill(chat.process.pid, signal.SIGINT)
        assert await in_time(chat.process.wait()) == 0


class TestAnotherSession:
    """What was typed for one that is gone is not sent to the next one unasked."""

    async def test_a_line_that_had_been_begun(self) -> None:
        async def first(peer: Peer) -> None:
            await peer.open()
            await in_time(begun.wait())
            await peer.socket.close(4410)

        async def second(peer: Peer) -> None:
            await peer.open("s2", "k2")
            await peer.done(3, await peer.accept(2, text="halfway"), text="ok")
            await peer.done(5, await peer.accept(4, text="more"), text="ok")
            await peer.end(6)

        begun = asyncio.Event()
        async with gateway(first, second) as url, terminal(url) as chat:
            await chat.shows("you>")
            chat.type("half")
            await chat.shows("half")
            begun.set()
            await chat.shows("The session is gone. Opening a new one …")
            await chat.shows("New session s2")
            await chat.shows("half")  # again, below
            chat.type("way\r")
            await chat.shows(ASKED)
            chat.type("y\r")
            await chat.shows("ok")
            await chat.shows("you>")
            chat.type("more\r")
            await chat.shows("ok")
            await chat.shows("you>")
            chat.type(CTRL_D)
            assert await in_time(chat.process.wait()) == 0

    async def test_a_line_begun_after_it_was_said(self) -> None:
        async def first(peer: Peer) -> None:
            await peer.open()
            await in_time(there.wait())
            await peer.socket.close(4410)

        async def second(peer: Peer) -> None:
            await peer.open("s2", "k2")
            await peer.done(3, await peer.accept(2, text="hello"), text="ok")
            await peer.end(4)

        there = asyncio.Event()
        async with gateway(first, second) as url, terminal(url) as chat:
            await chat.shows("you>")
            there.set()
            await chat.shows("New session s2")
            chat.type("hello\r")
            await chat.shows("ok")
            assert ASKED not in chat.screen
            await chat.shows("you>")
            chat.type(CTRL_D)
            assert await in_time(chat.process.wait()) == 0

    @pytest.mark.parametrize("answer", ["n\r", "\r", CTRL_C, CTRL_D])
    async def test_a_line_sent_while_the_gateway_was_away(self, answer: str) -> None:
        """The draft is there to be changed."""

        async def first(peer: Peer) -> None:
            await peer.open()
            await in_time(there.wait())

        async def gone(peer: Peer) -> None:
            await peer.expect("session.open", session_id="s1")
            await in_time(sent.wait())
            await peer.socket.close(4410)

        async def second(peer: Peer) -> None:
            await peer.open("s2", "k2")
            await peer.done(3, await peer.accept(2, text="hello again"), text="ok")
            await peer.end(4)

        there, sent = asyncio.Event(), asyncio.Event()
        async with gateway(first, gone, second) as url, terminal(url) as chat:
            await chat.shows("you>")
            there.set()
            await chat.shows("Disconnected")
            chat.type("hello\r")
            await chat.shows("waiting")
            sent.set()
            await chat.shows(ASKED)
            chat.type(answer)
            await chat.shows("you> hello")
            chat.type(" again\r")
            await chat.shows("ok")
            await chat.shows("you>")
            chat.type(CTRL_D)
            assert await in_time(chat.process.wait()) == 0

    async def test_a_line_that_the_model_was_not_asked(self) -> None:
        async def first(peer: Peer) -> None:
            await peer.open()
            error = {
                "code": "session_lost",
                "message": "It is gone.",
                "retryable": False,
                "outcome": "not_invoked",
            }
            await peer.done(3, await peer.accept(2, text="hello"), status="failed", error=error)
            await peer.say("session.closed", event=4, reason="lost")
            await peer.socket.close(4410)

        async def second(peer: Peer) -> None:
            await peer.expect("session.open")
            await in_time(asked.wait())
            await peer.opened("s2", "k2")
            await peer.done(3, await peer.accept(2, text="hello"), text="ok")
            await peer.end(4)

        asked = asyncio.Event()
        async with gateway(first, second) as url, terminal(url) as chat:
            await chat.shows("you>")
            chat.type("hello\r")
            await chat.shows(ASKED)
            await chat.shows("The session is gone. Opening a new one …")
            chat.type("yes\r")
            await chat.shows("waiting")
            asked.set()
            await chat.shows("ok")
            await chat.shows("you>")
            chat.type(CTRL_D)
            assert await in_time(chat.process.wait()) == 0

    @pytest.mark.parametrize("ahead", ["and then?\ryes\r", "and then?\ry"])
    async def test_lines_typed_ahead(self, ahead: str) -> None:
        """Each is asked about, and none is an answer to the question about the one before."""

        async def first(peer: Peer) -> None:
            await peer.open()
            one = await peer.accept(2, text="One")
            await peer.delta(3, one, 0, "Once ")
            await in_time(typed.wait())
            await peer.socket.close(4410)

        async def second(peer: Peer) -> None:
            await peer.open("s2", "k2")
            await peer.done(3, await peer.accept(2, text="and then? Tell!"), text="the end")
            await peer.done(5, await peer.accept(4, text="yes"), text="ok")
            await peer.done(7, await peer.accept(6, text="more"), text="fine")
            await peer.end(8)

        typed = asyncio.Event()
        async with gateway(first, second) as url, terminal(url) as chat:
            await chat.shows("you>")
            chat.type("One\r")
            await chat.shows("Once ")
            chat.type(ahead)
            for line in ahead.split("\r"):  # the terminal shows them, so that it has them
                await chat.shows(line)
            typed.set()
            await chat.shows("Opening a new one")
            await chat.shows("you> and then?")
            await chat.shows(ASKED)
            chat.type("n\r")
            await chat.shows("you> and then?")
            chat.type(" Tell!\r")
            await chat.shows("the end")
            await chat.shows("you> y")
            if not ahead.endswith("\r"):
                chat.type("es\r")
            await chat.shows(ASKED)
            chat.type("y\r")
            await chat.shows("ok")
            await chat.shows("you>")
            chat.type("more\r")
            await chat.shows("fine")
            await chat.shows("you>")
            chat.type(CTRL_D)
            assert await in_time(chat.process.wait()) == 1  # the reply that was cut off

    async def test_a_line_typed_before_the_question_is_no_answer(self) -> None:
        async def first(peer: Peer) -> None:
            await peer.open()
            one = await peer.accept(2, text="hello")
            await in_time(typed.wait())
            error = {
                "code": "session_lost",
                "message": "It is gone.",
                "retryable": False,
                "outcome": "not_invoked",
            }
            await peer.done(3, one, status="failed", error=error)
            await in_time(asked.wait())
            await peer.socket.close(4410)

        async def second(peer: Peer) -> None:
            await peer.open("s2", "k2")
            await peer.done(3, await peer.accept(2, text="hello"), text="ok")
            await peer.done(5, await peer.accept(4, text="y"), text="fine")
            await peer.end(6)

        typed, asked = asyncio.Event(), asyncio.Event()
        async with gateway(first, second) as url, terminal(url) as chat:
            await chat.shows("you>")
            chat.type("hello\r")
            await chat.shows("waiting")
            chat.type("y\r")
            await chat.shows("y\r\n")
            typed.set()
            await chat.shows(ASKED)
            asked.set()
            await chat.shows("New session s2")
            chat.type("yes\r")
            await chat.shows("ok")
            await chat.shows("you> y")
            await chat.shows(ASKED)
            chat.type("y\r")
            await chat.shows("fine")
            await chat.shows("you>")
            chat.type(CTRL_D)
            assert await in_time(chat.process.wait()) == 0

    async def test_lines_typed_ahead_for_the_next_one(self) -> None:
        """They are sent unasked: a new session was wanted, or the old one was known to be gone."""

        async def first(peer: Peer) -> None:
            await peer.open()
            one = await peer.accept(2, text="One")
            await peer.delta(3, one, 0, "Once ")
            await in_time(typed.wait())
            await peer.done(4, one, deltas=1)
            await peer.end(5)

        async def second(peer: Peer) -> None:
            await peer.open("s2", "k2")
            await peer.done(3, await peer.accept(2, text="hello"), text="ok")
            await in_time(there.wait())
            await peer.socket.close(4410)

        async def third(peer: Peer) -> None:
            await peer.expect("session.open")
            await in_time(ahead.wait())
            await peer.opened("s3", "k3")
            await peer.done(3, await peer.accept(2, text="Two"), text="2")
            await peer.done(5, await peer.accept(4, text="Three"), text="3")
            await peer.end(6)

        typed, there, ahead = asyncio.Event(), asyncio.Event(), asyncio.Event()
        async with gateway(first, second, third) as url, terminal(url) as chat:
            await chat.shows("you>")
            chat.type("One\r")
            await chat.shows("Once ")
            chat.type("/new\rhello\r")
            await chat.shows("hello")
            typed.set()
            await chat.shows("Session s2")
            await chat.shows("ok")
            await chat.shows("you>")
            there.set()
            await chat.shows("Opening a new one")
            await chat.shows("you>")
            chat.type("Two\r")
            await chat.shows("waiting")
            chat.type("Three\r")
            await chat.shows("Three\r\n")
            ahead.set()
            await chat.shows("New session s3")
            await chat.shows("you> Three")
            await chat.shows("3")
            await chat.shows("you>")
            assert ASKED not in chat.screen
            chat.type(CTRL_D)
            assert await in_time(chat.process.wait()) == 0

    async def test_none_is_to_be_had(self) -> None:
        async def first(peer: Peer) -> None:
            await peer.open()
            await in_time(there.wait())
            await peer.socket.close(4410)

        async def second(peer: Peer) -> None:
            await peer.expect("session.open")
            await in_time(typed.wait())
            await peer.socket.close(4403)

        there, typed = asyncio.Event(), asyncio.Event()
        async with gateway(first, second) as url, terminal(url) as chat:
            await chat.shows("you>")
            there.set()
            await chat.shows("Opening a new one")
            chat.type("hello\r")
            await chat.shows("waiting")
            typed.set()
            await chat.shows("The session has ended: this client or this page's origin may not use")
            assert await in_time(chat.process.wait()) == 1


async def test_no_session_is_to_be_had() -> None:
    """It is said once."""

    async def scene(peer: Peer) -> None:
        await peer.expect("session.open")
        await peer.say("error", code="unavailable", message="Misconfigured.", retryable=False)
        await peer.socket.close(4503)

    async with gateway(scene) as url:
        code, _, err = await piped(url, "hi\n")
    assert code == 1
    assert err == f"session-gateway: {url}: Misconfigured.\n"


async def test_leaving_with_the_end_of_the_input() -> None:
    async def scene(peer: Peer) -> None:
        await peer.open()
        await peer.end(2)

    async with gateway(scene) as url, terminal(url) as chat:
        await chat.shows("you>")
        chat.type("words that are not se\x7f\x7f")
        chat.type("\x15")
        chat.type(CTRL_D)
        assert await in_time(chat.process.wait()) == 0


@pytest.mark.parametrize("interrupts", [signal.SIG_DFL, signal.SIG_IGN], ids=["heeded", "ignored"])
async def test_leaving_before_there_is_a_session(interrupts: signal.Handlers) -> None:
    async def scene(peer: Peer) -> None:
        await peer.expect("session.open")
        reached.set()
        await in_time(chat.process.wait())

    reached = asyncio.Event()
    async with gateway(scene) as url, terminal(url, interrupts) as chat:
        await in_time(reached.wait())
        chat.type(CTRL_C)
        assert await in_time(chat.process.wait()) == 130


async def test_an_interrupt_that_comes_between_two_waits_is_for_the_second() -> None:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[str | None] = loop.create_future()
    ended.set_result(None)
    keys = Input("")
    with keys.watching():
        os.kill(os.getpid(), signal.SIGINT)
        await in_time(keys._interrupted.wait())
        assert not await in_time(keys.interrupts(ended))
        assert await in_time(keys.interrupts(loop.create_future()))
        assert not keys._interrupted.is_set()


async def test_a_line_counts_as_typed_until_it_is_given() -> None:
    """What happens to the session between Enter and that is not known to who typed it."""
    with create_pipe_input() as pipe, create_app_session(input=pipe):
        keys = Input("you> ")
        line = asyncio.create_task(keys.line())
        pipe.send_text("hello\r")
        seen = []
        async with asyncio.timeout(20 * UNIT):
            while not line.done():
                seen.append(keys.typed)
                await asyncio.sleep(0)
        assert line.result() == "hello"
        assert seen[-1] == "hello"
        assert not keys.typed


async def test_losses_are_said() -> None:
    async def first(peer: Peer) -> None:
        await peer.open()
        await peer.accept(2)

    async def second(peer: Peer) -> None:
        opening = await peer.expect("session.open")
        await peer.say(
            "session.resumed",
            session_id="s1",
            resume_key="k2",
            expires_at=None,
            last_event=3,
            lost=[opening["last_event"] + 1, 3],
        )
        message = await peer.expect("message.send")
        await peer.say("message.duplicate", id=message["id"], status="completed")
        await peer.end(4)

    async with gateway(first, second) as url:
        code, _, err = await piped(url, "hi\n")
    assert code == 1
    assert "Some parts of replies were lost" in err
    assert "Parts of this reply were lost while disconnected." in err


async def test_giving_up_on_a_reply_while_the_gateway_is_away() -> None:
    async def first(peer: Peer) -> None:
        await peer.open()
        await peer.accept(2)

    async def second(peer: Peer) -> None:
        await peer.expect("session.open")
        back.set()
        await peer.socket.wait_closed()

    back = asyncio.Event()
    async with gateway(first, second) as url, terminal(url) as chat:
        await chat.shows("you>")
        chat.type("Count\r")
        await chat.shows("Disconnected")
        chat.type(CTRL_C)
        await chat.shows("Press Ctrl-C again to stop waiting.")
        chat.type(CTRL_C)
        await chat.shows("No longer waiting for this reply.")
        await chat.shows("you>")
        await in_time(back.wait())
        chat.type(CTRL_D)
        assert await in_time(chat.process.wait()) == 0


@pytest.mark.parametrize(
    ("notice", "words"),
    [
        (
            Disconnected("the gateway is restarting.", 1012, 0.25),
            "restarting. Reconnecting in 0.2 s",
        ),
        (Resumed((3, 4)), "Some parts of replies were lost"),
        (
            Disconnected("the session is gone", 4410, 0.25),
            "The session is gone. Opening a new one …",
        ),
        (Renewed("expired", "replayed", None), "the model got the whole conversation again."),
        (Renewed("lost", "partial", None), "got only the newest turns again; the others"),
        (
            Renewed("lost", "lost", None),
            "The session was renewed: the model has forgotten the conversation.",
        ),
        (Renewed("lost", "summarised", None), "renewed: context summarised."),
        (Expiring(None), "is about to expire"),
        (Refused(ErrorCode.BAD_MESSAGE, "What?"), "What? (bad_message)"),
    ],
)
def test_notices_in_words(notice: Notice, words: str) -> None:
    assert words in in_words(notice)[0]
