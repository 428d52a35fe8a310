"""``session-gateway chat``: a conversation in the terminal, or line by line in a script.

In a terminal, replies are streamed, Ctrl-C stops one, and notices about the session are printed
between them. Otherwise each line of the input is a message, only replies go to the standard output,
and everything else to the standard error.
"""

import asyncio
import contextlib
import sys
import time
from enum import Enum, auto

from gateway.addresses import websocket_url
from gateway.client.errors import MessageFailed, ReplyTooLarge, SessionClosed
from gateway.client.notices import Disconnected, Notice, Opened, Refused
from gateway.client.session import SessionClient, connect
from gateway.client.terminal import Input, Interrupted, TerminalOutput
from gateway.client.turns import Reply, Turn
from gateway.client.words import in_words
from gateway.errors import CloseCode, ErrorCode, Outcome

PROMPT = "you> "
NEXT = ""
"""In place of a session's id: the one that will take the place of one that is known to be gone."""
GONE = " "
"""In place of a session's id: one that is gone."""
ANYWAY = "The model has forgotten the conversation. Send this anyway?"
AWAY = "The reply will be stopped after reconnecting. Press Ctrl-C again to stop waiting."
HELP = """\
/new    start a new session: the model forgets the conversation
/quit   quit; so do Ctrl-D, and Ctrl-C twice on an empty line
/help   show this help
Ctrl-C stops a reply, or clears the line. To send a line that begins with /, type // instead."""


class End(Enum):
    """How a conversation ends."""

    LEFT = auto()
    NEW = auto()
    """Another is wanted."""


