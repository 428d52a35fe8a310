"""After which errors OpenAI's own clients send again: never where the model may have run."""

from types import SimpleNamespace
from typing import Any

import pytest
from openai import OpenAI
from starlette.datastructures import Headers
from starlette.responses import Response

from gateway.admission import Refused
from gateway.errors import ErrorCode, Failure, Outcome
from gateway.protocol.messages import ErrorMessage, ErrorObject, MessageDone
from gateway.session.output import error_message
from gateway.transports.openai.errors import (
    INVALID,
    Invalid,
    answer_of,
    error_of,
    failure_of,
    not_found,
    unknown_model,
    unsupported,
)
from tests.unit.openai.support import body_of

RETRIED = {408, 409, 429, *range(500, 600)}
"""What clients send again that do not look at ``x-should-retry``, as Vercel's."""


def sends_again(response: Response) -> bool:
    """Whether OpenAI's own client does."""
    given: Any = SimpleNamespace(
        status_code=response.status_code, headers=Headers(raw=response.raw_headers)
    )
    client = OpenAI(api_key="key", base_url="http://127.0.0.1:1")
    return client._should_retry(given)


def failed(code: ErrorCode, outcome: Outcome, retryable: bool | None = None) -> ErrorObject:
    failure = Failure(code=code, message="It failed.", outcome=outcome, retryable=retryable)
    return ErrorObject(
        code=code,
        message=failure.message,
        retryable=failure.may_retry,
        outcome=outcome,
        retry_after=failure.wait,
    )


@pytest.mark.parametrize("code", ErrorCode)
@pytest.mark.parametrize("outcome", [Outcome.UNKNOWN, Outcome.INVOKED])
def test_a_turn_that_may_have_run_is_never_sent_again(code: ErrorCode, outcome: Outcome) -> None:
    answer = answer_of(failed(code, outcome))
    assert answer.status_code == 424
    assert not sends_again(answer)
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("code", ErrorCode)
def test_a_turn_that_has_not_run_is_sent_again_where_that_helps(code: ErrorCode) -> None:
    error = failed(code, Outcome.NOT_INVOKED)
    answer = answer_of(error)
    assert sends_again(answer) is error.retryable
    if error.retryable:
        assert answer.status_code in RETRIED


@pytest.mark.parametrize("code", ErrorCode)
def test_what_is_refused_is_sent_again_where_the_table_says_so(code: ErrorCode) -> None:
    assert sends_again(answer_of(Refused(code, "No."))) is (
        error_message(Failure(code=code, message="No.")).retryable
    )


def test_clients_are_told_how_long_to_wait() -> None:
    answer = answer_of(Refused(ErrorCode.RATE_LIMITED, "Slow down.", 0.25))
    assert answer.headers["retry-after-ms"] == "250"
    assert answer.headers["retry-after"] == "1"
    assert body_of(answer) == {
        "error": {
            "message": "Slow down.",
            "type": "rate_limit_error",
            "param": None,
            "code": "rate_limit_exceeded",
        }
    }
    never = answer_of(failed(ErrorCode.THROTTLED, Outcome.INVOKED))
    assert "retry-after" not in never.headers


def test_what_may_succeed_later_has_a_status_that_every_client_knows() -> None:
    odd = ErrorMessage(code=ErrorCode.SESSION_LOST, message="Gone.", retryable=True)
    assert answer_of(odd).status_code == 503
    wait = ErrorMessage(code=ErrorCode.QUEUE_FULL, message="x", retryable=True, retry_after=2.0)
    assert answer_of(wait).headers["retry-after"] == "2"


@pytest.mark.parametrize(
    ("error", "status", "param", "code"),
    [
        (Invalid("No.", "messages[0]"), 400, "messages[0]", "invalid_value"),
        (unsupported("tools", "No."), 400, "tools", "unsupported"),
        (not_found("No."), 404, None, "not_found"),
        (unknown_model("x"), 404, "model", "model_not_found"),
    ],
)
def test_errors_name_the_parameter(error: Invalid, status: int, param: str, code: str) -> None:
    answer = answer_of(error)
    assert answer.status_code == status
    about: dict[str, Any] = body_of(answer)["error"]
    assert (about["param"], about["code"], about["type"]) == (param, code, INVALID)
    assert not sends_again(answer)


def test_who_is_nobody_is_told_how_to_show_who_they_are() -> None:
    answer = answer_of(Refused(ErrorCode.UNAUTHENTICATED, "Who?"))
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


def test_how_a_turn_has_failed() -> None:
    def done(**fields: Any) -> MessageDone:
        return MessageDone(event=1, id="a", deltas=0, duration_ms=0, **fields)

    assert failure_of(done(status="completed")) is None
    error = failed(ErrorCode.TIMEOUT, Outcome.UNKNOWN)
    assert failure_of(done(status="failed", error=error)) is error
    cancelled = failure_of(done(status="cancelled", outcome=Outcome.NOT_INVOKED))
    assert cancelled is not None
    assert cancelled.outcome is Outcome.NOT_INVOKED
    unsure = failure_of(done(status="cancelled"))
    assert unsure is not None
    assert answer_of(unsure).status_code == 424
    assert error_of(unsure)["code"] == "unavailable"
