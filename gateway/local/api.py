"""The HTTP API's rules, read from the API model that botocore ships, and its errors."""

import re
import uuid
from collections.abc import Mapping
from functools import cache
from typing import Any

import botocore.session
import msgspec
from msgspec import Struct

ENDPOINT_NAME = "EndpointName"


class ApiError(Exception):
    """An error response of the platform.

    Args:
        code: Error code, such as ``ValidationError``.
        status: HTTP status.
        message: Message, worded as the platform's.
        details: Further members of the error's shape.
    """

    def __init__(self, code: str, status: int, message: str, **details: Any) -> None:
        super().__init__(code, message)
        self.code = code
        self.status = status
        self.body = msgspec.json.encode({"Message": message, "message": message, **details})

    def headers(self) -> dict[str, str]:
        """Return the response's headers."""
        return {
            "content-type": "application/json",
            "x-amzn-errortype": self.code,
            "x-amzn-requestid": str(uuid.uuid4()),
        }


def validation_error(message: str) -> ApiError:
    """Create the error for an invalid call."""
    return ApiError("ValidationError", 400, message)


def model_error(status: int, message: str, endpoint: str) -> ApiError:
    """Create the error for a container's failure, as the platform reports it."""
    kind = "client" if 400 <= status < 500 else "server"
    return ApiError(
        "ModelError",
        424,
        f'Received {kind} error ({status}) from primary with message "{message}".',
        OriginalStatusCode=status,
        OriginalMessage=message,
        LogStreamArn=f"arn:aws:logs:us-east-1:000000000000:log-group:/aws/sagemaker/{endpoint}",
    )


def access_denied(action: str, endpoint: str) -> ApiError:
    """Create the error for a call without permission, in IAM's words."""
    return ApiError(
        "AccessDeniedException",
        403,
        "User: arn:aws:sts::000000000000:assumed-role/gateway/local is not authorized to perform: "
        f"sagemaker:{action} on resource: "
        f"arn:aws:sagemaker:us-east-1:000000000000:endpoint/{endpoint} because no identity-based "
        f"policy allows the sagemaker:{action} action",
    )


PLATFORM_ERRORS: Mapping[str, tuple[int, str]] = {
    "ThrottlingException": (400, "Rate exceeded"),
    "ModelNotReadyException": (429, "The model is not ready for inference requests."),
    "ServiceUnavailable": (503, "The service is currently unavailable."),
    "InternalFailure": (500, "An internal failure occurred."),
    "InternalDependencyException": (530, "An internal dependency failed."),
    "ExpiredTokenException": (403, "The security token included in the request is expired"),
}
"""Errors that faults can select by code, with status and message."""


_CONTAINER_HEADERS: Mapping[str, str] = {"Accept": "accept", "ContentType": "content-type"}
"""Parameters whose header to the container differs from that of the call."""


class Parameter(Struct, frozen=True):
    """A header of the request, with the API model's constraints: of a number's value, else of the
    text's length.
    """

    name: str
    header: str
    least: int
    most: int | None
    pattern: re.Pattern[str] | None
    is_number: bool = False

    def fits(self, value: str) -> bool:
        """Whether a value meets the constraints."""
        if self.is_number:
            size = int(value) if value.isascii() and value.isdigit() else -1
        else:
            size = len(value)
        if size < self.least or (self.most is not None and size > self.most):
            return False
        return self.pattern is None or self.pattern.fullmatch(value) is not None


@cache
def _service() -> Any:
    """Load the API model."""
    return botocore.session.get_session().get_service_model("sagemaker-runtime")


class InputModel:
    """The API model of a call's input.

    Args:
        operation: Name of the call.
        body_bytes: Maximum size of the body; None for the API model's, 6,291,456.
    """

    def __init__(self, operation: str, body_bytes: int | None = None) -> None:
        self.operation = operation
        members = _service().operation_model(operation).input_shape.members
        self.body_bytes = body_bytes or int(members["Body"].metadata["max"])
        self.parameters = [
            Parameter(
                name,
                shape.serialization["name"].lower(),
                shape.metadata.get("min", 0),
                shape.metadata.get("max"),
                _compiled(shape.metadata.get("pattern")),
                shape.type_name == "integer",
            )
            for name, shape in members.items()
            if shape.serialization.get("location") == "header"
        ]

    def passed(self, parameters: Mapping[str, str]) -> dict[str, str]:
        """Convert parameters of any call to the headers that a container gets."""
        return {
            _CONTAINER_HEADERS.get(parameter.name, parameter.header): parameters[parameter.name]
            for parameter in self.parameters
            if parameter.name in parameters
        }

    def read(self, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
        """Return the call's parameters by their API names.

        Raises:
            ApiError: One is not valid.
        """
        if len(body) > self.body_bytes:
            raise ApiError(
                "ValidationError",
                413,
                f"Request body exceeds the limit of {self.body_bytes} bytes.",
            )
        given = {}
        for parameter in self.parameters:
            value = headers.get(parameter.header)
            if value is None:
                continue
            if not parameter.fits(value):
                field = parameter.name[0].lower() + parameter.name[1:]
                raise validation_error(
                    f"1 validation error detected: Value at '{field}' failed to satisfy "
                    "constraint of the API model."
                )
            given[parameter.name] = value
        return given


def _compiled(pattern: str | None) -> re.Pattern[str] | None:
    """Compile a pattern of the API model, which is a Java regular expression."""
    if pattern is None:
        return None
    translated = (
        pattern.replace(r"[\p{Print}]", r"[\x20-\x7e]")
        .replace(r"\p{ASCII}", r"[\x00-\x7f]")
        .replace(r"\z", r"\Z")
    )
    return re.compile(translated)
