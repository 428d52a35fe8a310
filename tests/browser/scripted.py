"""A gateway's side of the protocol in a few lines, whose connections break just where a test wants.

It stands for the real one where a test has to choose the very message after which a connection is
gone. It keeps one session at a time, one log of it, and the rules of resuming.
"""

import asyncio
import itertools
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from playwright.async_api import BrowserContext, Page, WebSocketRoute

from tests.support.timing import UNIT

Message = dict[str, Any]

NOWHERE = 1_000_000
"""The position of a connection that gets no more events."""


class Socket:
    """One connection of a page."""

    def __init__(self, route: WebSocketRoute, number: int) -> None:
        self.route = route
        self.number = number
        self.position = 0
        self.open = True
        self.code: int | None = None
        """With which code the page has closed it."""

    def send(self, **message: Any) -> None:
        """Say something, unless it is closed."""
        if self.open:
            self.route.send(json.dumps(message))

    async def close(self, code: int) -> None:
        """Break it."""
        if self.open:
            self.open = False
            await self.route.close(code=code)

    def closed(self, code: int | None) -> None:
        """The page has closed it."""
        self.open, self.code = False, code


class ScriptedGateway:
    """Answers the client, up to where it is told to break.

    Attributes:
        breaks: After which points connections are closed, each with its code: ``opening`` (asked,
            not answered), ``sending`` (a message has come and is dropped), ``accepting`` (it is
            accepted, and nothing said), ``resuming`` (the new key is made, and not said),
            ``resumed`` (it is said), or the number of an event.
        reply: In which parts every message is answered; None leaves it running.
        lost: What is said to be lost where nothing was forgotten.
        skips: How often which events are left out.
        deaf: Whether messages are dropped.
        refuses: Whether resuming is a bad message.
        away: Whether connections are closed at once.
        received: Every message of the client, with the number of its connection.
        invoked: The ids that the model would have seen.
    """

    def __init__(self) -> None:
        self.breaks: dict[str | int, int] = {}
        self.reply: list[str] | None = ["One ", "two ", "three."]
        self.lost: list[int] | None = None
        self.skips: dict[int, int] = {}
        self.deaf = False
        self.refuses = False
        self.away = False
        self.received: list[tuple[int, Message]] = []
        self.invoked: list[str] = []
        self.sessions = 0
        self.log: list[Message] = []
        self.forgotten = 0
        self.keys: list[str] = []
        self.sockets: list[Socket] = []
        self._fresh = (f"key-{number}" for number in itertools.count(1))
        self._closing: set[asyncio.Task[None]] = set()

    async def play(self, page: Page | BrowserContext) -> "ScriptedGateway":
        """Take every WebSocket of the page, or of all pages."""
        await page.route_web_socket(re.compile("/ws"), self._connect)
        return self

    @property
    def socket(self) -> Socket:
        """The newest connection."""
        return self.sockets[-1]

    def emit(self, kind: str, **fields: Any) -> None:
        """Let an event happen."""
        self.log.append({"type": kind, "event": len(self.log) + 1, **fields})
        self._pump()

    def answer(self, message_id: str, *parts: str, start: int = 0) -> None:
        """Parts of a reply."""
        for index, text in enumerate(parts, start):
            self.emit("message.delta", id=message_id, index=index, text=text)

    def done(self, message_id: str, deltas: int, status: str = "completed", **fields: Any) -> None:
        """The end of a turn."""
        about = {"id": message_id, "status": status, "deltas": deltas, "duration_ms": 5}
        self.emit("message.done", **{**about, **fields})

    def forget(self) -> None:
        """Drop the whole session, as a gateway that starts anew has."""
        self.keys = []
        self.log = []
        self.forgotten = 0

    def of_type(self, kind: str) -> list[Message]:
        """What the client has sent of that type."""
        return [message for _, message in self.received if message["type"] == kind]

    def close(self, code: int) -> None:
        """Close the newest connection."""
        self._close(self.socket, code)

    def _close(self, socket: Socket, code: int) -> None:
        task = asyncio.ensure_future(socket.close(code))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _connect(self, route: WebSocketRoute) -> None:
        socket = Socket(route, len(self.sockets))
        self.sockets.append(socket)
        if self.away:
            self._close(socket, 1011)
            return
        route.on_message(lambda data: self._take(socket, json.loads(data)))
        route.on_close(lambda code, _: socket.closed(code))

    def _breaks(self, socket: Socket, where: str | int) -> bool:
        code = self.breaks.pop(where, None)
        if code is not None:
            socket.position = NOWHERE
            self._close(socket, code)
        return code is not None

    def _take(self, socket: Socket, message: Message) -> None:
        self.received.append((socket.number, message))
        if message["type"] != "session.open" and self.keys:
            self.keys = self.keys[-1:]
        match message:
            case {"type": "session.open", "session_id": session_id, "resume_key": key}:
                self._resume(socket, session_id, key, message["last_event"])
            case {"type": "session.open"}:
                self._open(socket)
            case {"type": "message.send", "id": str(message_id)}:
                self._send(socket, message_id)
            case {"type": "event.ack", "event": int(event)}:
                assert event <= len(self.log)
                self.forgotten = max(self.forgotten, event)
            case {"type": "ping"}:
                socket.send(type="pong")
            case _:
                pass

    def _open(self, socket: Socket) -> None:
        if self._breaks(socket, "opening"):
            return
        self.sessions += 1
        self.forget()
        self.keys = [next(self._fresh)]
        self.emit(
            "session.opened",
            session_id=f"session-{self.sessions}",
            resume_key=self.keys[0],
            expires_at=None,
            route="chat",
            limits={"message_bytes": 1000, "queued_messages": 16, "resume_seconds": 60},
            heartbeat_seconds=30,
        )

    def _resume(self, socket: Socket, session_id: str, key: str, last_event: int) -> None:
        if self.refuses:
            socket.send(type="error", code="bad_message", message="No.", retryable=False)
            return
        if session_id != f"session-{self.sessions}" or key not in self.keys:
            self._close(socket, 4410)
            return
        self.keys = [key, next(self._fresh)]
        for other in self.sockets[:-1]:
            self._close(other, 4409)
        socket.position = NOWHERE
        if self._breaks(socket, "resuming"):
            return
        lost = self.lost
        if last_event < self.forgotten:
            lost = [last_event + 1, self.forgotten]
        socket.send(
            type="session.resumed",
            session_id=session_id,
            resume_key=self.keys[-1],
            expires_at=None,
            last_event=len(self.log),
            lost=lost,
        )
        if self._breaks(socket, "resumed"):
            return
        socket.position = max(last_event, self.forgotten)
        self._pump()

    def _send(self, socket: Socket, message_id: str) -> None:
        if self.deaf or self._breaks(socket, "sending"):
            return
        if message_id in self.invoked:
            ended = any(e["type"] == "message.done" and e["id"] == message_id for e in self.log)
            status = "completed" if ended else "running"
            socket.send(type="message.duplicate", id=message_id, status=status)
            return
        self._breaks(socket, "accepting")
        self.invoked.append(message_id)
        self.emit("message.accepted", id=message_id, queued=0)
        if self.reply is not None:
            self.answer(message_id, *self.reply)
            self.done(message_id, len(self.reply))

    def _pump(self) -> None:
        if not self.sockets:
            return
        socket = self.socket
        while socket.position < len(self.log):
            event = self.log[socket.position]
            socket.position += 1
            if self.skips.get(socket.position, 0) > 0:
                self.skips[socket.position] -= 1
                continue
            socket.send(**event)
            if self._breaks(socket, socket.position):
                return


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Ask again until it is true."""
    async with asyncio.timeout(20 * UNIT):
        while True:
            answer = condition()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.01)
