"""What botocore raises, as the gateway's failures: foreign errors stop here.

A failure's outcome is `NOT_INVOKED` only where that is certain. Its message is for the client and
says nothing of endpoints, accounts, hosts or bodies; the operator finds codes and the request id
in the log. A container's own message is never logged, since it may quote what a user wrote.
"""

import re
import socket
import traceback
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import aiohttp
import botocore.exceptions as boto
import structlog

from gateway.errors import ErrorCode, Failure, Outcome
from gateway.sagemaker.profiles import Profile
from gateway.sagemaker.transport import ReplyFailed
from gateway.session.ports import ModelError

log = structlog.stdlib.get_logger("gateway.sagemaker")

OPERATIONS = frozenset({"InvokeEndpoint", "InvokeEndpointWithResponseStream"})
OPERATOR = "The gateway may not use the endpoint, or it is not there; its operator must mend this."
UNREACHABLE = "The endpoint can't be reached."
BROKEN = "The connection to the endpoint broke; whether the model saw the message is not known."

TIMED_OUT = Failure(
    code=ErrorCode.TIMEOUT,
    message="The model did not finish its reply in time.",
    outcome=Outcome.INVOKED,
)
BROKEN_OFF = Failure(
    code=ErrorCode.STREAM_BROKEN,
    message="The model's reply broke off.",
    outcome=Outcome.INVOKED,
)


class NeverConnected(Exception):
    """What an ``EndpointConnectionError`` holds as its ``error`` where no connection was made."""


_NOT_CONFIGURED = Failure(code=ErrorCode.UNAVAILABLE, message=OPERATOR, retryable=False)

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
            Failure(code=ErrorCode.THROTTLED, message="The platform turns calls away; wait a bit."),
        ),
        "ModelNotReadyException": Failure(
            code=ErrorCode.MODEL_NOT_READY, message="The model is still loading."
        ),
        "ValidationError": Failure(
            code=ErrorCode.VALIDATION_ERROR, message="The platform refused the call's parameters."
        ),
        "ServiceUnavailable": Failure(
            code=ErrorCode.UNAVAILABLE,
            message="The platform is unavailable.",
            outcome=Outcome.UNKNOWN,
        ),
    }
)
_BY_STATUS: Mapping[int, Failure] = MappingProxyType(
    {
        413: Failure(code=ErrorCode.TOO_LARGE, message="The platform takes no body this large."),
        429: _BY_CODE["ThrottlingException"],
    }
)
_OTHER = Failure(
    code=ErrorCode.UNAVAILABLE, message="The platform failed.", outcome=Outcome.UNKNOWN
)

_UNREACHED = (
    boto.ConnectTimeoutError,
    boto.ProxyConnectionError,
    boto.SSLError,
)
# What botocore raises while it looks for credentials, the region or the address, and while it
# signs: all of it comes before the request is sent.
_NOT_SENT = (
    boto.BaseEndpointResolverError,
    boto.CredentialRetrievalError,
    boto.EndpointProviderError,
    boto.InvalidConfigError,
    boto.LoginError,
    boto.MetadataRetrievalError,
    boto.MissingDependencyException,
    boto.NoAuthTokenError,
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.RefreshWithMFAUnsupportedError,
    boto.SSOError,
    boto.TokenRetrievalError,
    boto.UnknownCredentialError,
    boto.UnknownSignatureVersionError,
    boto.UnsupportedSignatureVersionError,
)
_TIMEOUTS = (boto.ReadTimeoutError, TimeoutError)
_BROKEN = (
    boto.ConnectionError,
    boto.HTTPClientError,
    boto.IncompleteReadError,
    aiohttp.ClientError,
    OSError,
)


def failure_of(  # noqa: PLR0911 - one a kind
    error: Exception, profile: Profile, *, in_session: bool
) -> Failure:
    """What an exception of a call means to the client; the operator is told by the log.

    Args:
        error: Any that a `Transport` gives.
        profile: How the container words its errors.
        in_session: Whether the call named a session that is open; no other can lose one.
    """
    if isinstance(error, ReplyFailed):
        return failure_of_reply(error.error)
    if isinstance(error, ModelError):
        return error.failure
    about = log.bind(error=type(error).__name__)
    if isinstance(error, boto.ClientError):
        if error.operation_name not in OPERATIONS:
            # From the service that gives out credentials, which come first.
            about.error("call not made", operation=error.operation_name)
            return _NOT_CONFIGURED
        return _of_response(error.response, profile, in_session)
    if isinstance(error, _TIMEOUTS):
        about.warning("no answer in time")
        text = "The model did not answer in time."
        return Failure(code=ErrorCode.TIMEOUT, message=text, outcome=Outcome.UNKNOWN)
    if isinstance(error, _UNREACHED) or _never_connected(error):
        about.warning("endpoint unreachable")
        return Failure(code=ErrorCode.UNAVAILABLE, message=UNREACHABLE)
    if isinstance(error, boto.ParamValidationError):
        about.warning("call not made")
        text = "The call's parameters are not what the platform takes."
        return Failure(code=ErrorCode.VALIDATION_ERROR, message=text)
    if isinstance(error, _NOT_SENT):
        about.error("call not made")
        return _NOT_CONFIGURED
    if isinstance(error, _BROKEN):
        about.warning("connection broken", cause=_cause(error))
        return Failure(code=ErrorCode.UNAVAILABLE, message=BROKEN, outcome=Outcome.UNKNOWN)
    _log_unforeseen(error)
    text = "The gateway failed; its operator finds the reason in its log."
    return Failure(code=ErrorCode.INTERNAL, message=text, outcome=Outcome.UNKNOWN)


