"""The API model's parameters of a call, for the options of messages and routes."""

from collections.abc import Mapping

from msgspec import UNSET

from gateway.errors import ErrorCode, Failure
from gateway.protocol.options import PARAMETERS

NOT_STREAMED = frozenset({"TargetModel", "EnableExplanations"})
"""Parameters that InvokeEndpointWithResponseStream doesn't have."""

_FIELDS = {parameter: name for name, parameter in PARAMETERS.items()} | {
    "EndpointName": "endpoint_name"
}
_, *OPTIONAL = PARAMETERS.values()
"""All but the content type, which every request has; a `ModelRequest`'s fields begin with them."""
GIVEN = slice(1, 1 + len(OPTIONAL))
NONE_GIVEN = (UNSET,) * len(OPTIONAL)
TARGETING = frozenset(
    {"TargetModel", "TargetVariant", "TargetContainerHostname", "InferenceComponentName"}
)
"""Parameters that determine where a call goes, and so apply to every call of a session.

The others are about one reply or its record, and don't apply to calls that open or close.
"""


def wrong_field(parameters: Mapping[str, str]) -> Failure:
    """Return the failure for a value that no header can contain, with its name in the protocol."""
    wrong = next(
        _FIELDS[parameter]
        for parameter, value in parameters.items()
        if not (value.isascii() and value.isprintable())
    )
    text = f"`{wrong}` may hold nothing but printable ASCII."
    return Failure(code=ErrorCode.VALIDATION_ERROR, message=text)
