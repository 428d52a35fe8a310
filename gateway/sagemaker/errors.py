"""What botocore raises, as the gateway's failures: foreign errors stop here.

A failure's outcome is `NOT_INVOKED` only where that is certain. Its message is for the client and
says nothing of endpoints, accounts, hosts or bodies. Its facts are for the operator's log: codes,
the request id, and AWS's own message without what it quotes of the call. A container's message is
left out, since it may quote what a user wrote, and so is that of whatever answers in AWS's place.
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
"""No client is told to wait longer, whatever answers: who asks sooner is turned away once more."""

_NAME = 300
"""How much is logged of what AWS calls things by."""

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
"""What a container's status says of it. Any other, 500 too, may be for what it was asked."""

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
"""Codes that are AWS's; what answers with another may be anything, and quote the body."""

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
"""How containers on AWS's ``model-hosting-container-standards`` refuse a call about a session."""

_Kinds = tuple[type[Exception], ...]


def _raised_by_botocore(*names: str) -> _Kinds:
    """Those of its exceptions that this version has; the others it can't raise."""
    return tuple(getattr(boto, name) for name in names if hasattr(boto, name))


_UNREACHED: _Kinds = (
    ConnectError,
    *_raised_by_botocore("ConnectTimeoutError", "ProxyConnectionError", "SSLError"),
)
# What botocore raises while it looks for credentials, the region or the address, and while it
# signs: all of it comes before the request is sent.
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
"""The first that fits."""


def failure_of(
    error: Exception,
    profile: Profile,
    *,
    in_session: bool,
    sent: Mapping[str, str] = NOTHING,
    own: Collection[str] = (),
) -> Failure:
    """What an exception of a call means to the client, with facts for the operator.

    Args:
        error: Any that a `Transport` gives.
        profile: How the container words its errors.
        in_session: Whether the call named a session that is open; no other can lose one.
        sent: The call's parameters, but for its body, which AWS's message may quote.
        own: Values among them that are the route's.
    """
    if isinstance(error, ReplyFailed):
        return failure_of_reply(error.error)
    if isinstance(error, ModelError | StreamError):
        return error.failure
    if isinstance(error, boto.ClientError):
        if error.operation_name not in OPERATIONS:
            # From the service that gives out credentials, which come first.
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
    """The same of an exception after the head of a good reply, when the model has seen the call."""
    if isinstance(error, ModelError | StreamError):
        return error.failure
    raised = {"raised": type(error).__name__}
    if isinstance(error, _TIMEOUTS):
        return with_facts(TIMED_OUT, **raised)
    if isinstance(error, _BROKEN):
        return with_facts(BROKEN_OFF, **raised, **_cause(error))
    return with_facts(BROKEN_OFF, **raised, **_stack(error))


def with_facts(failure: Failure, **facts: object) -> Failure:
    """The same failure, with what is known of it."""
    given = {name: value for name, value in facts.items() if value not in {None, ""}}
    return structs.replace(failure, facts=given)


def _cause(error: Exception) -> dict[str, object]:
    """The type of what was raised first."""
    cause = (
        error.cause if isinstance(error, CallError) else getattr(error, "kwargs", {}).get("error")
    )
    return {} if cause is None else {"cause": type(cause).__name__}


def _stack(error: Exception) -> dict[str, object]:
    """Where it was raised, but not its message, which may quote what was sent or received."""
    return {"stack": "".join(traceback.format_tb(error.__traceback__))}


def _never_connected(error: Exception) -> bool:
    """Whether no connection was made.

    aiobotocore says ``EndpointConnectionError`` for every ``ClientConnectionError`` of aiohttp, a
    connection reset after the request was sent among them; only what it wraps tells them apart.
    """
    if not isinstance(error, _raised_by_botocore("EndpointConnectionError")):
        return False
    never = aiohttp.ClientConnectorError | socket.gaierror
    return isinstance(getattr(error, "kwargs", {}).get("error"), never)


def _facts(response: Mapping[str, Any]) -> dict[str, object]:
    """What an answer says of itself."""
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
        # The message names the account and the endpoint, so it is read but not passed on.
        message = message.lower()
        subject = facts["subject"] = _subject(message)
        # No document says what the router answers for a session that it does not know. The API
        # lists no other error that would fit, so one of these that speaks of it is taken for it.
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
    elif not status:  # the platform says 0 where the container has not answered
        failure = _NO_ANSWER
    else:
        text = f"The model answered with an error (status {status})."
        health = Health.WELL if HANDLER_RAISED in message else _HEALTH.get(status, Health.WELL)
        failure = Failure(
            code=ErrorCode.MODEL_ERROR, message=text, outcome=Outcome.INVOKED, health=health
        )
    return with_facts(failure, **facts)


def _of_one(failure: Failure, sent: Mapping[str, str], own: Collection[str]) -> Failure:
    """What a model's failure is where a client has chosen it: one of many, which may be well."""
    chosen = sent.get("TargetModel")
    if failure.health is Health.WELL or chosen is None or chosen in own:
        return failure
    return structs.replace(failure, health=None)


def _subject(message: str) -> str | None:
    """What a ``ValidationError`` is about; its message is in lower case.

    ``parameter`` where a value does not fit the API model: the message then names a field, and
    may quote what a client wrote into it. Else whichever of these it names first, if any.
    """
    if "failed to satisfy constraint" in message:
        return "parameter"
    match = re.search("session|endpoint|variant|inference component", message)
    return match[0] if match else None


def _with_retry_after(failure: Failure, headers: Mapping[str, str]) -> Failure:
    """The same with the seconds that the answer asks for; a date is left to the table's rule."""
    try:
        seconds = float(headers["retry-after"])
    except (KeyError, ValueError):
        return failure
    if not 0 <= seconds < float("inf"):
        return failure
    return structs.replace(failure, retry_after=min(seconds, MAX_RETRY_AFTER))
