"""The event stream's parser gives what botocore's gives, however the bytes are cut or spoilt."""

import struct
from collections.abc import Iterable, Mapping
from typing import Any
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.sagemaker.eventstream import HEADER_BYTES, PAYLOAD_BYTES, EventStream, Malformed

Events = list[tuple[Mapping[str, Any], bytes]]


def ours(slices: Iterable[bytes]) -> tuple[Events, bool, bool]:
    """The events, whether the bytes were found to be malformed, and whether some are left."""
    events: Events = []
    stream = EventStream()
    try:
        for data in slices:
            events.extend((dict(headers), payload) for headers, payload in stream.feed(data))
    except Malformed:
        return events, True, False
    return events, False, stream.pending


def botocores(slices: Iterable[bytes]) -> tuple[Events, bool, bool]:
    events: Events = []
    buffer = EventStreamBuffer()
    size = 0
    try:
        for data in slices:
            buffer.add_data(data)
            size += len(data)
            for event in buffer:
                events.append((event.headers, event.payload))
                size -= event.prelude.total_length
    except Exception:  # noqa: BLE001 - it has many
        return events, True, False
    return events, False, size > 0


def event(head: bytes, payload: bytes) -> bytes:
    prelude = struct.pack("!II", 16 + len(head) + len(payload), len(head))
    whole = prelude + struct.pack("!I", crc32(prelude)) + head + payload
    return whole + struct.pack("!I", crc32(whole))


def header(name: bytes, kind: int, value: bytes) -> bytes:
    return struct.pack("!B", len(name)) + name + struct.pack("!B", kind) + value


def _sized(value: bytes) -> bytes:
    return struct.pack("!H", len(value)) + value


_NAMES = st.sampled_from([b":event-type", b":message-type", b"a", b"", b"\xc3\xa9", b"\xff"])
_HEADERS = st.one_of(
    st.builds(header, _NAMES, st.sampled_from([0, 1]), st.just(b"")),
    st.builds(header, _NAMES, st.just(2), st.binary(min_size=1, max_size=1)),
    st.builds(header, _NAMES, st.just(3), st.binary(min_size=2, max_size=2)),
    st.builds(header, _NAMES, st.just(4), st.binary(min_size=4, max_size=4)),
    st.builds(header, _NAMES, st.sampled_from([5, 8]), st.binary(min_size=8, max_size=8)),
    st.builds(header, _NAMES, st.just(9), st.binary(min_size=16, max_size=16)),
    st.builds(header, _NAMES, st.sampled_from([6, 7]), st.binary(max_size=9).map(_sized)),
    st.builds(header, _NAMES, st.integers(0, 12), st.binary(max_size=4)),
)
_HEADS = st.lists(_HEADERS, max_size=3).map(b"".join) | st.binary(max_size=12)
_PART = header(b":event-type", 7, _sized(b"PayloadPart"))
_EVENTS = st.builds(event, _HEADS | st.just(_PART), st.binary(max_size=40))


@given(
    st.lists(_EVENTS, max_size=5).map(b"".join),
    st.lists(st.integers(0, 300), max_size=8),
    st.none() | st.tuples(st.integers(0, 300), st.integers(1, 255)),
    st.binary(max_size=20),
)
@example(event(_PART, b"a") * 3, [1, 13, 50], None, b"")
def test_any_bytes_cut_anywhere(
    data: bytes, cuts: list[int], spoilt: tuple[int, int] | None, rest: bytes
) -> None:
    whole = bytearray(data + rest)
    if spoilt is not None and spoilt[0] < len(whole):
        whole[spoilt[0]] ^= spoilt[1]
    ends = [*sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    slices = [bytes(whole[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
    bytewise = [bytes(whole[at : at + 1]) for at in range(len(whole))]
    expected = botocores(slices)
    assert ours(slices) == expected
    assert ours([bytes(whole)]) == expected
    assert ours(bytewise) == expected


@pytest.mark.parametrize(
    ("total", "head"),
    [
        (0, 0),
        (15, 0),
        (17, 2),
        (16 + HEADER_BYTES + 1, HEADER_BYTES + 1),
        (16 + PAYLOAD_BYTES + 1, 0),
        (0xFFFFFFFF, 0xFFFFFFFF),
    ],
)
def test_lengths_that_cannot_be(total: int, head: int) -> None:
    """Told at once, and not after waiting for as many bytes; botocore waits for some of them."""
    prelude = struct.pack("!II", total, head)
    assert ours([prelude + struct.pack("!I", crc32(prelude))]) == ([], True, False)


def test_the_largest() -> None:
    large = event(_PART, bytes(1_000_000))
    slices = [large[at : at + 65_536] for at in range(0, len(large), 65_536)]
    ((headers, payload),), malformed, left = ours(slices)
    assert (headers, len(payload)) == ({":event-type": "PayloadPart"}, 1_000_000)
    assert (malformed, left) == (False, False)
