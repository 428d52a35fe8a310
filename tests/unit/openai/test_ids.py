"""Ids lead where they were made to, and say nothing where they are printed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.session.keys import digest
from gateway.transports.openai.ids import Handle, handle_of, new_key
from tests.support.visitors import anybody

SESSION = "0123456789abcdef" * 2
KEY = "fedcba9876543210" * 2
HANDLES = st.builds(
    Handle, st.just(SESSION), st.just(KEY), st.integers(0, 10**9 - 1), st.integers(0, 99_999)
)


@given(HANDLES)
def test_an_id_is_read_as_it_was_written(handle: Handle) -> None:
    written = handle.written("resp_")
    assert handle_of(written, "resp_") == handle
    assert handle_of(written, "conv_") is None
    assert written.removeprefix("resp_").isalnum()
    assert len(written) <= 90


@pytest.mark.parametrize(
    "text",
    [
        "",
        "resp_",
        f"resp_{SESSION}",
        f"resp_{SESSION}{KEY}",
        f"resp_{SESSION}{KEY}01",
        f"resp_{SESSION}{KEY}1x0",
        f"resp_{SESSION}{KEY}1x",
        f"resp_{SESSION}{KEY}1234567890",
        f"resp_{SESSION}{KEY}1 ",
        f"resp_{SESSION}{KEY}1\n",
        f"resp_{SESSION}{KEY}\u0661",
        f"resp_{SESSION.upper()}{KEY}1",
        f"resp_g{SESSION[1:]}{KEY}1",
        f"x{SESSION}{KEY}1",
    ],
)
def test_what_is_none(text: str) -> None:
    assert handle_of(text, "resp_") is None


def test_each_turn_has_a_message() -> None:
    assert Handle(SESSION, KEY, 3).message_id == "r3"
    assert Handle(SESSION, KEY, 3, 2).message_id == "r3.2"


def test_the_key_is_not_printed() -> None:
    handle = Handle(SESSION, KEY, 3)
    assert KEY not in f"{handle} {handle!r} {[handle]}"
    assert SESSION in repr(handle), "which is no secret, and in the log"


def test_a_handle_lets_in_whoever_has_it() -> None:
    visitor = anybody()
    asker = Handle(SESSION, KEY, 3).asker(visitor)
    assert (asker.session_id, asker.shown, asker.visitor) == (SESSION, digest(KEY), visitor)


def test_a_new_key_fits() -> None:
    key = new_key()
    assert handle_of(Handle(SESSION, key, 1).written("r"), "r") == Handle(SESSION, key, 1)
    assert key != new_key()
