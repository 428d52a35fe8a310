"""The load generator: as many clients as it takes, in one process, in as few instructions.

Run as a module: ``python -m tests.bench.load json ws://127.0.0.1:8080/ws/chat``. The ways to speak
are the gateway's ``json`` and ``msgpack``; ``raw``, where a frame is a message and a frame its
answer; ``chat``, OpenAI's chat completions over HTTP; and ``http``, which calls the platform itself
and so gives the times that no gateway is part of. ``post`` and ``sse`` are the gateway's sessions
over HTTP, whose replies come in one piece or as server-sent events; their address is a route's
``/v1/routes/NAME/sessions``.
"""

import asyncio
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

import msgspec
import picows
import uvloop

from tests.bench import driver
from tests.bench.floor import Call, connected
from tests.bench.upstream import chat_request, json_text

OPENING_AT_ONCE = 50
ACK_EVERY = 32
"""After how many events a client lets the gateway forget them, as this project's clients do."""


class Way(ABC):
    """How one subprotocol writes messages, and which frames end a turn.

    Attributes:
        subprotocol: None for raw.
        kind: Of the frames.
    """

    subprotocol: str | None = None
    kind = picows.WSMsgType.TEXT
    opening = b""

    @abstractmethod
    def message(self, number: int, body: bytes) -> bytes:
        """The frame of a message."""

    def ack(self, event: int) -> bytes:  # noqa: ARG002 - most have no events
        """The frame that acknowledges all events up to this; none where there are no events."""
        return b""

    @abstractmethod
    def is_open(self, payload: bytes) -> bool:
        """Whether a frame says that the session is open."""

    @abstractmethod
    def is_done(self, frame: picows.WSFrame) -> bool:
        """Whether a frame ends a turn that went well.

        Raises:
            RuntimeError: It ends one that did not.
        """


class _Protocol(Way):
    """The gateway's protocol. A message is put together from halves: only its id changes."""

    def __init__(
        self, subprotocol: str, kind: picows.WSMsgType, encode: Callable[[object], bytes]
    ) -> None:
        self.subprotocol = subprotocol
        self.kind = kind
        self.opening = encode({"type": "session.open"})
        self._encode = encode
        self._done = encode({"type": "message.done"})[1:-1]
        self._halves: dict[bytes, list[bytes]] = {}

    def message(self, number: int, body: bytes) -> bytes:
        halves = self._halves.get(body)
        if halves is None:
            whole = self._encode({"type": "message.send", "id": "m0000000", "text": body.decode()})
            halves = self._halves[body] = whole.split(b"0000000", 1)
        return b"%b%07d%b" % (halves[0], number, halves[1])

    def ack(self, event: int) -> bytes:
        return self._encode({"type": "event.ack", "event": event})

    def is_open(self, payload: bytes) -> bool:
        return b"session.opened" in payload[:40]

    def is_done(self, frame: picows.WSFrame) -> bool:
        payload = frame.get_payload_as_memoryview()
        start = bytes(payload[:160])
        if b"message.done" not in start[:32]:
            if b"message." in start[:32]:
                return False
            raise RuntimeError(f"not a turn's event: {start!r}")
        if b"completed" not in start:
            raise RuntimeError(f"a turn failed: {start!r}")
        return True


class _Raw(Way):
    """A frame is a message, and a frame its answer."""

    def message(self, number: int, body: bytes) -> bytes:  # noqa: ARG002 - none has a number
        return body

    def is_open(self, payload: bytes) -> bool:  # noqa: ARG002
        return True

    def is_done(self, frame: picows.WSFrame) -> bool:
        if frame.msg_type is not self.kind:
            raise RuntimeError(f"not an answer: {frame}")
        return True


WAYS: dict[str, Callable[[], Way]] = {
    "json": lambda: _Protocol(
        "v1.json.session-gateway", picows.WSMsgType.TEXT, msgspec.json.encode
    ),
    "msgpack": lambda: _Protocol(
        "v1.msgpack.session-gateway", picows.WSMsgType.BINARY, msgspec.msgpack.encode
    ),
    "raw": _Raw,
}


