"""What goes wrong between a gateway and its endpoints, what it means, and what to do: one table.

The log has it beside a call that fails, and ``session-gateway check`` prints it. Each symptom is a
section of ``docs/troubleshooting.md``. What is known of a failure are its facts, so nothing here
can say more than the log may: no body, no session's id, no key.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType

from msgspec import Struct, structs

from gateway.errors import ErrorCode, Failure


class Symptom(StrEnum):
    """What can be told apart; the value is how the log and ``check --json`` name it."""

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
    """What there is to say of a symptom.

    Attributes:
        hint: What it means and what to do, for the operator. ``{name}`` is a value of the case.
        told: What a client is told in place of the failure's own message; None where that stays.
    """

    hint: str
    told: str | None = None


_OPERATOR = "its operator finds what to do in its log."

ADVICE: Mapping[Symptom, Advice] = MappingProxyType(
    {
        Symptom.NO_CREDENTIALS: Advice(
            "There are no AWS credentials to sign calls with. Run `aws configure` or `aws sso "
            "login`, or give the machine, task or pod a role; `session-gateway check` says where "
            "they are looked for.",
            f"The gateway has no AWS credentials; {_OPERATOR}",
        ),
        Symptom.CREDENTIALS_REFUSED: Advice(
            "AWS gives no credentials: {operation} is refused. Let the role that is assumed trust "
            "whoever assumes it, and see that role_arn, or the role of the pod or task, is right.",
            f"The gateway has no AWS credentials; {_OPERATOR}",
        ),
        Symptom.CREDENTIALS_EXPIRED: Advice(
            "The AWS credentials have expired. Get new ones (`aws sso login`, or whatever gave "
            "them); those in environment variables need a restart of the gateway.",
            f"The gateway's AWS credentials have expired; {_OPERATOR}",
        ),
        Symptom.KEY_UNKNOWN: Advice(
            "AWS does not know this access key: it is deleted or mistyped, a temporary key is "
            "without its AWS_SESSION_TOKEN, or the region is not enabled for the account, or is "
            "of another partition (China, GovCloud). `aws sts get-caller-identity` tries the key.",
            f"AWS does not accept the gateway's credentials; {_OPERATOR}",
        ),
        Symptom.SECRET_WRONG: Advice(
            "The secret access key is not that of the access key, or something on the way changes "
            "requests. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY again, both of one key; "
            "`aws sts get-caller-identity` tries them.",
            f"AWS does not accept the gateway's credentials; {_OPERATOR}",
        ),
        Symptom.CLOCK_OFF: Advice(
            "The clock of this machine is {skew}, and AWS takes no signature that is more than 5 "
            "minutes off. Set the clock and keep it set, as with `timedatectl set-ntp true`; "
            "a container has its host's.",
            f"The gateway's clock is wrong; {_OPERATOR}",
        ),
        Symptom.OTHER_REGION: Advice(
            "The call is signed for another region than the one it reaches. Let `aws.region` be "
            "that of `aws.endpoint_url`, or leave `endpoint_url` out.",
            f"The gateway calls a wrong region; {_OPERATOR}",
        ),
        Symptom.REGION_OFF: Advice(
            "The account has not enabled this region. Enable it in the account's settings, or "
            "change `aws.region`.",
            f"The gateway calls a wrong region; {_OPERATOR}",
        ),
        Symptom.UNSIGNED: Advice(
            "The call has reached AWS without its signature, which a proxy on the way may have "
            "removed. Let HTTPS_PROXY and NO_PROXY, or `aws.endpoint_url`, lead past it.",
            f"The gateway's calls do not reach AWS as they are; {_OPERATOR}",
        ),
        Symptom.ACCESS_DENIED: Advice(
            "These credentials may not do this. Allow {action} on the endpoint, in an IAM policy "
            "of whoever the credentials are (`aws sts get-caller-identity`); where AWS's message "
            "speaks of an explicit deny or of a VPC endpoint policy, it is that which forbids it.",
            f"The gateway may not use the endpoint; {_OPERATOR}",
        ),
        Symptom.ENDPOINT_MISSING: Advice(
            "There is no endpoint of this name in this region, for the account of these "
            "credentials. Compare `endpoint_name` and `aws.region` with `aws sagemaker "
            "list-endpoints`, and the account with `aws sts get-caller-identity`.",
            f"The gateway's endpoint is not there; {_OPERATOR}",
        ),
        Symptom.COMPONENT_NEEDED: Advice(
            "The endpoint consists of inference components, and a call has to name one. Set the "
            "route's `inference_component_name`; `aws sagemaker list-inference-components` lists "
            "them.",
        ),
        Symptom.TARGET_MISSING: Advice(
            "The endpoint has no {subject} of that name. Compare what the route and the message "
            "name with `aws sagemaker describe-endpoint`.",
            f"The gateway's endpoint has nothing of that name; {_OPERATOR}",
        ),
        Symptom.HOST_UNKNOWN: Advice(
            "The endpoint's host name can't be resolved. See that `aws.region` is one of "
            "SageMaker's, that `aws.endpoint_url` is right where it is set, and that this machine "
            "has DNS.",
        ),
        Symptom.UNREACHABLE: Advice(
            "No connection can be made. Where this machine has no way to the internet, it needs a "
            "VPC endpoint for sagemaker.runtime whose security group lets it in on port 443; "
            "behind a proxy, HTTPS_PROXY; with `aws.endpoint_url`, something that listens there.",
        ),
        Symptom.CERTIFICATE: Advice(
            "TLS with the endpoint's host fails: its certificate is not trusted, or is another "
            "host's. Where a proxy inspects TLS, let AWS_CA_BUNDLE name its certificates.",
        ),
        Symptom.THROTTLED: Advice(
            "The platform turns calls away. The account's quota for the endpoint, or the "
            "concurrency of a serverless one, is reached: raise it, or lower "
            "`max_turns_in_flight`.",
        ),
        Symptom.MODEL_LOADING: Advice(
            "The container still loads its model, which takes minutes for a large one. Wait; "
            "where it lasts, the container's log in CloudWatch says why.",
        ),
        Symptom.TOO_SLOW: Advice(
            "No reply within the time that SageMaker gives a container, 60 seconds. Let the route "
            "stream (`format`), ask for shorter answers (`max_tokens` in `request`), or have an "
            'asynchronous endpoint (`mode = "async"`).',
        ),
        Symptom.NO_REPLY: Advice(
            "The asynchronous endpoint has taken the message, and its reply was not found in time. "
            "See that an instance is there, and that the gateway may read the endpoint's output "
            "and failure paths: s3:GetObject, and s3:ListBucket, without which S3 calls forbidden "
            "what is not there yet.",
        ),
        Symptom.INPUT_REFUSED: Advice(
            "S3 does not take the message. Allow s3:PutObject below the route's `input_location`, "
            "and see that the bucket is there.",
        ),
        Symptom.CONTAINER_ERROR: Advice(
            "The container has answered with an error. Where that is 400 or 422, see that the "
            "route's `format`, or `request` and `content_type`, are what the model takes; the "
            "container's log in CloudWatch says more, and `session-gateway check --live` shows its "
            "answer to a message of your own.",
        ),
        Symptom.SESSIONS_OFF: Advice(
            "Stateful sessions are not switched on in the container. Set "
            "SAGEMAKER_ENABLE_STATEFUL_SESSIONS=true in the environment of the SageMaker model and "
            'deploy it again; or give the route session = "stateless", where it needs none.',
            f"The endpoint opened no session; {_OPERATOR}",
        ),
        Symptom.OPEN_REFUSED: Advice(
            "The container refuses to open a session. Either its sessions are not switched on "
            "(SAGEMAKER_ENABLE_STATEFUL_SESSIONS=true in its environment, with AWS's container "
            "standards), or it opens them in another way than the route's `session` says, or it "
            "fails: its log in CloudWatch says why.",
            f"The endpoint opened no session; {_OPERATOR}",
        ),
        Symptom.OPENED_NONE: Advice(
            "The container was asked to open a session, and has answered without one, as a "
            "stateless one does. Either its sessions are not switched on "
            "(SAGEMAKER_ENABLE_STATEFUL_SESSIONS=true in its environment, with AWS's container "
            "standards), or it opens them in another way than the route's `session` says.",
        ),
        Symptom.SESSION_MALFORMED: Advice(
            "The container names its session in no way that can be understood: NewSessionId is "
            "letters, digits and hyphens, up to 256 of them, and then `; Expires=` with a time. "
            "Mend its X-Amzn-SageMaker-New-Session-Id header.",
        ),
        Symptom.SESSION_LOST: Advice(
            "The container does not know the session any more: its instance was replaced, it has "
            "ended the session itself, or the route's `session` is not the container's way. "
            '`on_lost = "replay"` lets conversations go on in a new one.',
        ),
        Symptom.FORGETS: Advice(
            "The container keeps the session, but not what is said in it: it has answered as in a "
            "new one. Let the gateway keep the conversation: a `format` for language models, or a "
            "`request` with $messages or $transcript in it.",
        ),
        Symptom.NOT_STREAMED: Advice(
            "The reply has come in one piece, though the route asks for a stream. Let the route's "
            "`request` ask the model for one ($stream), and `stream` be the way in which it "
            "writes; or set `stream` to off.",
        ),
        Symptom.OTHER_FORMAT: Advice(
            "The route's `text` is not in what the model gives, so clients get its replies as "
            "they are. Let `format`, or `text`, be that of the model.",
        ),
        Symptom.SHORT_SESSION: Advice(
            "The session expires in {seconds} s, and `expiry_margin_seconds` takes {margin} s off. "
            "Let the container keep sessions for longer (SAGEMAKER_SESSIONS_EXPIRATION, in "
            "seconds), and see that its clock and this machine's are right.",
        ),
        Symptom.NOT_CLOSED: Advice(
            "Whether the container has closed the session is not known, since it has not said so "
            "(ClosedSessionId). Sessions may hold memory there until they expire.",
        ),
    }
)
"""All of them."""

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
"""What is raised where a host has no address."""

SESSIONS_OFF = "sessions"
"""The subject of a container's error which says that it keeps none."""

_ACTION = re.compile(r"not authorized to perform: (\w+:\w+)")
_ACTIONS = "sagemaker:InvokeEndpoint and sagemaker:InvokeEndpointWithResponseStream"
_MOMENT = re.compile(r"\d{8}T\d{6}Z")


def hint_of(symptom: Symptom, **values: object) -> str:
    """What it means and what to do.

    Args:
        symptom: What it is.
        values: For what the text leaves open.
    """
    return ADVICE[symptom].hint.format(**values)


def explained(failure: Failure, symptom: Symptom | None = None) -> Failure:
    """A failure whose facts say what it is a symptom of, and what to do; the same where nobody
    knows.

    Args:
        failure: With its facts.
        symptom: What it is, where that is known.
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
    """What it is where the call was not the platform's: S3's, or that of who gives credentials."""
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
    """How far this machine's clock is off, as AWS's message has both times: that of the signature
    first, its own last.
    """
    moments = _MOMENT.findall(message)
    try:
        signed, *_, now = (
            datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) for moment in moments
        )
    except ValueError:  # one of them at most, or none that is one
        return "off"
    seconds = (signed - now).total_seconds()
    return f"{abs(seconds):.0f} s {'behind' if seconds < 0 else 'ahead of'} AWS's"
