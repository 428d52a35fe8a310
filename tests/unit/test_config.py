"""The configuration: what is enough, where values come from, and how mistakes are told."""

from pathlib import Path
from typing import Any

import pytest

from gateway.config import EXAMPLE, ConfigError, Settings, load
from gateway.sagemaker import PROFILES
from gateway.session.policy import Opening, Policy

MINIMAL = """
[aws]
region = "us-east-1"
endpoint_url = "http://127.0.0.1:9000"   # only to speak to something other than AWS

[routes.chat]                            # the first route is the default one
endpoint_name = "my-endpoint"
session = "container-standards"
content_type = "application/json"
"""
ROUTE = '[routes.chat]\nendpoint_name = "e"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "gateway.toml"


def settings(file: Path, text: str, **flags: Any) -> Settings:
    file.write_text(text)
    return load(file, {"server": flags})


def problems(file: Path, text: str, **flags: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        settings(file, text, **flags)
    return str(caught.value).replace(str(file), "FILE").splitlines()


@pytest.mark.parametrize("text", [MINIMAL, EXAMPLE])
def test_the_minimal_configuration(file: Path, text: str) -> None:
    got = settings(file, text)
    assert (got.server.host, got.server.port) == ("127.0.0.1", 8080)
    assert got.aws.region == "us-east-1"
    route = got.routes["chat"]
    assert route.profile is PROFILES["container-standards"]
    assert route.policy("chat", got.server) == Policy(
        route="chat", content_type="application/json"
    ), "the core's own defaults are those of the settings"


def test_a_route_with_all_there_is(file: Path) -> None:
    got = settings(
        file,
        ROUTE
        + """
        session = { opening = "turn", close_body = { op = "bye" }, lost = ["gone"] }
        open = "on_first_message"
        body = "json"
        allow = ["target_model"]
        target_variant = "blue"
        idle_seconds = 5
        """,
    )
    route = got.routes["chat"]
    policy = route.policy("chat", got.server)
    assert policy.opening is Opening.TURN
    assert not policy.open_on_connect
    assert policy.json_replies
    assert policy.client_fields == {"target_model"}
    assert policy.idle_seconds == 5
    assert route.profile.close_body == {"op": "bye"}
    assert route.defaults.target_variant == "blue"


def test_the_order_of_sources(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = ROUTE + '[server]\nport = 1\nheartbeat_seconds = 1\nlog_level = "ERROR"\n'
    monkeypatch.setenv("GATEWAY_SERVER__PORT", "2")
    monkeypatch.setenv("GATEWAY_SERVER__LOG_LEVEL", "DEBUG")
    got = settings(file, text, port=3).server
    assert (got.port, got.log_level, got.heartbeat_seconds) == (3, "DEBUG", 1)


def test_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_ROUTES__CHAT__ENDPOINT_NAME", "e")
    assert load(None).routes["chat"].endpoint_name == "e"


def test_the_first_route_stays_first(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_ROUTES__B__ACCEPT", "a/b")
    text = "".join(f'[routes.{name}]\nendpoint_name = "e"\n' for name in "cba")
    got = settings(file, text)
    assert list(got.routes) == ["c", "b", "a"]
    assert got.routes["b"].accept == "a/b"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", 'FILE: routes: missing - add a table such as [routes.chat] with endpoint_name = "…"'),
        ("[routes]", "FILE: routes: Dictionary should have at least 1 item"),
        ("[routes.chat]", "FILE: routes.chat.endpoint_name: missing"),
        ("[routes.'a b']\nendpoint_name = 'e'", "FILE: routes.a b: String should match pattern"),
        (ROUTE + "sesion = 'x'", "FILE: routes.chat.sesion: unknown key; did you mean session?"),
        (ROUTE + "session = 'x'", "FILE: routes.chat.session: expected one of container-standards"),
        (ROUTE + "session = 3", "FILE: routes.chat.session: Expected `object`, got `int`"),
        (ROUTE + "idle_seconds = 0", "FILE: routes.chat.idle_seconds: Input should be greater"),
        (ROUTE + "idle_seconds = inf", "FILE: routes.chat.idle_seconds: Input should be"),
        (ROUTE + "accept = 'a\\nb'\nallow = ['x']", "FILE: routes.chat.allow.0: Input should be"),
        (ROUTE + 'accept = "a\\nb"', "FILE: routes.chat.accept: String should match"),
        (ROUTE + "allowed_origins = ['x/']", "FILE: routes.chat.allowed_origins.0: expected an"),
        (ROUTE + "log_bytes = 5", "FILE: routes.chat.log_bytes must be more than twice"),
        (ROUTE + "[aws]\nregio = 'x'", "FILE: aws.regio: unknown key; did you mean region?"),
        (ROUTE + "[aws]\nendpoint_url = 'x'", "FILE: aws.endpoint_url: String should match"),
        (ROUTE + "[servr]\nport = 1", "FILE: servr: unknown key; did you mean server?"),
        (ROUTE + "[server]\nzzz = 1", "FILE: server.zzz: unknown key; known are host, port"),
        (ROUTE + "[server]\nhost = '0.0.0.0'", "FILE: server.host: must be a loopback address"),
        ("x = ", "FILE: not TOML: Invalid value (at end of document)"),
    ],
)
def test_mistakes(file: Path, text: str, problem: str) -> None:
    (got,) = problems(file, text)
    assert got.startswith(problem)


def test_all_mistakes_at_once_each_with_its_source(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_SERVER__HEARTBEAT_SECONDS", "x")
    monkeypatch.setenv("GATEWAY_SERVR__PORT", "1")
    got = problems(file, ROUTE + "open = 'never'", port=-1)
    assert len(got) == 4
    assert got[0] == "GATEWAY_SERVR__PORT: unknown section; did you mean server?"
    assert any(line.startswith("--port: server.port: Input should be greater") for line in got)
    assert any(line.startswith("GATEWAY_SERVER__HEARTBEAT_SECONDS: server.h") for line in got)
    assert any(line.startswith("FILE: routes.chat.open: Input should be 'on_conn") for line in got)


def test_an_unknown_variable_alone(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_X", "1")
    assert problems(file, ROUTE) == [
        "GATEWAY_X: unknown section; known are server, store, aws, routes"
    ]


def test_a_variable_that_is_no_json(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_ROUTES", "{")
    (got,) = problems(file, ROUTE)
    assert got.startswith("environment: ")


def test_files_that_can_not_be_read(file: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(file)
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not TOML"):
        load(file)


def test_every_setting_says_what_it_is() -> None:
    for section in Settings.model_fields.values():
        for name, field in getattr(section.annotation, "model_fields", {}).items():
            assert field.description, name
