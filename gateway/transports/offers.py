"""Describes the gateway to its pages before they connect: the title and logo, the routes, and what
each route can do.

A route's description is derived from its settings, and from nothing about its model.
"""

from collections.abc import Sequence
from typing import Literal

from gateway.protocol.discretion import Discreet
from gateway.session.bodies import is_json, is_textual
from gateway.session.policy import Opening, Policy, Telling


class RouteOffer(Discreet, frozen=True, kw_only=True):
    """Describes a route to a page.

    Attributes:
        name: Name of the route.
        text: Whether messages may be text.
        json: Whether messages may be JSON. If the route builds the model's request from a text,
            JSON is such a request itself: it goes to the model unchanged, and is not part of the
            conversation.
        binary: Whether messages may be bytes, such as an image.
        content_type: Content type of messages that don't state one; None if it depends on the kind
            of body.
        streams: Whether replies are streamed.
        history: Who keeps the conversation; "none" if nobody does, so that each message is the
            model's first.
        branches: How a new session learns an earlier conversation (``history`` of
            ``POST /v1/routes/{route}/sessions``); None if it can't.
        history_turns: Maximum turns of such a conversation.
        history_bytes: Maximum bytes of such a conversation.
        message_bytes: Maximum size of a message as it is sent; Base64 makes bytes a third larger.
        resume_seconds: Seconds that a session is kept for a client that has lost its connection.
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
    """Everything that a page needs to know before it connects.

    Attributes:
        title: Title of the page.
        logo: URL of its logo, relative to the page.
        welcome: Text shown before the first message; None for the page's own.
        examples: Messages to try.
        authenticated: Whether clients need a key or a token.
        default: Name of the route of ``/ws``.
        routes: All routes.
    """

    title: str
    logo: str
    welcome: str | None
    examples: Sequence[str]
    authenticated: bool
    default: str
    routes: Sequence[RouteOffer]


def route_offer(policy: Policy) -> RouteOffer:
    """Describe a route to a page."""
    kind, makes_request = policy.content_type, policy.template is not None
    return RouteOffer(
        name=policy.route,
        text=makes_request or kind is None or (is_textual(kind) and not is_json(kind)),
        json=kind is None or is_json(kind),
        binary=not makes_request and (kind is None or not is_textual(kind)),
        content_type=kind,
        streams=policy.streams,
        history=_history(policy),
        # A request opens the session, which has to exist until the page connects.
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
