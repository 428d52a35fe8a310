"""The parameters of a call, as the API model names them, for what a message or a route names."""

from collections.abc import Mapping

from msgspec import UNSET

from gateway.errors import ErrorCode, Failure
from gateway.protocol.options import PARAMETERS

NOT_STREAMED = frozenset({"TargetModel", "EnableExplanations"})
"""Parameters that InvokeEndpointWithResponseStream does not have."""

_FIELDS = {parameter: name for name, parameter in PARAMETERS.items()} | {
    "EndpointName": "endpoint_name"
}
_, *OPTIONAL = PARAMETERS.values()
"""All but the content type, which every request has; the fields of a `ModelRequest` begin so."""
GIVEN = slice(1, 1 + len(OPTIONAL))
NONE_GIVEN = (UNSET,) * len(OPTIONAL)
TARGETING = frozenset(
    {"TargetModel", "TargetVariant", "TargetContainerHostname", "InferenceComponentName"}
)
"""What says where a call goes, and so goes with every call of a session.

The others are about one reply or its record, and say nothing to a call that opens or closes.
"""


def wrong_field(parameters: Mapping[str, str]) -> Failure:
    """Why a call can't be made: what no header can carry, named as the protocol names it."""
    wrong = next(
        _FIELDS[parameter]
        for parameter, value in parameters.items()
        if not (value.isascii() and value.isprintable())
    )
    text = f"`{wrong}` may hold nothing but printable ASCII."
    return Failure(code=ErrorCode.VALIDATION_ERROR, message=text)
