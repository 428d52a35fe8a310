"""Why sessions end, and what each reason means for their turns and connections, as a table."""

from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct

from gateway.errors import CloseCode, ErrorCode
from gateway.protocol import messages as wire


class Ending(Struct, frozen=True):
    """The consequences of a session's end for its turns and its connection."""

    reason: wire.ClosedReason
    status: wire.Status
    code: ErrorCode
    message: str
    close: CloseCode

    @property
    def close_reason(self) -> str:
        """The reason that is sent with the close code."""
        return "" if self.close is CloseCode.NORMAL else self.code.value


_ENDINGS = (
    Ending("client", "cancelled", ErrorCode.SESSION_LOST, "Closed as asked.", CloseCode.NORMAL),
    Ending(
        "expired",
        "failed",
        ErrorCode.SESSION_LOST,
        "The session has expired; open a new one.",
        CloseCode.GONE,
    ),
    Ending(
        "lost",
        "failed",
        ErrorCode.SESSION_LOST,
        "The model no longer knows the session; open a new one.",
        CloseCode.GONE,
    ),
    Ending(
        "idle",
        "failed",
        ErrorCode.SESSION_LOST,
        "The session was unused for too long; open a new one.",
        CloseCode.GONE,
    ),
    Ending(
        "model",
        "failed",
        ErrorCode.SESSION_LOST,
        "The model has closed the session; open a new one.",
        CloseCode.GONE,
    ),
    Ending(
        "operator",
        "failed",
        ErrorCode.SESSION_LOST,
        "The gateway's operator has closed the session; open a new one.",
        CloseCode.GONE,
    ),
)
ENDINGS: Mapping[wire.ClosedReason, Ending] = MappingProxyType(
    {ending.reason: ending for ending in _ENDINGS}
)

DRAINED = Ending(
    "operator",
    "failed",
    ErrorCode.UNAVAILABLE,
    "The gateway is shutting down; connect again.",
    CloseCode.RESTARTING,
)
"""The same reason when the gateway shuts down: clients can connect to another replica, or later."""
