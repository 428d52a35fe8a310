"""The code that deploys endpoints, by AWS's model of the API that it calls."""

import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.client
import pytest
from botocore.model import ListShape, MapShape, Shape, StringShape, StructureShape
from botocore.validate import ParamValidator
from click.testing import CliRunner

from gateway.cli import main
from gateway.config import Settings
from gateway.sagemaker.profiles import PROFILES
from tests.documents.blocks import Block, Document
from tests.documents.snippets import configuration

ENDPOINTS = Document("docs/endpoints.md")
COMMON, *EXAMPLES = [block for block in ENDPOINTS.all if block.kind == "python"]
NAMES = [re.findall(r'deploy\(\n    "(\w+)"', block.text)[0] for block in EXAMPLES]
TUTORIAL = Document("docs/tutorial.md").block("python", "Deploy to AWS")

Calls = dict[str, dict[str, Any]]


def mistakes(value: object, shape: Shape, where: str) -> Iterator[str]:
    """What the API would refuse, beyond what botocore does by itself: words and patterns."""
    match shape:
        case StructureShape() if isinstance(value, dict):
            for key, inner in value.items():
                yield from mistakes(inner, shape.members[key], f"{where}.{key}")
        case ListShape() if isinstance(value, list):
            for inner in value:
                yield from mistakes(inner, shape.member, f"{where}[]")
        case MapShape() if isinstance(value, dict):
            for key, inner in value.items():
                yield from mistakes(key, shape.key, f"{where} {key}")
                yield from mistakes(inner, shape.value, f"{where}.{key}")
        case Shape(type_name="integer"):
            least, most = shape.metadata.get("min", 0), shape.metadata.get("max", 2**31)
            if not least <= int(str(value)) <= most:
                yield f"{where}: {value}"
        case StringShape():
            if shape.enum and value not in shape.enum:
                yield f"{where}: {value}"
            if not re.fullmatch(shape.metadata.get("pattern", ".*"), str(value)):
                yield f"{where}: {value} is not {shape.metadata['pattern']}"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What is asked of SageMaker, by operation.

    In its place, since there is none to be had, stands its API's model: it refuses what that does
    not have, and every endpoint is in service at once.
    """
    found: Calls = {}

    def noted(client: Any, operation: str, parameters: dict[str, Any]) -> dict[str, str]:
        found[operation] = parameters
        shape = client.meta.service_model.operation_model(operation).input_shape
        refused = ParamValidator().validate(parameters, shape)
        assert not refused.has_errors(), refused.generate_report()
        assert not list(mistakes(parameters, shape, operation))
        return {"EndpointStatus": "InService"}

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", noted)
    return found


@pytest.mark.parametrize("example", EXAMPLES, ids=NAMES)
def test_the_api_takes_it(example: Block, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("deploy")
    exec(COMMON.text, vars(module))
    monkeypatch.setitem(sys.modules, "deploy", module)
    exec(example.text, {})
    name = calls["CreateEndpoint"]["EndpointName"]
    assert calls["DescribeEndpoint"]["EndpointName"] == name, "it is waited for"
    settings = configuration(ENDPOINTS.block("toml", example.section))
    assert isinstance(settings, Settings)
    route = settings.routes["chat"]
    assert route.endpoint_name == name, "the route is of that endpoint"
    container = calls["CreateModel"]["PrimaryContainer"]
    switched_on = {
        "container-standards": "STATEFUL_SESSIONS",
        "torchserve": "TS_REQUEST_SEQUENCE_ID",
    }
    for profile, variable in switched_on.items():
        if route.profile == PROFILES[profile]:
            assert any(variable in key for key in container["Environment"])


def test_the_tutorials_endpoint(calls: Calls) -> None:
    exec(TUTORIAL, {})
    assert calls["CreateEndpoint"]["EndpointName"] == "my-endpoint"
    (variant,) = calls["CreateEndpointConfig"]["ProductionVariants"]
    assert variant["InitialInstanceCount"] == 2


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('"ml.m5.large"', '"ml.m5.small"'),
        ("ProductionVariants=", "Variants="),
        ("ModelName=", "Name="),
        ("arn:aws:iam:", "role"),
    ],
)
def test_a_mistake_is_one(calls: Calls, right: str, wrong: str) -> None:
    assert right in TUTORIAL
    with pytest.raises(AssertionError):
        exec(TUTORIAL.replace(right, wrong), {})
    assert "CreateEndpoint" not in calls


def test_the_images_are_one() -> None:
    (there,) = Document("docs/containers.md").blocks("dockerfile")
    assert Document("docs/tutorial.md").block("dockerfile") == there


@pytest.mark.parametrize("section", [block.section for block in EXAMPLES])
def test_check_finds_nothing_wrong(section: str, tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(ENDPOINTS.block("toml", section))
    result = CliRunner().invoke(main, ["check", "--offline", "--config", str(file)])
    assert result.exit_code == 0, result.output
    assert "warning" not in result.output
