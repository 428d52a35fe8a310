"""The trace that what comes in is a part of, as its sender says: W3C's Trace Context.

It goes beside what is passed on, since sessions have nothing to do with it: who takes a message in
sets it for as long as that takes, and whoever traces turns reads it then.
"""

import re
from collections.abc import Mapping
from contextvars import ContextVar

Carrier = Mapping[str, str]
"""The headers of a trace context, as far as there are."""

CARRIER: ContextVar[Carrier | None] = ContextVar("trace context", default=None)
"""That of what is taken in at the moment."""

_PARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_ATTRIBUTE = re.compile(r"(?:^|(?<=[,; ]))traceparent=([^,; ]*)", re.IGNORECASE)

_KEY = r"[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13}"
_VALUE = r"[ -+\--<>-~]{0,255}[!-+\--<>-~]"
_MEMBER = re.compile(rf"({_KEY})={_VALUE}")
"""A list-member of ``tracestate``, as W3C's Trace Context has it in 3.3.1."""

MAX_PARENT, MAX_STATE, MAX_MEMBERS = 512, 512, 32
"""The longest headers that are kept, and how much W3C lets ``tracestate`` have."""

MAX_ATTRIBUTES = 1024
"""The longest ``CustomAttributes`` that SageMaker takes."""


def carrier_of(headers: Mapping[str, str]) -> Carrier | None:
    """What headers say of a trace; None where that is nothing. A malformed ``tracestate`` is left
    out: OpenTelemetry would log what is wrong with it, and that is whatever its sender likes.
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
    """What a call's custom attributes say of one: ``traceparent=…`` among others."""
    for match in _ATTRIBUTE.finditer(attributes):
        if _PARENT.fullmatch(match[1]) is not None:
            return {"traceparent": match[1]}
    return None


def with_parent(attributes: str, parent: str) -> str:
    """Custom attributes that name this parent, in place of another; as they are where that would
    be too long.
    """
    said = f"traceparent={parent}"
    more, named = _ATTRIBUTE.subn(said, attributes)
    if not named:
        more = f"{attributes},{said}" if attributes else said
    return more if len(more) <= MAX_ATTRIBUTES else attributes
