"""The codecs: what is a message, what is not, and that nothing else comes out of either."""

import base64
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from gateway.errors import ErrorCode, Outcome
from gateway.protocol import messages as wire
from gateway.protocol.codecs import Codec, Frame, JsonCodec, MsgpackCodec, ProtocolError
from gateway.protocol.messages import ServerMessage

JSON, MSGPACK = JsonCodec(), MsgpackCodec()
CODECS = pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=["json", "msgpack"])


def frame(codec: Codec, value: object) -> Frame:
    """A value as a client would send it."""
    if codec is JSON:
        return msgspec.json.encode(value).decode()
    return msgspec.msgpack.encode(value)


def written(codec: Codec, message: ServerMessage) -> dict[str, Any]:
    """What a client reads."""
    sent = codec.encode(message)
    decoded = msgspec.json.decode(sent) if codec.text else msgspec.msgpack.decode(sent)
    assert isinstance(decoded, dict)
    return decoded


def refusal(codec: Codec, sent: Frame) -> str:
    """Why a frame is no message."""
    with pytest.raises(ProtocolError) as caught:
        codec.decode(sent)
    return str(caught.value)


@CODECS
@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ({"type": "session.open"}, wire.SessionOpen()),
        (
            {"type": "session.open", "session_id": "s", "resume_key": "k", "last_event": 0},
            wire.SessionOpen(session_id="s", resume_key="k", last_event=0),
        ),
        ({"type": "message.send", "id": "!~", "text": ""}, wire.MessageSend(id="!~", text="")),
        (
            {"type": "message.send", "id": "a", "base64": "AP8="},
            wire.MessageSend(id="a", data=b"\x00\xff"),
        ),
        (
            {"type": "message.send", "id": "a", "text": "x", "stream": True, "accept": "a/b"},
            wire.MessageSend(id="a", text="x", stream=True, accept="a/b"),
        ),
        ({"type": "message.cancel", "id": "a"}, wire.MessageCancel(id="a")),
        ({"type": "event.ack", "event": 3}, wire.EventAck(event=3)),
        ({"type": "auth.refresh", "token": "t"}, wire.AuthRefresh(token="t")),
        ({"type": "session.close"}, wire.SessionClose()),
        ({"type": "ping"}, wire.Ping()),
        ({"type": "ping", "data": "x" * 125}, wire.Ping(data="x" * 125)),
    ],
)
def test_messages(codec: Codec, sent: Mapping[str, Any], message: wire.ClientMessage) -> None:
    assert codec.decode(frame(codec, sent)) == message


@CODECS
@pytest.mark.parametrize(
    ("sent", "says"),
    [
        ({"type": "nonsense"}, "$.type"),
        ({"text": "x"}, "`type`"),
        ({"type": "message.send", "text": "x"}, "`id`"),
        ({"type": "message.send", "id": "a"}, "`text`"),
        ({"type": "message.send", "id": "a", "text": "x", "base64": ""}, "exactly one of"),
        ({"type": "message.send", "id": "a", "text": 1}, "$.text"),
        ({"type": "message.send", "id": "a", "text": None}, "$.text"),
        ({"type": "message.send", "id": "", "text": "x"}, "$.id"),
        ({"type": "message.send", "id": "a b", "text": "x"}, "$.id"),
        ({"type": "message.send", "id": "a\n", "text": "x"}, "$.id"),
        ({"type": "message.send", "id": "é", "text": "x"}, "$.id"),
        ({"type": "message.send", "id": "a" * 65, "text": "x"}, "$.id"),
        ({"type": "message.send", "id": "a\x7f", "text": "x"}, "$.id"),
        ({"type": "message.cancel", "id": "a b"}, "$.id"),
        ({"type": "message.cancel", "id": ""}, "$.id"),
        ({"type": "message.send", "id": "a", "text": "x", "extra": 1}, "`extra`"),
        ({"type": "message.send", "id": "a", "text": "x", "verbatim": True}, "`verbatim`"),
        ({"type": "message.send", "id": "a", "text": "x", "verbatim": False}, "`verbatim`"),
        ({"type": "message.send", "id": "a", "text": "x", "stream": 1}, "$.stream"),
        ({"type": "message.send", "id": "a", "text": "x", "accept": "a\r\nb"}, "$.accept"),
        ({"type": "message.send", "id": "a", "text": "x", "accept": "é"}, "$.accept"),
        ({"type": "message.send", "id": "a", "text": "x", "accept": ""}, "$.accept"),
        ({"type": "message.send", "id": "a", "text": "x", "accept": "a" * 1025}, "$.accept"),
        ({"type": "message.send", "id": "a", "base64": "AP8"}, "$.base64"),
        ({"type": "message.send", "id": "a", "base64": "é"}, "$.base64"),
        ({"type": "event.ack", "event": -1}, "$.event"),
        ({"type": "event.ack", "event": 1.5}, "$.event"),
        ({"type": "session.close", "reason": "x"}, "`reason`"),
        ({"type": "ping", "data": "x" * 126}, "$.data"),
        ([], "object"),
        ("text", "object"),
        (None, "object"),
    ],
)
def test_what_is_no_message_is_refused_by_name(codec: Codec, sent: object, says: str) -> None:
    assert says in refusal(codec, frame(codec, sent))


