"""Every error code and close code of the wire protocol, and what each means to a client: one table.

The codes are those of sections 4 and 6 of ``gateway/protocol/PROTOCOL.md``. Nothing else in the
package decides whether an error may be retried, or with which code a socket closes for it.
"""

from collections.abc import Mapping
from enum import Enum, IntEnum, StrEnum
from types import MappingProxyType

import msgspec
from msgspec import UNSET, UnsetType

WAIT_SECONDS = 1.0
"""What a client is told to wait where nobody knows better: many turns end, and throttles let calls
through again, within about a second."""


class ErrorCode(StrEnum):
    """What went wrong, for programs. The text beside it is for people."""

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
    """Whether the model saw a turn that failed."""

    NOT_INVOKED = "not_invoked"
    """It never did: sending the turn again is safe."""
    UNKNOWN = "unknown"
    """It may have."""
    INVOKED = "invoked"
    """It did."""


class Health(Enum):
    """What a failure says of the model's endpoint."""

    WELL = "well"
    """It has answered."""
    BUSY = "busy"
    """It has answered that it is asked too much."""
    SICK = "sick"
    """It has not answered, or that it can't, and not because of what it was asked."""


class ErrorRule(msgspec.Struct, frozen=True):
    """What follows from an error code."""

    retryable: bool
    """Whether the same message may succeed later, without being changed."""
    close: CloseCode
    """The code that a socket closes with where an error ends it: on a raw connection, always."""
    retry_after: float | UnsetType = UNSET
    """Seconds that a client is told to wait before, unless the failure says how many."""


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
        code: What went wrong.
        message: The same for people. It names no endpoint, account, host or session of the
            platform, and quotes no body.
        outcome: Whether the model saw the turn.
        retryable: Whether the client may send the same again; the table's answer unless given.
        retry_after: Seconds to wait before that, where the model or the gateway knows them.
        facts: What the operator's log says of it besides; no client is told.
        health: What it says of the endpoint; None where nothing.
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
        """Whether to send the same again; never where the model may have seen it."""
        if self.outcome is not Outcome.NOT_INVOKED:
            return False
        return ERRORS[self.code].retryable if self.retryable is None else self.retryable

    @property
    def wait(self) -> float | UnsetType:
        """The seconds that a client is told to wait before; `retry_after`, else the table's."""
        if self.retry_after is not None:
            return self.retry_after
        return ERRORS[self.code].retry_after if self.may_retry else UNSET


def internal(outcome: Outcome) -> Failure:
    """A fault of the gateway's own; what it was is in its log."""
    text = "The gateway failed; the reason is in its log."
    return Failure(code=ErrorCode.INTERNAL, message=text, outcome=outcome)
