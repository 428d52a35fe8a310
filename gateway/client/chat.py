"""``session-gateway chat``: a conversation in the terminal, or line by line in a script.

In a terminal, replies come as the model says them, Ctrl-C stops one, and what happens to the
session is said between them. Otherwise each line in is a message, replies alone go to the output,
and everything else to the errors.
"""

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

from rich.console import Console
from rich.markup import escape

from gateway.client.errors import MessageFailed, ReplyTooLarge, SessionClosed
from gateway.client.notices import (
    Disconnected,
    Expiring,
    Notice,
    Opened,
    Refused,
    Renewed,
    Resumed,
    Updated,
)
from gateway.client.session import Session, connect
from gateway.client.turns import Turn

with contextlib.suppress(ImportError):
    import readline  # noqa: F401 - gives `input` its line editing

PROMPT = "you> "
SHORT = 8
"""So much of a session's id tells it apart."""
HARMLESS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}
"""For `str.translate`: a reply must not steer the terminal."""

Interrupted = Literal["interrupted"]


class Input:
    """Lines from the standard input, and Ctrl-C, which is neither its end nor an error."""

    def __init__(self, prompt: str) -> None:
        self._prompt = prompt
        self._interrupted = asyncio.Event()
        self._line: asyncio.Future[str | None] | None = None

    @property
    def asking(self) -> bool:
        """Whether the prompt waits for its line."""
        return self._line is not None

    async def line(self) -> str | Interrupted | None:
        """The next line; None at the end."""
        if self._line is None:
            # A thread, since files, pipes and terminals can all be read in one, and line editing
            # works; a daemon, since nothing else ends a read.
            self._line = asyncio.get_running_loop().create_future()
            arguments = (asyncio.get_running_loop(), self._line)
            threading.Thread(target=self._read, args=arguments, daemon=True).start()
        if await self.interrupts(self._line):
            return "interrupted"
        line, self._line = self._line.result(), None
        return line

    async def interrupts(self, work: asyncio.Future[str | None] | asyncio.Task[None]) -> bool:
        """Wait for the work; true where Ctrl-C comes before its end.

        One that came while nobody waited counts, and one that the work's end has overtaken is for
        what is waited for next: none is lost between a reply and the prompt.
        """
        interrupted = asyncio.create_task(self._interrupted.wait())
        try:
            await asyncio.wait([work, interrupted], return_when=asyncio.FIRST_COMPLETED)
        finally:
            interrupted.cancel()
        if work.done():
            return False
        self._interrupted.clear()
        return True

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Take Ctrl-C, and leave the terminal as it was."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._interrupted.set)
        try:
            with _terminal_kept():
                yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    def _read(self, loop: asyncio.AbstractEventLoop, line: asyncio.Future[str | None]) -> None:
        try:
            text: str | None = input(self._prompt)
        except (EOFError, OSError, UnicodeDecodeError):
            text = None
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(_settle, line, text)


def _settle(line: asyncio.Future[str | None], text: str | None) -> None:
    if not line.done():
        line.set_result(text)


@contextlib.contextmanager
def _terminal_kept() -> Iterator[None]:
    """Put the terminal back: a thread that still edits a line ends without doing so."""
    if not sys.stdin.isatty():
        yield
        return
    import termios  # noqa: PLC0415 - not on Windows

    kept = termios.tcgetattr(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, kept)


