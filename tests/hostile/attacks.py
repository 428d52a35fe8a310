"""The attacks. What is before `Field.begin` prepares one and is not measured."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType

import msgspec

from tests.hostile.field import Field
from tests.hostile.peer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MSGPACK,
    PING,
    PONG,
    TEXT,
    Gone,
    Peer,
    binary,
    frame,
    head_of,
    text,
)

Attack = Callable[[Field], Awaitable[None]]

LARGE = 6_000_000
"""Bytes of what is just small enough for a message."""
BATCH = 20_000
"""Frames in one write."""

SEND = b"\x83\xa4type\xacmessage.send\xa2id\xa1a\xa4json"
SEND_ID = b"\x82\xa4type\xacmessage.send\xa2id"
SEND_JSON = b'{"type":"message.send","id":"a","json":'


# Structures


def _colliding(count: int) -> Iterator[bytes]:
    """MessagePack arrays of two integers, whose tuples have the same hash in CPython."""
    prime_1, prime_2, prime_5 = 11400714785074694791, 14029467366897019727, 2870177450012600261
    mask, inverse = 2**64 - 1, pow(prime_2, -1, 2**64)
    first = 0
    while count:
        first += 1
        lane = (prime_5 + first * prime_2) & mask
        lane = ((lane << 31 | lane >> 33) & mask) * prime_1 & mask
        second = (1234567 - lane) * inverse & mask
        if second < 2**61 - 1:  # an integer up to there is its own hash
            count -= 1
            yield b"\x92" + msgspec.msgpack.encode(first) + msgspec.msgpack.encode(second)


def _map_of_colliding_keys(size: int) -> bytes:
    pairs = [key + b"\xc0" for key in _colliding(size // 15)]
    return b"\xdf" + len(pairs).to_bytes(4, "big") + b"".join(pairs)


def _array(count: int, item: bytes) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big") + item * count


def _list(count: int, item: bytes) -> bytes:
    return b"[" + b",".join([item] * count) + b"]"


async def colliding_keys(field: Field) -> None:
    """one frame of 320 KB before any session: arrays as map keys whose hashes collide"""
    keys = _map_of_colliding_keys(field.many(320_000))
    peers = [await field.websocket(subprotocol=MSGPACK) for _ in range(2)]
    await field.begin()
    for peer, start in zip(peers, (SEND, SEND_ID), strict=True):
        await peer.send(frame(BINARY, start + keys))
    await field.until_end()


async def colliding_keys_in_a_session(field: Field) -> None:
    """the same in `json` and `id`, with a session"""
    keys = _map_of_colliding_keys(field.many(320_000))
    peer = await field.session(subprotocol=MSGPACK)
    await field.begin()
    for start in (SEND, SEND_ID):
        await peer.send(frame(BINARY, start + keys))
    await field.until_end()


async def empty_maps(field: Field) -> None:
    """6 MB of empty maps in `json` and in `id` (MessagePack)"""
    maps = _array(field.many(LARGE), b"\x80")
    peer = await field.session(subprotocol=MSGPACK)
    await field.begin()
    for start in (SEND, SEND_ID):
        await peer.send(frame(BINARY, start + maps))
    await field.until_end()


async def empty_lists(field: Field) -> None:
    """6 MB of empty lists in `json`, in `id`, and where nothing is expected (JSON)"""
    lists = _list(field.many(LARGE) // 3, b"[]")
    peer = await field.session()
    await field.begin()
    for start in (SEND_JSON, b'{"type":"message.send","id":', b'{"type":"ping","x":'):
        await peer.send(frame(TEXT, start + lists + b"}"))
    await field.until_end()


async def repeated_fields(field: Field) -> None:
    """6 MB of one field of a message, again and again"""
    peers = [await field.session(), await field.session(subprotocol=MSGPACK)]
    count = field.many(LARGE) // 9
    json = b'{"type":"message.send",' + b'"id":"a",' * count + b'"x":1}'
    pairs = b"\xdf" + (count + 1).to_bytes(4, "big") + b"\xa4type\xacmessage.send"
    await field.begin()
    await peers[0].send(frame(TEXT, json))
    await peers[1].send(frame(BINARY, pairs + b"\xa2id\xa1a" * count))
    await field.until_end()


async def long_strings(field: Field) -> None:
    """6 MB as `type`, as `id`, as a field's name and as a `resume_key`"""
    peer, other = await field.session(), await field.websocket()
    long = "x" * field.many(LARGE)
    await field.begin()
    await other.send(text(type="session.open", session_id="s", resume_key=long, last_event=0))
    await peer.send(text(type=long))
    await peer.send(text(type="message.cancel", id=long))
    await peer.send(text(type="ping", **{long: 1}))
    await field.until_end()


