"""Maps botocore's exceptions to the gateway's failures.

A failure's outcome is `NOT_INVOKED` only if that is certain. Its message is for the client and
doesn't mention endpoints, accounts, hosts or bodies. Its facts are for the operator's log: codes,
the request id, and AWS's own message without what it quotes of the call. A container's message is
left out, since it may quote a user's text, and so is that of any other server.
"""

import re
import socket
import traceback
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

import aiohttp
import botocore.exceptions as boto
from msgspec import structs

from gateway.errors import ErrorCode, Failure, Health, Outcome, internal
from gateway.formats.streams import StreamError
from gateway.logs import printable
from gateway.sagemaker.exceptions import (
    CallError,
    ConnectError,
    InvalidParameters,
    NoCredentials,
    NotSentInTime,
    ReplyFailed,
    ReplyTimeout,
)
from gateway.sagemaker.profiles import HANDLER_RAISED, Profile
from gateway.sagemaker.said import error_name, loggable
from gateway.sagemaker.symptoms import SESSIONS_OFF
from gateway.session.ports import ModelError

OPERATIONS = frozenset(
    {"InvokeEndpoint", "InvokeEndpointAsync", "InvokeEndpointWithResponseStream"}
)
OPERATOR = "The gateway can't use the endpoint, or it does not exist; ask the gateway's operator."
NOTHING: Mapping[str, str] = MappingProxyType({})

MAX_RETRY_AFTER = 60.0
"""The largest ``retry_after`` for clients, whatever the server says."""

_NAME = 300
"""The longest name from AWS that is logged."""

TIMED_OUT = Failure(
    code=ErrorCode.TIMEOUT,
    message="The model did not finish its reply in time.",
    outcome=Outcome.INVOKED,
)
BROKEN_OFF = Failure(
    code=ErrorCode.STREAM_BROKEN,
    message="The model's reply was cut off.",
    outcome=Outcome.INVOKED,
)


LOST = Failure(
    code=ErrorCode.SESSION_LOST,
    message="The model no longer knows the session; open a new one.",
    health=Health.WELL,
)

_NOT_CONFIGURED = Failure(code=ErrorCode.UNAVAILABLE, message=OPERATOR, retryable=False)
_LATE = Failure(
    code=ErrorCode.TIMEOUT,
    message="The model did not answer in time.",
    outcome=Outcome.UNKNOWN,
    health=Health.SICK,
)
_NOT_IN_TIME = Failure(
    code=ErrorCode.TIMEOUT,
    message="No connection to the endpoint was free in time; nothing was sent.",
)
_UNREACHABLE = Failure(
    code=ErrorCode.UNAVAILABLE, message="The endpoint can't be reached.", health=Health.SICK
)
_NO_SUCH_PARAMETERS = Failure(
    code=ErrorCode.VALIDATION_ERROR,
    message="The model service does not accept the call's parameters.",
)
_CUT = Failure(
    code=ErrorCode.UNAVAILABLE,
    message="The connection to the endpoint broke; the model may have seen the message.",
    outcome=Outcome.UNKNOWN,
    health=Health.SICK,
)
_UNFORESEEN = internal(Outcome.UNKNOWN)
_FULL = Failure(
    code=ErrorCode.UNAVAILABLE,
    message="The model has no room for another session.",
    health=Health.WELL,
)
_NO_ANSWER = Failure(
    code=ErrorCode.MODEL_ERROR,
    message="The model failed; it may have seen the message.",
    outcome=Outcome.UNKNOWN,
    health=Health.SICK,
)

_HEALTH: Mapping[object, Health] = MappingProxyType(
    {429: Health.BUSY, **dict.fromkeys((502, 503, 504, 507), Health.SICK)}
)
"""What a container's status says about its health. Others, 500 too, may be due to the request."""

