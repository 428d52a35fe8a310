"""Questions that replicas ask each other for an operator, and the types of their answers."""

from typing import Literal

import msgspec

from gateway.protocol.discretion import Discreet
from gateway.session.table import State

MOST_SESSIONS = 100
"""Maximum number of sessions on a page."""


class ReadMetrics(Discreet, frozen=True, tag="read"):
    """Read the replica's metrics: a `Reading`."""


class ListSessions(Discreet, frozen=True, kw_only=True, tag="list", omit_defaults=True):
    """List the replica's sessions by id: `SessionEntry` objects, at most one more than the limit.

    Attributes:
        limit: Number of sessions wanted.
        after: Only sessions with greater ids.
        prefix: Only sessions whose id begins with this.
        route: Only sessions of this route.
        principal: Only sessions whose principal contains this.
        state: Only sessions in this state.
    """

    limit: int
    after: str = ""
    prefix: str = ""
    route: str | None = None
    principal: str = ""
    state: State | None = None


class LookAt(Discreet, frozen=True, tag="look"):
    """Describe one session: a `SessionDetail`; null if the replica doesn't have it."""

    session_id: str


class CloseSession(Discreet, frozen=True, tag="close"):
    """Close a session: a `Closing`."""

    session_id: str


ENDED: Literal["ended"] = "ended"

Closing = bool | Literal["ended"]
"""Whether the replica had the session and closes it, or had it but it had already ended."""


class Drain(Discreet, frozen=True, tag="drain"):
    """Drain the replica, as on SIGTERM: whether it can stop itself."""


Question = ReadMetrics | ListSessions | LookAt | CloseSession | Drain

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Question).decode
