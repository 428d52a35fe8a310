"""PROTOCOL.md holds what the code does: every message, field, code and close code is in it."""

import re
from pathlib import Path

import gateway.protocol
from gateway.errors import CloseCode, ErrorCode, Outcome
from gateway.protocol import messages as wire
from gateway.protocol.codecs import SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK

assert gateway.protocol.__file__ is not None
TEXT = (Path(gateway.protocol.__file__).parent / "PROTOCOL.md").read_text()
QUOTED = set(re.findall(r"`([^`]+)`", TEXT))


def test_every_message_and_field() -> None:
    for message in (*wire.ClientMessage.__args__, *wire.ServerMessage.__args__):
        config = message.__struct_config__
        assert config.tag in QUOTED
        assert set(message.__struct_encode_fields__) <= QUOTED | {"data", "base64"}, message


def test_every_code() -> None:
    assert {*ErrorCode, *Outcome} <= QUOTED
    for code in CloseCode:
        assert f"| {code} |" in TEXT


def test_the_subprotocols() -> None:
    assert {SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK} <= QUOTED
