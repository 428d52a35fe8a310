"""Errors over HTTP: ``application/problem+json`` (RFC 9457) with the codes of the protocol."""

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from gateway.admission import Refused
from gateway.errors import ERRORS, ErrorCode, Outcome
from gateway.protocol.messages import ErrorMessage, ErrorObject

STATUS: Mapping[ErrorCode, int] = MappingProxyType(
    {
        ErrorCode.BAD_MESSAGE: 422,
        ErrorCode.TOO_LARGE: 413,
        ErrorCode.UNAUTHENTICATED: 401,
        ErrorCode.FORBIDDEN: 403,
        ErrorCode.UNKNOWN_ROUTE: 404,
        ErrorCode.RATE_LIMITED: 429,
        ErrorCode.QUEUE_FULL: 429,
        ErrorCode.UNKNOWN_MESSAGE: 404,
        ErrorCode.SESSION_LOST: 404,
        ErrorCode.THROTTLED: 429,
        ErrorCode.UNAVAILABLE: 503,
        ErrorCode.MODEL_NOT_READY: 503,
        ErrorCode.TIMEOUT: 504,
        ErrorCode.MODEL_ERROR: 502,
        ErrorCode.STREAM_BROKEN: 502,
        ErrorCode.VALIDATION_ERROR: 422,
        ErrorCode.GATEWAY_LOST: 502,
        ErrorCode.INTERNAL: 500,
    }
)
"""HTTP status of each error code."""


MEDIA_TYPE = "application/problem+json"

CODES = sorted([*ErrorCode, "cancelled", "duplicate", "unknown_replica"])
"""The protocol's errors; cases that have no reply without being errors in the protocol; and those
of operators' requests.
"""

ProblemCode = Annotated[str, msgspec.Meta(extra_json_schema={"enum": CODES})]


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error (RFC 9457).

    Attributes:
        status: The HTTP status.
        code: What went wrong, for programs.
        detail: What went wrong, for people.
        retryable: Whether the same request may succeed later.
        retry_after: Seconds to wait before that, if known.
        outcome: Of a failed turn: whether the model saw it.
    """

    status: int
    code: ProblemCode
    detail: str
    retryable: bool
    retry_after: float | UnsetType = UNSET
    outcome: Outcome | UnsetType = UNSET


def problem(error: Refused | ErrorMessage | ErrorObject) -> Response:
    """Return the response for a request that was refused or has failed."""
    if isinstance(error, Refused):
        return response(
            STATUS[error.code],
            error.code,
            error.text,
            retryable=ERRORS[error.code].retryable,
            retry_after=error.retry_after,
        )
    return response(
        STATUS[error.code],
        error.code,
        error.message,
        retryable=error.retryable,
        retry_after=None if error.retry_after is UNSET else error.retry_after,
        outcome=error.outcome if isinstance(error, ErrorObject) else None,
    )


def not_allowed(methods: Iterable[str]) -> Response:
    """Return the response for a method that the path doesn't support (RFC 9110, 15.5.6)."""
    taken = ", ".join(sorted(methods))
    answer = response(405, ErrorCode.BAD_MESSAGE, f"Method not allowed; use {taken}.")
    answer.headers["Allow"] = taken
    return answer


async def not_found(_request: Request, _error: Exception) -> Response:
    """Return the response for an unknown path."""
    return response(404, ErrorCode.UNKNOWN_ROUTE, "This path does not exist.")


def response(
    status: int,
    code: ProblemCode,
    detail: str,
    *,
    retryable: bool = False,
    retry_after: float | None = None,
    outcome: Outcome | None = None,
) -> Response:
    """Create a problem response.

    Args:
        status: The HTTP status.
        code: What went wrong, for programs.
        detail: What went wrong, for people.
        retryable: Whether the same request may succeed later.
        retry_after: Seconds to wait before that.
        outcome: Whether the model saw the turn; None if this isn't about a failed turn.
    """
    headers: dict[str, str] = {}
    if retry_after is not None:
        headers["Retry-After"] = str(math.ceil(retry_after))
    if status == STATUS[ErrorCode.UNAUTHENTICATED]:
        headers["WWW-Authenticate"] = "Bearer"  # RFC 9110, 15.5.2
    problem = Problem(
        status=status,
        code=code,
        detail=detail,
        retryable=retryable,
        retry_after=UNSET if retry_after is None else retry_after,
        outcome=UNSET if outcome is None else outcome,
    )
    return Response(msgspec.json.encode(problem), status, headers, media_type=MEDIA_TYPE)
