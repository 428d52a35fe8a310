"""What a replica asks others on behalf of an operator, and what each answers."""

from typing import Literal

import msgspec

from gateway.protocol.discretion import Discreet
from gateway.session.table import State

MOST_SESSIONS = 100
"""How many sessions a page has at the most."""


class ReadMetrics(Discreet, frozen=True, tag="read"):
    """What its metrics stand at: a `Reading`."""


class ListSessions(Discreet, frozen=True, kw_only=True, tag="list", omit_defaults=True):
    """Sessions that it has, by their ids: `SessionEntry`s, one more than the limit at the most.

    Attributes:
        limit: How many.
        after: Those with greater ids than this.
        prefix: How their ids begin.
        route: Of that route alone.
        principal: Whose principal has this in its name.
        state: In that state alone.
    """

    limit: int
    after: str = ""
    prefix: str = ""
    route: str | None = None
    principal: str = ""
    state: State | None = None


class LookAt(Discreet, frozen=True, tag="look"):
    """One session: a `SessionDetail`; null where it is not there."""

    session_id: str


class CloseSession(Discreet, frozen=True, tag="close"):
    """That a session is closed: a `Closing`."""

    session_id: str


ENDED: Literal["ended"] = "ended"

Closing = bool | Literal["ended"]
"""Whether a session is there, and closed; or that it is there, and had ended before."""


class Drain(Discreet, frozen=True, tag="drain"):
    """That it drains, as on SIGTERM: whether it can."""


Question = ReadMetrics | ListSessions | LookAt | CloseSession | Drain

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Question).decode