class Chat:
    """Conversations, one after the other.

    Args:
        token: An API key or token; None if the gateway requires none.

    Attributes:
        failed: Whether a message did.
    """

    def __init__(self, token: str | None) -> None:
        self.failed = False
        self._token = token
        self._terminal = sys.stdin.isatty() and sys.stdout.isatty()
        self._input = Input(PROMPT if self._terminal else "")
        self._output = TerminalOutput(self._input, terminal=self._terminal)
        self._print = self._output.print
        self._typed_for: str | None = None
        self._gone_is_known = False
        self._draft = ""
        self._dropped = 0

    async def run(self, url: str) -> None:
        """Talk until the input ends, or the session does.

        What was typed for one session goes to no other unasked. A script can't be asked, and all
        of it was written for one session: it ends with that.

        Raises:
            ConnectionFailed: There is none.
        """
        hint = "Type /help for the commands. Ctrl-C stops a reply; Ctrl-D quits."
        end = End.NEW
        while end is End.NEW:
            self._typed_for, self._gone_is_known = None, False
            async with connect(
                url,
                token=self._token,
                on_notice=self.notice,
                reopen=self._terminal,
                carry_over=False,
            ) as session:
                with self._input.watching() if self._terminal else contextlib.nullcontext():
                    if self._terminal and hint:
                        self._print(hint, "dim")
                        hint = ""
                    end = await self._talk(session)

    async def _talk(self, session: SessionClient) -> End:
        leaving = False
        while True:
            self._typed_for = NEXT if self._gone_is_known else session.session_id
            draft, self._draft = self._draft, ""
            try:
                line = await self._input.line(draft)
            except Interrupted as interrupted:
                if leaving and not interrupted.cleared:
                    return End.LEFT
                leaving = not interrupted.cleared
                if leaving:
                    self._print("Press Ctrl-C again to quit.", "dim")
                continue
            leaving = False
            if line is None:
                return End.LEFT
            if self._input.was_aside:
                self._typed_for = GONE
            end = await self._take(session, line)
            if end is not None:
                return end

    async def _take(self, session: SessionClient, line: str) -> End | None:
        """Do what the line is for: obey it, or send it."""
        if self._terminal and line.startswith("/"):
            if not line.startswith("//"):
                return self._obey(line.strip())
            line = line.removeprefix("/")
        if not line.strip():
            return None
        try:
            await self._send(session, line)
        except SessionClosed as closed:
            self.failed = True
            rest = "" if self._terminal else " The rest of the input was not sent."
            self._print(f"The session has ended: {str(closed).rstrip('.')}.{rest}", "red")
            return End.LEFT
        except ValueError as wrong:  # half of a surrogate pair, from bytes that are no UTF-8
            self.failed = True
            self._print(f"Not sent: {wrong}", "red")
        return None

    def _obey(self, command: str) -> End | None:
        match command:
            case "/quit":
                return End.LEFT
            case "/new":
                return End.NEW
            case "/help":
                self._print(HELP, "dim")
            case _:
                name, *_ = command.split(maxsplit=1)
                self._print(f"Unknown command {name}. Type /help for the commands.", "yellow")
                self._print(f"To send it to the model, type: /{command}", "dim")
        return None

    async def _send(self, session: SessionClient, line: str) -> None:
        """Send the line, but to no other session than it was typed for, unless that is agreed to.

        Raises:
            SessionClosed: There is none any more.
            ValueError: It is no text.
        """
        current, meant = session.session_id, self._typed_for
        asking = self._terminal and meant != NEXT and (current is None or current != meant)
        while True:
            if asking and not await self._input.agrees(ANYWAY):
                self._draft = line
                self._gone_is_known = session.session_id in {None, meant}
                return
            unsent = await self._answer(session, session.send(line))
            if not unsent:
                return
            asking = session.state != "closed"

    async def _answer(self, session: SessionClient, turn: Turn) -> bool:
        """Write the reply as it comes; Ctrl-C stops it.

        Returns:
            Whether the message is to be asked about: its session was gone before it was sent.
        """
        began = time.monotonic()
        with self._output.waiting():
            writing = asyncio.create_task(self._write(turn))
            if await self._input.interrupts(writing):
                stopping = asyncio.create_task(turn.cancel())
                if session.state != "open":
                    self._print(AWAY, "dim")
                if await self._input.interrupts(stopping):
                    stopping.cancel()
                    writing.cancel()
            await asyncio.wait([writing])
        self._output.end_line()
        if writing.cancelled():
            self._print("No longer waiting for this reply.", "dim")
            return False
        try:
            first = writing.result()
            self._ended(await turn, first - began, time.monotonic() - began)
        except MessageFailed as failed:
            lost = failed.code is ErrorCode.SESSION_LOST
            if self._terminal and lost and failed.outcome is Outcome.NOT_INVOKED:
                return True
            self.failed = True
            again = " You can send it again." if failed.retryable else ""
            self._print(f"{failed} ({failed.code}, {failed.outcome}){again}", "red")
        except ReplyTooLarge as large:
            self.failed = True
            self._print(f"{large}", "red")
        return False

    async def _write(self, turn: Turn) -> float:
        """Write the reply as it comes; when its first part came."""
        first = 0.0
        async for part in turn:
            first = first or time.monotonic()
            self._output.write(part if isinstance(part, str) else part.decode(errors="replace"))
        return first

    def _ended(self, reply: Reply, first: float, whole: float) -> None:
        """Print what there is to know of a reply beside it."""
        if reply.status == "cancelled":
            self._print("Stopped.", "dim")
        elif not reply.complete:
            self.failed = True
            self._print("Parts of this reply were lost while disconnected.", "yellow")
        elif self._terminal:
            streamed = f"{first:.2f} s to the first part, " if reply.deltas > 1 else ""
            self._print(f"{streamed}{whole:.2f} s in all" if streamed else f"{whole:.2f} s", "dim")
        if reply.dropped_turns >= max(1, 2 * self._dropped):
            # Once it has begun it grows with each turn; it is said again when it has doubled.
            self._dropped = reply.dropped_turns
            turns = "turn was" if self._dropped == 1 else f"{self._dropped} turns were"
            self._print(
                f"The conversation is too long for the model: the oldest {turns} left out.",
                "yellow",
            )

    def notice(self, notice: Notice) -> None:
        """Print what has happened to the session."""
        if isinstance(notice, Refused) and self._typed_for is None:
            return  # no session can be opened, as the end of it all will say
        over = isinstance(notice, Opened) or (
            isinstance(notice, Disconnected) and notice.code == CloseCode.GONE
        )
        if over and self._typed_for is not None and not self._gone_is_known:
            self._input.set_aside()
        begun = bool(self._input.typed)  # else what is typed now is typed in knowledge of this
        match notice:
            case Disconnected(code=CloseCode.GONE):
                self._gone_is_known = True
                self._typed_for = self._typed_for if begun else NEXT
            case Opened():
                self._gone_is_known = False
                self._dropped = 0
                if self._typed_for == NEXT or not begun:
                    self._typed_for = notice.session_id
        self._print(*in_words(notice))


async def chat(address: str, route: str | None = None, token: str | None = None) -> bool:
    """Chat until the end of the input; whether every message was answered.

    Args:
        address: The gateway's, or of one of its WebSockets: see `websocket_url`.
        route: Its name.
        token: A key or a token, where the gateway asks who this is.

    Raises:
        ConnectionFailed: No session could be opened.
        ValueError: The address is none.
    """
    conversations = Chat(token)
    await conversations.run(websocket_url(address, route))
    return not conversations.failed
