"""WebSockets on real sockets: handshakes, applications, and that none is felt by another."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from gateway.errors import CloseCode
from gateway.transports.link import LINK, Link
from gateway.transports.protocol import WRITE_BUDGET
from gateway.transports.reading import FRAME_COST, PING_COST, READ_BUDGET
from tests.support.serving import HANDSHAKE, Peer, Turns, on_uvloop, serving
from tests.support.timing import UNIT

SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\n"


def masked(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin=fin).serialize(mask=True)


def frame(opcode: Opcode, data: bytes) -> bytes:
    return Frame(opcode, data).serialize(mask=False)


def close(code: int, reason: str = "") -> bytes:
    return frame(Opcode.CLOSE, code.to_bytes(2, "big") + reason.encode())


async def echo(_scope: Any, receive: Any, send: Any) -> None:
    """An application that knows of no `Link`."""
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


async def opened(peer: Peer) -> Peer:
    """Its handshake is over."""
    await peer.send(HANDSHAKE)
    await peer.until(b"\r\n\r\n")
    assert peer.got.startswith(SWITCHED)
    peer.got.clear()
    return peer


class Linked:
    """An application that takes frames.

    Args:
        on_frame: Is called with each.
    """

    link: Link

    def __init__(self, on_frame: Callable[[str | bytes], None]) -> None:
        self._on_frame = on_frame
        self.on_writable: Callable[[], None] = lambda: None
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.taken = asyncio.Event()

    async def __call__(
        self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Any]
    ) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        self.link = scope["extensions"][LINK]
        self.link.take_frames(self._on_frame, self._writable, self.ended.set_result)
        self.taken.set()

    def _writable(self) -> None:
        self.on_writable()


@pytest.mark.parametrize("http", ["h11", "httptools", None], ids=["h11", "httptools", "own"])
@on_uvloop
async def test_an_application_behind_any_of_uvicorns_protocols(http: str | None) -> None:
    scopes = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await echo(scope, receive, send)

    options: dict[str, Any] = {"http": http} if http else {}
    async with serving(app, **options) as served, served.peer() as peer:
        request = HANDSHAKE.replace(b"/ws", b"/a%20b?c")[:-2]
        await peer.send(request + b"Sec-WebSocket-Protocol: a, b\r\nX-Y: \xe9\r\n\r\n")
        await peer.until(b"\r\n\r\n")
        peer.got.clear()
        await peer.send(masked(Opcode.TEXT, "é".encode()) + masked(Opcode.BINARY, b"\0"))
        await peer.until(frame(Opcode.TEXT, "é".encode()) + frame(Opcode.BINARY, b"\0"))
        await peer.send(masked(Opcode.CLOSE, b"\x03\xe8"))
        await peer.until(close(1000))
        await peer.closed()
    (scope,) = scopes
    assert scope["type"] == "websocket"
    assert (scope["path"], scope["query_string"]) == ("/a b", b"c")
    assert scope["subprotocols"] == ["a", "b"]
    assert (b"x-y", b"\xe9") in scope["headers"]
    assert scope["scheme"] == "ws"


@on_uvloop
async def test_what_a_client_sends_before_it_has_its_answer_waits() -> None:
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        await echo(scope, receive, send)

    async with serving(app) as served, served.peer() as peer:
        await peer.send(HANDSHAKE + masked(Opcode.TEXT, b"early"))
        await peer.send(masked(Opcode.TEXT, b"too"))
        await asyncio.sleep(0.01 * UNIT)
        go.set()
        await peer.until(frame(Opcode.TEXT, b"early") + frame(Opcode.TEXT, b"too"))


@on_uvloop
async def test_messages_wait_with_their_sender_until_the_application_receives() -> None:
    got: list[str] = []
    go = asyncio.Event()
    count = 2000
    size = 10_000

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await go.wait()
        got.extend([(await receive())["text"][:9] for _ in range(count)])
        await send({"type": "websocket.close"})

    async with serving(app, ws_max_size=size) as served:
        async with served.peer() as peer:
            await opened(peer)
            flood = b"".join(
                masked(Opcode.TEXT, b"%08d " % number + b"x" * (size - 9))
                for number in range(count)
            )
            sending = asyncio.create_task(peer.send(flood))
            await asyncio.sleep(0.05 * UNIT)
            assert not sending.done(), "20 MB are more than sockets keep"
            go.set()
            await sending
            await peer.until(close(1000))
            await peer.send(masked(Opcode.CLOSE, b"\x03\xe8"))
            await peer.closed()
        await served.until_connections(0)
    assert got == [f"{number:08d} " for number in range(count)]


@pytest.mark.parametrize(
    ("messages", "answer"),
    [
        ([{"type": "websocket.close"}], b"HTTP/1.1 403 "),
        (
            [
                {"type": "websocket.http.response.start", "status": 404, "headers": []},
                {"type": "websocket.http.response.body", "body": b"not ", "more_body": True},
                {"type": "websocket.http.response.body", "body": b"here"},
            ],
            b"HTTP/1.1 404 ",
        ),
        ([], b"HTTP/1.1 500 "),
        ([{"type": "websocket.send", "text": "a"}], b"HTTP/1.1 500 "),
    ],
    ids=["close", "response", "nothing", "nonsense"],
)
@on_uvloop
async def test_a_handshake_that_the_application_refuses(messages: Any, answer: bytes) -> None:
    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for message in messages:
            await send(message)

    async with serving(app) as served, served.peer() as peer:
        await peer.send(HANDSHAKE)
        got = await peer.closed()
        assert got.startswith(answer)
        assert len(messages) < 3 or got.endswith(b"\r\n\r\nnot here")
        peer.end()
        await served.until_connections(0)


@pytest.mark.parametrize(
    ("error", "code"), [(None, 1000), (ValueError(), 1011)], ids=["returns", "fails"]
)
@on_uvloop
async def test_an_application_that_ends(error: Exception | None, code: int) -> None:
    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "a", "headers": [(b"b", b"c")]})
        if error is not None:
            raise error

    async with serving(app) as served, served.peer() as peer:
        await peer.send(HANDSHAKE)
        head, _, rest = (await peer.until(close(code))).partition(b"\r\n\r\n")
        assert b"\r\nSec-WebSocket-Protocol: a" in head
        assert b"\r\nb: c" in head
        assert rest == close(code)
        await peer.send(masked(Opcode.PONG, b"") + masked(Opcode.CLOSE, b"\x03\xe8"))
        await peer.closed()


@on_uvloop
async def test_an_application_is_told_that_its_client_has_gone() -> None:
    told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        message = await receive()
        try:
            await send({"type": "websocket.send", "text": "a"})
        except OSError:
            told.set_result(message)
            raise

    async with serving(app) as served:
        async with served.peer() as peer:
            await opened(peer)
        async with asyncio.timeout(20 * UNIT):
            assert await told == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        await served.until_connections(0)


@on_uvloop
async def test_a_link_tells_of_the_end_once() -> None:
    got: list[str | bytes] = []
    app = Linked(got.append)
    async with serving(app) as served, served.peer() as peer:
        await opened(peer)
        await peer.send(masked(Opcode.TEXT, b"a") + masked(Opcode.CLOSE, b"\x10\x00bye"))
        assert (await peer.closed()).endswith(close(4096, "bye"))
        assert await app.ended == 4096
        assert got == ["a"]


@on_uvloop
async def test_a_close_comes_behind_what_was_written_and_waits_for_the_peers() -> None:
    app = Linked(lambda _frame: None)
    async with serving(app) as served, served.peer() as peer:
        await opened(peer)
        await app.taken.wait()
        app.link.write_frames(["a"], text=True)
        answered = asyncio.Event()
        app.link.close(CloseCode.GONE, "gone", answered.set)
        app.link.close(CloseCode.NORMAL, "twice")
        app.link.write_frames(["b"], text=True)
        assert await app.ended == CloseCode.GONE
        await peer.until(close(4410, "gone"))
        assert not answered.is_set()
        await peer.send(masked(Opcode.TEXT, b"late") + masked(Opcode.CLOSE, b"\x11\x3a"))
        assert await peer.closed() == frame(Opcode.TEXT, b"a") + close(4410, "gone")
        await answered.wait()


FLOODS = [
    (masked(Opcode.PONG, b""), PING_COST, "pongs"),
    (masked(Opcode.PING, b""), PING_COST, "pings"),
    (masked(Opcode.TEXT, b"{}"), FRAME_COST, "messages"),
]


@pytest.mark.parametrize(
    ("unit", "cost"), [flood[:2] for flood in FLOODS], ids=[flood[2] for flood in FLOODS]
)
@on_uvloop
async def test_a_flood_leaves_others_their_turns(unit: bytes, cost: int) -> None:
    count = 20_000
    at: dict[str | bytes, int] = {}
    each: Counter[int] = Counter()

    def on_frame(message: str | bytes) -> None:
        at[message] = turns.now
        each[turns.now] += 1

    async with serving(Linked(on_frame)) as served, served.peer() as peer:
        await opened(peer)
        flood = masked(Opcode.TEXT, b"first") + unit * count + masked(Opcode.TEXT, b"last")
        with Turns() as turns:
            sending = asyncio.create_task(peer.send(flood))
            async with asyncio.timeout(20 * UNIT):
                while "last" not in at:  # noqa: ASYNC110 - it counts the turns too
                    await asyncio.sleep(0)
            await sending
    assert at["last"] - at["first"] >= count * cost // READ_BUDGET - 1
    assert max(each.values()) <= 2 * (READ_BUDGET // FRAME_COST), "counted turns are not aligned"


@on_uvloop
async def test_fragments_leave_others_their_turns() -> None:
    count = 5000
    at: list[int] = []
    async with serving(Linked(lambda _: at.append(turns.now))) as served, served.peer() as peer:
        await opened(peer)
        first, last = masked(Opcode.TEXT, b"x", fin=False), masked(Opcode.CONT, b"x")
        with Turns() as turns:
            await peer.send(masked(Opcode.TEXT, b""))
            await peer.send(first + masked(Opcode.CONT, b"x", fin=False) * count + last)
            async with asyncio.timeout(20 * UNIT):
                while len(at) < 2:  # noqa: ASYNC110 - it counts the turns too
                    await asyncio.sleep(0)
    assert at[1] - at[0] >= count * FRAME_COST // READ_BUDGET - 1


@on_uvloop
async def test_a_large_message_is_read_over_several_turns() -> None:
    size = 6_000_000
    at: list[int] = []
    async with (
        serving(Linked(lambda _: at.append(turns.now)), ws_max_size=size) as served,
        served.peer() as peer,
    ):
        await opened(peer)
        data = masked(Opcode.BINARY, b"x" * size)
        with Turns() as turns:
            begun = turns.now
            await peer.send(data)
            async with asyncio.timeout(20 * UNIT):
                while not at:  # noqa: ASYNC110 - it counts the turns too
                    await asyncio.sleep(0)
    assert at[0] - begun >= size // 256_000, "uvloop reads as much at once"


@on_uvloop
async def test_a_writer_without_end_leaves_others_their_turns() -> None:
    app = Linked(lambda _frame: None)
    count = 5000
    written: Counter[int] = Counter()

    def write() -> None:
        while app.link.can_write and sum(written.values()) < count:
            app.link.write_frames(["x"], text=True)
            written[turns.now] += 1

    async with serving(app) as served, served.peer() as peer:
        await opened(peer)
        await app.taken.wait()
        app.on_writable = write
        with Turns() as turns:
            write()
            await peer.until(frame(Opcode.TEXT, b"x"), count)
    assert max(written.values()) <= WRITE_BUDGET // FRAME_COST + 1


@on_uvloop
async def test_who_does_not_read_gets_the_newest_pong() -> None:
    app = Linked(lambda _frame: None)
    async with serving(app) as served, served.peer() as peer:
        await opened(peer)
        await app.taken.wait()
        while app.link.can_write:
            app.link.write_frames([b"x" * 60_000], text=False)
            await asyncio.sleep(0)
        await peer.send(b"".join(masked(Opcode.PING, b"<%d>" % n) for n in range(100)))
        await asyncio.sleep(0.01 * UNIT)
        await peer.send(masked(Opcode.PING, b"<last>"))
        got = await peer.until(frame(Opcode.PONG, b"<last>"))
        assert got.count(frame(Opcode.PONG, b"<98>")) == 0


@on_uvloop
async def test_a_client_that_goes_on_sending_still_learns_why_it_was_closed() -> None:
    async with serving(Linked(lambda _frame: None), ws_max_size=1000) as served:
        async with served.peer() as peer:
            await opened(peer)
            await peer.send(masked(Opcode.BINARY, b"x" * 8_000_000))
            assert await peer.closed() == close(
                1009, "frame with 8000000 bytes exceeds limit of 1000"
            )
        await served.until_connections(0)


@on_uvloop
async def test_a_client_that_says_nothing_is_pinged_and_then_closed() -> None:
    app = Linked(lambda _frame: None)
    async with serving(app, ws_ping_interval=0.05 * UNIT) as served, served.peer() as peer:
        await opened(peer)
        assert await peer.closed() == frame(Opcode.PING, b"") + close(4408, "silent")
        assert await app.ended == CloseCode.SILENT


@pytest.mark.parametrize("accepted", [True, False])
@on_uvloop
async def test_a_server_that_stops(accepted: bool) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if accepted:
            await send({"type": "websocket.accept"})
        begun.set()
        await receive()
        go.set()

    async with serving(app) as served, served.peer() as peer:
        await peer.send(HANDSHAKE)
        await begun.wait()
        served.server.should_exit = True
        got = await peer.closed()
        assert close(1012) in got if accepted else got.startswith(b"HTTP/1.1 503 ")
        await go.wait()
