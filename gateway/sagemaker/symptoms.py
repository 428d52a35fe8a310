"""A table of known problems between a gateway and its endpoints, with what to do about each.

The symptom and hint of each failed call are logged, and printed by ``session-gateway check
--live``. Each symptom has a section in ``docs/troubleshooting.md``. They are derived from a
failure's facts, so they contain nothing that must not be logged: bodies, session ids, keys.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType

from msgspec import Struct, structs

from gateway.errors import ErrorCode, Failure


class Symptom(StrEnum):
    """The problems that can be recognised; values are the names in the log and ``check --json``."""

    NO_CREDENTIALS = "no_credentials"
    CREDENTIALS_REFUSED = "credentials_refused"
    CREDENTIALS_EXPIRED = "credentials_expired"
    KEY_UNKNOWN = "key_unknown"
    SECRET_WRONG = "secret_wrong"  # noqa: S105 - it is a name
    CLOCK_OFF = "clock_off"
    OTHER_REGION = "other_region"
    REGION_OFF = "region_off"
    UNSIGNED = "unsigned"
    ACCESS_DENIED = "access_denied"
    ENDPOINT_MISSING = "endpoint_missing"
    COMPONENT_NEEDED = "component_needed"
    TARGET_MISSING = "target_missing"
    HOST_UNKNOWN = "host_unknown"
    UNREACHABLE = "unreachable"
    CERTIFICATE = "certificate"
    THROTTLED = "throttled"
    MODEL_LOADING = "model_loading"
    TOO_SLOW = "too_slow"
    NO_REPLY = "no_reply"
    INPUT_REFUSED = "input_refused"
    CONTAINER_ERROR = "container_error"
    SESSIONS_OFF = "sessions_off"
    OPEN_REFUSED = "open_refused"
    OPENED_NONE = "opened_none"
    SESSION_MALFORMED = "session_malformed"
    SESSION_LOST = "session_lost"
    FORGETS = "forgets"
    NOT_STREAMED = "not_streamed"
    OTHER_FORMAT = "other_format"
    SHORT_SESSION = "short_session"
    NOT_CLOSED = "not_closed"


class Advice(Struct, frozen=True):
    """The texts about a symptom.

    Attributes:
        hint: What it means and what to do, for the operator, with placeholders as ``{name}``.
        told: The message for clients, instead of the failure's own; None to keep that.
    """

    hint: str
    told: str | None = None


SEE_LOG = "The gateway's log says how to fix this."
"""Ends messages for clients, instead of the hint, which is for the operator."""

ADVICE: Mapping[Symptom, Advice] = MappingProxyType(
    {
        Symptom.NO_CREDENTIALS: Advice(
            "There are no AWS credentials to sign calls with. Run `aws configure` or `aws sso "
            "login`, or attach a role to the machine, task or pod. `session-gateway check` lists "
            "the places that are searched for credentials.",
            f"The gateway has no AWS credentials. {SEE_LOG}",
        ),
        Symptom.CREDENTIALS_REFUSED: Advice(
            "AWS refuses {operation}, which gets the credentials. Check the role's ARN, and that "
            "its trust policy allows the machine, task, pod or user that assumes it.",
            f"The gateway has no AWS credentials. {SEE_LOG}",
        ),
        Symptom.CREDENTIALS_EXPIRED: Advice(
            "The AWS credentials have expired. Get new ones, for example with `aws sso login`. If "
            "they are in environment variables, set the new ones and restart the gateway.",
            f"The gateway's AWS credentials have expired. {SEE_LOG}",
        ),
        Symptom.KEY_UNKNOWN: Advice(
            "AWS does not know this access key. The key is deleted or mistyped, or it is "
            "temporary and AWS_SESSION_TOKEN is not set, or the account has not enabled the "
            "region, or the region is in another partition (China, GovCloud). Test the key with "
            "`aws sts get-caller-identity`.",
            f"AWS does not accept the gateway's credentials. {SEE_LOG}",
        ),
        Symptom.SECRET_WRONG: Advice(
            "The secret access key does not belong to the access key, or a proxy changes "
            "requests. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY again, and test them with "
            "`aws sts get-caller-identity`.",
            f"AWS does not accept the gateway's credentials. {SEE_LOG}",
        ),
        Symptom.CLOCK_OFF: Advice(
            "The clock of this machine is {skew}, and AWS accepts at most 5 minutes. Synchronize "
            "the clock, for example with `timedatectl set-ntp true`; a container uses the clock "
            "of its host.",
            f"The gateway's clock is wrong. {SEE_LOG}",
        ),
        Symptom.OTHER_REGION: Advice(
            "The call is signed for a different region than the one it reaches. Set `aws.region` "
            "to the region of `aws.endpoint_url`, or remove `endpoint_url`.",
            f"The gateway calls the wrong region. {SEE_LOG}",
        ),
        Symptom.REGION_OFF: Advice(
            "The region is not enabled in this account. Enable it in the account's settings, or "
            "change `aws.region`.",
            f"The gateway calls the wrong region. {SEE_LOG}",
        ),
        Symptom.UNSIGNED: Advice(
            "The call reached AWS without its signature; a proxy may have removed it. Bypass the "
            "proxy with HTTPS_PROXY, NO_PROXY or `aws.endpoint_url`.",
            f"The gateway's calls are changed on their way to AWS. {SEE_LOG}",
        ),
        Symptom.ACCESS_DENIED: Advice(
            "These credentials are not allowed to make this call. Allow {action} on the endpoint, "
            "in an IAM policy of the user or role (`aws sts get-caller-identity` shows which). If "
            "AWS's message mentions an explicit deny or a VPC endpoint policy, change that "
            "instead.",
            f"The gateway is not allowed to use the endpoint. {SEE_LOG}",
        ),
        Symptom.ENDPOINT_MISSING: Advice(
            "There is no endpoint with this name in this region and account. Compare "
            "`endpoint_name` and `aws.region` with `aws sagemaker list-endpoints`, and the account "
            "with `aws sts get-caller-identity`.",
            f"The gateway's endpoint does not exist. {SEE_LOG}",
        ),
        Symptom.COMPONENT_NEEDED: Advice(
            "The endpoint hosts inference components, and each call has to name one. Set the "
            "route's `inference_component_name`; `aws sagemaker list-inference-components` lists "
            "them.",
        ),
        Symptom.TARGET_MISSING: Advice(
            "The endpoint has no {subject} with that name. Compare the name in the route and in "
            "the message with `aws sagemaker describe-endpoint`.",
            f"The gateway's endpoint has no such variant or component. {SEE_LOG}",
        ),
        Symptom.HOST_UNKNOWN: Advice(
            "The endpoint's host name can't be resolved. Check `aws.region`, `aws.endpoint_url` if "
            "it is set, and this machine's DNS.",
        ),
        Symptom.UNREACHABLE: Advice(
            "No connection can be made. Without internet access, this machine needs a VPC "
            "endpoint for sagemaker.runtime whose security group allows it on port 443. Behind a "
            "proxy, set HTTPS_PROXY. If `aws.endpoint_url` is set, check that something listens "
            "there.",
        ),
        Symptom.CERTIFICATE: Advice(
            "The TLS certificate of the endpoint's host is not trusted, or belongs to another "
            "host. If a proxy inspects TLS, set AWS_CA_BUNDLE to the file with its certificates.",
        ),
        Symptom.THROTTLED: Advice(
            "SageMaker throttles calls: the account's quota for the endpoint, or the concurrency "
            "of a serverless endpoint, is used up. Raise it, or lower `max_turns_in_flight`.",
        ),
        Symptom.MODEL_LOADING: Advice(
            "The container is still loading its model, which takes minutes for a large one. If "
            "this lasts, read the container's log in CloudWatch.",
        ),
        Symptom.TOO_SLOW: Advice(
            "There was no reply within the time that SageMaker gives a container, 60 seconds. "
            "Stream replies (`format`), limit their length (`max_tokens` in `request`), or use an "
            'asynchronous endpoint (`mode = "async"`).',
        ),
        Symptom.NO_REPLY: Advice(
            "The asynchronous endpoint took the message, and its reply was not found in time. "
            "Check that the endpoint has an instance, and that the gateway is allowed to read the "
            "output and failure paths: s3:GetObject, and s3:ListBucket, without which S3 answers "
            "403 for an object that does not exist yet.",
        ),
        Symptom.INPUT_REFUSED: Advice(
            "S3 refuses to store the message. Allow s3:PutObject below the route's "
            "`input_location`, and check that the bucket exists.",
        ),
        Symptom.CONTAINER_ERROR: Advice(
            "The container answered with an error. If the status is 400 or 422, check that the "
            "route's `format`, or `request` and `content_type`, match what the model expects. The "
            "container's log in CloudWatch says more, and `session-gateway check --live "
            "--message` shows the answer to a message of yours.",
        ),
        Symptom.SESSIONS_OFF: Advice(
            "Stateful sessions are switched off in the container. Set "
            "SAGEMAKER_ENABLE_STATEFUL_SESSIONS=true in the environment of the SageMaker model and "
            'deploy it again; or set session = "stateless" for the route, if it needs no sessions.',
            f"The endpoint opened no session. {SEE_LOG}",
        ),
        Symptom.OPEN_REFUSED: Advice(
            "The container refused to open a session. Either sessions are switched off in it "
            "(containers on AWS's container standards need "
            "SAGEMAKER_ENABLE_STATEFUL_SESSIONS=true), or it opens sessions in a different way "
            "than the route's `session` says, or it fails: read its log in CloudWatch.",
            f"The endpoint opened no session. {SEE_LOG}",
        ),
        Symptom.OPENED_NONE: Advice(
            "The container answered the request to open a session without opening one, as a "
            "stateless container does. Either sessions are switched off in it (containers on "
            "AWS's container standards need SAGEMAKER_ENABLE_STATEFUL_SESSIONS=true), or it opens "
            "sessions in a different way than the route's `session` says.",
        ),
        Symptom.SESSION_MALFORMED: Advice(
            "The session id that the container returned can't be parsed. The header "
            "X-Amzn-SageMaker-New-Session-Id has to hold up to 256 letters, digits and hyphens, "
            "optionally followed by `; Expires=` and a time.",
        ),
        Symptom.SESSION_LOST: Advice(
            "The container no longer knows the session: its instance was replaced, or it ended "
            "the session itself, or the route's `session` does not fit the container. With "
            '`on_lost = "replay"` conversations continue in a new session.',
        ),
        Symptom.FORGETS: Advice(
            "The container keeps the session, but not the conversation: it answered as in a new "
            "session. Let the gateway keep the conversation: set a `format` for language models, "
            "or a `request` that contains $messages or $transcript.",
        ),
        Symptom.NOT_STREAMED: Advice(
            "The reply came in one piece, although the route asks for a stream. Make the route's "
            "`request` ask the model for one ($stream), and set `stream` to the way in which the "
            'model writes it; or set `stream = "off"`.',
        ),
        Symptom.OTHER_FORMAT: Advice(
            "The route's `text` finds nothing in the model's replies, so clients get the replies "
            "unchanged. Set `format`, or `text`, to what the model returns.",
        ),
        Symptom.SHORT_SESSION: Advice(
            "The session expires in {seconds} s, and the gateway stops using it {margin} s before "
            "that (`expiry_margin_seconds`). Make sessions in the container last longer "
            "(SAGEMAKER_SESSIONS_EXPIRATION, in seconds), and check the clocks of the container "
            "and of this machine.",
        ),
        Symptom.NOT_CLOSED: Advice(
            "The container did not confirm that it closed the session (ClosedSessionId). Sessions "
            "that stay open may hold memory there until they expire.",
        ),
    }
)
"""The texts, by symptom."""

_BY_CODE: Mapping[object, Symptom] = MappingProxyType(
    {
        "AccessDenied": Symptom.ACCESS_DENIED,
        "AccessDeniedException": Symptom.ACCESS_DENIED,
        "NotAuthorized": Symptom.ACCESS_DENIED,
        "ExpiredToken": Symptom.CREDENTIALS_EXPIRED,
        "ExpiredTokenException": Symptom.CREDENTIALS_EXPIRED,
        "InvalidClientTokenId": Symptom.KEY_UNKNOWN,
        "UnrecognizedClientException": Symptom.KEY_UNKNOWN,
        "RequestExpired": Symptom.CLOCK_OFF,
        "OptInRequired": Symptom.REGION_OFF,
        "IncompleteSignature": Symptom.UNSIGNED,
        "MissingAuthenticationToken": Symptom.UNSIGNED,
        "MissingAuthenticationTokenException": Symptom.UNSIGNED,
        "ModelNotReadyException": Symptom.MODEL_LOADING,
    }
)
_SIGNATURE = frozenset({"InvalidSignatureException", "SignatureDoesNotMatch"})
_BY_RAISED: Mapping[object, Symptom] = MappingProxyType(
    {
        "NoCredentials": Symptom.NO_CREDENTIALS,
        "NoCredentialsError": Symptom.NO_CREDENTIALS,
        "PartialCredentialsError": Symptom.NO_CREDENTIALS,
        "CredentialRetrievalError": Symptom.NO_CREDENTIALS,
        "MetadataRetrievalError": Symptom.NO_CREDENTIALS,
        "SSOTokenLoadError": Symptom.CREDENTIALS_EXPIRED,
        "UnauthorizedSSOTokenError": Symptom.CREDENTIALS_EXPIRED,
        "TokenRetrievalError": Symptom.CREDENTIALS_EXPIRED,
        "LoginRefreshRequired": Symptom.CREDENTIALS_EXPIRED,
        "ConnectError": Symptom.UNREACHABLE,
        "ConnectTimeout": Symptom.UNREACHABLE,
        "ConnectTimeoutError": Symptom.UNREACHABLE,
        "EndpointConnectionError": Symptom.UNREACHABLE,
        "ProxyConnectionError": Symptom.UNREACHABLE,
        "TlsError": Symptom.CERTIFICATE,
        "SSLError": Symptom.CERTIFICATE,
        "ReplyTimeout": Symptom.TOO_SLOW,
        "ReadTimeoutError": Symptom.TOO_SLOW,
    }
)
_BY_ERROR: Mapping[ErrorCode, Symptom] = MappingProxyType(
    {ErrorCode.SESSION_LOST: Symptom.SESSION_LOST, ErrorCode.THROTTLED: Symptom.THROTTLED}
)
_NO_NAME = frozenset({"gaierror", "ClientConnectorDNSError"})
"""Exceptions for a host name that can't be resolved."""

