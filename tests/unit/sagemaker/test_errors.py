"""What exceptions and answers become: who may retry, what is lost, what the log says."""

from typing import Any

import pytest
from botocore.exceptions import ClientError
from structlog.testing import capture_logs

from gateway.errors import ErrorCode, Failure, Outcome
from gateway.sagemaker import PROFILES
from gateway.sagemaker.errors import failure_of

ACCOUNT = "123456789012"


def failure(
    error: Exception, profile: str = "container-standards", *, in_session: bool = True
) -> Failure:
    return failure_of(error, PROFILES[profile], in_session=in_session)


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
    with capture_logs() as logs:
        got = failure(validation_error(message))
    assert (got.code, got.outcome) == (code, Outcome.NOT_INVOKED)
    (entry,) = logs
    assert (entry["subject"], entry["code"], entry["request_id"]) == (
        subject,
        "ValidationError",
        "r-1",
    )
    assert ACCOUNT not in str(logs)


@pytest.mark.parametrize(
    ("error", "facts"),
    [
        (
            validation_error("Session s-secret not found."),
            {"code": "ValidationError", "status": 400, "request_id": "r-1"},
        ),
        (
            model_error(400, "session not found: s-secret"),
            {"code": "ModelError", "status": 424, "request_id": "r-1", "original_status": 400},
        ),
    ],
)
def test_the_operator_is_told_of_a_lost_session(error: Exception, facts: dict[str, object]) -> None:
    with capture_logs() as logs:
        got = failure(error)
    assert got.code is ErrorCode.SESSION_LOST
    (entry,) = logs
    assert entry["event"] == "session lost"
    assert facts.items() <= entry.items()
    assert "s-secret" not in str(logs)


def test_an_error_that_nobody_knows() -> None:
    got = failure(RuntimeError("secret"))
    assert got.code is ErrorCode.INTERNAL
    assert "secret" not in got.message
