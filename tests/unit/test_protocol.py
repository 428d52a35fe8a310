"""How frames come in, however the network cuts them, and how they go out."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, cast

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.server import ServerState
from websockets.frames import Close, Frame, Opcode

from gateway.budget import ByteBudget
from gateway.transports.frames import apply_mask
from gateway.transports.link import LINK, Link
from gateway.transports.protocol import JOINED_BYTES, WebSocketProtocol
from gateway.transports.sockets import HANDSHAKES, HalfClosed
from gateway.turnstile import Turnstile
from tests.support.timing import UNIT

MAX_SIZE = 200_000

REQUEST = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closing = self.aborted = self.ended = False
        self.reading = True
        self.unsent = 0
        self.protocol: asyncio.BaseProtocol | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        for data in list_of_data:
            self.write(data)

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in {"peername", "sockname"} else default


class Peer:
    """A client's side of one connection."""

    def __init__(self, budget: ByteBudget | None = None) -> None:
        self.budget = budget or ByteBudget(1_000_000_000)
        self.messages: list[str | bytes] = []
        self.wire = Wire()
        self.link: Link
        taken = asyncio.Event()

        async def app(
            scope: Any,
            receive: Callable[[], Awaitable[object]],
            send: Callable[[Any], Awaitable[None]],
        ) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            self.link = scope["extensions"][LINK]
            self.link.take_frames(self.messages.append, lambda: None, lambda _code: None)
            taken.set()

        config = uvicorn.Config(
            app,
            ws=cast(
                Any, partial(WebSocketProtocol, budget=self.budget, turnstile=Turnstile(HANDSHAKES))
            ),
            ws_max_size=MAX_SIZE,
            ws_per_message_deflate=False,
            ws_ping_interval=1000,
            log_config=None,
        )
        config.load()
        self.protocol = WebSocketProtocol(
            config, ServerState(), {}, budget=self.budget, turnstile=Turnstile(HANDSHAKES)
        )
        self.taken = taken

    async def connect(self) -> "Peer":
        self.protocol.connection_made(self.wire)
        self.protocol.data_received(REQUEST)
        await self.taken.wait()
        assert self.wire.written.pop(0).startswith(b"HTTP/1.1 101 ")
        return self

    @property
    def closed(self) -> int | None:
        """The code of the last frame that was written, where that is a close."""
        last = next((data for data in reversed(self.wire.written) if data), b"")
        return Close.parse(last[2:]).code if last[:1] == b"\x88" else None

    async def receive(self, data: bytes) -> None:
        """Have that come, and all of it worked off."""
        if self.wire.protocol is None:
            self.protocol.data_received(data)
        while not self.wire.reading:  # noqa: ASYNC110 - it is but an attribute
            await asyncio.sleep(0)

    def leave(self) -> None:
        self.protocol.connection_lost(None)


def masked(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin=fin).serialize(mask=True)


TEXTS = st.text(max_size=140).map(lambda text: (Opcode.TEXT, text.encode()))
BINARIES = st.binary(max_size=140).map(lambda data: (Opcode.BINARY, data))
LARGE = st.sampled_from([125, 126, 127, 65_535, 65_536, MAX_SIZE]).map(
    lambda size: (Opcode.BINARY, b"x" * size)
)
PINGS = st.binary(max_size=125).map(lambda data: (Opcode.PING, data))


