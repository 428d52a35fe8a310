"""Errors in OpenAI's format, such that its clients retry only requests that are safe to retry.

Its clients retry automatically if the connection breaks, and for the statuses 408, 409, 429 and 500
or more, unless the header ``x-should-retry`` says otherwise, which not all of them read. A turn
that the model may have seen is therefore answered with none of these statuses.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from msgspec import UNSET
from starlette.responses import JSONResponse, Response

from gateway.admission import Refused
from gateway.errors import ERRORS, ErrorCode, Outcome
from gateway.protocol.messages import ErrorMessage, ErrorObject, MessageDone

MAY_HAVE_RUN = 424
"""Status of a failed turn that the model may have seen: no client retries it. SageMaker uses it for
a model's errors, too."""

INVALID = "invalid_request_error"
_SERVER = "server_error"


class Kind(NamedTuple):
    """An error code in HTTP and in OpenAI's terms.

    Attributes:
        status: Status of the response.
        type: OpenAI's type of the error.
        code: OpenAI's code of the error.
    """

    status: int
    type: str
    code: str


_CODES: Mapping[ErrorCode, Kind] = MappingProxyType(
    {
        ErrorCode.BAD_MESSAGE: Kind(400, INVALID, "invalid_value"),
        ErrorCode.TOO_LARGE: Kind(413, INVALID, "too_large"),
        ErrorCode.UNAUTHENTICATED: Kind(401, "authentication_error", "invalid_api_key"),
        ErrorCode.FORBIDDEN: Kind(403, "permission_error", "forbidden"),
        ErrorCode.UNKNOWN_ROUTE: Kind(404, INVALID, "model_not_found"),
        ErrorCode.RATE_LIMITED: Kind(429, "rate_limit_error", "rate_limit_exceeded"),
        ErrorCode.QUEUE_FULL: Kind(429, "rate_limit_error", "rate_limit_exceeded"),
        ErrorCode.UNKNOWN_MESSAGE: Kind(404, INVALID, "not_found"),
        ErrorCode.SESSION_LOST: Kind(404, INVALID, "not_found"),
        ErrorCode.THROTTLED: Kind(429, "rate_limit_error", "throttled"),
        ErrorCode.UNAVAILABLE: Kind(503, _SERVER, "unavailable"),
        ErrorCode.MODEL_NOT_READY: Kind(503, _SERVER, "model_not_ready"),
        ErrorCode.TIMEOUT: Kind(504, _SERVER, "timeout"),
        ErrorCode.MODEL_ERROR: Kind(502, _SERVER, "model_error"),
        ErrorCode.STREAM_BROKEN: Kind(502, _SERVER, "stream_broken"),
        ErrorCode.VALIDATION_ERROR: Kind(400, INVALID, "invalid_value"),
        ErrorCode.GATEWAY_LOST: Kind(502, _SERVER, "gateway_lost"),
        ErrorCode.INTERNAL: Kind(500, _SERVER, "internal"),
    }
)


class Invalid(Refused):
    """A request is invalid.

    Attributes:
        param: Path of the invalid parameter, in OpenAI's notation.
        kind: Status, type and code of the error.
    """

    def __init__(
        self, text: str, param: str | None = None, *, code: str = "invalid_value", status: int = 400
    ) -> None:
        super().__init__(ErrorCode.VALIDATION_ERROR, text)
        self.param = param
        self.kind = Kind(status, INVALID, code)


def unsupported(param: str, text: str) -> Invalid:
    """Error of a parameter that OpenAI's API has, but that is not supported here."""
    return Invalid(text, param, code="unsupported")


def not_found(text: str, param: str | None = None) -> Invalid:
    """Error of an object that does not exist or that belongs to another principal: clients can't
    tell which.
    """
    return Invalid(text, param, code="not_found", status=404)


def unknown_model(name: str) -> Invalid:
    """Error of a route that does not exist, or that the client may not use."""
    text = f"The model `{name[:200]}` does not exist, or you may not use it."
    return Invalid(text, "model", code="model_not_found", status=404)


def error_of(error: Refused | ErrorMessage | ErrorObject) -> dict[str, Any]:
    """Return an error as OpenAI's object."""
    if isinstance(error, Invalid):
        kind, text, param = error.kind, error.text, error.param
    else:
        kind, param = _CODES[error.code], None
        text = error.text if isinstance(error, Refused) else error.message
    return {"message": text, "type": kind.type, "param": param, "code": kind.code}


def status_of(error: Refused | ErrorMessage | ErrorObject) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, Invalid):
        return error.kind.status
    if isinstance(error, ErrorObject) and error.outcome is not Outcome.NOT_INVOKED:
        return MAY_HAVE_RUN
    if not isinstance(error, Refused) and error.retryable:
        return retried(_CODES[error.code].status)
    return _CODES[error.code].status


def retried(status: int) -> int:
    """Return a status for which all clients retry: the given one, if they do, or else 503."""
    return status if status in {408, 409, 429} or status >= 500 else 503


def answer_of(error: Refused | ErrorMessage | ErrorObject) -> Response:
    """Return the response to a request that was refused or has failed."""
    if isinstance(error, Refused):
        again, wait = ERRORS[error.code].retryable, error.retry_after
    else:
        again, wait = error.retryable, None if error.retry_after is UNSET else error.retry_after
    return response(error_of(error), status_of(error), again=again, retry_after=wait)


def response(
    error: Mapping[str, Any], status: int, *, again: bool = False, retry_after: float | None = None
) -> Response:
    """Return a response with an error.

    Args:
        error: See `error_of`.
        status: Status of the response.
        again: Whether the client should retry the request.
        retry_after: Seconds to wait before the retry.
    """
    headers = {"Cache-Control": "no-store", "X-Should-Retry": "true" if again else "false"}
    if again and retry_after is not None:
        headers["Retry-After"] = str(math.ceil(retry_after))
        headers["Retry-After-Ms"] = str(math.ceil(retry_after * 1000))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"  # RFC 9110, 15.5.2
    return JSONResponse({"error": dict(error)}, status, headers)


def failure_of(done: MessageDone) -> ErrorObject | None:
    """Return the error of a turn that failed or was cancelled; None if it completed."""
    if done.error is not UNSET:
        return done.error
    if done.status == "completed":
        return None
    return ErrorObject(
        code=ErrorCode.UNAVAILABLE,
        message="The turn was cancelled.",
        retryable=False,
        outcome=Outcome.UNKNOWN if done.outcome is UNSET else done.outcome,
    )