@CODECS
def test_a_field_of_the_gateways_own_is_unknown_like_any_other(codec: Codec) -> None:
    asked = {"type": "message.send", "id": "a", "text": "x"}
    own = refusal(codec, frame(codec, {**asked, "verbatim": True}))
    assert own == refusal(codec, frame(codec, {**asked, "extra": 1})).replace("extra", "verbatim")


@CODECS
def test_a_refused_message_says_what_it_claimed_to_be(codec: Codec) -> None:
    for sent, claim in (
        ({"type": "session.open", "x": 1}, "session.open"),
        ({"type": 1}, None),
        ([], None),
    ):
        with pytest.raises(ProtocolError) as caught:
            codec.decode(frame(codec, sent))
        assert caught.value.message_type == claim


def test_json_bodies_pass_as_they_were_written() -> None:
    message = JSON.decode('{"type":"message.send","json": {"b" : 1.0, "a":[ ]},"id":"a"}')
    assert isinstance(message, wire.MessageSend)
    assert message.json is not UNSET
    assert bytes(message.json) == b'{"b" : 1.0, "a":[ ]}'


def test_json_null_is_a_body() -> None:
    message = JSON.decode('{"type":"message.send","json":null,"id":"a"}')
    assert isinstance(message, wire.MessageSend)
    assert message.json is not UNSET
    assert bytes(message.json) == b"null"


def test_binary_bodies_are_for_messagepack() -> None:
    sent = {"type": "message.send", "id": "a", "bytes": b"\x00"}
    assert MSGPACK.decode(frame(MSGPACK, sent)) == wire.MessageSend(id="a", data=b"\x00")
    assert "$.bytes" in refusal(JSON, frame(JSON, sent))
    assert "`bytes`" in refusal(MSGPACK, frame(MSGPACK, {"type": "message.send", "id": "a"}))


@pytest.mark.parametrize(
    "value", [None, True, 1, -1.5, "é", [], {"a": [{"b": None}]}, 2**64 - 1, 10**18]
)
def test_messagepack_bodies_become_json(value: object) -> None:
    message = MSGPACK.decode(frame(MSGPACK, {"type": "message.send", "id": "a", "json": value}))
    assert isinstance(message, wire.MessageSend)
    assert message.json is not UNSET
    assert msgspec.json.decode(message.json) == value


@pytest.mark.parametrize(
    "value",
    [b"x", {"a": b"x"}, {1: 2}, [float("nan")], {"a": float("inf")}, msgspec.msgpack.Ext(1, b"")],
)
def test_messagepack_bodies_without_a_json_form_are_refused(value: object) -> None:
    sent = frame(MSGPACK, {"type": "message.send", "id": "a", "json": value})
    assert "no JSON form - at `$.json`" in refusal(MSGPACK, sent)


def test_frames_of_the_other_kind_are_refused() -> None:
    assert "text frames" in refusal(JSON, b"{}")
    assert "binary frames" in refusal(MSGPACK, "{}")


@pytest.mark.parametrize("bad", ["", "{", "nul", '{"type":"ping"} x', '{"type":"\\ud800"}', "NaN"])
def test_bad_json(bad: str) -> None:
    refusal(JSON, bad)


def test_text_that_is_not_utf_8() -> None:
    assert "UTF-8" in refusal(MSGPACK, b"\x82\xa4type\xa4ping\xa4data\xa1\xff")
    in_json = b"\x83\xa4type\xacmessage.send\xa2id\xa1a\xa4json\xa1\xff"
    assert "UTF-8" in refusal(MSGPACK, in_json)


def test_deep_nesting() -> None:
    depth = 100_000
    start = '{"type":"message.send","id":"a","json":'
    assert "deeply" in refusal(JSON, start + "[" * depth + "]" * depth + "}")
    packed = b"\x83\xa4type\xacmessage.send\xa2id\xa1a\xa4json" + b"\x91" * depth + b"\xc0"
    assert "deeply" in refusal(MSGPACK, packed)


@CODECS
def test_a_reply_in_each_form(codec: Codec) -> None:
    base = {"event": 1, "id": "a", "status": "completed", "deltas": 0, "duration_ms": 5}
    for body, sent in (
        ({"text": "é"}, {"text": "é"}),
        ({"json": Raw(b'{"a": [1]}')}, {"json": {"a": [1]}}),
        ({"base64": b"\x00"}, {"base64": "AA=="} if codec is JSON else {"bytes": b"\x00"}),
    ):
        message = wire.MessageDone(**base, **body)  # type: ignore[arg-type]
        assert written(codec, message) == {"type": "message.done", **base, **sent}