@given(
    st.lists(
        st.tuples(TEXTS | BINARIES | LARGE | PINGS, st.lists(st.integers(0, 140), max_size=2)),
        min_size=1,
        max_size=6,
    ),
    st.lists(st.integers(0, 300), max_size=12),
)
def test_messages_come_whole_however_they_are_cut(
    sent: list[tuple[tuple[Opcode, bytes], list[int]]], cuts: Sequence[int]
) -> None:
    """Fragmented by the client at some places, and by the network at others."""
    stream = b""
    messages: list[str | bytes] = []
    pongs: list[bytes] = []
    for (opcode, data), places in sent:
        if opcode is Opcode.PING:
            stream += masked(opcode, data)
            pongs.append(Frame(Opcode.PONG, data).serialize(mask=False))
            continue
        messages.append(data.decode() if opcode is Opcode.TEXT else data)
        ends = [*sorted(min(place, len(data)) for place in places), len(data)]
        begin = 0
        for number, end in enumerate(ends):
            fragment = Opcode.CONT if number else opcode
            stream += masked(fragment, data[begin:end], fin=number == len(ends) - 1)
            begin = end

    async def feed() -> None:
        peer = await Peer().connect()
        at = 0
        for cut in cuts:
            await peer.receive(stream[at : at + cut])
            at += cut
        await peer.receive(stream[at:])
        assert peer.messages == messages
        assert all(type(message) in {str, bytes} for message in peer.messages)
        assert b"".join(peer.wire.written) == b"".join(pongs)
        peer.leave()

    asyncio.run(feed())


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (masked(Opcode.TEXT, b"\xff"), 1007),
        (masked(Opcode.TEXT, b"\xff", fin=False) + masked(Opcode.CONT, b""), 1007),
        (masked(Opcode.TEXT, b"a", fin=False) + masked(Opcode.TEXT, b"b"), 1002),
        (masked(Opcode.CONT, b"a"), 1002),
        (Frame(Opcode.TEXT, b"a").serialize(mask=False), 1002),
        (b"\xc1\x80\0\0\0\0", 1002),
        (b"\x83\x80\0\0\0\0", 1002),
        (b"\x82\xff" + (MAX_SIZE + 1).to_bytes(8, "big") + b"\0\0\0\0", 1009),
        (masked(Opcode.BINARY, b"x" * (MAX_SIZE + 1)), 1009),
        (masked(Opcode.TEXT, b"a\xed\xa0\x80", fin=False), 1007),
        (masked(Opcode.TEXT, b"\xc3", fin=False) + masked(Opcode.CONT, b""), 1007),
        (
            masked(Opcode.BINARY, b"x" * MAX_SIZE, fin=False) + masked(Opcode.CONT, b"x"),
            1009,
        ),
        (b"\x09\x80\0\0\0\0", 1002),
        (b"\x89\xfe\0\x7e\0\0\0\0" + b"x" * 126, 1002),
        (masked(Opcode.CLOSE, b"\x03\xe8"), 1000),
        (masked(Opcode.CLOSE, b""), 1005),
        (masked(Opcode.CLOSE, b"\x03"), 1002),
        (masked(Opcode.CLOSE, b"\x03\xe8\xff"), 1007),
        (masked(Opcode.TEXT, b"a", fin=False) + masked(Opcode.CLOSE, b"\x03\xe8"), 1000),
        (
            masked(Opcode.TEXT, b"a", fin=False)
            + masked(Opcode.CLOSE, b"\x03\xe8")
            + masked(Opcode.CONT, b"b"),
            1000,
        ),
        *[
            (masked(Opcode.CLOSE, code.to_bytes(2, "big")), code)
            for code in (1001, 1003, 1007, 1011, 1014, 3000, 3999, 4000, 4999)
        ],
        *[
            (masked(Opcode.CLOSE, code.to_bytes(2, "big")), 1002)
            for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
        ],
    ],
    ids=[
        "not-utf-8",
        "fragments-not-utf-8",
        "a-message-in-a-message",
        "a-continuation-of-nothing",
        "not-masked",
        "reserved-bit",
        "reserved-opcode",
        "announced-too-large",
        "too-large",
        "not-utf-8-in-the-first-fragment",
        "half-a-character",
        "fragments-too-large",
        "a-ping-in-fragments",
        "a-long-ping",
        "a-close",
        "a-close-without-a-code",
        "half-a-code",
        "a-reason-not-utf-8",
        "a-close-in-a-message",
        "a-close-between-fragments",
        *[f"code-{code}" for code in (1001, 1003, 1007, 1011, 1014, 3000, 3999, 4000, 4999)],
        *[
            f"no-code-{code}"
            for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
        ],
    ],
)
async def test_what_ends_a_connection(
    frames: bytes, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.transports.sockets.CLOSE_SECONDS", 0)
    peer = await Peer().connect()
    await peer.receive(masked(Opcode.TEXT, b"before") + frames)
    await peer.receive(masked(Opcode.TEXT, b"after"))
    assert peer.messages == ["before"]
    assert peer.closed == code
    peer.link.write_frames([b"too late"], text=True)
    assert peer.closed == code
    peer.protocol.shutdown()
    await asyncio.sleep(0.01 * UNIT)
    assert peer.wire.aborted, "whoever does not read would keep it for ever"
    peer.leave()


async def test_who_sends_no_more_and_does_not_read_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.transports.sockets.CLOSE_SECONDS", 0)
    peer = await Peer().connect()
    peer.protocol.eof_received()
    await asyncio.sleep(0.01 * UNIT)
    assert peer.wire.aborted
    peer.leave()


@pytest.mark.parametrize(
    "frames",
    [
        masked(Opcode.TEXT, b"\xff", fin=False) + masked(Opcode.CONT, b""),
        masked(Opcode.TEXT, b"\xff"),
    ],
    ids=["fragments", "whole"],
)
async def test_what_comes_in_one_piece_with_a_close(frames: bytes) -> None:
    peer = await Peer().connect()
    both = masked(Opcode.TEXT, b"a", fin=False) + masked(Opcode.CONT, b"b")
    await peer.receive(both + frames + masked(Opcode.CLOSE, b"\x03\xe8"))
    assert peer.messages == ["ab"]
    assert peer.closed == 1007
    peer.leave()


async def test_a_ping_ahead_of_a_close_is_answered_and_one_behind_it_is_not() -> None:
    peer = await Peer().connect()
    ping, close = masked(Opcode.PING, b"a"), masked(Opcode.CLOSE, b"\x03\xe8")
    await peer.receive(ping + close + masked(Opcode.PING, b"b"))
    assert b"".join(peer.wire.written) == b"\x8a\x01a\x88\x02\x03\xe8"
    peer.leave()


@pytest.mark.parametrize(
    "last", [b"\xc1\x80", masked(Opcode.TEXT, b"\xff..")[:7]], ids=["reserved-bit", "not-utf-8"]
)
async def test_a_ping_ahead_of_what_is_wrong_is_answered(last: bytes) -> None:
    peer = await Peer().connect()
    await peer.receive(masked(Opcode.PING, b"a") + last)
    assert peer.wire.written[0] == b"\x8a\x01a"
    assert peer.closed in {1002, 1007}
    peer.leave()


@pytest.mark.parametrize("piece", [1, 3, 1000])
@pytest.mark.parametrize("fragment", [0, 1, 2, 11])
@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("κόσμε".encode() + b"\xf4\x90\x80\x80edited", 11),
        ("κόσμε".encode() + b"\xed\xa0\x80edited", 11),
        (b"seven, a\xc3, b\xc3", 9),
        (b"\xff" * 20, 0),
    ],
    ids=["past-the-last-character", "half-a-pair", "half-a-character", "no-utf-8"],
)
async def test_text_is_refused_at_its_first_wrong_byte(
    text: bytes, wrong: int, fragment: int, piece: int
) -> None:
    fragment = min(fragment, wrong)
    begun = masked(Opcode.TEXT, text[:fragment], fin=False)
    rest = masked(Opcode.CONT, text[fragment:])
    at = len(rest) - len(text) + wrong
    pieces = [rest[:at][place : place + piece] for place in range(0, at, piece)]
    peer = await Peer().connect()
    for data in (begun, *pieces):
        await peer.receive(data)
    assert [peer.closed, *peer.wire.written] == [None]
    await peer.receive(rest[at : at + 1])
    assert [peer.closed, *peer.messages] == [1007]
    half_closed = peer.wire.protocol
    assert isinstance(half_closed, HalfClosed)
    ended = [peer.wire.ended]
    half_closed.data_received(rest[at + 1 :])
    assert [*ended, peer.wire.ended] == [False, True], "the client is let finish its frame"
    peer.leave()


