"""What a frame may ask to be built: every form of MessagePack, each bound, and what is built."""

import math
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from gateway.protocol import messages as wire
from gateway.protocol.codecs import MAX_ERROR_TEXT, Codec, JsonCodec, MsgpackCodec, ProtocolError
from gateway.protocol.structure import (
    MAX_VALUES,
    NoJsonForm,
    TooManyValues,
    check_packed,
    may_be_built,
)

JSON, MSGPACK = JsonCodec(), MsgpackCodec()
SEND = b"\x83\xa4type\xacmessage.send\xa2id\xa1a\xa4json"
MANY = 200_000
BUILT = 1_000_000
"""Fewer bytes than as many objects would take, and more than errors and tables do."""

pack = msgspec.msgpack.encode


@contextmanager
def builds_little() -> Iterator[None]:
    """Nothing in here takes more memory than what it was given."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < BUILT


def array(count: int, item: bytes) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big") + item * count


FORMS = [
    *(None, False, True, 0, 127, 128, 255, 256, 65_535, 65_536, 2**32, 2**64 - 1),
    *(-1, -32, -33, -128, -129, -32_769, -(2**31) - 1, -(2**63)),
    *(0.0, -1.5, 1e308),
    *("x" * length for length in (0, 31, 32, 255, 256, 65_536)),
    *([0] * length for length in (0, 15, 16)),
    *({str(key): key for key in range(length)} for length in (0, 15, 16)),
    {"a": [{"b": {"c": []}}, {}], "d": [[[{}]]], "e": "f"},
]


@pytest.mark.parametrize("value", FORMS, ids=lambda value: str(value)[:20])
def test_every_form_is_read_to_its_end(value: object) -> None:
    check_packed(pack(value))
    check_packed(pack([value, {"key": value}]))
    for after in (b"x", {1: 2}):
        with pytest.raises(NoJsonForm):
            check_packed(pack([value, after]))
        with pytest.raises(NoJsonForm):
            check_packed(pack({"key": value, "after": after}))


FLOATS = [math.inf, -math.inf, math.nan]


@pytest.mark.parametrize(
    "packed",
    [
        *map(pack, FLOATS),
        b"\xca\x7f\x80\x00\x00",
        b"\xca\xff\x80\x00\x00",
        b"\xca\x7f\xc0\x00\x00",
        *map(pack, ({1: 2}, {None: 2}, {1.0: 2}, {b"x": 2}, {("a",): 2})),
        b"\x81\x80\xc0",
        *(pack(b"x" * length) for length in (0, 256, 65_536)),
        *(pack(msgspec.msgpack.Ext(5, b"x" * length)) for length in (0, 1, 2, 4, 8, 16, 300)),
        b"\xc1",
    ],
)
def test_what_has_no_json_form(packed: bytes) -> None:
    with pytest.raises(NoJsonForm):
        check_packed(packed)


def test_short_floats() -> None:
    check_packed(b"\x93\xca\x3f\x80\x00\x00\xca\x7f\x7f\xff\xff\xca\xff\x00\x00\x00")


def test_as_many_values_as_there_may_be() -> None:
    check_packed(array(MAX_VALUES - 1, b"\xc0"))
    check_packed(array((MAX_VALUES - 1) // 3, b"\x81\xa1a\xc0"))
    for packed in (
        array(MAX_VALUES, b"\xc0"),
        array(MAX_VALUES // 3 + 1, b"\x81\xa1a\xc0"),
        b"\x91" * MAX_VALUES + b"\xc0",
    ):
        with pytest.raises(TooManyValues):
            check_packed(packed)


def test_json_with_as_many_values() -> None:
    for item in ("0", "[]", '{"a":0}'):
        each = 1 if item == "0" else len(msgspec.json.decode(item)) * 2 + 2
        for count, few in (((MAX_VALUES - 1) // each, True), (MAX_VALUES, False)):
            assert may_be_built(f"[{','.join([item] * count)}]".encode()) is few
    assert may_be_built(b'"' + b"x" * MAX_VALUES + b'"')
    assert may_be_built(b'"' + b"x" * 1_000_000 + b'"' + b"," * (MAX_VALUES - 1))
    assert not may_be_built(memoryview(b'"' + b"x" * 1_000_000 + b'"' + b"," * MAX_VALUES))


@given(
    st.recursive(
        st.none() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
        lambda inner: (
            st.lists(inner, max_size=20)
            | st.dictionaries(st.text() | st.integers(0, 9), inner, max_size=20)
        ),
    )
)
def test_any_value(value: object) -> None:
    try:
        check_packed(pack(value))
    except NoJsonForm:
        assert not has_json_form(value)
    else:
        assert has_json_form(value)


def has_json_form(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and has_json_form(value[key]) for key in value)
    if isinstance(value, list):
        return all(map(has_json_form, value))
    return not isinstance(value, bytes) and not (isinstance(value, float) and value - value != 0)


@pytest.mark.parametrize(
    ("codec", "frame", "says"),
    [
        (MSGPACK, SEND + array(MANY, b"\x80"), "more than 100000 values"),
        (MSGPACK, SEND + array(MANY, b"\x90"), "more than 100000 values"),
        (MSGPACK, SEND + b"\xdf\x00\x00\x4e\x20" + b"\x92\x01\x02\x03" * 20_000, "no JSON form"),
        (MSGPACK, b"\x82\xa4type\xacmessage.send\xa2id" + array(MANY, b"\x80"), "$.id"),
        (MSGPACK, b"\x82\xa4type\xacmessage.send\xa1x" + array(MANY, b"\x80"), "`x`"),
        (MSGPACK, b"\x81\xa4type" + array(MANY, b"\x80"), "$.type"),
        (MSGPACK, array(MANY, b"\x80"), "object"),
        *(
            (JSON, start + "[" + ",".join(["[]"] * MANY) + "]}", says)
            for start, says in (
                ('{"type":"message.send","id":', "$.id"),
                ('{"type":"message.send","x":', "`x`"),
                ('{"type":"x","x":', "$.type"),
                ('{"type":', "$.type"),
                ('{"x":', "`type`"),
            )
        ),
    ],
)
def test_nothing_is_built_of_what_is_refused(codec: Codec, frame: str | bytes, says: str) -> None:
    with builds_little(), pytest.raises(ProtocolError) as refused:
        codec.decode(frame)
    assert says in str(refused.value)


def test_a_json_body_is_not_built() -> None:
    body = "[" + ",".join(["[]"] * MANY) + "]"
    frame = '{"type":"message.send","id":"a","json":' + body + "}"
    with builds_little():
        message = JSON.decode(frame)
    assert isinstance(message, wire.MessageSend)
    assert message.json is not UNSET
    assert bytes(message.json) == body.encode()


def test_a_reply_of_many_values_is_text_in_messagepack() -> None:
    for count in (10, MANY):
        body = b"[" + b",".join([b"[]"] * count) + b"]"
        done = wire.MessageDone(
            event=1, id="a", status="completed", deltas=0, duration_ms=5, json=Raw(body)
        )
        sent = msgspec.msgpack.decode(MSGPACK.encode(done))
        if count == MANY:
            assert sent["text"] == body.decode()
            assert "json" not in sent
        else:
            assert sent["json"] == [[]] * count


@pytest.mark.parametrize("field", ["type", "x" * MANY])
def test_an_error_quotes_no_more_than_a_little(field: str) -> None:
    for codec, encode in (
        (JSON, lambda value: msgspec.json.encode(value).decode()),
        (MSGPACK, pack),
    ):
        with pytest.raises(ProtocolError) as refused:
            codec.decode(encode({"type": "ping", field: "y" * MANY}))
        assert len(str(refused.value)) == MAX_ERROR_TEXT + 1
