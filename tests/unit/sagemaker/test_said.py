"""What AWS's messages say, and what they may quote of a call."""

import html
import json
from collections.abc import Callable
from urllib.parse import quote, quote_plus

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
        ("Model " + "long long + l", "Model …"),
        ("Cut off is my-secre", "Cut off is …"),
        ("Model 'my-secre' is cut off", "Model '…' is cut off"),
        ("Model 'my-secr' may be another", "Model 'my-secr' may be another"),
        ("my-secretive my-secre7", "my-secretive my-secre7"),
        ("Name path%2Fto%20%22x%22 is wrong", "Name … is wrong"),
        ("Name path/to+&quot;x&#34; is wrong", "Name … is wrong"),
        (r'Name "path\/to\u0020\"x\"" is wrong', 'Name "…" is wrong'),
        ("Name path%252Fto%2520&amp;quot;x is wrong", "Name … is wrong"),
        ("Name path%2Fto%20… is cut off", "Name …… is cut off"),
        ("Aged 100% &co; and &amp; C:\\x", "Aged 100% &co; and & C:x"),
        (SIGNATURE, SIGNATURE.partition("\n")[0]),
        (SIGNATURE.replace("\n", " "), SIGNATURE.partition("\n")[0]),
        ("Credential must be scoped, got AKIAIOSFODNN7EXAMPLE", "Credential must be scoped, got …"),
        ("It lacks a key. Authorization=AWS4-HMAC-SHA256 Credential=x", "It lacks a key."),
        ("\x1b[31mred\u202e", "\ufffd[31mred\ufffd"),
        (r"It lacks a key.\n\nThe Canonical String\nx", "It lacks a key."),
        ("It lacks a key. Authorization%3DAWS4-HMAC-SHA256 Credential=x", "It lacks a key."),
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
        "ContentType": 'path/to "x"',
    }
    assert loggable(message, sent, own=["e"]) == left


ESCAPES: dict[str, Callable[[str], str]] = {
    "none": str,
    "address": lambda value: quote(value, safe=""),
    "path": quote,
    "form": quote_plus,
    "twice": lambda value: quote(quote(value)),
    "HTML": html.escape,
    "XML": lambda value: html.escape(value).replace("&#x27;", "&apos;"),
    "JSON": lambda value: json.dumps(value)[1:-1],
    "HTML in JSON": lambda value: json.dumps(html.escape(value))[1:-1],
}


@pytest.mark.parametrize("escape", ESCAPES.values(), ids=ESCAPES)
@pytest.mark.parametrize("value", ['a&b\'s <"x"> é', "50%-secret\\n + %41&amp;", "Tom & Jerry's"])
@pytest.mark.parametrize("quoted", [None, 9])
def test_no_value_is_quoted_in_whatever_it_is_wrapped(
    escape: Callable[[str], str], value: str, quoted: int | None
) -> None:
    message = f"Model '{escape(value[:quoted])}' is not there."
    left = loggable(message, {"TargetModel": value})
    assert left == "Model '…' is not there."


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
