"""``NewSessionId`` as containers write it, and ids put into bodies."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sagemaker.sessions import (
    MalformedSessionId,
    NotOneObject,
    parse_new_session_id,
    with_session_id,
)
from gateway.session.ports import ModelSession

NOON = 1_893_499_200.0  # 2030-01-01T12:00:00Z


@pytest.mark.parametrize(
    ("value", "expires_at"),
    [
        ("a-1; Expires=2030-01-01T12:00:00Z", NOON),
        ("a-1;Expires=2030-01-01T12:00:00Z", NOON),
        (" a-1 ;  expires = 2030-01-01T12:00:00Z ", NOON),
        ("a-1; Expires=2030-01-01T12:00:00", NOON),
        ("a-1; Expires=2030-01-01 12:00:00+00:00", NOON),
        ("a-1; Expires=2030-01-01T14:00:00+02:00", NOON),
        ("a-1; Expires=2030-01-01T12:00:00.500Z", NOON + 0.5),
        ("a-1; Path=/; Expires=2030-01-01T12:00:00Z", NOON),
        ("a-1", None),
        ("a-1;", None),
        ("a-1; Expires=", None),
        ("a-1; Expires=tomorrow", None),
        ("a-1; Expires=0001-01-01T00:00:00+23:59", None),
        ("a-1; Expires=1969-12-31T23:59:59Z", None),
        ("a-1; Expires=9999-12-31T23:59:59-01:00", None),
    ],
)
def test_expiry(value: str, expires_at: float | None) -> None:
    assert parse_new_session_id(value) == ModelSession("a-1", expires_at)


@pytest.mark.parametrize("value", ["", ";", "-a", "a-", "a_b", "a b", "ä", "a" * 257, "-" * 10_000])
def test_no_id(value: str) -> None:
    with pytest.raises(MalformedSessionId):
        parse_new_session_id(value)


@pytest.mark.parametrize("value", ["a", "a" * 256, "0--9", "NEW-1"])
def test_ids(value: str) -> None:
    assert parse_new_session_id(value).id == value


@given(st.text())
def test_anything(value: str) -> None:
    try:
        session = parse_new_session_id(value)
    except MalformedSessionId:
        return
    assert 1 <= len(session.id) <= 256


@pytest.mark.parametrize(
    ("body", "result"),
    [
        (b"{}", {"session_id": "s"}),
        (b' { "a" : 1.0 } ', {"a": 1.0, "session_id": "s"}),
        (b'{"session_id": "mine"}', {"session_id": "s"}),
        (b'{"a": Infinity}\n', {"a": float("inf"), "session_id": "s"}),
    ],
)
def test_ids_in_bodies(body: bytes, result: object) -> None:
    assert json.loads(with_session_id(body, "session_id", "s")) == result


@pytest.mark.parametrize(
    "body",
    [
        *(b"{", b"{} {}", b"{}{}", b'{"session_id":"mine"} []', b"{} }", b"{,}", b'{"a":1', b"{}x"),
        *(b'{"a":}', b"{}\x00", b"{" * 100_000),
        b'{"a":[' + b"[]," * 100_000,
    ],
)
def test_bodies_that_are_not_one_object_are_refused(body: bytes) -> None:
    with pytest.raises(NotOneObject):
        with_session_id(body, "session_id", "s")


@pytest.mark.parametrize("body", [b"", b"[]", b'"x"', b"text"])
def test_bodies_that_are_no_objects_stay_as_they_are(body: bytes) -> None:
    assert with_session_id(body, "session_id", "s") == body


@given(st.dictionaries(st.text(), st.text() | st.integers()))
def test_the_rest_of_a_body_stays_as_it_is(value: dict[str, object]) -> None:
    value.pop("session_id", None)
    body = json.dumps(value).encode()
    assert json.loads(with_session_id(body, "session_id", "s")) == value | {"session_id": "s"}