_BY_CODE: Mapping[str, Failure] = MappingProxyType(
    {
        **dict.fromkeys(
            (
                "AccessDenied",
                "AccessDeniedException",
                "ExpiredToken",
                "ExpiredTokenException",
                "IncompleteSignature",
                "InvalidClientTokenId",
                "InvalidSignatureException",
                "MissingAuthenticationToken",
                "MissingAuthenticationTokenException",
                "OptInRequired",
                "RequestExpired",
                "SignatureDoesNotMatch",
                "UnrecognizedClientException",
            ),
            _NOT_CONFIGURED,
        ),
        **dict.fromkeys(
            ("Throttling", "ThrottlingException", "ThrottledException", "TooManyRequestsException"),
            Failure(
                code=ErrorCode.THROTTLED,
                message="The platform is throttling calls; try again later.",
                health=Health.BUSY,
            ),
        ),
        "ModelNotReadyException": Failure(
            code=ErrorCode.MODEL_NOT_READY,
            message="The model is still loading.",
            health=Health.SICK,
        ),
        "ValidationError": Failure(
            code=ErrorCode.VALIDATION_ERROR,
            message="The model service refused the call's parameters.",
        ),
        "ServiceUnavailable": Failure(
            code=ErrorCode.UNAVAILABLE,
            message="The model service is unavailable.",
            outcome=Outcome.UNKNOWN,
            health=Health.SICK,
        ),
    }
)
_PLATFORMS = _BY_CODE.keys() | {
    "InternalDependencyException",
    "InternalFailure",
    "InternalServerError",
    "NotAuthorized",
}
"""AWS's error codes; a response with another may come from anything, and quote the body."""

_BY_STATUS: Mapping[int, Failure] = MappingProxyType(
    {
        413: Failure(code=ErrorCode.TOO_LARGE, message="The body is too large for the platform."),
        429: _BY_CODE["ThrottlingException"],
    }
)
_OTHER = Failure(
    code=ErrorCode.UNAVAILABLE,
    message="The model service failed.",
    outcome=Outcome.UNKNOWN,
    health=Health.SICK,
)


_DISABLED_STATUS, _DISABLED = 400, "stateful sessions not enabled"
"""How containers on AWS's ``model-hosting-container-standards`` reject session calls."""

_Kinds = tuple[type[Exception], ...]


def _raised_by_botocore(*names: str) -> _Kinds:
    """Return those of botocore's exceptions that this version has."""
    return tuple(getattr(boto, name) for name in names if hasattr(boto, name))


_UNREACHED: _Kinds = (
    ConnectError,
    *_raised_by_botocore("ConnectTimeoutError", "ProxyConnectionError", "SSLError"),
)
# What botocore raises while it resolves credentials, region or endpoint, and while it signs: all
# before the request is sent.
_NOT_CALLED: _Kinds = (
    NoCredentials,
    *_raised_by_botocore(
        "BaseEndpointResolverError",
        "CredentialRetrievalError",
        "EndpointProviderError",
        "InvalidConfigError",
        "LoginError",
        "MetadataRetrievalError",
        "MissingDependencyException",
        "NoAuthTokenError",
        "NoCredentialsError",
        "PartialCredentialsError",
        "RefreshWithMFAUnsupportedError",
        "SSOError",
        "TokenRetrievalError",
        "UnknownCredentialError",
        "UnknownSignatureVersionError",
        "UnsupportedSignatureVersionError",
    ),
)
_NOT_VALID: _Kinds = (InvalidParameters, *_raised_by_botocore("ParamValidationError"))
_TIMEOUTS: _Kinds = (ReplyTimeout, TimeoutError, *_raised_by_botocore("ReadTimeoutError"))
_BROKEN: _Kinds = (
    CallError,
    aiohttp.ClientError,
    OSError,
    *_raised_by_botocore("ConnectionError", "HTTPClientError", "IncompleteReadError"),
)
_MEANINGS: tuple[tuple[_Kinds, Failure], ...] = (
    ((NotSentInTime,), _NOT_IN_TIME),
    (_TIMEOUTS, _LATE),
    (_UNREACHED, _UNREACHABLE),
    (_NOT_VALID, _NO_SUCH_PARAMETERS),
    (_NOT_CALLED, _NOT_CONFIGURED),
    (_BROKEN, _CUT),
)
"""The first match applies."""