@pytest.mark.parametrize("body", ["[18446744073709551616]", "1e999"])
def test_json_that_has_no_messagepack_form_is_text(body: str) -> None:
    message = wire.MessageDone(
        event=1, id="a", status="completed", deltas=0, duration_ms=5, json=Raw(body.encode())
    )
    sent = written(MSGPACK, message)
    assert sent["text"] == body
    assert "json" not in sent


@CODECS
def test_messages_to_clients(codec: Codec) -> None:
    opened = wire.SessionOpened(
        event=1,
        session_id="s",
        resume_key="k",
        expires_at=None,
        route="chat",
        limits=wire.Limits(message_bytes=1, queued_messages=2, resume_seconds=0.0),
        heartbeat_seconds=30.0,
    )
    assert written(codec, opened) == {
        "type": "session.opened",
        "event": 1,
        "session_id": "s",
        "resume_key": "k",
        "expires_at": None,
        "route": "chat",
        "limits": {"message_bytes": 1, "queued_messages": 2, "resume_seconds": 0.0},
        "heartbeat_seconds": 30.0,
    }
    error = wire.ErrorObject(
        code=ErrorCode.TIMEOUT, message="m", retryable=False, outcome=Outcome.UNKNOWN
    )
    done = wire.MessageDone(event=2, id="a", status="failed", deltas=0, duration_ms=0, error=error)
    assert written(codec, done)["error"] == {
        "code": "timeout",
        "message": "m",
        "retryable": False,
        "outcome": "unknown",
    }
    assert written(codec, wire.Pong()) == {"type": "pong"}
    assert written(codec, wire.SessionClosed(event=3, reason="idle")) == {
        "type": "session.closed",
        "event": 3,
        "reason": "idle",
    }


@CODECS
@pytest.mark.parametrize(
    ("fields", "known"),
    [
        ({"id": "a", "text": 1}, "a"),
        ({"id": "a"}, "a"),
        ({"id": "a", "base64": "?"}, "a"),
        ({"id": "a b", "text": "x"}, None),
        ({"id": "a" * 65, "text": "x"}, None),
        ({"id": 1, "text": "x"}, None),
        ({"text": "x"}, None),
    ],
)
def test_a_refusal_names_the_message(codec: Codec, fields: dict[str, Any], known: str) -> None:
    with pytest.raises(ProtocolError) as refused:
        codec.decode(frame(codec, {"type": "message.send", **fields}))
    assert refused.value.message_id == known


def test_a_delta() -> None:
    text = wire.MessageDelta(event=1, id="a", index=0, text="x")
    data = wire.MessageDelta(event=2, id="a", index=1, base64=b"x")
    assert written(JSON, data)["base64"] == "eA=="
    assert written(MSGPACK, data)["bytes"] == b"x"
    assert written(MSGPACK, text)["text"] == "x"


def outcome(codec: Codec, sent: Frame) -> None:
    """Nothing but a message or the protocol's own error comes out."""
    try:
        message = codec.decode(sent)
    except ProtocolError:
        return
    if isinstance(message, wire.MessageSend):
        assert [message.text, message.json, message.data].count(UNSET) == 2
        assert message.base64 is UNSET
        if message.json is not UNSET:
            msgspec.json.decode(message.json)


TYPES = st.sampled_from(
    ["session.open", "message.send", "message.cancel", "event.ack", "auth.refresh", "ping", "x"]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [*wire.MessageSend.__struct_encode_fields__, *wire.SessionOpen.__struct_encode_fields__]
)
OBJECTS = st.builds(
    lambda kind, fields: {"type": kind, **fields}, TYPES, st.dictionaries(NAMES, VALUES)
)


@given(st.text())
def test_any_text(sent: str) -> None:
    outcome(JSON, sent)


@given(st.binary())
def test_any_bytes(sent: bytes) -> None:
    outcome(MSGPACK, sent)


@CODECS
@given(value=OBJECTS)
def test_any_object(codec: Codec, value: object) -> None:
    outcome(codec, frame(codec, value))


@CODECS
@given(value=OBJECTS, cut=st.integers(0, 200))
def test_any_object_cut_short(codec: Codec, value: object, cut: int) -> None:
    outcome(codec, frame(codec, value)[:cut])


@given(st.binary())
def test_base64_round_trips(body: bytes) -> None:
    sent = {"type": "message.send", "id": "a", "base64": base64.b64encode(body).decode()}
    for codec in (JSON, MSGPACK):
        assert codec.decode(frame(codec, sent)) == wire.MessageSend(id="a", data=body)
