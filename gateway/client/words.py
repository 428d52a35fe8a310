"""Notices as text for people."""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType

from gateway.client.notices import (
    Disconnected,
    Expiring,
    Notice,
    Opened,
    Refused,
    Renewed,
    Resumed,
    Updated,
)
from gateway.errors import CloseCode

SHORT = 8
"""So much of a session's id tells it apart."""

KNOWS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "replayed": ("the model got the whole conversation again", "green"),
        "partial": (
            "the model got only the newest turns again; the others were no longer kept",
            "yellow",
        ),
        "lost": ("the model has forgotten the conversation", "yellow"),
    }
)
"""How much of the conversation the model knows then."""


def in_words(notice: Notice) -> tuple[str, str]:  # noqa: C901, PLR0911 - one for each notice
    """A notice in words, and their style."""
    match notice:
        case Opened(session_id, route, expires_at, replaces):
            about = f"{session_id[:SHORT]} on {route}{_expiry(expires_at)}"
            if replaces is None:
                return f"Session {about}.", "dim"
            return f"New session {about}. The model has forgotten the conversation.", "yellow"
        case Disconnected(_, CloseCode.GONE, _):
            return "The session is gone. Opening a new one …", "yellow"
        case Disconnected(reason, _, retry_in):
            again = f"Reconnecting in {retry_in:.1f} s."
            return f"Disconnected: {reason.rstrip('.')}. {again}", "yellow"
        case Resumed(lost):
            if lost is None:
                return "Reconnected. Nothing was lost.", "green"
            return "Reconnected. Some parts of replies were lost.", "yellow"
        case Renewed(_, context, expires_at):
            knows, style = KNOWS.get(context, (f"context {context}", "yellow"))
            expiry = _expiry(expires_at)
            return f"The session was renewed{expiry and ' and'}{expiry}: {knows}.", style
        case Updated(expires_at):
            return f"The session{_expiry(expires_at, ' has no expiry')}.", "dim"
        case Expiring(expires_at):
            return f"The session{_expiry(expires_at, ' is about to expire')}.", "yellow"
        case Refused(code, message):
            return f"{message} ({code})", "red"


def _expiry(expires_at: datetime | None, never: str = "") -> str:
    if expires_at is None:
        return never
    local = expires_at.astimezone()
    seconds = int((expires_at - datetime.now(UTC)).total_seconds())
    if seconds > 86400:
        return f" expires on {local:%Y-%m-%d at %H:%M}"
    left = f"{seconds // 60} min" if seconds >= 120 else f"{max(seconds, 0)} s"
    return f" expires at {local:%H:%M:%S}, in {left}"
