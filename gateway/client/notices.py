"""What the client reports about a session beside replies."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from gateway.errors import ErrorCode
from gateway.protocol.messages import Context


@dataclass(frozen=True, slots=True)
class Opened:
    """A session was opened.

    Attributes:
        session_id: The gateway's id of the session.
        route: The name of its route.
        expires_at: When it expires at the model; None if not known.
        replaces: The id of the session that it replaces, which is gone: the model has forgotten
            the conversation. None for the first session.
    """

    session_id: str
    route: str
    expires_at: datetime | None
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection was lost or could not be made. The client tries again.

    Attributes:
        reason: Why, for people.
        code: The WebSocket close code; None if there was none.
        retry_in: Seconds until the next attempt.
    """

    reason: str
    code: int | None
    retry_in: float


@dataclass(frozen=True, slots=True)
class Resumed:
    """The session was resumed over a new connection.

    Attributes:
        lost: The first and last number of the events that the gateway no longer had; None if
            nothing was lost. Replies that lack parts for this reason are not `complete`.
    """

    lost: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Renewed:
    """The gateway replaced the session at the model with a new one.

    Attributes:
        reason: Why.
        context: How much of the conversation the model knows: nothing (``lost``), all of it
            (``replayed``), or only the newest turns, because the others were no longer kept
            (``partial``). A later version of the gateway may send other values.
        expires_at: When the new session expires at the model; None if not known.
    """

    reason: Literal["expiring", "expired", "lost"]
    context: Context | str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Updated:
    """The model set or changed the session's expiry.

    Attributes:
        expires_at: When the session expires at the model; None if never, or not known.
    """

    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Expiring:
    """The session is about to expire, and will not be renewed.

    Attributes:
        expires_at: When the session expires at the model.
    """

    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Refused:
    """The gateway refused a request that does not belong to a turn, such as a new token.

    Attributes:
        code: The error code.
        message: The reason, for people.
    """

    code: ErrorCode
    message: str


Notice = Opened | Disconnected | Resumed | Renewed | Updated | Expiring | Refused
