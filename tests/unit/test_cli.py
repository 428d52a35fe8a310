"""The command line: help, mistakes in one line, and exit codes."""

import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main

ROUTE = '[aws]\nregion = "us-east-1"\n[routes.chat]\nendpoint_name = "e"\n'


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_help_for_everything() -> None:
    assert all(name in invoke("--help").output for name in ("serve", "check", "demo", "local"))
    for command in main.commands:
        result = invoke(command, "-h")
        assert result.exit_code == 0
        assert "Usage" in result.output


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
