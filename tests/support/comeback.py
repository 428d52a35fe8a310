"""A client that comes back, and checks what it is told: each event once, in order, none missing."""

import asyncio
import copy
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage
from websockets.typing import Subprotocol

from tests.support.client import JSON, MSGPACK, Message

SILENCE = 0.4
"""Seconds without a word after which it takes the connection for lost."""

FINAL = {1000, 4400, 4404, 4406, 4409, 4410}
"""Close codes that say not to come back."""


class Comeback:
    """One conversation over as many connections as it takes.

    Args:
        url: Of the WebSocket.
        texts: The messages to send, by id; all at once.
        cancel: Ids to cancel, each when so many events have come; 0 for its own first part.
        subprotocol: What to speak.
        stream: Whether to ask for replies in parts; None leaves it to the route.
        silence: See `SILENCE`.
        closes: Close the session when every message has ended.
        pings: Say something on each connection that has resumed.
        forgets_key: On which connections, from 1, to show the key before the newest first.
        twice_at: When so many events have come, go on over two connections at once.
    """

    def __init__(
        self,
        url: str,
        texts: Mapping[str, str],
        cancel: Mapping[str, int] | None = None,
        *,
        subprotocol: str = JSON,
        stream: bool | None = None,
        silence: float = SILENCE,
        closes: bool = False,
        pings: bool = False,
        forgets_key: frozenset[int] = frozenset(),
        twice_at: int | None = None,
    ) -> None:
        self._url = url
        self._texts = texts
        self._cancel = dict(cancel or {})
        self._subprotocol = subprotocol
        self._stream = stream
        self._silence = silence
        self._closes = closes
        self._pings = pings
        self._awaits_pong = False
        self._forgets_key = set(forgets_key)
        self._twice_at = twice_at
        self.session_id: str | None = None
        self.keys = [""]
        self.last = 0
        self.events: list[Message] = []
        self.heard: list[list[Message | int]] = []
        """By connection; its close code last, where it was told one."""
        self.accepted: set[str] = set()
        self.done: dict[str, Message] = {}
        self.parts: dict[str, list[str]] = {}
        self.closed: int | None = None
        self.ended: str | None = None
        """Why the session has ended, if it has."""
        self.spare_keys: list[str] = []
        """Of one that went on too, and had all before it was turned away."""

    @property
    def key(self) -> str:
        """The newest."""
        return self.keys[-1]

    @property
    def connections(self) -> int:
        """How many there were."""
        return len(self.heard)

    async def run(self) -> None:
        """Until every message has ended, or the session has for good."""
        while self.closed is None and not self._finished:
            self.heard.append([])
            try:
                async with connect(
                    self._url,
                    subprotocols=[Subprotocol(self._subprotocol)],
                    max_size=None,
                    open_timeout=2 * self._silence,
                    close_timeout=0.05,
                    ping_interval=None,
                    compression=None,
                ) as socket:
                    await self._converse(socket)
            except ConnectionClosed as closed:
                self._judge(closed)
            except (OSError, TimeoutError, InvalidHandshake, InvalidMessage, EOFError):
                pass  # cut before there was a connection
            if self._twice_at is not None and self.last >= self._twice_at and not self._finished:
                await self._go_on_twice()

    async def _go_on_twice(self) -> None:
        """Two that know the same come back at once; the later takes the session over."""
        self._twice_at = None
        twins = [copy.copy(self) for _ in range(2)]
        for twin in twins:
            for name in ("_cancel", "_forgets_key", "keys", "events", "accepted", "done"):
                setattr(twin, name, copy.copy(getattr(self, name)))
            twin.parts = {name: list(parts) for name, parts in self.parts.items()}
            twin.heard = []
        async with asyncio.TaskGroup() as tasks:
            for twin in twins:
                tasks.create_task(twin.run())
        # One that is turned away has lost its place to the other: its key is dead by then.
        left = [twin for twin in twins if twin.ended or twin.closed is None]
        assert left, f"both were turned away: {[twin.closed for twin in twins]}"
        winner = max(left, key=lambda twin: twin.last)
        spare_keys = [twin.key for twin in left if twin is not winner]
        heard = self.heard + [each for twin in twins for each in twin.heard]
        self.__dict__.update(winner.__dict__, heard=heard, spare_keys=spare_keys)

    def _judge(self, closed: ConnectionClosed) -> None:
        code = closed.rcvd.code if closed.rcvd is not None else 1006
        if code == 1006:
            return
        self.heard[-1].append(code)
        if code == 4410 and self.session_id is None:
            raise AssertionError("told that a session is gone that was never had")
        if code == 4410 and self.connections in self._forgets_key:
            return  # the newer one is left
        if code in FINAL:
            self.closed = code

    @property
    def _said_all(self) -> bool:
        return set(self.done) == set(self._texts)

    @property
    def _finished(self) -> bool:
        return self._said_all and not self._closes

    def _opening(self) -> Message:
        if self.session_id is None:
            return {}
        key = self.keys[-2] if self.connections in self._forgets_key else self.key
        return {"session_id": self.session_id, "resume_key": key, "last_event": self.last}

    async def _converse(self, socket: ClientConnection) -> None:
        await self._send(socket, "session.open", **self._opening())
        greeted = said_close = False
        self._awaits_pong = False
        while not self._finished:
            if self._twice_at is not None and self.last >= self._twice_at:
                socket.transport.abort()
                return
            if greeted and self._said_all and not self._awaits_pong and not said_close:
                said_close = True
                await self._send(socket, "session.close")
            async with asyncio.timeout(self._silence):
                frame = await socket.recv()
            message = json.loads(frame) if isinstance(frame, str) else msgspec.msgpack.decode(frame)
            self._heard(message)
            if message["type"] in {"session.opened", "session.resumed"} and not greeted:
                greeted = True
                await self.greeted()
                if self._pings and message["type"] == "session.resumed":
                    self._awaits_pong = True
                    await self._send(socket, "ping")
                asked = {} if self._stream is None else {"stream": self._stream}
                for message_id, text in self._texts.items():
                    if message_id not in self.accepted:
                        await self._send(socket, "message.send", id=message_id, text=text, **asked)
            await self.told()
            for message_id, due in list(self._cancel.items()):
                if message_id in self.parts if due == 0 else greeted and self.last >= due:
                    del self._cancel[message_id]
                    await self._send(socket, "message.cancel", id=message_id)

    async def told(self) -> None:
        """Called after each message that has come."""

    async def greeted(self) -> None:
        """Called when a connection has its session, before anything is sent."""

    async def _send(self, socket: ClientConnection, kind: str, **fields: Any) -> None:
        message = {"type": kind, **fields}
        msgpack = self._subprotocol == MSGPACK
        # Where it is closed by now, what came before that is still to be read.
        with suppress(ConnectionClosed):
            await socket.send(msgspec.msgpack.encode(message) if msgpack else json.dumps(message))

    def _heard(self, message: Message) -> None:
        kind = message["type"]
        self.heard[-1].append(message)
        if "event" in message:
            assert message["event"] == self.last + 1, (message, self.last)
            self.last += 1
            self.events.append(message)
        if kind in {"session.opened", "session.resumed"}:
            self.session_id = message["session_id"]
            self.keys.append(message["resume_key"])
        if kind == "session.resumed":
            assert message["lost"] is None
            assert message["last_event"] >= self.last
        elif kind == "message.accepted":
            assert message["id"] not in self.accepted
            self.accepted.add(message["id"])
        elif kind == "message.delta":
            assert message["id"] not in self.done
            parts = self.parts.setdefault(message["id"], [])
            assert message["index"] == len(parts)
            parts.append(message["text"])
        elif kind == "message.done":
            assert message["id"] in self.accepted
            assert message["id"] not in self.done
            assert message["deltas"] == len(self.parts.get(message["id"], []))
            self.done[message["id"]] = message
        elif kind == "session.closed":
            assert set(self.done) == self.accepted, "each accepted message ends before the session"
            self.ended = message["reason"]
        elif kind == "pong":
            self._awaits_pong = False

    def outcome(self, message_id: str) -> str:
        """What is known of whether the model saw it: as the protocol says, or ``completed``."""
        done = self.done[message_id]
        if done["status"] == "completed":
            return "completed"
        outcome: str = done.get("outcome") or done["error"]["outcome"]
        return outcome

    def text(self, message_id: str) -> str:
        """The whole reply."""
        return str(self.done[message_id].get("text", "")) or "".join(self.parts.get(message_id, []))
