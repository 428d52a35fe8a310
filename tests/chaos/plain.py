"""A client written against the protocol's text alone: the `websockets` library and JSON by hand."""

import asyncio
import contextlib
import json
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from tests.chaos.habits import Talker

PROTOCOL = Subprotocol("v1.json.session-gateway")

OPEN_SECONDS = 10.0
"""How long a connection, and then its session, may take to be there."""

PING_SECONDS = 4.0

FINAL = {1000, 1009, 4400, 4403, 4404, 4406, 4409, 4410}
"""Close codes that say not to come back for the session."""


class Plain(Talker):
    """One client; see `Talker`."""

    def _forget(self) -> None:
        self._session = ""
        self._key = ""
        self._last = 0
        self._open: dict[str, dict[str, Any]] = {}
        """Messages that were sent and have not ended."""
        self._accepted: set[str] = set()
        self._left_to_say = self._habits.length()
        self._closing = self._over = False
        self._wait = 0.0

    @property
    def _stays(self) -> bool:
        return not self._over and bool(self._session or not self._ending)

    async def run(self) -> None:
        """Talk until it is to stop."""
        while not self._ending:
            self._forget()
            while self._stays:
                await self._connect()
                await asyncio.sleep(max(self._wait, self._habits.chance.uniform(0.02, 0.4)))
                self._wait = 0.0

    async def _connect(self) -> None:
        try:
            async with connect(
                self._url,
                subprotocols=[PROTOCOL],
                create_connection=self._make,
                proxy=None,
                open_timeout=OPEN_SECONDS,
                close_timeout=1,
                ping_interval=PING_SECONDS,
                ping_timeout=PING_SECONDS,
                compression=None,
            ) as socket:
                await self._converse(socket)
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd is not None else None
            if code in FINAL:
                self._over = True
            elif code in {4429, 4503}:
                self._wait = 1.0
        except (OSError, EOFError, TimeoutError, InvalidHandshake):
            self._wait = 0.2

    async def _converse(self, socket: ClientConnection) -> None:
        opening: dict[str, Any] = {"type": "session.open"}
        if self._session:
            opening |= {
                "session_id": self._session,
                "resume_key": self._key,
                "last_event": self._last,
            }
        await self._say(socket, **opening)
        talking: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(OPEN_SECONDS) as waiting:
                while True:
                    message = json.loads(await socket.recv())
                    self._hear(message)
                    if message["type"] in {"session.opened", "session.resumed"}:
                        waiting.reschedule(None)
                        talking = asyncio.create_task(self._talk(socket))
                    if message["type"] == "message.done" and self._last % 3 == 0:
                        with contextlib.suppress(ConnectionClosed):  # what has come is still read
                            await self._say(socket, type="event.ack", event=self._last)
        except TimeoutError:
            socket.transport.abort()
            while True:  # what has come all the same
                self._hear(json.loads(await socket.recv()))
        finally:
            if talking is not None:
                talking.cancel()
                await asyncio.wait([talking])

    async def _say(self, socket: ClientConnection, **message: Any) -> None:
        await socket.send(json.dumps(message))

    def _hear(self, message: dict[str, Any]) -> None:
        if "event" in message:
            self._last = message["event"]
        match message["type"]:
            case "session.opened":
                self._session, self._key = message["session_id"], message["resume_key"]
            case "session.resumed":
                self._key = message["resume_key"]
                if message["lost"] is not None:
                    self._last = message["lost"][1]
                    self._accepted.clear()  # the answers may be among what is lost
            case "message.accepted":
                self._accepted.add(message["id"])
            case "message.done":
                self._open.pop(message["id"], None)
            case "message.duplicate" if message["status"] not in {"queued", "running"}:
                self._open.pop(message["id"], None)
            case "message.duplicate":
                self._accepted.add(message["id"])
            case _:
                pass

    async def _talk(self, socket: ClientConnection) -> None:
        """Say again what was not accepted, then what there is to say."""
        habits = self._habits
        try:
            while True:
                for message_id, message in list(self._open.items()):
                    if message_id not in self._accepted:
                        await self._say(socket, **message)
                if self._closing or (not self._open and (self._ending or not self._left_to_say)):
                    if not self._closing and not self._ending and habits.leaves():
                        self._over = True
                        self._witness.leave()
                        socket.transport.abort()
                        return
                    self._closing = True
                    await self._say(socket, type="session.close")
                    return
                if self._left_to_say and not self._ending and habits.drops():
                    socket.transport.abort()
                    return
                for _ in range(habits.burst()):
                    if self._left_to_say and not self._ending:
                        await self._send(socket)
                # One that was refused is said again after a while.
                await asyncio.sleep(0.2 if self._ending else 0.1 + habits.pause())
        except ConnectionClosed:
            pass

    async def _send(self, socket: ClientConnection) -> None:
        self._left_to_say -= 1
        self._number += 1
        text, streams = self._habits.turn(self._number)
        message_id = f"m{self._number}"
        message = {"type": "message.send", "id": message_id, "text": text, "stream": streams}
        self._open[message_id] = message
        await self._say(socket, **message)
        after = self._habits.cancels()
        if after is not None:
            await asyncio.sleep(after)
            if message_id in self._open:
                await self._say(socket, type="message.cancel", id=message_id)
