"""What each close code means to this client: section 6 of ``PROTOCOL.md`` as a table."""

import random
from collections.abc import Iterator, Mapping
from enum import Enum, auto
from types import MappingProxyType
from typing import NamedTuple

FIRST_DELAY = 0.5
MAX_DELAY = 30.0
"""Bounds of the wait before the first attempt and before any, in seconds."""


class ComeBack(Enum):
    """Whether a client may connect again, and how."""

    NO = auto()
    NOW = auto()
    """At once, to resume."""
    LATER = auto()
    """After a short wait, to resume."""
    AFTER_A_WAIT = auto()
    """The same, and never at once."""
    NEW_SESSION = auto()
    """At once, but what the session knew is gone."""
    NEW_TOKEN = auto()
    """At once, where there is another token to show."""


class Closing(NamedTuple):
    """What a close code means."""

    words: str
    come_back: ComeBack


CLOSINGS: Mapping[int, Closing] = MappingProxyType(
    {
        1000: Closing("the session was closed", ComeBack.NO),
        1002: Closing("the client sent frames that are none", ComeBack.NO),
        1007: Closing("a message was not valid text", ComeBack.NO),
        1009: Closing("a message was too large", ComeBack.NO),
        1011: Closing("the gateway had an internal error", ComeBack.LATER),
        1012: Closing("the gateway is restarting", ComeBack.NOW),
        4400: Closing("the protocol was violated", ComeBack.NO),
        4401: Closing("not authenticated, or no longer", ComeBack.NEW_TOKEN),
        4403: Closing("this route, or the page's origin, is forbidden", ComeBack.NO),
        4404: Closing("there is no such route", ComeBack.NO),
        4406: Closing("the gateway speaks another version of the protocol", ComeBack.NO),
        4408: Closing("the connection was silent for too long", ComeBack.LATER),
        4409: Closing("another connection has taken the session over", ComeBack.NO),
        4410: Closing("the session is gone", ComeBack.NEW_SESSION),
        4413: Closing("this client was too slow", ComeBack.LATER),
        4429: Closing("too many connections, sessions or messages", ComeBack.AFTER_A_WAIT),
        4503: Closing("the gateway is full or the endpoint unavailable", ComeBack.AFTER_A_WAIT),
    }
)


def closing_of(code: int | None) -> Closing:
    """What a close code means; an unknown one, and none at all, is a connection lost."""
    if code is None:
        return Closing("the connection was lost", ComeBack.LATER)
    return CLOSINGS.get(code, Closing(f"the connection was closed ({code})", ComeBack.LATER))


def backoff() -> Iterator[float]:
    """Waits before attempts, in seconds: each anywhere up to a bound that doubles.

    Clients that were cut off together do not come back together.
    """
    bound = FIRST_DELAY
    while True:
        yield random.uniform(0, bound)  # noqa: S311 - nothing secret hangs on it
        bound = min(bound * 2, MAX_DELAY)