def failure_of(
    error: Exception,
    profile: Profile,
    *,
    in_session: bool,
    sent: Mapping[str, str] = NOTHING,
    own: Collection[str] = (),
) -> Failure:
    """Convert an exception of a call to a failure, with facts for the operator.

    Args:
        error: An exception from a `Transport`.
        profile: How the container words its errors.
        in_session: Whether the call was in an open session; no other call can lose one.
        sent: The call's parameters without its body, which AWS's message may quote.
        own: Values among them that come from the route.
    """
    if isinstance(error, ReplyFailed):
        return failure_of_reply(error.error)
    if isinstance(error, ModelError | StreamError):
        return error.failure
    if isinstance(error, boto.ClientError):
        if error.operation_name not in OPERATIONS:
            # From the service that issues credentials, before the call itself.
            facts = {"operation": error.operation_name, **_facts(error.response)}
            message = str(error.response.get("Error", {}).get("Message", ""))
            return with_facts(_NOT_CONFIGURED, **facts, message=loggable(message, NOTHING))
        return _of_response(error.response, profile, in_session, sent, own)
    raised = {"raised": type(error).__name__}
    meanings = (failure for kinds, failure in _MEANINGS if isinstance(error, kinds))
    failure = _UNREACHABLE if _never_connected(error) else next(meanings, None)
    if failure is None:
        return with_facts(_UNFORESEEN, **raised, **_stack(error))
    return with_facts(failure, **raised, **_cause(error))


def failure_of_reply(error: Exception) -> Failure:
    """Convert an exception after the head of a successful reply: the model has seen the call."""
    if isinstance(error, ModelError | StreamError):
        return error.failure
    raised = {"raised": type(error).__name__}
    if isinstance(error, _TIMEOUTS):
        return with_facts(TIMED_OUT, **raised)
    if isinstance(error, _BROKEN):
        return with_facts(BROKEN_OFF, **raised, **_cause(error))
    return with_facts(BROKEN_OFF, **raised, **_stack(error))


def with_facts(failure: Failure, **facts: object) -> Failure:
    """Return the failure with more facts."""
    given = {name: value for name, value in facts.items() if value not in {None, ""}}
    return structs.replace(failure, facts=given)


def _cause(error: Exception) -> dict[str, object]:
    """Return the type of the original exception."""
    cause = (
        error.cause if isinstance(error, CallError) else getattr(error, "kwargs", {}).get("error")
    )
    return {} if cause is None else {"cause": type(cause).__name__}


def _stack(error: Exception) -> dict[str, object]:
    """Return where it was raised, without its message, which may quote what was sent."""
    return {"stack": "".join(traceback.format_tb(error.__traceback__))}


def _never_connected(error: Exception) -> bool:
    """Whether no connection was made.

    aiobotocore raises ``EndpointConnectionError`` for every ``ClientConnectionError`` of aiohttp,
    even for a connection reset after the request was sent; only the wrapped error tells.
    """
    if not isinstance(error, _raised_by_botocore("EndpointConnectionError")):
        return False
    never = aiohttp.ClientConnectorError | socket.gaierror
    return isinstance(getattr(error, "kwargs", {}).get("error"), never)


def _facts(response: Mapping[str, Any]) -> dict[str, object]:
    """Return the facts in an error response."""
    metadata = response.get("ResponseMetadata", {})
    return {
        "code": error_name(str(response.get("Error", {}).get("Code", ""))),
        "status": metadata.get("HTTPStatusCode", 0),
        "request_id": printable(str(metadata.get("RequestId", "")), _NAME),
    }


