"""The configuration: what is enough, where values come from, and how mistakes are told."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.config import EXAMPLE, ConfigError, RouteSettings, Settings, read
from gateway.local.api import InputModel
from gateway.protocol.options import PARAMETERS
from gateway.sagemaker.profiles import PROFILES
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
    return read(file, {"server": flags}).settings


def told(file: Path, text: str, **flags: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        settings(file, text, **flags)
    return str(caught.value).replace(str(file), "FILE")


def problems(file: Path, text: str, **flags: Any) -> list[str]:
    """What is told, without where in the file it is."""
    lines = told(file, text, **flags).splitlines()
    return [re.sub(r"FILE:\d+", "FILE", line) for line in lines if not line.startswith(" ")]


def test_the_example(file: Path) -> None:
    got = settings(file, EXAMPLE)
    assert got.aws.region == "us-east-1"
    policy = got.routes["chat"].policy("chat", got.server)
    assert (policy.opening, policy.streams, policy.sends_history) == (Opening.CALL, True, True)


def test_the_minimal_configuration(file: Path) -> None:
    got = settings(file, MINIMAL)
    assert (got.server.host, got.server.port) == ("127.0.0.1", 8080)
    assert got.aws.region == "us-east-1"
    route = got.routes["chat"]
    assert route.profile is PROFILES["container-standards"]
    assert route.policy("chat", got.server) == Policy(
        route="chat", content_type="application/json", json_only=True
    ), "the core's own defaults are those of the settings"


@pytest.mark.parametrize(
    ("text", "json_only"),
    [
        ('content_type = "application/x+json; a=b"', True),
        ('content_type = "application/json"\nformat = "plain"', True),
        ('content_type = "application/json"\nrequest = { a = "$text" }', False),
        ('content_type = "text/plain"', False),
        ("", False),
    ],
)
def test_routes_that_take_json_alone(file: Path, text: str, json_only: bool) -> None:
    got = settings(file, ROUTE + text)
    assert got.routes["chat"].policy("chat", got.server).json_only is json_only


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
    assert Settings.load(None).routes["chat"].endpoint_name == "e"


def test_the_first_route_stays_first(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_ROUTES__B__ACCEPT", "a/b")
    text = "".join(f'[routes.{name}]\nendpoint_name = "e"\n' for name in "cba")
    got = settings(file, text)
    assert list(got.routes) == ["c", "b", "a"]
    assert got.routes["b"].accept == "a/b"


JWT = "[auth.jwt]\nissuer = 'https://id.example.com'\naudience = 'chat'\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", 'FILE: routes: missing - add a table such as [routes.chat] with endpoint_name = "…"'),
        ("[routes]", "FILE: routes: expected at least one route; add a table such as"),
        ("[routes.chat]", "FILE: routes.chat.endpoint_name: missing"),
        (
            "[routes.'a b']\nendpoint_name = 'e'",
            'FILE: routes."a b": expected 1 to 64 letters, digits',
        ),
        (ROUTE + "sesion = 'x'", "FILE: routes.chat.sesion: unknown key; did you mean session?"),
        (ROUTE + "session = 'x'", "FILE: routes.chat.session: expected one of container-standards"),
        (ROUTE + "session = 3", "FILE: routes.chat.session: expected the name of"),
        (ROUTE + "idle_seconds = 0", "FILE: routes.chat.idle_seconds: Input should be greater"),
        (ROUTE + "idle_seconds = inf", "FILE: routes.chat.idle_seconds: Input should be"),
        (ROUTE + "accept = 'a\\nb'\nallow = ['x']", "FILE: routes.chat.allow.0: Input should be"),
        (ROUTE + 'accept = "a\\nb"', "FILE: routes.chat.accept: expected 1 to 1024 printable"),
        (ROUTE + "allowed_origins = ['x/']", "FILE: routes.chat.allowed_origins.0: expected an"),
        (
            ROUTE + "log_bytes = 5",
            "FILE: routes.chat.log_bytes: must be at least 52428801 with aws.reply_bytes",
        ),
        (ROUTE + "[aws]\nregio = 'x'", "FILE: aws.regio: unknown key; did you mean region?"),
        (ROUTE + "[aws]\nendpoint_url = 'x'", "FILE: aws.endpoint_url: expected an address"),
        (ROUTE + "[servr]\nport = 1", "FILE: servr: unknown key; did you mean server?"),
        (
            ROUTE + "[server]\nzzz = 1",
            "FILE: server.zzz: unknown key; known are host, port",
        ),
        (ROUTE + "[server]\nhost = '0.0.0.0'", "FILE: server.host: must be a loopback address"),
        (ROUTE + "log_events = 47", "FILE: routes.chat.log_events: must be at least 48 with"),
        (
            ROUTE + "queued_messages = 5000",
            "FILE: routes.chat.queued_messages: needs routes.chat.log_events to be at least 10016",
        ),
        (
            ROUTE + "[aws]\nreply_bytes = 40_000_000",
            "FILE: aws.reply_bytes: needs routes.chat.log_bytes to be at least 80000001",
        ),
        (
            ROUTE + "session = { opening = 'x' }",
            "FILE: routes.chat.session.opening: expected one of",
        ),
        (ROUTE + "session = { lost = 3 }", "FILE: routes.chat.session.lost: Expected `array`"),
        (
            ROUTE + "session = { lst = 3 }",
            "FILE: routes.chat.session.lst: unknown key; did you mean",
        ),
        (
            ROUTE + "session = { opening = 'turn', open_body = {} }",
            "FILE: routes.chat.session: `open_",
        ),
        (ROUTE + "[server]\nport = true", "FILE: server.port: expected a number, got true"),
        (
            ROUTE + "idle_seconds = false",
            "FILE: routes.chat.idle_seconds: expected a number, got f",
        ),
        (ROUTE + "retries = true", "FILE: routes.chat.retries: expected a number, got true"),
        (
            "[routes.chat]\nendpoint_name = 'arn:aws:sagemaker:eu-west-1:111122223333:endpoint/e'",
            "FILE: routes.chat.endpoint_name: expected the endpoint's name, which an ARN has after "
            "`endpoint/`; did you mean e?",
        ),
        (
            "[routes.chat]\nendpoint_name = 'https://runtime.example/endpoints/e-1/invocations'",
            "FILE: routes.chat.endpoint_name: expected the endpoint's name, which an ARN has after "
            "`endpoint/`; did you mean e-1?",
        ),
        (
            "[routes.chat]\nendpoint_name = 'arn:aws:s3:::bucket'",
            "FILE: routes.chat.endpoint_name: expected the endpoint's name, which an ARN has after",
        ),
        (
            ROUTE + "request = { inputs = 'hi' }",
            "FILE: routes.chat.request: needs $text or $messages or $transcript",
        ),
        (
            ROUTE + "replay_seed = '$text'",
            "FILE: routes.chat.replay_seed: needs $messages or $transcript in it, for what",
        ),
        (
            ROUTE + "session = 'stateless'\non_expiry = 'replay'",
            "FILE: routes.chat.on_expiry: there is no session to replay",
        ),
        (
            ROUTE + "session = 'stateless'\nformat = 'tgi'\non_expiry = 'replay'",
            "FILE: routes.chat.on_expiry: there is no session to replay with a `session` such as "
            '"stateless" or "prefix-aware"; leave it out. Where the gateway keeps the conversation '
            '(`history = "gateway"`), each turn tells all of it anyway',
        ),
        (
            ROUTE + "on_lost = 'replay'\nsession = { opening = 'none' }",
            "FILE: routes.chat.on_lost: there is no session to replay",
        ),
        (
            ROUTE + "on_lost = 'replay'\nsession = 'stateles'",
            "FILE: routes.chat.session: expected one of",
        ),
        (ROUTE + "accept = 3", "FILE: routes.chat.accept: expected a string"),
        (ROUTE + "allow = 3", "FILE: routes.chat.allow: expected a list"),
        ("routes = 3", "FILE: routes: expected a table"),
        ("routes.chat = 3", "FILE: routes.chat: expected a table"),
        ("[auth.keys]\n" + ROUTE, "FILE: auth.keys.file: missing - File of the keys"),
        ("[auth]\nkey = 1\n" + ROUTE, "FILE: auth.key: unknown key; did you mean keys?"),
        ("[auth]\nkeys = 'x'\n" + ROUTE, "FILE: auth.keys: expected a table"),
        (
            "[auth]\n[server]\nhost = '0.0.0.0'\n" + ROUTE,
            "FILE: auth: expected [auth.keys] or [auth.jwt]; where nobody has to say who they are, "
            "leave [auth] out",
        ),
        ("[auth.jwt]\naudience = 'chat'\n" + ROUTE, "FILE: auth.jwt.issuer: missing"),
        (JWT + ROUTE, "FILE: auth.jwt: expected one of jwks_url, jwks_file, secret_file"),
        (JWT + "jwks_file = 'a'\nsecret_file = 'b'\n" + ROUTE, "FILE: auth.jwt: expected one of"),
        (JWT + "jwks_url = 'http://x'\n" + ROUTE, "FILE: auth.jwt.jwks_url: must begin with https"),
        (
            JWT + "secret_file = 'b'\nalgorithms = ['RS256']\n" + ROUTE,
            "FILE: auth.jwt: HS256 goes with secret_file",
        ),
        (JWT + "jwks_file = 'b'\nalgorithms = []\n" + ROUTE, "FILE: auth.jwt.algorithms: "),
        (
            JWT + "jwks_file = 'b'\nleeway_seconds = 3600\n" + ROUTE,
            "FILE: auth.jwt.leeway_seconds: Input should be less than or equal to 300",
        ),
        ("[tls]\ncert_file = 'a'\n" + ROUTE, "FILE: tls.key_file: missing - Private key"),
        (
            "[limits]\nmessages_per_secnd = 1\n" + ROUTE,
            "FILE: limits.messages_per_secnd: unknown key; did you mean messages_per_second?",
        ),
        (
            "[limits]\nbytes_per_second = 0\n" + ROUTE,
            "FILE: limits.bytes_per_second: Input should be greater than 0",
        ),
        ("x = " + "[" * 10_000, "FILE: tables or lists are too deep"),
        ("x = " + "1" * 10_000, "FILE: not TOML: Exceeds the limit"),
        ("x = ", "FILE: not TOML: Invalid value; texts stand in quotes (at end of document)"),
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
    known = "server, store, auth, tls, limits, metrics, traces, openai, page, aws, routes"
    assert problems(file, ROUTE) == [f"GATEWAY_X: unknown section; known are {known}"]


def test_empty_variables_say_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_X", "")
    monkeypatch.setenv("GATEWAY_SERVER__PORT", "")
    assert settings(file, ROUTE).server.port == 8080


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("GATEWAY_ROUTES", "{", "routes: expected a table in JSON"),
        ("GATEWAY_ROUTES__CHAT", "x", "routes.chat: expected a table in JSON"),
        ("GATEWAY_ROUTES__CHAT__ALLOW", "x", "routes.chat.allow: expected a list in JSON"),
        ("GATEWAY_ROUTES__CHAT__ALLOW", '["x"]', "routes.chat.allow.0: Input should be"),
        ("GATEWAY_ROUTES__CHAT__ALLOWED_ORIGINS", '["x"]', "routes.chat.allowed_origins.0: exp"),
        ("GATEWAY_ROUTES__CHAT__OPEN", "never", "routes.chat.open: Input should be 'on_connect'"),
        ("gateway_routes__chat__open", "never", "routes.chat.open: Input should be 'on_connect'"),
        ("Gateway_Server__Port", "-1", "server.port: Input should be greater than or equal to 0"),
        ("GATEWAY_ROUTES", '{"chat": {"open": "never"}}', "routes.chat.open: Input should be"),
        ("GATEWAY_ROUTES", '{"chat": {"allow": ["x"]}}', "routes.chat.allow.0: Input should be"),
        ("GATEWAY_ROUTES", '{"Two": {"accept": "a/b"}}', "routes.Two.endpoint_name: missing"),
        ("GATEWAY_ROUTES__CHAT", '{"open": "never"}', "routes.chat.open: Input should be"),
        ("GATEWAY_ROUTES__CHTA__ACCEPT", "a/b", "routes.chta.endpoint_name: missing"),
        ("GATEWAY_ROUTES__CHAT__ACEPT", "a/b", "routes.chat.acept: unknown key; did you mean acc"),
        ("GATEWAY_ROUTES__CHAT__SESSION__OPENING", "x", "routes.chat.session.opening: expected"),
        ("GATEWAY_ROUTES__CHAT__SESSION__LOST", "3", "routes.chat.session.lost: Expected `array`"),
        ("GATEWAY_AWS__ENDPOINT_URL", "x", "aws.endpoint_url: expected an address"),
        ("GATEWAY_ROUTES__CHAT__LOG_BYTES", "5", "routes.chat.log_bytes: must be at least"),
        ("GATEWAY_AWS__REPLY_BYTES", "40000000", "aws.reply_bytes: needs routes.chat.log_bytes"),
        ("GATEWAY_SERVER", "x", "server: expected a table in JSON"),
    ],
)
def test_a_mistake_in_a_variable_while_the_rest_is_in_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, problem: str
) -> None:
    monkeypatch.setenv(name, value)
    (got,) = problems(file, ROUTE + 'body = "json"\n[aws]\nregion = "us-east-1"')
    assert got.startswith(f"{name}: {problem}")


def test_a_mistake_in_the_file_while_the_rest_is_in_variables(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_ROUTES", '{"chat": {"accept": "a/b"}}')
    monkeypatch.setenv("GATEWAY_ROUTES__CHAT__BODY", "json")
    (missing,) = problems(file, "[routes.chat]")
    assert missing.startswith("FILE: routes.chat.endpoint_name: missing")
    (wrong,) = problems(file, ROUTE + "open = 'never'")
    assert wrong.startswith("FILE: routes.chat.open: Input should be")


def test_a_contradiction_between_both_names_both(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_ROUTES__CHAT__SESSION__OPENING", "none")
    (got,) = problems(file, ROUTE + "session = { close_body = { a = 1 } }")
    assert got.startswith(
        "GATEWAY_ROUTES__CHAT__SESSION__OPENING and FILE: routes.chat.session: `opening"
    )


def test_a_variable_that_takes_all_keys_away_is_a_mistake(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = ROUTE + "[auth.keys]\nfile = 'keys.toml'\n"
    assert settings(file, text).auth.required
    monkeypatch.setenv("GATEWAY_AUTH__KEYS", "null")
    (problem,) = problems(file, text)
    assert problem.startswith("GATEWAY_AUTH__KEYS and FILE: auth: expected [auth.keys] or [auth.j")
    assert settings(file, f"{text}{JWT}jwks_file = 'a'\n").auth.required


def test_a_key_of_its_own_counts_before_the_json_of_its_table(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_ROUTES__CHAT__OPEN", "never")
    monkeypatch.setenv("GATEWAY_ROUTES__CHAT", '{"open": "on_connect", "body": "json"}')
    (got,) = problems(file, ROUTE)
    assert got.startswith("GATEWAY_ROUTES__CHAT__OPEN: routes.chat.open:")
    monkeypatch.setenv("GATEWAY_ROUTES__CHAT__OPEN", "on_first_message")
    route = settings(file, ROUTE).routes["chat"]
    assert (route.open, route.body) == ("on_first_message", "json")


SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


@pytest.mark.parametrize(
    "text",
    [
        f"{ROUTE}[aws]\nsecret_access_key = '{SECRET}'",
        f"{ROUTE}[aws.keys]\nsecret = '{SECRET}'",
        f"{ROUTE}[aws]\nendpoint_url = 'http://user:{SECRET}@host'",
        f"{ROUTE}[aws]\nendpoint_url = 'http://user:pw@host/{SECRET}'",
        f"{ROUTE}[aws]\nendpoint_url = 'user:{SECRET}@host'",
        f"{ROUTE}[aws]\nendpoint_url = 'http://[{SECRET}'",
        f"{ROUTE}[aws]\nendpoint_url = 'http://host:{SECRET}'",
        f"{ROUTE}[aws]\nprofile = ['{SECRET}']",
        f"{ROUTE}[aws]\nmax_pool_connections = '{SECRET}'",
        f"{ROUTE}[server]\nhost = '{SECRET}'",
        f"{ROUTE}[store]\nkind = 'valkey'\nurl = 'valkey://user:{SECRET}@host'",
        f"{ROUTE}[store]\nkind = 'valkey'\nurl = 'valkey://user:{SECRET}'",
        f"{ROUTE}[store]\nkind = 'valkey'\nurl = 'valkey://host?password={SECRET}'",
        f"{ROUTE}[store]\nkind = 'valkey'\nurl = 'valkey://host/{SECRET}'",
        f"{ROUTE}[server]\nlog_level = '{SECRET}'",
        f"{ROUTE}allow = ['{SECRET}']",
        f"{ROUTE}allow = '{SECRET}'",
        f"{ROUTE}allowed_origins = ['https://user:{SECRET}@host']",
        f"{ROUTE}session = '{SECRET}'",
        f"{ROUTE}session = {{ opening = '{SECRET}' }}",
        f"{ROUTE}session = {{ secret = '{SECRET}' }}",
        f"{ROUTE}session = ['{SECRET}']",
        f"{ROUTE}target_variant = '{SECRET}'",
        f"{ROUTE}custom_attributes = '{SECRET}é'",
        f"aws = '{SECRET}'\n{ROUTE}",
        f"routes = '{SECRET}'",
        f"routes.chat = '{SECRET}'",
        f"x = {SECRET}",
    ],
)
def test_what_could_be_a_secret_is_not_repeated(file: Path, text: str) -> None:
    everything = told(file, text)
    assert len(problems(file, text)) == 1
    assert all(part not in everything for part in (SECRET, SECRET.lower(), "user:pw", SECRET[:9]))


def test_credentials_in_an_address_are_refused(file: Path) -> None:
    (got,) = problems(file, ROUTE + "[aws]\nendpoint_url = 'http://user:pw@host'")
    assert got.startswith("FILE: aws.endpoint_url: must not hold a user or a password")
    assert settings(file, ROUTE + "[aws]\nendpoint_url = 'http://host/a@b'").aws.endpoint_url


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("idle_seconds = -1.5", ", got -1.5"),
        ("idle_seconds = '0'", ", got 0"),
        ("open = 'never'", ", got never"),
        ("session = 'stateles'", ", got stateles; did you mean stateless?"),
        ("open = 'on_conect'", ", got on_conect; did you mean on_connect?"),
    ],
)
def test_what_can_be_no_secret_is(file: Path, text: str, shown: str) -> None:
    assert problems(file, ROUTE + text)[0].endswith(shown)


def test_keys_are_told_in_one_line(file: Path) -> None:
    assert problems(file, ROUTE + '"a\\nb" = 1')[0].startswith('FILE: routes.chat."a\\nb": unknown')


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            'sesion = "stateless"  # none',
            "FILE:3: routes.chat.sesion: unknown key; did you mean session?\n"
            '    sesion = "stateless"',
        ),
        (
            "\n\naccept = 'a'\nbody = 'xml'",
            "FILE:6: routes.chat.body: Input should be 'auto' or 'json', got xml\n    body = 'xml'",
        ),
        (
            "password = 'hunter'",
            "FILE:3: routes.chat.password: unknown key; known are",
        ),
        ("password = 'hunter'", "\n    password = …"),
        (
            'allow = [\n  "inference_id",  # [\n  "x",\n]\nport = 1\n',
            "FILE:3: routes.chat.allow.1: Input should be",
        ),
        ('system = """\nport = 3\n"""\nidle_seconds = 0', "FILE:6: routes.chat.idle_seconds: "),
        ("[routes.two]\naccept = 'a'", "FILE:3: routes.two.endpoint_name: missing"),
        ("[routes.two]\naccept = 'a'", "\n    [routes.two]"),
        ("[[aws]]", "FILE:3: aws: expected a table\n    [[aws]]"),
        ("accept = 3\r\nopen = 'x'\r\n", "FILE:4: routes.chat.open"),
        (
            "session = { opening = 'turns', lost = ['a b'] }",
            "FILE:3: routes.chat.session.opening: expected one of none, call, turn\n"
            "    session = { opening = '…', lost = ['…'] }",
        ),
        (
            'request={api_key="hunter", pin=123456, a="b"}',
            '    request={api_key="…", pin=…, a="…"}',
        ),
        (
            'session={opening="cal",open_body={password="hunter", "pass 1"=7}}',
            '    session={opening="…",open_body={password="…", "…"=…}}',
        ),
        ('request.api_key = "hunter"', '\n    request.api_key = "…"'),
        ('request = ["hunter"]', '\n    request = ["…"]'),
        ('replay_seed = "hunter"', '\n    replay_seed = "…"'),
        ('[routes.chat.session]\nopen_body = "hunter"', '\n    open_body = "…"'),
        ("session.open_body.password = 'hunter'\nsession.opening = 'none'", "password = '…'"),
        ('[aws]\nregion = ["hunter", { a = "hunter" }]', '\n    region = ["…", { a = "…" }]'),
        ('allow = ["inference_id", "target"]', '\n    allow = ["inference_id", "target"]'),
        ("[routes.two] # hunter", "\n    [routes.two]"),
        ("[routes.two] # x = hunter", "\n    [routes.two]"),
        ('accept = "x\n', "FILE:3: not TOML: "),
        ("accept = text/plain", "not TOML: Invalid value; texts stand in quotes (column 10)\n"),
        ("accept = text/plain", "\n    accept = …"),
        ("accept =\n\n", "FILE:3: not TOML: Invalid value; texts stand in quotes (column 9)"),
        ("accept = ", "FILE:3: not TOML: Invalid value; texts stand in quotes (at end of doc"),
        ("accept = 'a'\n\r", "FILE:4: not TOML: "),
        ('allow = [\n  "hunter",\n\n', "FILE:4: not TOML: "),
        ("hunter\n", "FILE:3: not TOML: "),
        ("hunter\n", "\n    …"),
        ('accept = [\n["hunter" x]\n', "\n    …"),
        ("pass: hunter = 3", "\n    …"),
    ],
)
def test_the_line_is_shown(file: Path, text: str, says: str) -> None:
    everything = told(file, ROUTE + text)
    assert says in everything
    assert "hunter" not in everything
    assert "123456" not in everything


def test_a_route_that_only_a_variable_names(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_ROUTES__TWO__ACCEPT", "a/b")
    assert told(file, ROUTE).startswith("GATEWAY_ROUTES__TWO__ACCEPT: routes.two.endpoint_name: m")
    assert "\n" not in told(file, ROUTE)


MODEL = {parameter.name: parameter for parameter in InputModel("InvokeEndpoint").parameters}


@pytest.mark.parametrize(("field", "parameter"), [*PARAMETERS.items()])
def test_a_route_sends_what_the_api_model_takes(field: str, parameter: str) -> None:
    rule = MODEL[parameter]
    assert rule.most is not None
    assert rule.pattern is not None
    for length in (1, 2, rule.most):
        value = "a" * length
        assert (
            getattr(RouteSettings.model_validate({"endpoint_name": "e", field: value}), field)
            == value
        )
    for value in (*("a b", "a-b", "a--b", "-a", "a-", "a/b", "a;b=c", "7", "a\\b", "a.b"), "{}"):
        try:
            RouteSettings.model_validate({"endpoint_name": "e", field: value})
        except ValidationError:
            assert rule.most == 63, "only names have an alphabet of their own"
            assert not rule.pattern.fullmatch(value)
        else:
            assert rule.pattern.fullmatch(value)
    for value in ("", " ", " a", "a ", "é", "a\nb", "a\tb", "a\x7f", "a\n", "a" * (rule.most + 1)):
        with pytest.raises(ValidationError):
            RouteSettings.model_validate({"endpoint_name": "e", field: value})


@pytest.mark.parametrize("name", ["", "-a", "a-", "a_b", "a" * 64, "a" + "-" * 62 + "a", "a\n"])
def test_names_of_endpoints(name: str) -> None:
    with pytest.raises(ValidationError):
        RouteSettings(endpoint_name=name)
    longest = "a" + "-" * 61 + "a"
    assert RouteSettings(endpoint_name=longest).endpoint_name == longest


@pytest.mark.parametrize("region", ["", "us east", "us-east-1/", "-us"])
def test_regions(file: Path, region: str) -> None:
    (got,) = problems(file, ROUTE + f"[aws]\nregion = '{region}'")
    assert got.startswith("FILE: aws.region: expected 1 to 63 letters, digits and hyphens")


@pytest.mark.parametrize(
    "url", ["http://", "ftp://host", "http://host:x", "http://h?a", "http://h/#a", "http://h/ a"]
)
def test_addresses(file: Path, url: str) -> None:
    (got,) = problems(file, ROUTE + f"[aws]\nendpoint_url = '{url}'")
    assert got.startswith("FILE: aws.endpoint_url: expected an address")


STORE = ROUTE + "[store]\nkind = 'valkey'\nurl = "


@pytest.mark.parametrize(
    "url",
    [
        "valkey://host",
        "valkey://host/",
        "valkey://host:1",
        "valkey://host:65535/15",
        "valkey://[::1]:6379/0",
        "valkey://user@host",
        "valkeys://host",
        "redis://host",
        "rediss://host",
        "valkey://host?cluster=true",
        "valkey://host/0?cluster=true",
        "valkey://host/1?cluster=false",
    ],
)
def test_addresses_of_stores(file: Path, url: str) -> None:
    assert settings(file, f"{STORE}'{url}'").store.url == url


ADDRESS, AFTER, NUMBER = (
    "expected an address",
    "the only thing that can follow",
    "expected the number",
)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", ADDRESS),
        ("host:6379", ADDRESS),
        ("http://host", ADDRESS),
        ("unix:///run/valkey.sock", ADDRESS),
        ("valkey://", ADDRESS),
        ("valkey://:6379/0", ADDRESS),
        ("valkey://[::1", ADDRESS),
        ("valkey://user:pw@host", "the password goes into GATEWAY_STORE__PASSWORD"),
        ("valkey://:pw@host", "the password goes into GATEWAY_STORE__PASSWORD"),
        ("valkey://host:0", ADDRESS),
        ("valkey://host:65536", ADDRESS),
        ("valkey://host:x", ADDRESS),
        ("valkey://one:1,two:2", ADDRESS),
        ("valkey://host/x", NUMBER),
        ("valkey://host/-1", NUMBER),
        ("valkey://host/0/1", NUMBER),
        ("valkey://host/123456", NUMBER),
        ("valkey://host/1?cluster=true", "a cluster has one database"),
        ("valkey://host?db=1", AFTER),
        ("valkey://host?ssl_cert_reqs=none", AFTER),
        ("valkey://host?cluster=yes", AFTER),
        ("valkey://host?cluster=true&db=1", AFTER),
        ("valkey://host/0#part", ADDRESS),
        ("valkey://host/0?cluster=true#", ADDRESS),
        (" valkey://host", ADDRESS),
        ("valkey://a b/0", ADDRESS),
    ],
)
def test_what_is_no_address_of_a_store(file: Path, url: str, says: str) -> None:
    (got,) = problems(file, f"{STORE}'{url}'")
    assert got.startswith(f"FILE: store.url: {says}")


def test_settings_in_code_know_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_SERVER__PORT", "x")
    assert Settings(routes={"chat": RouteSettings(endpoint_name="e")}).server.port == 8080
    with pytest.raises(ValidationError, match="at least one route"):
        Settings(routes={})


def test_loading_reads_the_file_and_the_environment(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(ROUTE + "[server]\nport = 1\nlog_turns = true")
    monkeypatch.setenv("GATEWAY_SERVER__PORT", "2")
    for path in (file, str(file)):
        server = Settings.load(path).server
        assert (server.port, server.log_turns) == (2, True)
    monkeypatch.setenv("GATEWAY_ROUTES__CHAT__ENDPOINT_NAME", "e")
    server = Settings.load(None).server
    assert (server.port, server.log_turns) == (2, False)


def test_it_imports_nothing_that_calls_the_platform_or_serves() -> None:
    """A program that only reads the configuration does not wait for the AWS SDK."""
    script = "import gateway.config, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    heavy = {"aiobotocore", "aiohttp", "botocore", "starlette", "uvicorn", "uvloop"}
    assert not heavy & {name.partition(".")[0] for name in done.stdout.split()}


def test_files_that_can_not_be_read(file: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        Settings.load(file)
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not TOML"):
        Settings.load(file)


def test_every_setting_says_what_it_is() -> None:
    for section in Settings.model_fields.values():
        for name, field in getattr(section.annotation, "model_fields", {}).items():
            assert field.description, name
