"""Profiles: the ready-made ones, and what a route may spell out."""

import msgspec
import pytest

from gateway.sagemaker.profiles import PROFILES, Profile
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
        texts = (*profile.lost, *profile.perhaps_lost, *profile.full)
        assert all(text == text.lower() for text in texts)


def test_a_profile_of_a_routes_own() -> None:
    profile = msgspec.convert(
        {"open_body": {"op": "open"}, "close_body": {"op": "close"}, "lost": ["gone"]}, Profile
    )
    assert profile.opening is Opening.CALL
    assert 503 in profile.statuses
    assert 422 not in profile.statuses
    profile = msgspec.convert({"opening": "turn", "lost": ["gone"], "statuses": [499]}, Profile)
    assert profile.statuses == (499,)


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
        ({"opening": "turn", "statuses": [200]}, "statuses"),
    ],
)
def test_profiles_that_contradict_themselves(given: object, says: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=says):
        msgspec.convert(given, Profile)
