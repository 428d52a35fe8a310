"""Generates a first configuration from a few answers, for ``session-gateway init``."""

import json
import re
import tomllib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter, ValidationError

from gateway.config import Settings
from gateway.config.values import EndpointName, Header
from gateway.sagemaker.checks import default_region, region_problem

__all__ = [
    "CONTAINERS",
    "Wrong",
    "checked_profile",
    "checked_region",
    "default_region",
    "endpoint_name",
    "written",
]

LOCAL = "local"
LOCAL_ENDPOINT, LOCAL_REGION, LOCAL_URL = "my-endpoint", "us-east-1", "http://127.0.0.1:9000"
"""Defaults of ``session-gateway local``."""

_COLUMN = 40


Lines = tuple[tuple[str, str], ...]
"""Statements, each with its comment."""

_STANDARD = ('session = "container-standards"', "how the container keeps sessions")
_CHAT = "what the model takes and returns"
_OWN_REQUEST = ('request = { text = "$text" }', "what the container takes: adapt it to yours")
_OWN_TEXT = ('text = "text"', "where the text is in its replies (JMESPath)")

CONTAINERS: Mapping[str, Lines] = MappingProxyType(
    {
        "vllm": (
            _STANDARD,
            ('format = "openai-chat"', _CHAT),
            ('request = { messages = "$messages", stream = "$stream", max_tokens = 1024 }', ""),
        ),
        "lmi": (_STANDARD, ('format = "lmi"', _CHAT)),
        "tgi": (
            ('session = "stateless"', "its container has no sessions"),
            ('format = "tgi"', _CHAT),
        ),
        "djl": (_STANDARD, _OWN_REQUEST, _OWN_TEXT),
        "torchserve": (
            ('session = "torchserve"', "sessions as in AWS's stateful sample"),
            ('request = { type = "send_text_prompt", prompt_text = "$text" }', ""),
            ('text = "response_text"', _OWN_TEXT[1]),
        ),
        "own": (_STANDARD, _OWN_REQUEST, _OWN_TEXT),
        LOCAL: (_STANDARD, ('format = "plain"', "plain text in, plain text out")),
    }
)
"""By the names that ``gateway.initcommand`` describes."""

_ARN = re.compile(r"arn:aws[a-z-]*:sagemaker:([a-z0-9-]+):\d{12}:endpoint/([A-Za-z0-9-]+)")


class Wrong(ValueError):
    """An answer is not valid; the text says what is expected."""


def region_of(endpoint: str) -> str | None:
    """Return the region in an endpoint's ARN; None if this is no ARN."""
    found = _ARN.fullmatch(endpoint)
    return found[1] if found else None


def endpoint_name(text: str) -> str:
    """Return an endpoint's name from its name or ARN.

    Raises:
        Wrong: It is neither.
    """
    found = _ARN.fullmatch(text)
    try:
        return _as(EndpointName, found[2] if found else text)
    except Wrong as wrong:
        raise Wrong(f"{wrong}, as listed by `aws sagemaker list-endpoints`") from None


def checked_profile(text: str) -> str:
    """Validate the name of a profile.

    Raises:
        Wrong: A configuration can't contain this name.
    """
    try:
        return _as(Header, text)
    except Wrong as wrong:
        raise Wrong(f"--profile: {wrong}") from None


def _as(kind: Any, text: str) -> str:
    try:
        return str(TypeAdapter(kind).validate_python(text))
    except ValidationError as error:
        raise Wrong(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


def checked_region(text: str) -> str:
    """Validate a region.

    Raises:
        Wrong: It is not a region.
    """
    problem = region_problem(text)
    if problem is not None and problem.certain:
        raise Wrong(problem.text)
    return text


def written(container: str, endpoint: str, region: str, profile: str | None) -> str:
    """Return the text of a configuration file.

    Args:
        container: One of `CONTAINERS`.
        endpoint: Name of the endpoint.
        region: Region of the endpoint.
        profile: Profile of the AWS configuration; None for the default credentials.
    """
    aws = [("region = " + json.dumps(region), "")]
    if profile is not None:
        aws.append((f"profile = {json.dumps(profile)}", "of ~/.aws/config"))
    if container == LOCAL:
        url = f"endpoint_url = {json.dumps(LOCAL_URL)}"
        aws.append((url, "`session-gateway local`; remove it to call AWS"))
    route = [
        (f"endpoint_name = {json.dumps(endpoint)}", ""),
        *CONTAINERS[container],
    ]
    text = "\n".join(
        [
            "# Test with `session-gateway check --live`. All settings: docs/configuration.md",
            "",
            "[aws]",
            *(_line(*each) for each in aws),
            "",
            _line("[routes.chat]", "the first route is the default"),
            *(_line(*each) for each in route),
            "",
        ]
    )
    Settings.model_validate(tomllib.loads(text))  # fails only if this module is wrong
    return text


def _line(statement: str, comment: str) -> str:
    return f"{statement:<{_COLUMN}} # {comment}" if comment else statement