async def test_each_byte_of_a_text_in_pieces_is_checked_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever sends a large text byte by byte would have the gateway read it over and over."""
    sizes: list[int] = []

    def counted(data: memoryview, mask: bytes) -> bytes:
        sizes.append(len(data))
        return apply_mask(data, mask)

    monkeypatch.setattr("gateway.transports.checker.apply_mask", counted)
    peer = await Peer().connect()
    for opcode, fin in ((Opcode.TEXT, False), (Opcode.CONT, True), (Opcode.TEXT, True)):
        frame = masked(opcode, b"x" * 1000, fin=fin)
        for at in range(len(frame)):
            await peer.receive(frame[at : at + 1])
    assert sizes == [1] * 3 * 999
    assert peer.messages == ["x" * 2000, "x" * 1000]
    peer.leave()


async def test_what_is_no_text_may_be_anything() -> None:
    peer = await Peer().connect()
    begun, rest = masked(Opcode.BINARY, b"\xff", fin=False), masked(Opcode.CONT, b"\xff" * 9)
    for data in (begun, rest[:-1], rest[-1:]):
        await peer.receive(data)
    frame = masked(Opcode.BINARY, b"\xff" * 9)
    for data in (frame[:-1], frame[-1:]):
        await peer.receive(data)
    assert peer.messages == [b"\xff" * 10, b"\xff" * 9]
    peer.leave()


async def test_what_comes_in_part_behind_the_gateways_close_is_not_looked_at() -> None:
    peer = await Peer().connect()
    peer.link.close(1000, "")
    await peer.receive(masked(Opcode.TEXT, b"\xff" * 9)[:-1])
    assert peer.closed == 1000
    assert len(peer.wire.written) == 1
    peer.leave()


async def test_frames_are_written_together_and_large_ones_as_they_are() -> None:
    peer = await Peer().connect()
    sizes = [0, 125, 126, JOINED_BYTES, JOINED_BYTES + 1, 3]
    peer.link.write_frames([b"x" * size for size in sizes], text=False)
    large = peer.wire.written[1]
    assert len(peer.wire.written) == 3
    assert len(large) == JOINED_BYTES + 1
    expected = b"".join(Frame(Opcode.BINARY, b"x" * size).serialize(mask=False) for size in sizes)
    assert b"".join(peer.wire.written) == expected
    peer.wire.written.clear()
    peer.link.write_frames(["é", b"{}"], text=True)
    assert b"".join(peer.wire.written) == b"\x81\x02\xc3\xa9\x81\x02{}"
    peer.leave()


async def test_a_message_that_has_come_in_part_is_counted_until_it_is_whole() -> None:
    budget = ByteBudget(10_000_000)
    peer, other = Peer(budget), Peer(budget)
    await peer.connect()
    await other.connect()
    large = masked(Opcode.BINARY, bytes(150_000))
    peer.protocol.data_received(large[:100_000])
    assert budget.total == 100_000
    other.protocol.data_received(masked(Opcode.BINARY, bytes(120_000), fin=False))
    await asyncio.sleep(0)
    assert budget.total == 220_000
    peer.protocol.data_received(large[100_000:])
    await asyncio.sleep(0)
    assert [len(message) for message in peer.messages] == [150_000]
    assert budget.total == 120_000
    other.protocol.connection_lost(None)
    assert budget.total == 0


async def test_where_there_is_no_room_the_largest_part_of_a_message_goes_first() -> None:
    budget = ByteBudget(250_000)
    small, large = Peer(budget), Peer(budget)
    await small.connect()
    await large.connect()
    frame = masked(Opcode.BINARY, bytes(190_000))
    small.protocol.data_received(frame[:90_000])
    large.protocol.data_received(frame[:150_000])
    closed = [large.closed]
    await asyncio.sleep(0)
    large.protocol.data_received(frame[150_000:170_000])
    assert [*closed, large.closed] == [None, 4429]
    assert budget.total == 90_000
    small.protocol.data_received(frame[90_000:])
    await asyncio.sleep(0)
    assert [len(message) for message in small.messages] == [190_000]


@pytest.mark.parametrize(("seen", "closed"), [(-100.0, None), (-150.0, None), (-200.0, 4408)])
async def test_who_has_said_something_since_it_was_pinged_is_pinged_again(
    seen: float, closed: int | None
) -> None:
    """However late the gateway looks: it may be itself that was held up."""
    peer = await Peer().connect()
    now = asyncio.get_running_loop().time()
    peer.protocol._last_seen = now + seen
    peer.protocol._check_alive(10.0, pinged=now - 150)
    assert peer.closed == closed
    assert (peer.wire.written[-1][:1] == b"\x89") is (closed is None)


async def test_who_has_gone_before_its_turn_is_not_let_in() -> None:
    peer, turnstile = Peer(), Turnstile(HANDSHAKES)
    for _ in range(HANDSHAKES):
        turnstile.enter(lambda: None)
    peer.protocol._turnstile = turnstile
    peer.protocol.connection_made(peer.wire)
    peer.protocol.data_received(REQUEST)
    peer.wire.close()
    peer.protocol.connection_lost(None)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not peer.taken.is_set()


@pytest.mark.parametrize(
    "last",
    [masked(Opcode.TEXT, b"\xff"), b"\x83\x80", masked(Opcode.CLOSE, b"\x03\xe8")],
    ids=["not-text", "bad-opcode", "close"],
)
async def test_nothing_is_counted_of_what_comes_behind_the_last_frame(last: bytes) -> None:
    budget = ByteBudget(300_000)
    peer = await Peer(budget).connect()
    peer.protocol.data_received(last + bytes(200_000))
    assert budget.total == 0
    peer.protocol.connection_lost(None)
    assert budget.total == 0


async def test_room_is_made_by_no_close_in_the_middle_of_a_frame() -> None:
    budget = ByteBudget(300_000)
    peer, other = Peer(budget), Peer(budget)
    await peer.connect()
    await other.connect()
    other.protocol.data_received(masked(Opcode.BINARY, bytes(150_000))[:140_000])
    write = peer.wire.write

    def full(data: bytes | bytearray | memoryview) -> None:
        write(data)
        peer.wire.unsent = 290_000
        peer.protocol.pause_writing()

    peer.wire.write = full  # type: ignore[method-assign]
    payload = bytes(JOINED_BYTES + 1)
    peer.link.write_frames([payload], text=False)
    written = b"".join(peer.wire.written)
    assert written == Frame(Opcode.BINARY, payload).serialize(mask=False)
    await asyncio.sleep(0)
    assert peer.closed == 4413
    assert budget.total == 140_000, "what is on its way out of memory makes no others give way"
    for one in (peer, other):
        one.protocol.connection_lost(None)
    assert budget.total == 0


async def test_a_server_that_stops_waits_for_who_is_to_be_closed() -> None:
    peer = await Peer().connect()
    peer.link.finish()
    peer.protocol.shutdown()
    assert [peer.closed, *peer.wire.written] == [None]
    peer.link.close(1012, "restarting")
    assert Close.parse(peer.wire.written[-1][2:]).code == 1012
    peer.leave()


async def test_what_a_client_does_not_read_is_counted_too() -> None:
    budget = ByteBudget(300_000)
    peer, other = Peer(budget), Peer(budget)
    await peer.connect()
    await other.connect()
    for one, unsent in ((peer, 200_000), (other, 90_000)):
        one.wire.unsent = unsent
        one.protocol.pause_writing()
    await asyncio.sleep(0)
    assert budget.total == 290_000
    other.protocol.resume_writing()
    assert budget.total == 200_000
    other.protocol.data_received(masked(Opcode.BINARY, bytes(150_000))[:120_000])
    assert peer.closed == 4413
    assert other.closed is None
    for one in (peer, other):
        one.protocol.connection_lost(None)
    assert budget.total == 0