async def deep_nesting(field: Field) -> None:
    """a million levels of nesting"""
    peers = [await field.session(), await field.session(subprotocol=MSGPACK)]
    depth = field.many(1_000_000)
    await field.begin()
    await peers[0].send(frame(TEXT, SEND_JSON + b"[" * depth))
    await peers[1].send(frame(BINARY, SEND + b"\x91" * depth + b"\xc0"))
    await field.until_end()


async def refused_and_back(field: Field) -> None:
    """a session after the other, each with 20 frames of 1 MB that are refused"""
    maps = frame(BINARY, SEND + _array(field.many(1_000_000), b"\x80"))

    async def attempt() -> None:
        peer = await field.session(subprotocol=MSGPACK)
        for _ in range(20):
            await peer.send(maps)
        await peer.closed()

    await field.begin()
    await field.again_and_again(attempt)


# Frames


async def _flood_of(field: Field, piece: bytes, route: str = "chat") -> None:
    peer = await field.session(route)
    pieces = piece * field.many(BATCH)
    await field.begin()
    await field.flood(peer, pieces)


async def pongs(field: Field) -> None:
    """pongs, 20,000 a write"""
    await _flood_of(field, frame(PONG))


async def pings(field: Field) -> None:
    """pings, 20,000 a write"""
    await _flood_of(field, frame(PING, b"x"))


async def pings_without_reading(field: Field) -> None:
    """the same with 125 bytes, by a client that does not read"""
    peer = await field.session()
    peer.transport.pause_reading()
    pieces = frame(PING, b"x" * 125) * field.many(BATCH)
    await field.begin()
    await field.flood(peer, pieces)


async def ping_messages(field: Field) -> None:
    """`ping`, 20,000 a write"""
    await _flood_of(field, text(type="ping"))


async def acks(field: Field) -> None:
    """`event.ack`, 20,000 a write"""
    await _flood_of(field, text(type="event.ack", event=1))


async def cancels(field: Field) -> None:
    """`message.cancel` of what is not there, 20,000 a write"""
    await _flood_of(field, text(type="message.cancel", id="a"))


async def cancels_and_back(field: Field) -> None:
    """the same, a session after the other"""
    piece = text(type="message.cancel", id="a") * field.many(BATCH)

    async def attempt() -> None:
        peer = await field.session()
        await field.flood(peer, piece)

    await field.begin()
    await field.again_and_again(attempt)


async def sends_to_a_full_queue(field: Field) -> None:
    """`message.send` to a full queue, 20,000 a write"""
    peer = await field.session("silent")
    pieces = b"".join(
        text(type="message.send", id=f"{number}", text="x") for number in range(field.many(BATCH))
    )
    await field.begin()
    await field.flood(peer, pieces)


async def turns(field: Field) -> None:
    """turns that are accepted, as many as the model answers, in 20 sessions"""
    peers = [await field.session() for _ in range(20)]
    pieces = [
        b"".join(text(type="message.send", id=f"{at + n}", text="x") for n in range(16))
        for at in range(0, 16_000, 16)
    ]
    await field.begin()
    await asyncio.gather(*(field.flood(peer, *pieces) for peer in peers))


async def fragments(field: Field) -> None:
    """messages in frames of one byte, 20,000 a write"""
    peer = await field.session()
    await field.begin()
    with suppress(Gone):
        await peer.send(frame(TEXT, b"x", fin=False))
    await field.flood(peer, frame(CONTINUATION, b"x", fin=False) * field.many(BATCH))


async def empty_fragments(field: Field) -> None:
    """a message in frames of no bytes, without an end"""
    peer = await field.session()
    await field.begin()
    with suppress(Gone):
        await peer.send(frame(TEXT, b"", fin=False))
    await field.flood(peer, frame(CONTINUATION, b"", fin=False) * field.many(BATCH))


