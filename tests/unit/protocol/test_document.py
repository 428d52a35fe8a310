"""PROTOCOL.md holds what the code does: every message, field, code and close code is in it."""

import re
from pathlib import Path
from types import UnionType

import pytest

import gateway.protocol
from gateway.errors import CloseCode, ErrorCode, Outcome
from gateway.protocol import messages as wire
from gateway.protocol.codecs import SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK

assert gateway.protocol.__file__ is not None
TEXT = (Path(gateway.protocol.__file__).parent / "PROTOCOL.md").read_text()
QUOTED = set(re.findall(r"`([^`]+)`", TEXT))


def quoted(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


def documented(text: str, section: str) -> dict[str, set[str]]:
    """Which fields a section's table gives to which message: all that its row names.

    Not what stands in brackets, which are a field's values, or its own fields.
    """
    (table,) = re.findall(rf"^## {section}$.*?^(\| type .*?)\n\n", text, re.DOTALL | re.MULTILINE)
    found = {}
    for row in table.splitlines()[2:]:
        tag, *cells = (cell.strip() for cell in row.strip("|").split(" | "))
        fields, brackets = cells[-1], 1
        while brackets:
            fields, brackets = re.subn(r"\([^()]*\)|\{[^{}]*\}", "", fields)
        found[tag.strip("`")] = quoted(fields) | ({"event"} if "yes" in cells[:-1] else set())
    return found


OWN = {"verbatim"}
"""The gateway's own fields, which a client's message may not have; see the codecs."""


def declared(messages: UnionType) -> dict[str, set[str]]:
    return {
        message.__struct_config__.tag: set(message.__struct_encode_fields__) - OWN
        for message in messages.__args__
    }


def test_every_message_has_its_fields_in_its_own_row() -> None:
    assert documented(TEXT, "Client messages") == declared(wire.ClientMessage)
    assert documented(TEXT, "Server messages") == declared(wire.ServerMessage)


@pytest.mark.parametrize(
    ("row", "other"),
    [
        ("`id`, `queued` (how many", "`id` (how many"),  # though other rows have the word
        ("| `message.accepted` | yes |", "| `message.accepted` | no |"),
        ("| `pong` | no | `data`", "| `pong` | no | `data`, `id`"),
        ("| `auth.refresh` | `token`", "| `auth.refresh` | a token"),
    ],
)
def test_a_field_in_another_row_is_none(row: str, other: str) -> None:
    assert TEXT.count(row) == 1
    text = TEXT.replace(row, other)
    assert {**documented(text, "Client messages"), **documented(text, "Server messages")} != {
        **declared(wire.ClientMessage),
        **declared(wire.ServerMessage),
    }


def test_the_fields_of_fields() -> None:
    (limits,) = re.findall(r"`limits` \{([^}]*)\}", TEXT)
    assert quoted(limits) == set(wire.Limits.__struct_encode_fields__)
    (error,) = re.findall(r"The `error` object of a failed\s+message has (.*?):\n", TEXT, re.DOTALL)
    assert quoted(error) == set(wire.ErrorObject.__struct_encode_fields__)


def test_every_code() -> None:
    assert {*ErrorCode, *Outcome} <= QUOTED
    for code in CloseCode:
        assert f"| {code} |" in TEXT


def test_the_subprotocols() -> None:
    assert {SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK} <= QUOTED
