"""What exceptions and answers become: who may retry, what is lost, what the operator is told."""

from typing import Any

import aiohttp
import botocore.exceptions as boto
import pytest
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from gateway.errors import ErrorCode, Failure, Health, Outcome
from gateway.sagemaker.errors import failure_of, failure_of_reply
from gateway.sagemaker.profiles import PROFILES

ACCOUNT = "123456789012"


def failure(
    error: Exception, profile: str = "container-standards", *, in_session: bool = True, **sent: str
) -> Failure:
    return failure_of(error, PROFILES[profile], in_session=in_session, sent=sent)


def validation_error(message: str) -> ClientError:
    response: Any = {
        "Error": {"Code": "ValidationError", "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": 400, "RequestId": "r-1"},
    }
    return ClientError(response, "InvokeEndpoint")


def model_error(status: object, message: str) -> ClientError:
    response: Any = {
        "Error": {"Code": "ModelError", "Message": f"Received error with message {message}"},
        "ResponseMetadata": {"HTTPStatusCode": 424, "RequestId": "r-1"},
        "OriginalStatusCode": status,
        "OriginalMessage": message,
    }
    return ClientError(response, "InvokeEndpoint")


@pytest.mark.parametrize(
    ("profile", "status", "message", "code", "outcome"),
    [
        ("container-standards", 400, "Session not found: s", "session_lost", "not_invoked"),
        ("container-standards", 424, "session not found", "session_lost", "not_invoked"),
        ("container-standards", 422, "not valid: 'session not found'", "model_error", "invoked"),
        ("container-standards", 500, "session not found", "model_error", "invoked"),
        ("container-standards", 400, "no such option", "model_error", "invoked"),
        ("first-message", 404, "session not found", "session_lost", "not_invoked"),
        ("first-message", 422, "session not found", "model_error", "invoked"),
        ("torchserve", 503, "Prediction failed", "session_lost", "unknown"),
        ("torchserve", 503, "it is closed, or expired", "session_lost", "not_invoked"),
        ("torchserve", 500, "Prediction failed", "model_error", "invoked"),
        ("torchserve", 503, "full: maxSequenceJobQueueSize", "unavailable", "not_invoked"),
        ("torchserve", 500, "what is maxSequenceJobQueueSize?", "model_error", "invoked"),
        ("stateless", 400, "session not found", "model_error", "invoked"),
    ],
)
def test_a_containers_errors(
    profile: str, status: int, message: str, code: str, outcome: str
) -> None:
    got = failure(model_error(status, message), profile)
    assert (got.code, got.outcome) == (code, outcome)


@pytest.mark.parametrize(
    ("status", "message", "health"),
    [
        *[(status, "", Health.SICK) for status in (0, 502, 503, 504, 507)],
        (429, "Model is overloaded", Health.BUSY),
        *[(status, "", Health.WELL) for status in (400, 404, 422, 424, 500, 501)],
        (503, "Prediction failed", Health.WELL),  # for what it was asked, perhaps
    ],
)
def test_what_a_containers_error_says_of_it(status: int, message: str, health: Health) -> None:
    for profile in PROFILES:
        got = failure(model_error(status, message), profile, in_session=False)
        assert (got.code, got.health) == (ErrorCode.MODEL_ERROR, health)
        assert got.outcome is (Outcome.INVOKED if status else Outcome.UNKNOWN)


def test_a_container_that_has_lost_the_session_or_is_full_is_well() -> None:
    for message in ("Prediction failed", "closed, or expired", "maxSequenceJobQueueSize"):
        got = failure(model_error(503, message), "torchserve")
        assert (got.code is ErrorCode.MODEL_ERROR, got.health) == (False, Health.WELL)


def test_a_model_that_a_client_has_chosen_says_nothing_of_the_endpoint() -> None:
    errors = [model_error(429, ""), model_error(503, ""), refused("ModelNotReadyException", "")]
    profile = PROFILES["stateless"]
    sent = {"TargetModel": "m"}
    for error in errors:
        for own, tells in ((["m"], True), (["e"], False)):
            got = failure_of(error, profile, in_session=False, sent=sent, own=own)
            assert (got.health is not None) is tells
    assert failure(model_error(500, ""), TargetModel="m").health is Health.WELL, "it has answered"


