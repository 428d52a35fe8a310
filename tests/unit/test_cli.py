"""The command line: help, mistakes in one line, and exit codes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.local import command, faults, server, stateful

ROUTE = '[aws]\nregion = "us-east-1"\n[routes.chat]\nendpoint_name = "e"\n'


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_help_for_everything() -> None:
    assert all(name in invoke("--help").output for name in ("serve", "check", "demo", "local"))
    for name in main.commands:
        result = invoke(name, "-h")
        assert result.exit_code == 0
        assert "Usage" in result.output


def test_help_imports_nothing_slow() -> None:
    script = (
        "import sys; from gateway.cli import main; main(['--help'], standalone_mode=False)\n"
        "slow = {'aiobotocore', 'aiohttp', 'botocore', 'msgspec', 'pydantic', 'starlette'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)


def test_what_the_help_of_local_has_is_so() -> None:
    assert get_args(stateful.Dialect) == command.DIALECTS
    assert get_args(stateful.Expires) == command.EXPIRES
    assert get_args(faults.ErrorName) == command.ERRORS
    assert get_args(faults.BreakMode) == command.BREAK_MODES
    keys = {"access_key": server.ACCESS_KEY, "secret_key": server.SECRET_KEY}
    assert {**keys, "region": server.REGION} == command.KEYS


def test_the_environment_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "theirs")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    before = dict(os.environ)
    with command.apart_from_aws(AWS_ACCESS_KEY_ID="ours"):
        assert "AWS_PROFILE" not in os.environ
        assert "https_proxy" not in os.environ
        assert os.environ["AWS_ACCESS_KEY_ID"] == "ours"
    assert dict(os.environ) == before


def test_variables_in_lower_case_are_a_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("gateway_routes__chat__endpoint_name", "e-")
    result = invoke("serve")
    assert result.exit_code == 1
    assert "gateway_routes__chat__endpoint_name: routes.chat.endpoint_name" in result.output


RICH = """
class Console:
    def __init__(self, file, **_): self.file = file
    def print(self, text): self.file.write(text)

class Traceback:
    @staticmethod
    def from_exception(_type, _value, frames, **_):
        while frames.tb_next: frames = frames.tb_next
        return repr(frames.tb_frame.f_locals)
"""
"""As much of rich as shows local variables, which it does where it is installed."""


@pytest.mark.parametrize("form", ["console", "json"])
def test_local_variables_are_not_logged(form: str) -> None:
    package = Path("rich")
    package.mkdir()
    package.joinpath("__init__.py").touch()
    package.joinpath("console.py").write_text(RICH)
    package.joinpath("traceback.py").write_text(RICH)
    script = (
        "import logging, structlog\n"
        "from gateway.app import configure_logging\n"
        f"configure_logging('INFO', '{form}')\n"
        "def fail(body):\n"
        "    raise RuntimeError('it broke')\n"
        "for log in structlog.stdlib.get_logger('gateway.x'), logging.getLogger('other'):\n"
        "    try:\n"
        "        fail(str(1234567 * 2))\n"
        "    except RuntimeError:\n"
        "        log.exception('oh')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.count("RuntimeError: it broke") == 2
    assert "2469134" not in done.stderr
    if form == "json":
        assert [json.loads(line)["event"] for line in done.stderr.splitlines()] == ["oh", "oh"]


def test_serve_without_a_configuration_says_what_to_write() -> None:
    result = invoke("serve")
    assert result.exit_code == 2
    assert "[routes.chat]" in result.output
    assert "session-gateway demo" in result.output


def test_check_says_what_is_wrong_and_what_is_needed() -> None:
    Path("gateway.toml").write_text("[routes.chat]")
    result = invoke("check")
    assert result.exit_code == 1
    assert "gateway.toml: routes.chat.endpoint_name: missing" in result.output
    assert "[routes.chat]" in result.output


def test_check_says_what_it_amounts_to() -> None:
    Path("other.toml").write_text(ROUTE)
    result = invoke("check", "--config", "other.toml")
    assert result.exit_code == 0
    assert result.output == "route chat (default): endpoint e, opened on_connect\nok\n"


@pytest.mark.parametrize(
    "arguments",
    [("serve", "--host", "0.0.0.0"), ("local", "--host", "0.0.0.0"), ("local", "--host", "x")],
)
def test_only_this_machine_is_served(arguments: tuple[str, ...]) -> None:
    Path("gateway.toml").write_text(ROUTE)
    result = invoke(*arguments)
    assert result.exit_code != 0
    assert "must be a loopback address" in result.output


@pytest.mark.parametrize("command", ["serve", "local"])
def test_a_port_in_use(command: str) -> None:
    Path("gateway.toml").write_text(ROUTE)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = invoke(command, "--port", str(taken.getsockname()[1]))
    assert result.exit_code == 1
    assert "Address already in use" in result.output
    assert "Traceback" not in result.output


def test_no_region() -> None:
    Path("gateway.toml").write_text('[routes.chat]\nendpoint_name = "e"\n')
    result = invoke("serve", "--port", "0")
    assert result.exit_code == 1
    assert "region" in result.output
    assert "Traceback" not in result.output
