"""Profiles: the ready-made ones, and what a route may spell out."""

import msgspec
import pytest

from gateway.sagemaker import PROFILES, Profile
from gateway.sagemaker.errors import failure_of
from gateway.session.policy import Opening


def test_the_ready_made_ones() -> None:
    assert list(PROFILES) == [
        "container-standards",
        "torchserve",
        "first-message",
        "prefix-aware",
        "stateless",
    ]
    for profile in PROFILES.values():
        assert (profile.close_body is None) is (profile.opening is Opening.NONE)
        assert all(text == text.lower() for text in (*profile.lost, *profile.full))


def test_a_profile_of_a_routes_own() -> None:
    profile = msgspec.convert(
        {"open_body": {"op": "open"}, "close_body": {"op": "close"}, "lost": ["gone"]}, Profile
    )
    assert profile.opening is Opening.CALL


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "open_body"),
        ({"opening": "turn", "open_body": {}}, "open_body"),
        ({"opening": "none", "close_body": {"a": 1}}, "no session to close"),
        ({"opening": "none", "session_id_key": "id"}, "to name"),
        ({"opening": "turn", "prefix_aware": True}, "prefix_aware"),
        ({"opening": "sometimes"}, "opening"),
        ({"opening": "none", "extra": 1}, "extra"),
    ],
)
def test_profiles_that_contradict_themselves(given: object, says: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=says):
        msgspec.convert(given, Profile)


def test_an_error_that_nobody_knows() -> None:
    failure = failure_of(RuntimeError("secret"), PROFILES["stateless"])
    assert failure.code.value == "internal"
    assert "secret" not in failure.message
