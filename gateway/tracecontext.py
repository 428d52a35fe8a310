"""W3C Trace Context of incoming messages.

Sessions are not concerned with it, so it is passed in a context variable: whatever receives a
message sets the variable while it handles it, and the tracer reads it.
"""

import re
from collections.abc import Mapping
from contextvars import ContextVar

Carrier = Mapping[str, str]
"""The headers of a trace context."""

CARRIER: ContextVar[Carrier | None] = ContextVar("trace context", default=None)
"""Trace context of the message being handled."""

_PARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_ATTRIBUTE = re.compile(r"(?:^|(?<=[,; ]))traceparent=([^,; ]*)", re.IGNORECASE)

_KEY = r"[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13}"
_VALUE = r"[ -+\--<>-~]{0,255}[!-+\--<>-~]"
_MEMBER = re.compile(rf"({_KEY})={_VALUE}")
"""A list-member of ``tracestate``, as in W3C's Trace Context, 3.3.1."""

MAX_PARENT, MAX_STATE, MAX_MEMBERS = 512, 512, 32
"""Maximum lengths of the headers, and of list-members in ``tracestate``, as in W3C's."""

MAX_ATTRIBUTES = 1024
"""Maximum length of ``CustomAttributes`` in SageMaker."""


def carrier_of(headers: Mapping[str, str]) -> Carrier | None:
    """Extract the trace context from headers, if any. A malformed ``tracestate`` is omitted:
    OpenTelemetry would log it, and its sender controls what it says.
    """
    parent, state = headers.get("traceparent"), headers.get("tracestate")
    if parent is None or len(parent) > MAX_PARENT:
        return None
    if state is None or not _is_state(state):
        return {"traceparent": parent}
    return {"traceparent": parent, "tracestate": state}


def _is_state(state: str) -> bool:
    if len(state) > MAX_STATE:
        return False
    members = [member for each in state.split(",") if (member := each.strip(" \t"))]
    keys = {match[1] for member in members if (match := _MEMBER.fullmatch(member)) is not None}
    return len(members) == len(keys) <= MAX_MEMBERS


def carrier_in(attributes: str) -> Carrier | None:
    """Extract the trace context from custom attributes, as ``traceparent=…`` among others."""
    for match in _ATTRIBUTE.finditer(attributes):
        if _PARENT.fullmatch(match[1]) is not None:
            return {"traceparent": match[1]}
    return None


def with_parent(attributes: str, parent: str) -> str:
    """Set the parent in custom attributes, replacing any other; returns them unchanged if the
    result would be too long.
    """
    said = f"traceparent={parent}"
    more, named = _ATTRIBUTE.subn(said, attributes)
    if not named:
        more = f"{attributes},{said}" if attributes else said
    return more if len(more) <= MAX_ATTRIBUTES else attributes
