"""``deploy/cloudformation``: the template, and what it promises."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode import decode  # type: ignore[import-untyped]

from gateway.config import Settings
from gateway.security import keys
from gateway.stores.sealing import sealer_of
from tests.packaging.deployed import (
    ACTIONS,
    DEPLOY,
    DEPLOYING,
    IMAGE,
    USER,
    changed,
    check,
    may_take,
)

FILE = DEPLOY / "cloudformation" / "session-gateway.yaml"
TEMPLATE: dict[str, Any] = json.loads(json.dumps(decode(str(FILE))[0]))
PARAMETERS: dict[str, dict[str, Any]] = TEMPLATE["Parameters"]
RESOURCES: dict[str, dict[str, Any]] = {
    name: each["Properties"] for name, each in TEMPLATE["Resources"].items() if "Properties" in each
}
FILES, GATEWAY = RESOURCES["Task"]["ContainerDefinitions"]

GIVEN = {
    "DomainName": "chat.example.com",
    "VpcCidr": PARAMETERS["VpcCidr"]["Default"],
    "DrainSeconds": str(PARAMETERS["DrainSeconds"]["MaxValue"]),
    "ModelFormat": PARAMETERS["ModelFormat"]["Default"],
    "Store.PrimaryEndPoint.Address": "master.sessions.abc123.use1.cache.amazonaws.com",
    "Store.PrimaryEndPoint.Port": "6379",
    "AWS::Region": "us-east-1",
    "Endpoint.EndpointName": "Endpoint-AbC123",
}
"""What CloudFormation would fill in."""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """What the first container of a task leaves to the second, by its own program."""
    folder, tmp = tmp_path / "files", tmp_path / "tmp"
    folder.mkdir()
    tmp.mkdir()
    keys.add(tmp_path / "keys.toml", "ada", None)
    given = {
        "CONFIG": re.sub(r"\$\{([\w.:]+)\}", lambda match: GIVEN[match[1]], configuration()),
        "KEYS": (tmp_path / "keys.toml").read_text(),
        "ENCRYPTION_KEY": "x" * key_length(),
    }
    assert given.keys() == {each["Name"] for each in FILES["Environment"] + FILES["Secrets"]}
    (program,) = FILES["Command"]
    places = {'"/run/session-gateway"': repr(str(folder)), '"/tmp"': repr(str(tmp))}
    command = [sys.executable, "-c", changed(program, places)]
    subprocess.run(command, env=given, check=True)
    return folder


def configuration() -> str:
    (variable,) = FILES["Environment"]
    return str(variable["Value"]["Fn::Sub"])


def key_length() -> int:
    generated = RESOURCES["EncryptionKey"]["GenerateSecretString"]
    assert generated["ExcludePunctuation"] is True, "letters and digits are Base64"
    return int(generated["PasswordLength"])


@pytest.fixture
def settings(files: Path, tmp_path: Path) -> Settings:
    text = (files / "gateway.toml").read_text()
    return check(text, tmp_path, {"/run/session-gateway": str(files)})


def attributes(listed: list[dict[str, Any]]) -> dict[str, Any]:
    return {each["Key"]: each["Value"] for each in listed}


def statements(role: str) -> list[dict[str, Any]]:
    """All that a role may do."""
    return [
        statement
        for policy in RESOURCES[role]["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
    ]


def test_cfn_lint_finds_nothing() -> None:
    command = [
        str(Path(sys.executable).parent / "cfn-lint"),
        "--include-checks",
        "I",
        "--",
        str(FILE),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_document_gives_what_has_to_be_given() -> None:
    command = DEPLOYING.partition("--parameter-overrides")[2].partition("```")[0]
    needed = {name for name, each in PARAMETERS.items() if "Default" not in each}
    assert needed <= {*re.findall(r"\b(\w+)=", command)} <= PARAMETERS.keys()
    assert {*re.findall(r"session-gateway:[\d.]+\d", DEPLOYING)} == {IMAGE}


def test_its_configuration_is_one(settings: Settings, files: Path) -> None:
    assert settings.auth.required
    assert str(settings.store.url).startswith("valkeys://")
    assert settings.server.public_origin == "https://chat.example.com"
    assert settings.server.port == GATEWAY["PortMappings"][0]["ContainerPort"]
    assert settings.aws.endpoint_url is None
    sealer = sealer_of(files / "encryption.keys")
    assert sealer.open(sealer.seal(b"said", "session"), "session") == b"said"


def test_the_gateway_may_call_one_endpoint_and_nothing_else() -> None:
    (statement,) = statements("TaskRole")
    assert statement == {"Effect": "Allow", "Action": ACTIONS, "Resource": {"Ref": "Endpoint"}}


def test_fargate_may_read_its_secrets_and_no_others() -> None:
    allowed = [each for each in statements("ExecutionRole") if "secrets" in str(each["Action"])]
    (statement,) = allowed
    given = [each["ValueFrom"] for each in FILES["Secrets"] + GATEWAY["Secrets"]]
    assert sorted(map(str, statement["Resource"])) == sorted(map(str, given))


def test_no_secret_is_in_it() -> None:
    (password,) = GATEWAY["Secrets"]
    assert password == {"Name": "GATEWAY_STORE__PASSWORD", "ValueFrom": {"Ref": "StorePassword"}}
    token = RESOURCES["Store"]["AuthToken"]
    assert token == {"Fn::Sub": "{{resolve:secretsmanager:${StorePassword}}}"}
    assert "Environment" not in GATEWAY


def test_the_store_is_encrypted_and_outlives_a_node() -> None:
    store = RESOURCES["Store"]
    for promise in (
        "TransitEncryptionEnabled",
        "AtRestEncryptionEnabled",
        "AutomaticFailoverEnabled",
        "MultiAZEnabled",
    ):
        assert store[promise] is True
    assert store["Engine"] == "valkey"
    assert RESOURCES["StoreParameters"]["Properties"] == {"maxmemory-policy": "noeviction"}


def test_containers_may_do_as_little_as_they_can() -> None:
    for each in (FILES, GATEWAY):
        assert each["ReadonlyRootFilesystem"] is True
        assert each["LinuxParameters"]["Capabilities"] == {"Drop": ["ALL"]}
        assert each["Image"] == {"Ref": "GatewayImage"}
    assert GATEWAY["User"] == str(USER)
    assert GATEWAY["DependsOn"] == [{"ContainerName": "files", "Condition": "SUCCESS"}]
    mounts = {each["SourceVolume"]: each for each in GATEWAY["MountPoints"]}
    assert mounts["files"]["ReadOnly"] is True
    assert PARAMETERS["GatewayImage"]["Description"].endswith(f"{IMAGE}.")


def test_a_gateway_has_the_time_to_drain(settings: Settings) -> None:
    assert settings.server.drain_seconds == PARAMETERS["DrainSeconds"]["MaxValue"]
    assert GATEWAY["StopTimeout"] == 120, "the most that Fargate takes"
    assert GATEWAY["StopTimeout"] > may_take(settings)


def test_the_balancer_is_one_for_websockets(settings: Settings) -> None:
    idle = attributes(RESOURCES["Balancer"]["LoadBalancerAttributes"])
    assert int(idle["idle_timeout.timeout_seconds"]) > 2 * settings.server.heartbeat_seconds
    targets = RESOURCES["Targets"]
    assert targets["HealthCheckPath"] == "/healthz"
    delay = attributes(targets["TargetGroupAttributes"])["deregistration_delay.timeout_seconds"]
    assert delay == {"Ref": "DeregistrationSeconds"}
    assert "/healthz" in str(GATEWAY["HealthCheck"]["Command"])
    assert RESOURCES["Listener"]["Protocol"] == "HTTPS"


def test_who_may_speak_to_whom() -> None:
    def sources(group: str) -> list[Any]:
        rules = RESOURCES[group]["SecurityGroupIngress"]
        return [(rule["FromPort"], rule.get("SourceSecurityGroupId")) for rule in rules]

    assert sources("GatewayGroup") == [(8080, {"Fn::GetAtt": ["BalancerGroup", "GroupId"]})]
    assert sources("StoreGroup") == [(6379, {"Fn::GetAtt": ["GatewayGroup", "GroupId"]})]
    network = RESOURCES["Service"]["NetworkConfiguration"]["AwsvpcConfiguration"]
    assert network["AssignPublicIp"] == "DISABLED"


def test_the_model_keeps_sessions() -> None:
    environment = RESOURCES["Model"]["PrimaryContainer"]["Environment"]
    assert environment["SAGEMAKER_ENABLE_STATEFUL_SESSIONS"] == "true"


def test_there_are_more_of_them_under_load() -> None:
    policy = RESOURCES["ScalingByCpu"]["TargetTrackingScalingPolicyConfiguration"]
    metric = policy["PredefinedMetricSpecification"]["PredefinedMetricType"]
    assert metric == "ECSServiceAverageCPUUtilization"
    assert "DesiredCount" not in RESOURCES["Service"], "an update would set it back"