def test_throttling_is_no_sickness() -> None:
    assert failure(refused("ThrottlingException", "Rate exceeded")).health is Health.BUSY


@pytest.mark.parametrize("profile", ["container-standards", "torchserve", "first-message"])
def test_a_call_outside_of_a_session_loses_none(profile: str) -> None:
    for status in PROFILES[profile].statuses:
        for text in (*PROFILES[profile].lost, *PROFILES[profile].perhaps_lost):
            got = failure(model_error(status, text), profile, in_session=False)
            assert got.code is ErrorCode.MODEL_ERROR
    got = failure(validation_error("Session s not found."), profile, in_session=False)
    assert got.code is ErrorCode.VALIDATION_ERROR


@pytest.mark.parametrize(
    ("message", "code", "subject"),
    [
        ("Session s-1 not found or expired.", "session_lost", "session"),
        ("The sessionId is unknown to endpoint e.", "session_lost", "session"),
        (
            "1 validation error detected: Value at 'sessionId' failed to satisfy constraint: x",
            "validation_error",
            "parameter",
        ),
        (
            "Value 'endpoint not found in session' at 'accept' failed to satisfy constraint: x",
            "validation_error",
            "parameter",
        ),
        (f"Endpoint my-session of account {ACCOUNT} not found.", "unavailable", "endpoint"),
        ("Variant blue not found for endpoint e.", "unavailable", "variant"),
        ("Inference component c not found at endpoint e.", "unavailable", "inference component"),
        ("Something else.", "validation_error", None),
    ],
)
def test_what_a_validation_error_is_about(message: str, code: str, subject: str | None) -> None:
    got = failure(validation_error(message))
    assert (got.code, got.outcome) == (code, Outcome.NOT_INVOKED)
    assert got.facts.get("subject") == subject
    assert (got.facts["code"], got.facts["request_id"]) == ("ValidationError", "r-1")
    quotes = subject == "parameter"
    assert (got.facts["message"] == message) is not quotes
    assert ACCOUNT not in got.message, "it is for the client"


@pytest.mark.parametrize(
    ("error", "facts"),
    [
        (
            validation_error("Session s-secret not found."),
            {
                "code": "ValidationError",
                "status": 400,
                "request_id": "r-1",
                "message": "Session … not found.",
            },
        ),
        (
            model_error(400, "session not found: s-secret"),
            {"code": "ModelError", "status": 424, "request_id": "r-1", "original_status": 400},
        ),
    ],
)
def test_the_operator_is_told_of_a_lost_session(error: Exception, facts: dict[str, object]) -> None:
    got = failure(error, SessionId="s-secret")
    assert got.code is ErrorCode.SESSION_LOST
    assert facts.items() <= got.facts.items()
    assert "s-secret" not in repr(got)


@pytest.mark.parametrize("status", [None, 0])
def test_a_container_that_has_not_answered(status: object) -> None:
    got = failure(model_error(status, "Your invocation timed out"))
    assert (got.code, got.outcome) == (ErrorCode.MODEL_ERROR, Outcome.UNKNOWN)
    assert "status" not in got.message


