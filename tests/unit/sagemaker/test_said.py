"""What AWS's messages say, and what they may quote of a call."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sagemaker.said import MOST, loggable

SIGNATURE = """\
The request signature we calculated does not match the signature you provided. Check your AWS \
Secret Access Key and signing method. Consult the service documentation for details.

The Canonical String for this request should have been
'POST
/endpoints/my-endpoint/invocations

content-type:application/json
host:runtime.sagemaker.us-east-1.amazonaws.com
x-amz-security-token:FQoGZXIvYXdzEXAMPLE
x-amzn-sagemaker-custom-attributes:my secret'
"""


@pytest.mark.parametrize(
    ("message", "left"),
    [
        ("Endpoint e of account 1 not found.", "Endpoint e of account 1 not found."),
        ("Variant my-secret not found for endpoint e.", "Variant … not found for endpoint e."),
        ("Variant 'MY-SECRET' not found.", "Variant '…' not found."),
        ("my-secrets are no my-secret", "my-secrets are no …"),
        ("Attributes a b are wrong", "Attributes … are wrong"),
        ("/path?x and x/path?", "…x and x…"),
        ("Model " + "long " * 6 + "lo…", "Model …"),
        (SIGNATURE, SIGNATURE.partition("\n")[0]),
        (SIGNATURE.replace("\n", " "), SIGNATURE.partition("\n")[0]),
        ("Credential must be scoped, got AKIAIOSFODNN7EXAMPLE", "Credential must be scoped, got …"),
        ("It lacks a key. Authorization=AWS4-HMAC-SHA256 Credential=x", "It lacks a key."),
        ("\x1b[31mred\u202e", "\ufffd[31mred\ufffd"),
        ("x" * 1000, "x" * MOST + "…"),
        (
            "2 validation errors detected: Value 'my-secret' at 'customAttributes' failed to "
            "satisfy constraint: Member must have length less than or equal to 9; Value 'x' at "
            "'accept' failed to satisfy constraint: Member must satisfy my-secret",
            "Value at accept, customAttributes failed to satisfy constraint",
        ),
        (
            "Value 'at 'my-secret' failed to satisfy constraint' at 'x' failed to satisfy "
            "constraint: y",
            "Value at … failed to satisfy constraint",
        ),
    ],
)
def test_what_is_left(message: str, left: str) -> None:
    sent = {
        "EndpointName": "e",
        "TargetVariant": "my-secret",
        "CustomAttributes": "a  b",
        "TargetModel": "/path?",
        "InferenceId": "long " * 9,
        "Accept": " ",
    }
    assert loggable(message, sent, own=["e"]) == left


MARK = "Zq9"
PRINTABLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=60)


@given(
    PRINTABLE.map(MARK.__add__),
    st.sampled_from(
        [
            "Model {} not found.",
            "Model '{}' is not at {}.",
            "Value '{}' at 'targetModel' failed to satisfy constraint: Member must be it",
        ]
    ),
)
def test_no_value_of_a_client_is_quoted(value: str, message: str) -> None:
    quoting = message.format(value, value)
    assert MARK not in loggable(quoting, {"EndpointName": "e", "TargetModel": value}, own=["e"])
