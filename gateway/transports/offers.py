"""What a page has to know before it connects: the routes, what each can do, and what it looks like.

All that is said of a route follows from its settings, and from nothing that is known of its model.
"""

from collections.abc import Sequence
from typing import Literal

from gateway.protocol.discretion import Discreet
from gateway.session.bodies import is_json, is_textual
from gateway.session.policy import Opening, Policy, Telling


class RouteOffer(Discreet, frozen=True, kw_only=True):
    """A route, to a page.

    Attributes:
        name: Its name.
        text: Whether a message may be text.
        json: Whether one may be JSON. Where the route makes the model's request of a text, JSON is
            such a request itself: it goes to the model as it is, and is no part of the
            conversation.
        binary: Whether one may be bytes, such as an image.
        content_type: What the route calls a body whose message does not say it; None where that
            goes by the kind of the body.
        streams: Whether replies come in parts.
        history: Who keeps the conversation; "none" where nobody does, so that each message is the
            first to the model.
        branches: How a new session learns of a conversation that was held elsewhere (``history`` of
            ``POST /v1/routes/{route}/sessions``); None where it can't.
        history_turns: How many turns of one there may be.
        history_bytes: How many bytes these may have.
        message_bytes: The largest message, as it comes: in Base64 bytes are a third more.
        resume_seconds: How long a session is kept for a client whose connection is lost.
    """

    name: str
    text: bool
    json: bool
    binary: bool
    content_type: str | None
    streams: bool
    history: Literal["gateway", "model", "none"]
    branches: Telling | None
    history_turns: int
    history_bytes: int
    message_bytes: int
    resume_seconds: float


class PageOffer(Discreet, frozen=True, kw_only=True):
    """All that a page has to know to begin.

    Attributes:
        title: What it is called.
        logo: The address of its logo, relative to the page's.
        welcome: What is shown before the first message; None for what the page says itself.
        examples: Messages to try.
        authenticated: Whether everybody has to show a key or a token.
        default: The name of the route of ``/ws``.
        routes: All of them.
    """

    title: str
    logo: str
    welcome: str | None
    examples: Sequence[str]
    authenticated: bool
    default: str
    routes: Sequence[RouteOffer]


def route_offer(policy: Policy) -> RouteOffer:
    """What a page has to know of a route."""
    kind, makes_request = policy.content_type, policy.template is not None
    return RouteOffer(
        name=policy.route,
        text=makes_request or kind is None or (is_textual(kind) and not is_json(kind)),
        json=kind is None or is_json(kind),
        binary=not makes_request and (kind is None or not is_textual(kind)),
        content_type=kind,
        streams=policy.streams,
        history=_history(policy),
        # The session is opened by a request, and has to be there when the page connects.
        branches=policy.telling if policy.resume_seconds else None,
        history_turns=policy.transcript_turns,
        history_bytes=policy.transcript_bytes,
        message_bytes=policy.message_bytes,
        resume_seconds=policy.resume_seconds,
    )


def _history(policy: Policy) -> Literal["gateway", "model", "none"]:
    if policy.sends_history:
        return "gateway"
    return "none" if policy.opening is Opening.NONE else "model"