SESSIONS_OFF = "sessions"
"""The subject of a container's error about sessions that are not enabled."""

_ACTION = re.compile(r"not authorized to perform: (\w+:\w+)")
_ACTIONS = "sagemaker:InvokeEndpoint and sagemaker:InvokeEndpointWithResponseStream"
_MOMENT = re.compile(r"\d{8}T\d{6}Z")


def hint_of(symptom: Symptom, **values: object) -> str:
    """Return a symptom's hint.

    Args:
        symptom: The symptom.
        values: Values of the hint's placeholders.
    """
    return ADVICE[symptom].hint.format(**values)


def explained(failure: Failure, symptom: Symptom | None = None) -> Failure:
    """Add a symptom and its hint to a failure's facts, if it has a known symptom.

    Args:
        failure: The failure, with its facts.
        symptom: Its symptom, if that is known already.
    """
    facts = failure.facts
    symptom = symptom or _symptom(failure)
    if symptom is None:
        return failure
    message = str(facts.get("message", ""))
    asked = _ACTION.search(message)
    hint = hint_of(
        symptom,
        action=_ACTIONS if asked is None else asked[1],
        operation=facts.get("operation"),
        skew=_skew(message),
        subject=facts.get("subject"),
    )
    told = ADVICE[symptom].told
    return structs.replace(
        failure,
        message=failure.message if told is None else told,
        facts={**facts, "symptom": symptom.value, "hint": hint},
    )