class Chat:
    """One conversation.

    Attributes:
        failed: Whether a message did.
    """

    def __init__(self) -> None:
        self.failed = False
        self._terminal = sys.stdin.isatty() and sys.stdout.isatty()
        self._out = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
        self._say = Console(stderr=True, soft_wrap=True, highlight=False)
        self._input = Input(PROMPT if self._terminal else "")
        self._in_line = False

    async def run(self, url: str) -> None:
        """Talk until the input ends, or the session does.

        Raises:
            ConnectionFailed: There is none.
        """
        async with connect(url, on_notice=self.tell) as session:
            with self._input.watching() if self._terminal else contextlib.nullcontext():
                if self._terminal:
                    self.say("Ctrl-C stops a reply; Ctrl-D, or Ctrl-C twice, leaves.", "dim")
                await self._talk(session)

    async def _talk(self, session: Session) -> None:
        leaving = False
        while True:
            line = await self._input.line()
            if line is None or (line == "interrupted" and leaving):
                break
            if line == "interrupted":
                leaving = True
                self.say("Ctrl-C again leaves.", "dim")
                continue
            leaving = False
            if not line.strip():
                continue
            try:
                await self._answer(session.send(line))
            except SessionClosed as closed:
                self.failed = True
                self.say(f"The session is over: {closed}", "red")
                break
            except ValueError as wrong:  # half of a surrogate pair, from bytes that are no UTF-8
                self.failed = True
                self.say(f"Not sent: {wrong}", "red")
        if self._terminal:
            self._out.print()

    async def _answer(self, turn: Turn) -> None:
        """Write the reply as it comes; Ctrl-C stops it."""
        writing = asyncio.create_task(self._write(turn))
        if await self._input.interrupts(writing):
            stopping = asyncio.create_task(turn.cancel())
            if await self._input.interrupts(stopping):  # the gateway can't be told just now
                stopping.cancel()
                writing.cancel()
        await asyncio.wait([writing])
        self._end_line()
        if writing.cancelled():
            self.say("Not waited for any more.", "dim")
            return
        try:
            writing.result()
            reply = await turn
        except MessageFailed as failed:
            self.failed = True
            again = " It may be sent again." if failed.retryable else ""
            self.say(f"{failed} ({failed.code}, {failed.outcome}){again}", "red")
        except ReplyTooLarge as large:
            self.failed = True
            self.say(f"{large}", "red")
        else:
            if reply.status == "cancelled":
                self.say("Stopped.", "dim")
            elif not reply.complete:
                self.failed = True
                self.say("Parts of this reply were lost with the connection.", "yellow")

    async def _write(self, turn: Turn) -> None:
        async for part in turn:
            text = part if isinstance(part, str) else part.decode(errors="replace")
            text = text.translate(HARMLESS)
            self._out.print(text, end="")
            self._out.file.flush()
            if text:
                self._in_line = not text.endswith("\n")

    # What happens to the session

    def tell(self, notice: Notice) -> None:
        """Say what has happened."""
        self.say(*_words(notice))

    def say(self, text: str, style: str) -> None:
        """Write something that is not the model's, on a line of its own."""
        self._end_line()
        asking = self._terminal and self._input.asking
        if asking:
            self._say.print()
        self._say.print(f"[{style}]{escape(text.translate(HARMLESS))}[/]")
        if asking:
            self._say.print(PROMPT, end="")

    def _end_line(self) -> None:
        if self._in_line:
            self._out.print()
            self._in_line = False


def _words(notice: Notice) -> tuple[str, str]:  # noqa: C901, PLR0911 - one for each notice
    """A notice in words, and their style."""
    match notice:
        case Opened(session_id, route, expires_at, replaces):
            about = f"{session_id[:SHORT]} on {route}{_expiry(expires_at)}"
            if replaces is None:
                return f"Session {about}.", "dim"
            return f"A new session, {about}: the model has forgotten.", "yellow"
        case Disconnected(reason, _, retry_in):
            return f"Disconnected: {reason.rstrip('.')}. Again in {retry_in:.1f} s.", "yellow"
        case Resumed(lost):
            if lost is None:
                return "Reconnected; nothing was lost.", "green"
            return "Reconnected; some of what the model said was lost.", "yellow"
        case Renewed(_, context, expires_at):
            if context == "replayed":
                return f"Renewed{_expiry(expires_at)}: context replayed.", "green"
            return f"Renewed{_expiry(expires_at)}: the model has forgotten.", "yellow"
        case Updated(expires_at):
            return f"The session{_expiry(expires_at, ' has no expiry')}.", "dim"
        case Expiring(expires_at):
            return f"The session{_expiry(expires_at, ' is about to expire')}.", "yellow"
        case Refused(code, message):
            return f"{message} ({code})", "red"


def _expiry(expires_at: datetime | None, never: str = "") -> str:
    if expires_at is None:
        return never
    local = expires_at.astimezone()
    seconds = int((expires_at - datetime.now(UTC)).total_seconds())
    if seconds > 86400:
        return f" expires on {local:%Y-%m-%d at %H:%M}"
    left = f"{seconds // 60} min" if seconds >= 120 else f"{max(seconds, 0)} s"
    return f" expires at {local:%H:%M:%S}, in {left}"


async def chat(url: str) -> bool:
    """Chat until the end of the input; whether every message was answered.

    Raises:
        ConnectionFailed: No session could be opened.
        ValueError: The address is none of a WebSocket.
    """
    conversation = Chat()
    await conversation.run(url)
    return not conversation.failed