def _of_response(
    response: Mapping[str, Any],
    profile: Profile,
    in_session: bool,
    sent: Mapping[str, str],
    own: Collection[str],
) -> Failure:
    code = str(response.get("Error", {}).get("Code", ""))
    metadata = response.get("ResponseMetadata", {})
    status = metadata.get("HTTPStatusCode", 0)
    facts = _facts(response)
    if code == "ModelError":
        return _of_one(_of_container(response, profile, in_session, facts), sent, own)
    message = str(response.get("Error", {}).get("Message", ""))
    if message and code in _PLATFORMS:
        facts["message"] = loggable(message, sent, own)
    failure = _BY_CODE.get(code) or _BY_STATUS.get(status)
    if failure is None:
        failure = _NOT_CONFIGURED if status in (401, 403) else _OTHER
    if code == "ValidationError":
        # The message names the account and the endpoint, so it isn't passed on.
        message = message.lower()
        subject = facts["subject"] = _subject(message)
        # It is undocumented how the router responds to an unknown session. The API lists no other
        # error that would fit, so one of these that mentions a session is taken for it.
        if subject == "session" and in_session:
            failure = LOST
        elif subject != "parameter" and "endpoint" in message and "not found" in message:
            failure = _NOT_CONFIGURED
    if failure.code is ErrorCode.MODEL_NOT_READY:
        failure = _of_one(failure, sent, own)
    if failure.code is ErrorCode.THROTTLED:
        failure = _with_retry_after(failure, metadata.get("HTTPHeaders", {}))
    return with_facts(failure, **facts)


def _of_container(
    response: Mapping[str, Any], profile: Profile, in_session: bool, facts: dict[str, object]
) -> Failure:
    message = str(response.get("OriginalMessage", "")).lower()
    status = response.get("OriginalStatusCode")
    log_stream = printable(str(response.get("LogStreamArn", "")), _NAME)
    facts |= {"original_status": status, "log_stream": log_stream}
    if status == _DISABLED_STATUS and _DISABLED in message:
        facts["subject"] = SESSIONS_OFF

    def says(texts: tuple[str, ...]) -> bool:
        return status in profile.statuses and any(text in message for text in texts)

    if in_session and says(profile.lost):
        failure = LOST
    elif says(profile.full):
        failure = _FULL
    elif in_session and says(profile.perhaps_lost):
        failure = structs.replace(LOST, outcome=Outcome.UNKNOWN)
    elif not status:  # the platform's status is 0 if the container has not responded
        failure = _NO_ANSWER
    else:
        text = f"The model answered with an error (status {status})."
        health = Health.WELL if HANDLER_RAISED in message else _HEALTH.get(status, Health.WELL)
        failure = Failure(
            code=ErrorCode.MODEL_ERROR, message=text, outcome=Outcome.INVOKED, health=health
        )
    return with_facts(failure, **facts)


def _of_one(failure: Failure, sent: Mapping[str, str], own: Collection[str]) -> Failure:
    """Adjust a failure if the client has chosen the model: the endpoint's others may be healthy."""
    chosen = sent.get("TargetModel")
    if failure.health is Health.WELL or chosen is None or chosen in own:
        return failure
    return structs.replace(failure, health=None)


def _subject(message: str) -> str | None:
    """Return the subject of a ``ValidationError``, from its message in lower case.

    ``parameter`` if a value violates the API model: the message then names a field, and may quote
    the client's value. Else the first of the known subjects that it mentions, if any.
    """
    if "failed to satisfy constraint" in message:
        return "parameter"
    match = re.search("session|endpoint|variant|inference component", message)
    return match[0] if match else None


def _with_retry_after(failure: Failure, headers: Mapping[str, str]) -> Failure:
    """Return the failure with the response's ``Retry-After`` in seconds; a date is ignored."""
    try:
        seconds = float(headers["retry-after"])
    except (KeyError, ValueError):
        return failure
    if not 0 <= seconds < float("inf"):
        return failure
    return structs.replace(failure, retry_after=min(seconds, MAX_RETRY_AFTER))
