"""The wire protocol's error codes and close codes, and what they mean to clients, in one table.

The codes are those of sections 4 and 6 of ``gateway/protocol/PROTOCOL.md``. Nothing else in the
package decides whether an error may be retried, or which code a socket is closed with for it.
"""

from collections.abc import Mapping
from enum import Enum, IntEnum, StrEnum
from types import MappingProxyType

import msgspec
from msgspec import UNSET, UnsetType

WAIT_SECONDS = 1.0
"""Default for `retry_after`: many turns end, and throttles accept calls again, within about a
second."""


class ErrorCode(StrEnum):
    """What went wrong, for programs; the message beside it is for people."""

    BAD_MESSAGE = "bad_message"
    TOO_LARGE = "too_large"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    UNKNOWN_ROUTE = "unknown_route"
    RATE_LIMITED = "rate_limited"
    QUEUE_FULL = "queue_full"
    UNKNOWN_MESSAGE = "unknown_message"
    SESSION_LOST = "session_lost"
    THROTTLED = "throttled"
    UNAVAILABLE = "unavailable"
    MODEL_NOT_READY = "model_not_ready"
    TIMEOUT = "timeout"
    MODEL_ERROR = "model_error"
    STREAM_BROKEN = "stream_broken"
    VALIDATION_ERROR = "validation_error"
    GATEWAY_LOST = "gateway_lost"
    INTERNAL = "internal"


class CloseCode(IntEnum):
    """Why a WebSocket was closed."""

    NORMAL = 1000
    TOO_LARGE = 1009
    INTERNAL = 1011
    RESTARTING = 1012
    PROTOCOL_VIOLATION = 4400
    UNAUTHENTICATED = 4401
    FORBIDDEN = 4403
    UNKNOWN_ROUTE = 4404
    UNKNOWN_SUBPROTOCOL = 4406
    SILENT = 4408
    TAKEN_OVER = 4409
    GONE = 4410
    TOO_SLOW = 4413
    TOO_MANY = 4429
    UNAVAILABLE = 4503


class Outcome(StrEnum):
    """Whether the model received a turn that failed."""

    NOT_INVOKED = "not_invoked"
    """It did not: sending the turn again is safe."""
    UNKNOWN = "unknown"
    """It may have."""
    INVOKED = "invoked"
    """It did."""


class Health(Enum):
    """What a failure says about the model's endpoint."""

    WELL = "well"
    """It has answered."""
    BUSY = "busy"
    """It has answered that it is overloaded."""
    SICK = "sick"
    """It has not answered, or can't, for a reason other than the request."""


class ErrorRule(msgspec.Struct, frozen=True):
    """The consequences of an error code."""

    retryable: bool
    """Whether the same message may succeed later, unchanged."""
    close: CloseCode
    """Close code if the error closes the connection, as it always does on a raw connection."""
    retry_after: float | UnsetType = UNSET
    """Seconds that a client must wait before a retry, unless the failure has its own value."""


ERRORS: Mapping[ErrorCode, ErrorRule] = MappingProxyType(
    {
        ErrorCode.BAD_MESSAGE: ErrorRule(False, CloseCode.PROTOCOL_VIOLATION),
        ErrorCode.TOO_LARGE: ErrorRule(False, CloseCode.TOO_LARGE),
        ErrorCode.UNAUTHENTICATED: ErrorRule(False, CloseCode.UNAUTHENTICATED),
        ErrorCode.FORBIDDEN: ErrorRule(False, CloseCode.FORBIDDEN),
        ErrorCode.UNKNOWN_ROUTE: ErrorRule(False, CloseCode.UNKNOWN_ROUTE),
        ErrorCode.RATE_LIMITED: ErrorRule(True, CloseCode.TOO_MANY),
        ErrorCode.QUEUE_FULL: ErrorRule(True, CloseCode.TOO_MANY, WAIT_SECONDS),
        ErrorCode.UNKNOWN_MESSAGE: ErrorRule(False, CloseCode.PROTOCOL_VIOLATION),
        ErrorCode.SESSION_LOST: ErrorRule(False, CloseCode.GONE),
        ErrorCode.THROTTLED: ErrorRule(True, CloseCode.TOO_MANY, WAIT_SECONDS),
        ErrorCode.UNAVAILABLE: ErrorRule(True, CloseCode.UNAVAILABLE),
        ErrorCode.MODEL_NOT_READY: ErrorRule(True, CloseCode.UNAVAILABLE),
        ErrorCode.TIMEOUT: ErrorRule(False, CloseCode.UNAVAILABLE),
        ErrorCode.MODEL_ERROR: ErrorRule(False, CloseCode.INTERNAL),
        ErrorCode.STREAM_BROKEN: ErrorRule(False, CloseCode.INTERNAL),
        ErrorCode.VALIDATION_ERROR: ErrorRule(False, CloseCode.PROTOCOL_VIOLATION),
        ErrorCode.GATEWAY_LOST: ErrorRule(False, CloseCode.INTERNAL),
        ErrorCode.INTERNAL: ErrorRule(False, CloseCode.INTERNAL),
    }
)


class Failure(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An error as a value: what a client is told when a turn, or the opening of a session, fails.

    Attributes:
        code: Error code.
        message: Message for people. It names no endpoint, account, host or session of the platform,
            and quotes no body.
        outcome: Whether the model received the turn.
        retryable: Whether the client may send the same message again; by default as in the table.
        retry_after: Seconds to wait before that, if the model or the gateway knows them.
        facts: Additional information for the operator's log, not for clients.
        health: What it says about the endpoint; None if nothing.
    """

    code: ErrorCode
    message: str
    outcome: Outcome = Outcome.NOT_INVOKED
    retryable: bool | None = None
    retry_after: float | None = None
    facts: Mapping[str, object] = msgspec.field(default_factory=dict)
    health: Health | None = None

    @property
    def may_retry(self) -> bool:
        """Whether the client may send the message again; never if the model may have seen it."""
        if self.outcome is not Outcome.NOT_INVOKED:
            return False
        return ERRORS[self.code].retryable if self.retryable is None else self.retryable

    @property
    def wait(self) -> float | UnsetType:
        """Seconds that the client must wait before a retry: `retry_after`, else the table's."""
        if self.retry_after is not None:
            return self.retry_after
        return ERRORS[self.code].retry_after if self.may_retry else UNSET


def internal(outcome: Outcome) -> Failure:
    """Create the failure for an error in the gateway, whose log has the details."""
    text = "The gateway failed; the reason is in its log."
    return Failure(code=ErrorCode.INTERNAL, message=text, outcome=outcome)
