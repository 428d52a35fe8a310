"""What a failure is a symptom of, and what the document says of each."""

import re
from pathlib import Path

import pytest

from gateway.errors import ErrorCode, Failure
from gateway.sagemaker.symptoms import ADVICE, SEE_LOG, Symptom, explained, hint_of

DOCUMENT = (Path(__file__).parents[3] / "docs" / "troubleshooting.md").read_text()
VALUES = {
    "action": "sagemaker:InvokeEndpointWithResponseStream",
    "operation": "AssumeRole",
    "skew": "612 s behind AWS's",
    "subject": "variant",
    "seconds": "4",
    "margin": "5",
}
"""What the document's hints have where a hint leaves something open."""


@pytest.mark.parametrize("symptom", Symptom)
def test_each_is_a_section_of_the_document(symptom: Symptom) -> None:
    (section,) = re.findall(
        rf"^### .+\n\n`{symptom}`\n\n```text\n(.+?)```", DOCUMENT, re.MULTILINE | re.DOTALL
    )
    assert " ".join(section.split()) == hint_of(symptom, **VALUES)


def test_the_document_has_no_other() -> None:
    named = re.findall(r"^### .+\n\n`(\w+)`", DOCUMENT, re.MULTILINE)
    assert {*named} == {*Symptom} == {*ADVICE}
    assert len(named) == len(DOCUMENT.split("\n### ")) - 1


def failure(facts: dict[str, object], code: ErrorCode = ErrorCode.UNAVAILABLE) -> Failure:
    return explained(Failure(code=code, message="its own", facts=facts))


@pytest.mark.parametrize(
    ("facts", "symptom"),
    [
        ({"raised": "NoCredentials"}, "no_credentials"),
        ({"raised": "UnauthorizedSSOTokenError"}, "credentials_expired"),
        ({"operation": "AssumeRole", "code": "AccessDenied"}, "credentials_refused"),
        ({"operation": "GetRoleCredentials", "code": "ExpiredToken"}, "credentials_expired"),
        ({"operation": "PutObject", "code": "AccessDenied"}, "input_refused"),
        ({"raised": "ConnectTimeout"}, "unreachable"),
        ({"raised": "EndpointConnectionError", "cause": "ClientConnectorDNSError"}, "host_unknown"),
        ({"raised": "TlsError"}, "certificate"),
        ({"raised": "ReplyTimeout"}, "too_slow"),
        ({"code": "ModelError", "original_status": 500}, "container_error"),
        ({"code": "ModelError", "original_status": 0}, "too_slow"),
        ({"code": "OptInRequired"}, "region_off"),
        ({"code": "IncompleteSignature"}, "unsigned"),
        (
            {"code": "ValidationError", "subject": "variant", "message": "Variant b not found"},
            "target_missing",
        ),
        (
            {
                "code": "ValidationError",
                "subject": "inference component",
                "message": "Inference Component Name header is required for endpoints to which",
            },
            "component_needed",
        ),
    ],
)
def test_what_a_failure_is_a_symptom_of(facts: dict[str, object], symptom: str) -> None:
    got = failure(facts)
    assert got.facts["symptom"] == symptom
    told = ADVICE[Symptom(symptom)].told
    assert got.message == (told or "its own")


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"code": "InternalFailure"},
        {"raised": "RuntimeError"},
        {"code": "ValidationError", "subject": "session", "message": "Session not found"},
        {"code": "ValidationError", "subject": "parameter", "message": "Value at x failed"},
    ],
)
def test_what_nobody_knows_is_left_as_it_is(facts: dict[str, object]) -> None:
    assert failure(facts).facts == facts


def test_a_session_that_is_lost() -> None:
    got = failure({"code": "ModelError", "original_status": 400}, ErrorCode.SESSION_LOST)
    assert got.facts["symptom"] == "session_lost"


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (
            "Signature expired: 20261123T144948Z is now earlier than 20261123T145500Z "
            "(20261123T150000Z - 5 min.)",
            "is 612 s behind AWS's, and",
        ),
        (
            "Signature not yet current: 20261123T151000Z is still later than 20261123T150500Z "
            "(20261123T150000Z + 5 min.)",
            "is 600 s ahead of AWS's, and",
        ),
        ("Signature expired: 99999999T999999Z, 20261123T150000Z", "is off, and"),
        ("Signature expired.", "is off, and"),
    ],
)
def test_how_far_a_clock_is_off(message: str, says: str) -> None:
    got = failure({"code": "InvalidSignatureException", "message": message})
    assert says in str(got.facts["hint"])


@pytest.mark.parametrize("symptom", Symptom)
def test_clients_are_told_nothing_of_the_operators(symptom: Symptom) -> None:
    told = ADVICE[symptom].told
    assert told is None or (told.endswith(SEE_LOG) and "{" not in told and "`" not in told)
