"""Any bytes of a client, cut anywhere: each answer is a documented one, and nothing is left."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from gateway.config import Settings
from gateway.errors import CloseCode, ErrorCode
from gateway.protocol.messages import ServerMessage
from tests.fuzz.stack import KEY, MESSAGE_BYTES, Answer, answer, cut, settings
from tests.support.handshakes import handshake

JSON, MSGPACK = "v1.json.session-gateway", "v1.msgpack.session-gateway"
ENCODE: dict[str | None, tuple[Opcode, Callable[[Any], bytes]]] = {
    JSON: (Opcode.TEXT, msgspec.json.encode),
    MSGPACK: (Opcode.BINARY, msgspec.msgpack.encode),
}
KINDS = frozenset(kind.__struct_config__.tag for kind in get_args(ServerMessage))
STATUS = {101, 200, 201, 204, 400, 401, 403, 404, 405, 408, 413, 426, 429, 431, 501, 503}
CLOSES = {*CloseCode, 1001, 1002, 1003, 1007, 1014}
MOST_BYTES = 200_000
"""Of all that is answered to what the strategies below make."""


@pytest.fixture(scope="module", params=[False, True], ids=["open", "auth"])
def given_settings(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Settings:
    folder: Path = tmp_path_factory.mktemp("fuzz")
    return settings(folder, auth=request.param)


BEARER = f"Authorization: Bearer {KEY}"


def masked(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin=fin).serialize(mask=True)


def check(got: Answer, *, encoded: bool, acks: bool = False) -> None:
    """What holds of every answer.

    Args:
        got: The answer.
        encoded: Whether its frames are messages.
        acks: Whether the client has acknowledged events, be it before they came: those may be
            forgotten.
    """
    assert not got.logged
    assert got.left == (0, 0, 0)
    assert set(got.status) <= STATUS
    assert sum(len(data) for _, data in got.frames) < MOST_BYTES
    assert [opcode for opcode, _ in got.frames].count(8) <= 1
    assert got.code is None or got.code in CLOSES or 3000 <= got.code <= 4999
    assert got.code != CloseCode.INTERNAL
    if not encoded:
        return
    events = 0
    for message in got.messages():
        assert message["type"] in KINDS
        assert message.get("code", "throttled") in {*ErrorCode} - {"internal"}
        if "event" in message:
            assert message["event"] > events
            assert acks or message["event"] == events + 1, "without gaps"
            events = message["event"]
    done = [m["id"] for m in got.messages() if m["type"] == "message.done"]
    assert len(done) == len(set(done)), "once"


# Handshakes

_NAMES = st.sampled_from(
    [
        *("Authorization", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "Origin", "Host"),
        *("Content-Length", "Transfer-Encoding", "Connection", "Upgrade", "Cookie", "Expect"),
        *("Sec-WebSocket-Version", "Sec-WebSocket-Key", "X-Forwarded-For", "Forwarded", "x"),
    ]
)
_WORDS = st.sampled_from(
    [
        *("Bearer ", "bearer ", "Basic ", KEY, "sgk_no", "bearer.", "ticket.", JSON, MSGPACK),
        *(", ", "13", "0", "5", "chunked", "close", "websocket", "http://127.0.0.1", "null", "="),
        *("100-continue", "permessage-deflate", "a.b.c", "\t", '"', "é"),
    ]
)
_LATIN = st.text(st.characters(max_codepoint=0xFF), max_size=20)
_VALUES = st.lists(_WORDS | _LATIN, max_size=4).map("".join)
_HEADERS = st.builds("{}: {}".format, _NAMES, _VALUES)
# Files are left out: threads read them, whose time does not go by itself.
_PATHS = st.sampled_from(["/ws", "/ws/chat", "/ws/none", "/v1/tickets", "/healthz", "/ws/../x"])
_EDIT = st.tuples(st.integers(0, 400), st.binary(max_size=4))
_EDITS: st.SearchStrategy[list[tuple[int, bytes]]] = st.just([]) | st.lists(_EDIT, max_size=3)


def edited(data: bytes, edits: list[tuple[int, bytes]]) -> bytes:
    for at, new in edits:
        data = data[:at] + new + data[at + 1 :]
    return data


@given(
    subprotocol=st.sampled_from([None, JSON, MSGPACK, "x", f"x, {JSON}"]),
    headers=st.lists(_HEADERS, max_size=4),
    path=_PATHS,
    edits=_EDITS,
    method=st.sampled_from([b"GET"] * 8 + [b"POST", b"POST", b"OPTIONS", b"x"]),
    places=st.lists(st.integers(0, 400), max_size=6),
)
def test_any_handshake(
    given_settings: Settings,
    subprotocol: str | None,
    headers: list[str],
    path: str,
    edits: list[tuple[int, bytes]],
    method: bytes,
    places: list[int],
) -> None:
    sent = method + handshake(subprotocol, *headers, path=path)[3:]
    sent = edited(sent, edits)
    whole, slices = answer(given_settings, [sent]), answer(given_settings, cut(sent, places))
    for got in (whole, slices):
        check(got, encoded=False)
    assert (whole.status, whole.code) == (slices.status, slices.code)


# Messages

_IDS = st.sampled_from(["a", "b", "c", "é", "", "a" * 65])
_ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)
_TEXTS = st.builds(
    lambda message, text: {"type": "message.send", "id": message, "text": text},
    st.sampled_from("abcdefgh"),
    st.text(max_size=12),
)
_SENDS = _TEXTS | st.builds(
    lambda message, kind, body: {"type": "message.send", "id": message, kind: body},
    _IDS,
    st.sampled_from(["text", "json", "base64", "stream", "x"]),
    st.text(max_size=12) | _ANY,
)
_PINGS = st.fixed_dictionaries({"type": st.just("ping")}, optional={"data": st.text(max_size=130)})
_OTHERS = st.one_of(
    st.fixed_dictionaries({"type": st.just("message.cancel"), "id": _IDS}),
    st.fixed_dictionaries({"type": st.just("event.ack"), "event": st.integers(-1, 9)}),
    st.fixed_dictionaries({"type": st.just("auth.refresh"), "token": st.sampled_from([KEY, "x"])}),
    st.fixed_dictionaries(
        {"type": st.just("session.open")},
        optional={"token": st.sampled_from([KEY, "x"]), "session_id": _IDS, "last_event": _ANY},
    ),
    st.just({"type": "session.close"}),
    st.dictionaries(st.sampled_from(["type", "id", "x"]), _ANY, max_size=3),
    _ANY,
)


def frames_of(subprotocol: str | None, message: Any, parts: list[int]) -> bytes:
    """A message, fragmented."""
    opcode, encode = ENCODE[subprotocol]
    pieces = cut(encode(message), parts)
    return b"".join(
        masked(Opcode.CONT if number else opcode, piece, fin=number == len(pieces) - 1)
        for number, piece in enumerate(pieces)
    )


@given(
    subprotocol=st.sampled_from([JSON, MSGPACK]),
    messages=st.lists(
        st.tuples(_SENDS | _PINGS | _OTHERS, st.lists(st.integers(0, 60), max_size=2)), max_size=10
    ),
    opened=st.sampled_from([True, True, True, False]),
    junk=st.just(b"") | st.binary(max_size=20),
    places=st.lists(st.integers(0, 900), max_size=6),
)
def test_any_messages(
    given_settings: Settings,
    subprotocol: str,
    messages: list[tuple[Any, list[int]]],
    opened: bool,
    junk: bytes,
    places: list[int],
) -> None:
    sent = handshake(subprotocol, BEARER)
    if opened:
        sent += frames_of(subprotocol, {"type": "session.open"}, [])
    sent += b"".join(frames_of(subprotocol, *message) for message in messages) + junk
    acks = any(isinstance(one, dict) and one.get("type") == "event.ack" for one, _ in messages)
    check(answer(given_settings, cut(sent, places)), encoded=True, acks=acks)


@given(
    subprotocol=st.sampled_from([JSON, MSGPACK]),
    messages=st.lists(
        st.tuples(_SENDS | _PINGS, st.lists(st.integers(0, 60), max_size=2)), max_size=10
    ),
    places=st.lists(st.integers(0, 900), max_size=6),
)
def test_how_messages_are_cut_changes_nothing(
    given_settings: Settings,
    subprotocol: str,
    messages: list[tuple[Any, list[int]]],
    places: list[int],
) -> None:
    whole = handshake(subprotocol, BEARER) + frames_of(subprotocol, {"type": "session.open"}, [])
    pieces = whole
    for message, parts in messages:
        whole += frames_of(subprotocol, message, [])
        pieces += frames_of(subprotocol, message, parts)

    def told(slices: list[bytes]) -> tuple[Any, ...]:
        got = answer(given_settings, slices)
        check(got, encoded=True)
        said = got.messages()
        # What comes in one moment is refused before what is accepted is answered, so only their
        # order among each other is the same; how many were ahead depends on the time.
        notices = [m for m in said if m["type"] in {"error", "pong"}]
        done = [
            {name: value for name, value in m.items() if name not in {"duration_ms", "event"}}
            for m in said
            if m["type"] in {"message.done", "message.delta"}
        ]
        return got.status, got.code, notices, done

    assert told([whole]) == told(cut(pieces, places))


@given(
    bodies=st.lists(st.text(max_size=40) | st.binary(max_size=40), min_size=1, max_size=8),
    parts=st.lists(st.integers(0, 60), max_size=2),
    places=st.lists(st.integers(0, 600), max_size=6),
)
def test_raw_frames_come_back_in_their_order(
    given_settings: Settings, bodies: list[str | bytes], parts: list[int], places: list[int]
) -> None:
    sent = handshake(None, BEARER)
    for body in bodies:
        opcode, data = (
            (Opcode.TEXT, body.encode()) if isinstance(body, str) else (Opcode.BINARY, body)
        )
        pieces = cut(data, parts)
        for number, piece in enumerate(pieces):
            last = number == len(pieces) - 1
            sent += masked(Opcode.CONT if number else opcode, piece, fin=last)
    got = answer(given_settings, cut(sent, places))
    check(got, encoded=False)
    expected = [body.encode() if isinstance(body, str) else body for body in bodies]
    assert [data for opcode, data in got.frames if opcode < 8] == expected


# Frames

_FRAMES = st.builds(
    lambda first, size, data: bytes((first, size)) + data,
    st.integers(0, 255),
    st.integers(0, 255),
    st.binary(max_size=24),
)


@given(
    data=st.lists(_FRAMES | st.binary(max_size=12), max_size=6).map(b"".join),
    places=st.lists(st.integers(0, 200), max_size=6),
    size=st.sampled_from([0, 0, MESSAGE_BYTES, MESSAGE_BYTES + 1]),
)
def test_any_frames(given_settings: Settings, data: bytes, places: list[int], size: int) -> None:
    start = handshake(JSON, BEARER) + masked(Opcode.TEXT, b'{"type":"session.open"}')
    if size:
        start += masked(Opcode.TEXT, json.dumps({"type": "x" * (size - 12)}).encode())
    whole = answer(given_settings, [start + data])
    slices = answer(given_settings, [start, *cut(data, places)])
    for got in (whole, slices):
        check(got, encoded=True)
    assert (whole.status, whole.code) == (slices.status, slices.code)
