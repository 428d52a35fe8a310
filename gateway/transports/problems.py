"""Errors over HTTP: ``application/problem+json`` (RFC 9457) with the codes of the protocol."""

import math
from collections.abc import Mapping
from types import MappingProxyType

from starlette.responses import JSONResponse, Response

from gateway.admission import Refused
from gateway.errors import ErrorCode

STATUS: Mapping[ErrorCode, int] = MappingProxyType(
    {
        ErrorCode.UNAUTHENTICATED: 401,
        ErrorCode.FORBIDDEN: 403,
        ErrorCode.RATE_LIMITED: 429,
        ErrorCode.UNAVAILABLE: 503,
    }
)


def problem(refused: Refused, headers: Mapping[str, str] = MappingProxyType({})) -> Response:
    """The answer to a request that is refused."""
    status = STATUS[refused.code]
    given = dict(headers)
    if status == STATUS[ErrorCode.UNAUTHENTICATED]:
        given["WWW-Authenticate"] = "Bearer"  # RFC 9110, 15.5.2
    if refused.retry_after is not None:
        given["Retry-After"] = str(math.ceil(refused.retry_after))
    content = {"status": status, "code": refused.code, "detail": refused.text}
    return JSONResponse(content, status, given, media_type="application/problem+json")
