"""Errors in OpenAI's words, with what makes its clients try again where that is right alone.

They send a request again by themselves where the connection broke, and for the statuses 408, 409,
429 and from 500 on, unless ``x-should-retry`` says otherwise, which not all of them read. So a turn
that the model may have seen is answered with none of these.
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
"""The status of a turn that has failed and that the model may have seen: no client takes it for a
reason to send it again. It is what SageMaker says itself of a model's error."""

INVALID = "invalid_request_error"
_SERVER = "server_error"


class Kind(NamedTuple):
    """How an error code is said.

    Attributes:
        status: Of the response.
        type: OpenAI's word for errors of this kind.
        code: Its word for this one.
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
    """A request that can't be served as it is.

    Attributes:
        param: The parameter that is wrong, as OpenAI writes its place.
        kind: How that is said.
    """

    def __init__(
        self, text: str, param: str | None = None, *, code: str = "invalid_value", status: int = 400
    ) -> None:
        super().__init__(ErrorCode.VALIDATION_ERROR, text)
        self.param = param
        self.kind = Kind(status, INVALID, code)


def unsupported(param: str, text: str) -> Invalid:
    """Why a parameter is refused that OpenAI's API has."""
    return Invalid(text, param, code="unsupported")


def not_found(text: str, param: str | None = None) -> Invalid:
    """What is asked for is not there; or it is another's, which nobody is told."""
    return Invalid(text, param, code="not_found", status=404)


def unknown_model(name: str) -> Invalid:
    """There is no such route, or none for who asks."""
    text = f"The model `{name[:200]}` does not exist, or you may not use it."
    return Invalid(text, "model", code="model_not_found", status=404)


def error_of(error: Refused | ErrorMessage | ErrorObject) -> dict[str, Any]:
    """An error as OpenAI's clients read it, beside which a response has a status."""
    if isinstance(error, Invalid):
        kind, text, param = error.kind, error.text, error.param
    else:
        kind, param = _CODES[error.code], None
        text = error.text if isinstance(error, Refused) else error.message
    return {"message": text, "type": kind.type, "param": param, "code": kind.code}


def status_of(error: Refused | ErrorMessage | ErrorObject) -> int:
    """The status of a response with an error."""
    if isinstance(error, Invalid):
        return error.kind.status
    if isinstance(error, ErrorObject) and error.outcome is not Outcome.NOT_INVOKED:
        return MAY_HAVE_RUN
    if not isinstance(error, Refused) and error.retryable:
        return retried(_CODES[error.code].status)
    return _CODES[error.code].status


def retried(status: int) -> int:
    """A status for which every client sends a request again."""
    return status if status in {408, 409, 429} or status >= 500 else 503


def answer_of(error: Refused | ErrorMessage | ErrorObject) -> Response:
    """The response to a request that is refused, or that has failed."""
    if isinstance(error, Refused):
        again, wait = ERRORS[error.code].retryable, error.retry_after
    else:
        again, wait = error.retryable, None if error.retry_after is UNSET else error.retry_after
    return response(error_of(error), status_of(error), again=again, retry_after=wait)


def response(
    error: Mapping[str, Any], status: int, *, again: bool = False, retry_after: float | None = None
) -> Response:
    """A response with an error.

    Args:
        error: See `error_of`.
        status: Of the response.
        again: Whether the same request may be sent again as it is, and may succeed then.
        retry_after: Seconds to wait before that.
    """
    headers = {"Cache-Control": "no-store", "X-Should-Retry": "true" if again else "false"}
    if again and retry_after is not None:
        headers["Retry-After"] = str(math.ceil(retry_after))
        headers["Retry-After-Ms"] = str(math.ceil(retry_after * 1000))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"  # RFC 9110, 15.5.2
    return JSONResponse({"error": dict(error)}, status, headers)


def failure_of(done: MessageDone) -> ErrorObject | None:
    """Why a turn has not ended well; None where it has. One that was cancelled has not."""
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