def _symptom(failure: Failure) -> Symptom | None:
    facts = failure.facts
    code, message = facts.get("code"), str(facts.get("message", ""))
    if "operation" in facts:
        return _of_another_service(facts["operation"], code)
    if failure.code in _BY_ERROR:
        return _BY_ERROR[failure.code]
    if code == "ModelError":
        return _of_container(facts)
    if code == "ValidationError":
        return _of_validation(facts, message.lower())
    if facts.get("cause") in _NO_NAME:
        return Symptom.HOST_UNKNOWN
    signature = _of_signature(message) if code in _SIGNATURE else None
    return signature or _BY_CODE.get(code) or _BY_RAISED.get(facts.get("raised"))


def _of_another_service(operation: object, code: object) -> Symptom:
    """Return the symptom of a failed call to S3, or to a service that issues credentials."""
    if operation == "PutObject":
        return Symptom.INPUT_REFUSED
    expired = _BY_CODE.get(code) is Symptom.CREDENTIALS_EXPIRED
    return Symptom.CREDENTIALS_EXPIRED if expired else Symptom.CREDENTIALS_REFUSED


def _of_signature(message: str) -> Symptom:
    if "Signature expired" in message or "not yet current" in message:
        return Symptom.CLOCK_OFF
    return Symptom.OTHER_REGION if "scoped to" in message else Symptom.SECRET_WRONG


def _of_container(facts: Mapping[str, object]) -> Symptom | None:
    if facts.get("subject") == SESSIONS_OFF:
        return Symptom.SESSIONS_OFF
    return Symptom.CONTAINER_ERROR if facts.get("original_status") else Symptom.TOO_SLOW


def _of_validation(facts: Mapping[str, object], message: str) -> Symptom | None:
    if "inference component name header is required" in message:
        return Symptom.COMPONENT_NEEDED
    if "not found" not in message:
        return None
    subject = facts.get("subject")
    if subject == "endpoint":
        return Symptom.ENDPOINT_MISSING
    return Symptom.TARGET_MISSING if subject in {"variant", "inference component"} else None


def _skew(message: str) -> str:
    """Return how far this machine's clock is off: AWS's message has the signature's time first, and
    its own last.
    """
    moments = _MOMENT.findall(message)
    try:
        signed, *_, now = (
            datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) for moment in moments
        )
    except ValueError:  # a time is missing or invalid
        return "off"
    seconds = (signed - now).total_seconds()
    return f"{abs(seconds):.0f} s {'behind' if seconds < 0 else 'ahead of'} AWS's"
