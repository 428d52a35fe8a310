"""The browser client's MessagePack and the gateway's: what one writes the other reads."""

import json
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.codecs import MsgpackCodec
from gateway.protocol.messages import MessageDelta, MessageDone, MessageSend
from tests.support.node import NODE

STATIC = Path(__file__).parents[2] / "static"

SCRIPT = """
import { createInterface } from "node:readline";
import { decode, encode } from "MODULES/msgpack.js";
import { BINARY } from "MODULES/wire.js";

const text = (bytes) => Buffer.from(bytes).toString("base64");
const does = {
  again: (bytes) => text(encode(decode(bytes))),
  read: (bytes) => JSON.stringify(BINARY.decode(bytes)),
  write: (bytes) => text(BINARY.encode(JSON.parse(new TextDecoder().decode(bytes)))),
};
for await (const line of createInterface({ input: process.stdin })) {
  const [what, sent] = line.split(" ");
  try {
    console.log(`+${does[what](new Uint8Array(Buffer.from(sent, "base64")))}`);
  } catch (error) {
    console.log(`-${error.name}: ${error.message}`);
  }
}
""".replace("MODULES", (STATIC / "client").as_uri())


class Refused(Exception):
    """JavaScript has thrown a `SyntaxError`."""


class JavaScript:
    """A process that does what is asked of it, line by line."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def __call__(self, what: str, data: bytes) -> str:
        """What it makes of these bytes."""
        sent, received = self._process.stdin, self._process.stdout
        assert sent is not None
        assert received is not None
        sent.write(f"{what} {b64encode(data).decode()}\n")
        sent.flush()
        line = received.readline().rstrip("\n")
        if not line.startswith("+"):
            assert line.startswith("-SyntaxError: "), line
            raise Refused(line[1:])
        return line[1:]

    def again(self, packed: bytes) -> bytes:
        """The same value, read and written."""
        return b64decode(self("again", packed))


@pytest.fixture(scope="module")
def javascript() -> Iterator[JavaScript]:
    command = [str(NODE), "--input-type=module", "--eval", SCRIPT]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield JavaScript(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() == 0


EDGES = [
    sign * (1 << power) + offset
    for power in (5, 7, 8, 15, 16, 31, 32, 52)
    for offset in (-1, 0, 1)
    for sign in (1, -1)
]
INTEGERS = st.sampled_from(EDGES) | st.integers(-(2**53) + 1, 2**53 - 1)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(max_size=40) | st.sampled_from(
    ["é" * 16, "x" * 31, "x" * 256, "x" * 65_536, "\ufeff"]
)
SCALARS = st.none() | st.booleans() | INTEGERS | FINITE | TEXTS
KEYS = TEXTS | st.just("__proto__")


def nested(scalars: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Values that JSON has, of such scalars."""
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=20) | st.dictionaries(KEYS, inner, max_size=20),
        max_leaves=40,
    )


VALUES = nested(SCALARS)
PACKED = nested(SCALARS | st.binary(max_size=300) | st.sampled_from([inf, -inf]))


@given(value=PACKED)
def test_what_was_packed_here_is_the_same_there(javascript: JavaScript, value: Any) -> None:
    assert msgspec.msgpack.decode(javascript.again(msgspec.msgpack.encode(value))) == value


@pytest.mark.parametrize("value", [b"x" * 70_000, [0] * 70_000, {str(n): n for n in range(70_000)}])
def test_so_is_what_is_long(javascript: JavaScript, value: Any) -> None:
    assert javascript.again(msgspec.msgpack.encode(value)) == msgspec.msgpack.encode(value)


@given(value=VALUES, body=st.binary(max_size=300))
def test_the_gateway_reads_what_a_page_sends(
    javascript: JavaScript, value: Any, body: bytes
) -> None:
    codec = MsgpackCodec()
    for sent in ({"json": value}, {"base64": b64encode(body).decode()}):
        message = {**sent, "type": "message.send", "id": "m1"}
        frame = b64decode(javascript("write", json.dumps(message).encode()))
        received = codec.decode(frame)
        assert isinstance(received, MessageSend)
        if "json" in sent:
            assert isinstance(received.json, msgspec.Raw)
            assert msgspec.json.decode(received.json) == value
        else:
            assert received.data == body


@given(value=VALUES, body=st.binary(max_size=300))
def test_a_page_reads_what_the_gateway_sends(
    javascript: JavaScript, value: Any, body: bytes
) -> None:
    packed = msgspec.Raw(msgspec.json.encode(value))
    done = MessageDone(id="m1", event=7, status="completed", json=packed, deltas=0, duration_ms=1)
    delta = MessageDelta(id="m1", event=8, index=0, base64=body)
    for message in (done, delta):
        read = javascript("read", MsgpackCodec().encode(message))
        # JavaScript has one kind of number.
        assert json.loads(read, parse_int=float) == json.loads(
            msgspec.json.encode(message), parse_int=float
        )


def test_what_is_no_base64_is_refused_as_it_is_in_json(javascript: JavaScript) -> None:
    message = {"type": "message.send", "id": "m1", "base64": "no base64!"}
    frame = b64decode(javascript("write", json.dumps(message).encode()))
    assert msgspec.msgpack.decode(frame) == message


@given(data=st.binary(max_size=60))
def test_bytes_that_nobody_has_packed(javascript: JavaScript, data: bytes) -> None:
    try:
        expected = msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        with pytest.raises(Refused, match=r"MessagePack|a string that is not|a key that is no"):
            javascript.again(data)
        return
    try:
        again = msgspec.msgpack.decode(javascript.again(data))
    except Refused:
        assert beyond(expected)
    else:
        assert again == expected or repr(again) == repr(expected), (
            "what is not a number is repeated"
        )


def beyond(value: Any) -> bool:
    """Whether the protocol has no such value: extensions, and keys that are no strings."""
    if isinstance(value, dict):
        return any(not isinstance(key, str) or beyond(item) for key, item in value.items())
    if isinstance(value, list):
        return any(map(beyond, value))
    return not isinstance(value, None | bool | int | float | str | bytes)


def test_depth_is_bounded(javascript: JavaScript) -> None:
    assert javascript.again(b"\x91" * 999 + b"\xc0") == b"\x91" * 999 + b"\xc0"
    for opening in (b"\x91", b"\x81\xa1k"):
        with pytest.raises(Refused, match="SyntaxError: MessagePack that is nested too deeply"):
            javascript.again(opening * 100_000 + b"\xc0")


def test_a_length_that_is_a_lie_costs_nothing(javascript: JavaScript) -> None:
    for head in (b"\xdd", b"\xdf", b"\xc6", b"\xdb"):
        with pytest.raises(Refused, match="SyntaxError: MessagePack that ends early"):
            javascript.again(head + b"\xff" * 4)


def test_numbers_that_javascript_has_not(javascript: JavaScript) -> None:
    for value in (2**63, -(2**63), 2**64 - 1):
        assert msgspec.msgpack.decode(javascript.again(msgspec.msgpack.encode(value))) == float(
            value
        )
    assert msgspec.msgpack.decode(javascript.again(b"\xca\x3f\x80\x00\x00")) == 1