class Client(picows.WSListener):
    """One connection."""

    transport: picows.WSTransport

    def __init__(self, way: Way) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answered: Callable[[], None] = lambda: None
        self._way = way
        self._sent = 0
        self._events = 0

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        """Open the session, where that takes a message."""
        self.transport = transport
        if self._way.opening:
            transport.send(self._way.kind, self._way.opening)
        else:
            self.opened.set_result(None)

    def on_ws_frame(self, _transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        """An event of a turn, or the session's first."""
        if frame.msg_type is picows.WSMsgType.CLOSE:
            die(f"closed: {frame.get_close_code()} {frame.get_close_reason()}")
        try:
            if not self.opened.done():
                if self._way.is_open(frame.get_payload_as_bytes()):
                    self.opened.set_result(None)
            elif self._way.is_done(frame):
                self.answered()
            self._events += 1
            if self._events % ACK_EVERY == 0 and (ack := self._way.ack(self._events)):
                self.transport.send(self._way.kind, ack)
        except RuntimeError as error:
            die(str(error))

    def on_ws_disconnected(self, _transport: picows.WSTransport) -> None:
        """A bench that has lost a client measures something else."""
        die("a connection is lost")

    def send(self, body: bytes) -> None:
        """A message."""
        self._sent += 1
        self.transport.send(self._way.kind, self._way.message(self._sent, body))


def die(why: str) -> None:
    """End the process: what it would measure is not what it says."""
    print(f"load: {why}", file=sys.stderr, flush=True)  # noqa: T201
    sys.exit(1)


class Lane:
    """One message under way at a time; the clients of the lane take turns."""

    def __init__(self, clients: list[Client], body: bytes, timer: driver.Timer) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._clients = clients
        self._body = body
        self._timer = timer
        self._next = 0
        for client in clients:
            client.answered = self._answered

    def send(self) -> None:
        """The next message."""
        client = self._clients[self._next % len(self._clients)]
        self._next += 1
        self._sent = time.perf_counter()
        client.send(self._body)

    def _answered(self) -> None:
        now = time.perf_counter()
        self._timer.taken.append(now - self._sent)
        if self._timer.goes_on(now):
            self.send()
        else:
            self.done.set_result(None)


class WebSockets:
    """Clients over WebSockets."""

    def __init__(self, way: str, url: str) -> None:
        self._way = WAYS[way]()
        self._url = url
        self._clients: list[Client] = []

    async def connect(self, clients: int) -> None:
        """See `driver.Connect`."""
        while (missing := clients - len(self._clients)) > 0:
            await asyncio.gather(*(self._add() for _ in range(min(missing, OPENING_AT_ONCE))))

    async def _add(self) -> None:
        subprotocol = self._way.subprotocol
        headers = {"Sec-WebSocket-Protocol": subprotocol} if subprotocol else None
        _, client = await picows.ws_connect(
            lambda: Client(self._way),
            self._url,
            extra_headers=headers,
            websocket_handshake_timeout=60,
            read_buffer_init_size=4096,
        )
        assert isinstance(client, Client)
        await client.opened
        self._clients.append(client)

    async def run(self, run: driver.Run) -> driver.Result:
        """See `driver.Run`."""
        timer = driver.Timer(run)
        flight = run.flight or len(self._clients)
        body = json_text(run.body)
        lanes = [Lane(self._clients[i::flight], body, timer) for i in range(flight)]
        for lane in lanes:
            lane.send()
        await asyncio.gather(*(lane.done for lane in lanes))
        return timer.result()


HTTP = {"http": (json_text, b'"generated_text"'), "chat": (chat_request, b'"choices"')}
"""What makes a request's body, and what is in each answer to it."""


class Http:
    """Clients over HTTP, without any SDK."""

    def __init__(self, way: str, url: str) -> None:
        self._body, self._answer = HTTP[way]
        self._url = url
        self._calls: list[Call] = []

    async def connect(self, clients: int) -> None:
        """See `driver.Connect`."""
        while len(self._calls) < clients:
            self._calls.append(await connected(self._url))

    async def run(self, run: driver.Run) -> driver.Result:
        """See `driver.Run`."""
        timer = driver.Timer(run)
        body = self._body(run.body)

        async def calls(call: Call) -> None:
            while True:
                sent = time.perf_counter()
                answer = await call(body)
                if self._answer not in answer:
                    die(f"not an answer: {answer[:1000]!r}")
                now = time.perf_counter()
                timer.taken.append(now - sent)
                if not timer.goes_on(now):
                    return

        await asyncio.gather(*map(calls, self._calls[: run.flight]))
        return timer.result()


class Streamed(Call):
    """A call whose answer is a stream of events."""

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._received += data
        if self._received.endswith(b"\r\n0\r\n\r\n"):
            answer, self._received = self._received, b""
            if self._waiting is not None and not self._waiting.done():
                self._waiting.set_result(answer)


class Sessions(Http):
    """Clients of the gateway over HTTP, each with a session of its own."""

    def __init__(self, way: str, url: str) -> None:
        super().__init__("http", url)
        self._streams = way == "sse"
        if self._streams:
            self._answer = b'"completed"'

    async def connect(self, clients: int) -> None:
        """See `driver.Connect`."""
        while len(self._calls) < clients:
            opened = msgspec.json.decode(await (await connected(self._url))(b""))
            address = (
                self._url.partition("/v1/")[0] + f"/v1/sessions/{opened['session_id']}/messages"
            )
            key = f"Session-Key: {opened['resume_key']}"
            if self._streams:
                call = await connected(address, key, "Accept: text/event-stream", kind=Streamed)
            else:
                call = await connected(address, key)
            self._calls.append(call)


def main() -> None:
    """Run as a module."""
    way, url = sys.argv[1:]

    async def obey() -> None:
        kind = Http if way in HTTP else Sessions if way in {"post", "sse"} else WebSockets
        await driver.obey(kind(way, url))

    uvloop.run(obey())


if __name__ == "__main__":
    main()
