"""What a session tells its user beside replies."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from gateway.errors import ErrorCode
from gateway.protocol.messages import Context


@dataclass(frozen=True, slots=True)
class Opened:
    """A session is there.

    Attributes:
        replaces: The id of the session before, where that is gone: the model has forgotten.
    """

    session_id: str
    route: str
    expires_at: datetime | None
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection was lost, or could not be made; another is tried in so many seconds."""

    reason: str
    code: int | None
    retry_in: float


@dataclass(frozen=True, slots=True)
class Resumed:
    """The session goes on over a new connection.

    Attributes:
        lost: The first and last number of the events that can no longer be had; None where
            nothing was lost. Replies with parts among them say that they are not `complete`.
    """

    lost: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Renewed:
    """A new session at the model has taken the place of one that is gone.

    Attributes:
        reason: Why.
        context: What the model knows of the conversation: nothing (``lost``), all of it
            (``replayed``), or the newest of it, since the rest was no longer kept (``partial``).
            A later gateway may have another word.
    """

    reason: Literal["expiring", "expired", "lost"]
    context: Context | str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Updated:
    """The model has given or changed the expiry."""

    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Expiring:
    """The session is about to expire, and will not be renewed."""

    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Refused:
    """The gateway has refused something that was no message of a turn."""

    code: ErrorCode
    message: str


Notice = Opened | Disconnected | Resumed | Renewed | Updated | Expiring | Refused