def failure_of_reply(error: Exception) -> Failure:
    """The same of an exception after the head of a good reply, when the model has seen the call."""
    if isinstance(error, ModelError):
        return error.failure
    about = log.bind(error=type(error).__name__)
    if isinstance(error, _TIMEOUTS):
        about.warning("reply not whole in time")
        return TIMED_OUT
    if isinstance(error, _BROKEN):
        about.warning("reply broken off", cause=_cause(error))
    else:
        _log_unforeseen(error)
    return BROKEN_OFF


def _cause(error: Exception) -> str | None:
    """The type of what botocore has wrapped."""
    cause = getattr(error, "kwargs", {}).get("error")
    return None if cause is None else type(cause).__name__


def _log_unforeseen(error: Exception) -> None:
    """Say where it was raised, but not its message, which may quote what was sent or received."""
    stack = "".join(traceback.format_tb(error.__traceback__))
    log.error("call failed", error=type(error).__name__, stack=stack)


def _never_connected(error: Exception) -> bool:
    """Whether no connection was made.

    aiobotocore says ``EndpointConnectionError`` for every ``ClientConnectionError`` of aiohttp, a
    connection reset after the request was sent among them; only what it wraps tells them apart.
    """
    if not isinstance(error, boto.EndpointConnectionError):
        return False
    never = aiohttp.ClientConnectorError | socket.gaierror | NeverConnected
    return isinstance(error.kwargs.get("error"), never)


def _of_response(response: Mapping[str, Any], profile: Profile, in_session: bool) -> Failure:
    code = str(response.get("Error", {}).get("Code", ""))
    metadata = response.get("ResponseMetadata", {})
    status = metadata.get("HTTPStatusCode", 0)
    about = log.bind(code=code, status=status, request_id=metadata.get("RequestId"))
    if code == "ModelError":
        return _of_container(response, profile, in_session, about)
    if code == "ValidationError":
        # The message names the account and the endpoint, so it is read but not passed on.
        message = str(response.get("Error", {}).get("Message", "")).lower()
        subject = _subject(message)
        about = about.bind(subject=subject)
        # No document says what the router answers for a session that it does not know. The API
        # lists no other error that would fit, so one of these that speaks of it is taken for it.
        if subject == "session" and in_session:
            return _lost(about)
        if subject != "parameter" and "endpoint" in message and "not found" in message:
            about.error("call refused")
            return _NOT_CONFIGURED
    failure = _BY_CODE.get(code) or _BY_STATUS.get(status)
    if failure is None:
        failure = _NOT_CONFIGURED if status in (401, 403) else _OTHER
    if failure is _NOT_CONFIGURED:
        about.error("call refused")
    else:
        about.warning("call failed")
    if failure.code is ErrorCode.THROTTLED:
        return _with_retry_after(failure, metadata.get("HTTPHeaders", {}))
    return failure


def _of_container(
    response: Mapping[str, Any],
    profile: Profile,
    in_session: bool,
    about: structlog.stdlib.BoundLogger,
) -> Failure:
    message = str(response.get("OriginalMessage", "")).lower()
    status = response.get("OriginalStatusCode")
    about = about.bind(original_status=status, log_stream=response.get("LogStreamArn"))

    def says(texts: tuple[str, ...]) -> bool:
        return status in profile.statuses and any(text in message for text in texts)

    if in_session and says(profile.lost):
        return _lost(about)
    if says(profile.full):
        about.warning("no room for a session")
        text = "The model has no room for another session."
        return Failure(code=ErrorCode.UNAVAILABLE, message=text)
    if in_session and says(profile.perhaps_lost):
        return _lost(about, Outcome.UNKNOWN)
    about.warning("model error")
    if not status:  # the platform says 0 where the container has not answered
        text = "The model failed; whether it saw the message is not known."
        return Failure(code=ErrorCode.MODEL_ERROR, message=text, outcome=Outcome.UNKNOWN)
    text = f"The model answered with an error (status {status})."
    return Failure(code=ErrorCode.MODEL_ERROR, message=text, outcome=Outcome.INVOKED)


def _subject(message: str) -> str | None:
    """What a ``ValidationError`` is about; its message is in lower case.

    ``parameter`` where a value does not fit the API model: the message then names a field, and
    may quote what a client wrote into it. Else whichever of these it names first, if any.
    """
    if "failed to satisfy constraint" in message:
        return "parameter"
    match = re.search("session|endpoint|variant|inference component", message)
    return match[0] if match else None


def _lost(about: structlog.stdlib.BoundLogger, outcome: Outcome = Outcome.NOT_INVOKED) -> Failure:
    about.warning("session lost", outcome=outcome.value)
    text = "The model no longer knows the session; open a new one."
    return Failure(code=ErrorCode.SESSION_LOST, message=text, outcome=outcome)


def _with_retry_after(failure: Failure, headers: Mapping[str, str]) -> Failure:
    try:
        seconds = float(headers["retry-after"])
    except (KeyError, ValueError):
        return failure
    if not 0 <= seconds < float("inf"):
        return failure
    return Failure(code=failure.code, message=failure.message, retry_after=seconds)
