"""The trace that what comes in is a part of, as its sender says: W3C's Trace Context.

It goes beside what is passed on, since sessions have nothing to do with it: who takes a message in
sets it for as long as that takes, and whoever traces turns reads it then.
"""

import re
from collections.abc import Mapping
from contextvars import ContextVar

HEADERS = ("traceparent", "tracestate")

Carrier = Mapping[str, str]
"""The headers of a trace context, as far as there are."""

CARRIER: ContextVar[Carrier | None] = ContextVar("trace context", default=None)
"""That of what is taken in at the moment."""

_ATTRIBUTE = re.compile(r"(?:^|(?<=[,; ]))traceparent=([0-9a-f-]{55})(?=$|[,; ])")

MAX_ATTRIBUTES = 1024
"""The longest ``CustomAttributes`` that SageMaker takes."""


def carrier_of(headers: Mapping[str, str]) -> Carrier | None:
    """What headers say of a trace; None where that is nothing."""
    if "traceparent" not in headers:
        return None
    return {name: headers[name] for name in HEADERS if name in headers}


def carrier_in(attributes: str) -> Carrier | None:
    """What a call's custom attributes say of one: ``traceparent=…`` among others."""
    match = _ATTRIBUTE.search(attributes)
    return None if match is None else {"traceparent": match[1]}


def with_parent(attributes: str, parent: str) -> str:
    """Custom attributes that name this parent, in place of another; as they are where that would
    be too long.
    """
    said = f"traceparent={parent}"
    if _ATTRIBUTE.search(attributes) is not None:
        return _ATTRIBUTE.sub(said, attributes)
    more = f"{attributes},{said}" if attributes else said
    return more if len(more) <= MAX_ATTRIBUTES else attributes
