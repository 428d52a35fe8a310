"""What pages are told of routes follows from their settings."""

from typing import Any

import pytest

from gateway.config import RouteSettings, ServerSettings
from gateway.transports.offers import RouteOffer, route_offer


def offer(**settings: Any) -> RouteOffer:
    route = RouteSettings(endpoint_name="e", **settings)
    return route_offer(route.policy("chat", ServerSettings()))


@pytest.mark.parametrize(
    ("settings", "taken"),
    [
        ({}, "text json binary"),
        ({"format": "plain"}, "text json binary"),
        ({"content_type": "text/plain; charset=utf-8"}, "text"),
        ({"content_type": "application/json"}, "json"),
        ({"content_type": "application/x.y+json"}, "json"),
        ({"content_type": "audio/wav"}, "binary"),
        ({"request": {"text": "$text"}}, "text json"),
        ({"request": {"text": "$text"}, "content_type": "application/json"}, "text json"),
        ({"format": "openai-chat"}, "text json"),
        ({"format": "tgi"}, "text json"),
    ],
)
def test_bodies(settings: dict[str, Any], taken: str) -> None:
    told = offer(**settings)
    assert told.content_type == settings.get("content_type")
    assert [name for name in ("text", "json", "binary") if getattr(told, name)] == taken.split()


@pytest.mark.parametrize(
    ("settings", "history", "branches"),
    [
        ({}, "model", None),
        ({"on_lost": "renew"}, "model", None),
        ({"on_lost": "replay"}, "model", "replayed"),
        ({"on_expiry": "replay"}, "model", "replayed"),
        ({"on_expiry": "replay", "replay_seed": "$transcript"}, "model", "sent"),
        ({"replay_seed": "$transcript"}, "model", "sent"),
        ({"session": "stateless", "replay_seed": "$transcript"}, "none", None),
        ({"session": "prefix-aware"}, "none", None),
        ({"session": "first-message"}, "model", None),
        ({"mode": "async"}, "none", None),
        ({"format": "openai-chat"}, "gateway", "sent"),
        ({"format": "openai-chat", "session": "stateless"}, "gateway", "sent"),
        ({"format": "openai-chat", "mode": "async"}, "gateway", "sent"),
        ({"format": "openai-chat", "history": "model"}, "model", None),
        ({"format": "openai-chat", "resume_seconds": 0}, "gateway", None),
    ],
)
def test_who_keeps_the_conversation(
    settings: dict[str, Any], history: str, branches: str | None
) -> None:
    told = offer(**settings)
    assert (told.history, told.branches) == (history, branches)


def test_numbers() -> None:
    told = offer(
        format="openai-chat",
        transcript_turns=7,
        transcript_bytes=700,
        message_bytes=70,
        resume_seconds=77,
    )
    assert told.streams
    assert (told.history_turns, told.history_bytes) == (7, 700)
    assert (told.message_bytes, told.resume_seconds) == (70, 77.0)
    assert not offer(format="openai-chat", mode="async").streams
