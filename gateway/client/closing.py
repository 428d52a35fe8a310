"""What each close code means to this client: section 6 of ``PROTOCOL.md`` as a table."""

import random
from collections.abc import Iterator, Mapping
from enum import Enum, auto
from types import MappingProxyType
from typing import NamedTuple

FIRST_DELAY = 0.5
MAX_DELAY = 30.0
"""Upper bounds, in seconds, of the delay before the first attempt and before any attempt."""


class ComeBack(Enum):
    """Whether a client may connect again, and how."""

    NO = auto()
    NOW = auto()
    """Immediately, to resume."""
    LATER = auto()
    """After a short delay, to resume."""
    AFTER_A_WAIT = auto()
    """The same, but never immediately."""
    NEW_SESSION = auto()
    """Immediately, with a new session: what the old one knew is lost."""
    NEW_TOKEN = auto()
    """Immediately, if there is another token."""


class Closing(NamedTuple):
    """What a close code means."""

    words: str
    come_back: ComeBack


CLOSINGS: Mapping[int, Closing] = MappingProxyType(
    {
        1000: Closing("the session was closed", ComeBack.NO),
        1002: Closing("the client sent an invalid WebSocket frame", ComeBack.NO),
        1007: Closing("a message was not valid UTF-8", ComeBack.NO),
        1009: Closing("a message was too large", ComeBack.NO),
        1011: Closing("the gateway had an internal error", ComeBack.LATER),
        1012: Closing("the gateway is restarting", ComeBack.NOW),
        4400: Closing("the client violated the protocol", ComeBack.NO),
        4401: Closing("the key or token is missing, not valid, or expired", ComeBack.NEW_TOKEN),
        4403: Closing("this client or this page's origin may not use the route", ComeBack.NO),
        4404: Closing("the route does not exist", ComeBack.NO),
        4406: Closing("the gateway uses another version of the protocol", ComeBack.NO),
        4408: Closing("the connection was silent for too long", ComeBack.LATER),
        4409: Closing("another connection took the session over", ComeBack.NO),
        4410: Closing("the session is gone", ComeBack.NEW_SESSION),
        4413: Closing("the client read too slowly", ComeBack.LATER),
        4429: Closing("too many connections, sessions or messages", ComeBack.AFTER_A_WAIT),
        4503: Closing("the gateway is full, or the endpoint unavailable", ComeBack.AFTER_A_WAIT),
    }
)


def closing_of(code: int | None) -> Closing:
    """What a close code means; an unknown code, or None, is a lost connection."""
    if code is None:
        return Closing("the connection was lost", ComeBack.LATER)
    return CLOSINGS.get(code, Closing(f"the connection was closed ({code})", ComeBack.LATER))


def backoff() -> Iterator[float]:
    """Delays between attempts to connect, in seconds: random, up to a bound that doubles.

    The bound starts at 0.5 s and stops at 30 s. Because the delays are random, clients that lost
    their connections together do not reconnect together.
    """
    bound = FIRST_DELAY
    while True:
        yield random.uniform(0, bound)  # noqa: S311 - nothing secret hangs on it
        bound = min(bound * 2, MAX_DELAY)
