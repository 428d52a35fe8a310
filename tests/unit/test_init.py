"""``session-gateway init``: what it asks, and what it writes."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from msgspec import structs

from gateway import initcommand, starter
from gateway.cli import main
from gateway.config import EXAMPLE, Settings
from gateway.local import server
from gateway.local.command import local
from gateway.local.environment import apart_from_aws
from gateway.sagemaker.profiles import PROFILES, Profile

ENDPOINTS = (Path(__file__).parents[2] / "docs" / "endpoints.md").read_text()
ARN = "arn:aws:sagemaker:eu-west-1:111122223333:endpoint/my-endpoint"
SAID = ("--container", "vllm", "--endpoint", "my-endpoint", "--region", "us-east-1")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with apart_from_aws():
        yield


def init(*arguments: str, typed: str = "") -> Result:
    return CliRunner().invoke(main, ["init", *arguments], input=typed)


@pytest.mark.parametrize("kind", initcommand.KINDS)
def test_what_is_written_is_a_configuration(kind: str) -> None:
    result = init("--container", kind, "--endpoint", ARN)
    assert result.exit_code == 0, result.output
    settings = Settings.load("gateway.toml")
    route = settings.routes["chat"]
    assert route.endpoint_name == "my-endpoint"
    assert not route.takes_json_only, "the page sends text"
    checked = CliRunner().invoke(main, ["check", "--offline"])
    assert (checked.exit_code, checked.stderr) == (0, "")
    assert settings.aws.region == "eu-west-1", "as the ARN says"
    assert (settings.aws.endpoint_url is not None) is (kind == initcommand.LOCAL)


@pytest.mark.parametrize(("kind", "name"), [("lmi", "lmi"), ("vllm", "vllm"), ("torchserve",) * 2])
def test_what_is_written_is_what_the_document_says(kind: str, name: str) -> None:
    init("--container", kind, "--endpoint", name, "--region", "us-east-1")
    written = tomllib.loads(Path("gateway.toml").read_text())["routes"]["chat"]
    blocks = re.findall(r"^```toml\n(.*?)^```", ENDPOINTS, re.DOTALL | re.MULTILINE)
    (shown,) = (
        route
        for route in (tomllib.loads(block)["routes"]["chat"] for block in blocks)
        if route["endpoint_name"] == name
    )
    if kind == "torchserve":  # the sample wants a picture with the session
        profile = msgspec.convert(shown.pop("session"), Profile)
        like = structs.replace(profile, open_body=PROFILES[written.pop("session")].open_body)
        assert like == structs.replace(PROFILES["torchserve"], lost=like.lost)
    assert written == {key: shown[key] for key in written}


def test_containers_without_sessions_are_called_without_them() -> None:
    init("--container", "tgi", "--endpoint", "e", "--region", "us-east-1")
    assert Settings.load("gateway.toml").routes["chat"].profile is PROFILES["stateless"]
    assert '`session = "stateless"` and `format = "tgi"`' in ENDPOINTS


def test_kinds_are_the_same_everywhere() -> None:
    assert list(initcommand.KINDS) == list(starter.CONTAINERS)
    assert initcommand.LOCAL == starter.LOCAL
    assert starter.LOCAL_REGION == server.REGION
    defaults = {parameter.name: parameter.default for parameter in local.params}
    assert defaults["name"] == starter.LOCAL_ENDPOINT
    assert f"http://{defaults['host']}:{defaults['port']}" == starter.LOCAL_URL
    init("--container", "vllm", "--endpoint", "e", "--region", "us-east-1")
    assert Settings.load("gateway.toml").routes["chat"].profile is PROFILES["container-standards"]


def test_it_asks_for_what_is_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    result = init(typed="ollama\nvLLM\nmy endpoint\nmy-endpoint\nus-est-1\n\n")
    assert result.exit_code == 0, result.output
    for says in (
        "torchserve  TorchServe, like AWS's stateful sample",
        "Error: ollama is not one of vllm, lmi, ",
        "Error: expected 1 to 63 letters, digits and hyphens",
        "Region [eu-central-1]:",
        "did you mean us-east-1 or us-west-1?",
    ):
        assert says in result.stderr
    assert result.stdout.endswith(
        "Wrote gateway.toml. Next:\n"
        "  session-gateway check --live   # test it; this invokes the model\n"
        "  session-gateway serve          # then open http://127.0.0.1:8080\n"
    )
    assert Settings.load("gateway.toml").aws.region == "eu-central-1"


def test_defaults_come_from_the_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config"
    config.write_text("[profile work]\nregion = eu-north-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    result = init("--container", "lmi", "--endpoint", "e", "--profile", "work", typed="\n")
    assert result.exit_code == 0, result.output
    aws = Settings.load("gateway.toml").aws
    assert (aws.region, aws.profile) == ("eu-north-1", "work")
    result = init("--container", "lmi", "--endpoint", "e", "--profile", "none", "--force")
    assert "--region is required" in result.stderr, "and has no default"


def test_the_next_commands_are_those_of_this_file() -> None:
    result = init("--container", "local", "--output", "my gateway.toml")
    keys = f"AWS_ACCESS_KEY_ID={server.ACCESS_KEY} AWS_SECRET_ACCESS_KEY={server.SECRET_KEY}"
    assert result.stdout == (
        "Wrote my gateway.toml. Next:\n"
        "  session-gateway local    # in one terminal\n"
        f"  {keys} session-gateway serve --config 'my gateway.toml'    # in another\n"
        "Then open http://127.0.0.1:8080\n"
    )
    result = init("--container", "local", "--endpoint", "e", "--region", "eu-west-1")
    assert "  session-gateway local --endpoint e --region eu-west-1 " in result.stdout
    result = init("--container", "local", "--endpoint", ARN, "--force")
    assert "  session-gateway local --region eu-west-1 " in result.stdout


def test_nothing_is_overwritten_unless_it_is_said() -> None:
    Path("gateway.toml").write_text("mine")
    result = init(*SAID)
    assert result.exit_code == 2
    assert "gateway.toml already exists; --force overwrites it." in result.stderr
    assert Path("gateway.toml").read_text() == "mine"
    assert init(*SAID, "--force").exit_code == 0
    assert "[routes.chat]" in Path("gateway.toml").read_text()


def test_the_standard_output() -> None:
    result = init(*SAID, "--output", "-")
    assert result.exit_code == 0
    assert EXAMPLE in result.stdout
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--container", "vllm"], 2, "--endpoint is required, since the input is not a terminal."),
        ([], 2, "--container is required, since the input is not a terminal."),
        ([*SAID, "--region", "us-est-1"], 2, "us-est-1 is not a region that botocore"),
        ([*SAID, "--endpoint", "a b"], 2, "expected 1 to 63 letters, digits and hyphens"),
        ([*SAID, "--profile", "a\nb"], 2, "--profile: expected 1 to 1024 printable ASCII"),
        ([*SAID, "--profile", "😀"], 2, "--profile: expected 1 to 1024 printable ASCII"),
        ([*SAID, "--container", "x"], 2, "'x' is not one of 'vllm'"),
        ([*SAID, "--output", "none/x.toml"], 1, "none/x.toml can't be written: No such file"),
    ],
)
def test_what_can_not_be(arguments: list[str], code: int, says: str) -> None:
    result = init(*arguments)
    assert result.exit_code == code
    assert says in result.stderr
    assert not Path("gateway.toml").exists()