async def unfinished_frames(field: Field) -> None:
    """60 frames of 6 MB whose last byte never comes"""
    peers = [await field.session() for _ in range(field.many(60))]
    await field.begin()
    for peer in peers:
        with suppress(Gone):
            await peer.send(head_of(0x80 | BINARY, LARGE) + b"x" * (LARGE - 1))
    await field.until_end()


async def slow_frames(field: Field) -> None:
    """200 frames that come a byte at a time"""
    peers = [await field.session() for _ in range(field.many(200))]
    await field.begin()
    whole = head_of(0x80 | TEXT, LARGE) + b"x" * 1000
    end = asyncio.get_running_loop().time() + field.seconds
    for byte in whole:
        if asyncio.get_running_loop().time() > end:
            break
        for peer in peers:
            with suppress(Gone):
                await peer.send(bytes((byte,)))
        await asyncio.sleep(0.01)


async def close_frames(field: Field) -> None:
    """close frames with a reason of 64 KB, and 20,000 close frames"""

    async def attempt() -> None:
        long, many = await field.session(), await field.session()
        await long.send(frame(CLOSE, b"\x03\xe8" + b"x" * 65_536))
        await many.send(frame(CLOSE, b"\x03\xe8") * field.many(BATCH))
        await long.closed()
        await many.closed()

    await field.begin()
    await field.again_and_again(attempt)


async def compression(field: Field) -> None:
    """compressed frames, of which none is agreed on, and 600 offers of it"""
    offer = ", ".join(["permessage-deflate; client_max_window_bits=9"] * 150)

    async def attempt() -> None:
        peer = await field.websocket("chat", f"Sec-WebSocket-Extensions: {offer}")
        await peer.send(head_of(0xC1, 1000) + b"\0" * 1000)
        await peer.closed()

    await field.begin()
    await field.again_and_again(attempt)


# HTTP

REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"


async def endless_header(field: Field) -> None:
    """a header without an end"""
    peer = await field.peer()
    await field.begin()
    await peer.send(REQUEST + b"A: ")
    await field.flood(peer, b"x" * 1_000_000)


async def endless_headers(field: Field) -> None:
    """headers without an end"""
    peer = await field.peer()
    await field.begin()
    await peer.send(REQUEST)
    await field.flood(peer, b"a:b\r\n" * field.many(200_000))


async def endless_trailers(field: Field) -> None:
    """trailers without an end"""
    peer = await field.peer()
    await field.begin()
    await peer.send(CHUNKED + b"0\r\n")
    await field.flood(peer, b"a:b\r\n" * field.many(200_000))


async def small_chunks(field: Field) -> None:
    """a body in chunks of one byte"""
    peer = await field.peer()
    await field.begin()
    await peer.send(CHUNKED)
    await field.flood(peer, b"1\r\nx\r\n" * field.many(200_000))


async def unread_answers(field: Field) -> None:
    """pipelined requests whose answers are not read, up to 32 MB of them"""
    peer = await field.peer(reads=False)
    pieces = (REQUEST + b"\r\n") * 30_000
    await field.begin()
    with suppress(Gone, TimeoutError):
        async with asyncio.timeout(field.seconds):
            for _ in range(field.many(32)):
                await peer.send(pieces)


async def silent_sockets(field: Field) -> None:
    """2,000 sockets that say nothing"""
    await field.begin()
    for _ in range(field.many(40)):
        await asyncio.gather(*(field.peer() for _ in range(50)))
    await field.until_end(more_seconds=10)  # the time that each has to begin


async def silent_raw(field: Field) -> None:
    """500 raw connections without a frame"""
    await field.begin()
    for _ in range(field.many(10)):
        await asyncio.gather(*(field.websocket(subprotocol=None) for _ in range(50)))
    await field.until_end(more_seconds=10)  # the time that each has to begin


async def _handshake(field: Field, *headers: str, subprotocol: str | None = None) -> None:
    with suppress(Gone):
        await field.websocket("chat", *headers, subprotocol=subprotocol)