@pytest.mark.parametrize(
    "error",
    [
        boto.NoCredentialsError(),
        boto.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"),
        boto.CredentialRetrievalError(provider="process", error_msg="x"),
        boto.TokenRetrievalError(provider="sso", error_msg="x"),
        boto.UnauthorizedSSOTokenError(),
        boto.SSOTokenLoadError(error_msg="x"),
        boto.LoginRefreshRequired(),
        boto.NoRegionError(),
        boto.EndpointResolutionError(msg="x"),
        ClientError(
            {"Error": {"Code": "ValidationError", "Message": "MaxSessionDuration"}}, "AssumeRole"
        ),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_fails_before_anything_is_sent(error: Exception) -> None:
    got = failure(error)
    assert (got.code, got.outcome) == (ErrorCode.UNAVAILABLE, Outcome.NOT_INVOKED)
    assert "operator" in got.message


@pytest.mark.parametrize(
    "error",
    [
        boto.FlexibleChecksumError(error_msg="x"),
        boto.IncompleteReadError(actual_bytes=1, expected_bytes=2),
        boto.BotoCoreError(),
        boto.HTTPClientError(error=UnicodeDecodeError("utf-8", b"", 0, 1, "x")),
        boto.EndpointConnectionError(endpoint_url="x", error=aiohttp.ClientOSError()),
        ResponseParserError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_may_have_been_sent(error: Exception) -> None:
    assert failure(error).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(
    "error",
    [
        boto.ConnectionClosedError(endpoint_url="x"),
        boto.EndpointConnectionError(endpoint_url="x", error=aiohttp.ClientOSError()),
        boto.IncompleteReadError(actual_bytes=1, expected_bytes=2),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_connection_that_breaks_is_no_fault_of_the_gateway(error: Exception) -> None:
    got = failure(error)
    assert (got.code, got.outcome) == (ErrorCode.UNAVAILABLE, Outcome.UNKNOWN)
    assert got.retryable is None
    assert got.facts["raised"] == type(error).__name__


def test_parameters_that_are_none() -> None:
    got = failure(boto.ParamValidationError(report="x"))
    assert (got.code, got.outcome) == (ErrorCode.VALIDATION_ERROR, Outcome.NOT_INVOKED)


@pytest.mark.parametrize(
    "error",
    [boto.ReadTimeoutError(endpoint_url="https://host"), TimeoutError()],
    ids=lambda error: type(error).__name__,
)
def test_what_takes_too_long(error: Exception) -> None:
    before, after = failure(error), failure_of_reply(error)
    assert (before.code, before.outcome) == (ErrorCode.TIMEOUT, Outcome.UNKNOWN)
    assert (after.code, after.outcome) == (ErrorCode.TIMEOUT, Outcome.INVOKED)
    assert before.facts == after.facts == {"raised": type(error).__name__}


def test_an_error_that_nobody_knows() -> None:
    def fail(body: str) -> None:
        raise RuntimeError(f"secret {body}")

    body = "what a user wrote"
    for meaning in (failure, failure_of_reply):
        with pytest.raises(RuntimeError) as caught:
            fail(body)
        got = meaning(caught.value)
        assert got.facts["raised"] == "RuntimeError"
        assert "in fail" in str(got.facts["stack"])
        assert "secret what" not in repr(got)
        assert body not in repr(got)


def refused(code: str, message: str, *, status: int = 400) -> ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "RequestId": "r-1"},
    }
    return ClientError(response, "InvokeEndpoint")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "AccessDeniedException",
            f"User: arn:aws:iam::{ACCOUNT}:user/ada is not authorized to perform: "
            f"sagemaker:InvokeEndpoint on resource: arn:aws:sagemaker:x:{ACCOUNT}:endpoint/e",
        ),
        ("ThrottlingException", "Rate exceeded"),
        ("ExpiredTokenException", "The security token included in the request is expired"),
        ("InternalFailure", "An internal failure occurred."),
    ],
)
def test_the_operator_is_told_what_aws_says(code: str, message: str) -> None:
    got = failure(refused(code, message))
    assert got.facts == {"code": code, "status": 400, "request_id": "r-1", "message": message}
    assert message not in got.message


def test_what_answers_in_the_place_of_aws_is_not_quoted() -> None:
    got = failure(refused("418", "what do you mean by: my secret"))
    assert got.facts == {"code": "418", "status": 400, "request_id": "r-1"}


def test_the_operator_is_told_why_there_are_no_credentials() -> None:
    message = f"User: arn:aws:iam::{ACCOUNT}:user/ada is not authorized to perform: sts:AssumeRole"
    error = ClientError({"Error": {"Code": "AccessDenied", "Message": message}}, "AssumeRole")
    facts = failure(error).facts
    assert (facts["operation"], facts["message"]) == ("AssumeRole", message)


def test_a_container_is_not_quoted() -> None:
    error = model_error(500, "my secret")
    error.response["LogStreamArn"] = "arn:aws:logs:x"
    got = failure(error)
    assert got.facts == {
        "code": "ModelError",
        "status": 424,
        "request_id": "r-1",
        "original_status": 500,
        "log_stream": "arn:aws:logs:x",
    }
    assert got.message == "The model answered with an error (status 500)."


def test_an_answer_that_says_nothing_of_itself() -> None:
    got = failure(ClientError({}, "InvokeEndpoint"))
    assert (got.code, got.facts) == (ErrorCode.UNAVAILABLE, {"status": 0})
