"""A client that comes back, and checks what it is told: each event once, in order, none missing."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage
from websockets.typing import Subprotocol

from tests.support.client import JSON, Message

SILENCE = 0.4
"""Seconds without a word after which it takes the connection for lost."""


class Comeback:
    """One conversation over as many connections as it takes.

    Args:
        url: Of the WebSocket.
        texts: The messages to send, by id; all at once.
        cancel: Ids to cancel as soon as their first part has come.
    """

    def __init__(self, url: str, texts: dict[str, str], cancel: Sequence[str] = ()) -> None:
        self._url = url
        self._texts = texts
        self._cancel = set(cancel)
        self.session_id: str | None = None
        self.key = ""
        self.last = 0
        self.events: list[Message] = []
        self.accepted: set[str] = set()
        self.done: dict[str, Message] = {}
        self.parts: dict[str, list[str]] = {}
        self.closed: int | None = None
        self.connections = 0

    async def run(self) -> None:
        """Until every message has ended, or the session has for good."""
        while self.closed is None and not self.finished:
            self.connections += 1
            try:
                async with connect(
                    self._url,
                    subprotocols=[Subprotocol(JSON)],
                    max_size=None,
                    open_timeout=2 * SILENCE,
                    close_timeout=0.05,
                    ping_interval=None,
                ) as socket:
                    await self._converse(socket)
            except ConnectionClosed as closed:
                self._judge(closed)
            except (OSError, TimeoutError, InvalidHandshake, InvalidMessage, EOFError):
                pass  # cut before there was a connection

    def _judge(self, closed: ConnectionClosed) -> None:
        code = closed.rcvd.code if closed.rcvd is not None else 1006
        if code == 4410 and self.session_id is None:
            raise AssertionError("told that a session is gone that was never had")
        if code in {1000, 4400, 4404, 4406, 4409, 4410}:
            self.closed = code

    @property
    def finished(self) -> bool:
        """Whether all has been said."""
        return set(self.done) == set(self._texts)

    async def _converse(self, socket: ClientConnection) -> None:
        if self.session_id is None:
            await _send(socket, type="session.open")
        else:
            await _send(
                socket,
                type="session.open",
                session_id=self.session_id,
                resume_key=self.key,
                last_event=self.last,
            )
        said = False
        while not self.finished:
            async with asyncio.timeout(SILENCE):
                message = json.loads(await socket.recv())
            self._heard(message)
            if not said and message["type"] in {"session.opened", "session.resumed"}:
                said = True
                for message_id, text in self._texts.items():
                    if message_id not in self.accepted:
                        await _send(socket, type="message.send", id=message_id, text=text)
            if message["type"] == "message.delta" and message["id"] in self._cancel:
                self._cancel.discard(message["id"])
                await _send(socket, type="message.cancel", id=message["id"])

    def _heard(self, message: Message) -> None:
        kind = message["type"]
        if "event" in message:
            assert message["event"] == self.last + 1, (message, self.last)
            self.last += 1
            self.events.append(message)
        if kind in {"session.opened", "session.resumed"}:
            self.session_id, self.key = message["session_id"], message["resume_key"]
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


async def _send(socket: ClientConnection, **message: Any) -> None:
    await socket.send(json.dumps(message))