async def large_handshakes(field: Field) -> None:
    """handshakes with 9 KB of cookies, or with 64 KB"""
    cookies = ["Cookie: " + "x" * size for size in (9_000, 64_000)]
    await field.begin()
    await asyncio.gather(*(_handshake(field, cookie) for cookie in cookies * field.many(50)))
    await field.until_end()


async def many_subprotocols(field: Field) -> None:
    """handshakes that offer 1,000 subprotocols"""
    names = ", ".join(f"v{number}" for number in range(1000))
    await field.begin()
    await field.again_and_again(lambda: _handshake(field, subprotocol=names))


async def many_handshakes(field: Field) -> None:
    """500 handshakes at once, with a session each, and again"""
    await field.begin()

    async def attempt() -> None:
        count = field.many(500)
        peers = await asyncio.gather(
            *(field.session() for _ in range(count)), return_exceptions=True
        )
        for peer in peers:
            if isinstance(peer, Peer):
                peer.abort()

    await field.again_and_again(attempt)


# Models and sessions


async def _turn(field: Field, route: str, *, subprotocol: str = "v1.json.session-gateway") -> None:
    peer = await field.session(route, subprotocol=subprotocol)
    message = binary if subprotocol == MSGPACK else text
    await field.begin()
    for number in range(field.many(5)):
        await peer.send(message(type="message.send", id=f"{number}", text="x"))
    await field.until_end()


async def stream_of_lines(field: Field) -> None:
    """a model's stream of 1 MB of `{}` lines, on another route"""
    await _turn(field, "lines")


async def stream_of_bytes(field: Field) -> None:
    """a model's stream of 50,000 parts of one byte, on another route"""
    await _turn(field, "crumbs")


async def reply_of_lists(field: Field) -> None:
    """a model's reply of 20 MB of empty lists, to be given as MessagePack"""
    await _turn(field, "lists", subprotocol=MSGPACK)


async def unread_stream(field: Field) -> None:
    """10 clients that do not read what is streamed to them"""
    peers = [await field.session("crumbs") for _ in range(field.many(10))]
    await field.begin()
    for peer in peers:
        peer.transport.pause_reading()
        for number in range(5):
            await peer.send(text(type="message.send", id=f"{number}", text="x"))
    await field.until_end()


async def detached_with_full_logs(field: Field) -> None:
    """8 clients that leave, with 60 MB of replies to be kept for each"""
    peers = [await field.session("hoard") for _ in range(field.many(8))]
    await field.begin()
    for peer in peers:
        for number in range(field.many(12)):
            await peer.send(text(type="message.send", id=f"{number}", text="x"))
    await asyncio.sleep(0.3)
    for peer in peers:
        peer.abort()
    await asyncio.sleep(field.seconds)


async def takeovers(field: Field) -> None:
    """a session that is resumed over and over"""
    peer = await field.session()
    opened = await peer.opened()
    await field.begin()
    session, key = opened.get("session_id", ""), opened.get("resume_key", "")  # if it was let in

    async def attempt() -> None:
        nonlocal key
        peer = await field.websocket()
        await peer.send(text(type="session.open", session_id=session, resume_key=key, last_event=0))
        key = (await peer.opened()).get("resume_key", key)
        await peer.send(text(type="ping"))

    await field.again_and_again(attempt)


ATTACKS: Mapping[str, Attack] = MappingProxyType(
    {
        attack.__name__: attack
        for attack in (
            colliding_keys,
            colliding_keys_in_a_session,
            empty_maps,
            empty_lists,
            repeated_fields,
            long_strings,
            deep_nesting,
            refused_and_back,
            pongs,
            pings,
            pings_without_reading,
            ping_messages,
            acks,
            cancels,
            cancels_and_back,
            sends_to_a_full_queue,
            turns,
            fragments,
            empty_fragments,
            unfinished_frames,
            slow_frames,
            close_frames,
            compression,
            endless_header,
            endless_headers,
            endless_trailers,
            small_chunks,
            unread_answers,
            silent_sockets,
            silent_raw,
            large_handshakes,
            many_subprotocols,
            many_handshakes,
            stream_of_lines,
            stream_of_bytes,
            reply_of_lists,
            unread_stream,
            detached_with_full_logs,
            takeovers,
        )
    }
)
