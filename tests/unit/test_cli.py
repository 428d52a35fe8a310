"""The command line: help, mistakes in one line, and exit codes."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import get_args

import pytest
import structlog
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.local import command, faults, server, stateful
from gateway.local.environment import apart_from_aws
from gateway.security.keys import add
from tests.support.certificates import certificate
from tests.support.fronts import free_port
from tests.support.tokens import Signer, write_key_set

ROUTE = '[aws]\nregion = "us-east-1"\n[routes.chat]\nendpoint_name = "e"\n'


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where there is no configuration; how a command logs is no other test's affair."""
    monkeypatch.chdir(tmp_path)
    yield
    structlog.reset_defaults()


@pytest.fixture
def nothing_of_aws() -> Iterator[None]:
    """What this machine has set for AWS is not seen."""
    with apart_from_aws():
        yield


@pytest.fixture
def keys() -> Iterator[None]:
    """Credentials, and nothing else."""
    with apart_from_aws(AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b"):
        yield


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
    assert get_args(faults.Action) == command.ACTIONS
    keys = {"access_key": server.ACCESS_KEY, "secret_key": server.SECRET_KEY}
    assert {**keys, "region": server.REGION} == command.KEYS


def test_the_environment_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "theirs")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    before = dict(os.environ)
    with apart_from_aws(AWS_ACCESS_KEY_ID="ours"):
        assert "AWS_PROFILE" not in os.environ
        assert "https_proxy" not in os.environ
        assert os.environ["AWS_ACCESS_KEY_ID"] == "ours"
    assert dict(os.environ) == before


def test_variables_in_lower_case_are_a_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("gateway_routes__chat__endpoint_name", "e-")
    result = invoke("serve")
    assert result.exit_code == 2
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
        "from gateway.logconfig import configure_logging\n"
        f"configure_logging('INFO', '{form}')\n"
        "kind = type('It' + 'Broke', (Exception,), {})\n"  # 3.13 shows a traceback's lines of -c
        "def fail(body):\n"
        "    raise kind\n"
        "for log in structlog.stdlib.get_logger('gateway.x'), logging.getLogger('other'):\n"
        "    try:\n"
        "        fail(str(1234567 * 2))\n"
        "    except kind:\n"
        "        log.exception('oh')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.count("ItBroke") == 2
    assert "2469134" not in done.stderr
    if form == "json":
        assert [json.loads(line)["event"] for line in done.stderr.splitlines()] == ["oh", "oh"]


RAISES = """
import asyncio, logging, structlog
from functools import partial
from gateway.logconfig import configure_logging
from gateway.serving import _report

configure_logging("DEBUG", {form!r})

def fail(text):
    try:
        raise OSError(2, "No such file", text)
    except OSError:
        try:
            raise KeyError(text)
        except KeyError as error:
            raise ExceptionGroup(text, [ValueError(text), KeyError(text)]) from error

async def fail_later(text):
    fail(text)

async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_report)
    loop.call_soon(partial(fail, SECRET))
    asyncio.create_task(fail_later(SECRET))
    loop.call_exception_handler(dict(message="Unclosed something", what=SECRET))
    await asyncio.sleep(0)
    await asyncio.sleep(0)

SECRET = "SWORD" + "FISH"
asyncio.run(main())
for log in structlog.stdlib.get_logger("gateway.x"), logging.getLogger("botocore.credentials"):
    try:
        fail(SECRET)
    except ExceptionGroup:
        log.exception("oh")
"""


@pytest.mark.parametrize("form", ["console", "json"])
def test_what_an_exception_says_is_not_logged(form: str) -> None:
    command = [sys.executable, "-c", RAISES.format(form=form)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "SWORDFISH" not in done.stderr
    written = done.stderr.replace("\\n", "\n")
    for line in ("KeyError", "  ValueError", "FileNotFoundError: No such file", "ExceptionGroup"):
        assert f"\n{line}\n" in written
    assert written.count("in fail\n") > 4
    assert "Unclosed something" in written


def test_serve_without_a_configuration_says_what_to_write() -> None:
    result = invoke("serve")
    assert result.exit_code == 2
    assert "[routes.chat]" in result.output
    assert "session-gateway demo" in result.output


def test_check_says_what_is_wrong_and_what_is_needed() -> None:
    Path("gateway.toml").write_text("[routes.chat]")
    result = invoke("check")
    assert result.exit_code == 2
    assert result.output == (
        "gateway.toml:1: routes.chat.endpoint_name: missing - Name of the SageMaker endpoint.\n"
        "    [routes.chat]\n"
    ), "and no example, since there is a configuration"


def test_check_without_a_configuration_says_what_to_write() -> None:
    result = invoke("check")
    assert result.exit_code == 2
    assert "to write gateway.toml step by step" in result.output


HS256 = """[auth.jwt]
issuer = "https://id.example.com"
audience = "chat"
secret_file = "file"
"""
JWKS = HS256.replace("secret_file", "jwks_file")
KEYS = '[auth.keys]\nfile = "file"\n'
LOGO = '[page]\nlogo = "file"\n'
TLS = '[tls]\ncert_file = "cert.pem"\nkey_file = "file"\n'
ABSENT = "file: No such file or directory"


@pytest.mark.parametrize("command", ["check", "serve"])
@pytest.mark.parametrize(
    ("section", "file", "setting", "says"),
    [
        (KEYS, None, "2: auth.keys.file", ABSENT),
        (KEYS, "\n[", "2: auth.keys.file", "file:2: not TOML: Invalid initial character for a"),
        (KEYS, "\n[ada]", "2: auth.keys.file", "file:2: [ada]: Object missing required field"),
        (JWKS, None, "4: auth.jwt.jwks_file", ABSENT),
        (JWKS, '{\n"keys"', "4: auth.jwt.jwks_file", "file:2: not JSON: Expecting ':' delimiter"),
        (JWKS, "{}", "4: auth.jwt.jwks_file", "file: expected a JWK set"),
        (JWKS, '{"keys": []}', "4: auth.jwt.jwks_file", "file: has no public key"),
        (
            HS256,
            None,
            "4: auth.jwt.secret_file",
            "No such file or directory: expected the path of a file that has the secret",
        ),
        (HS256, "short", "4: auth.jwt.secret_file", "file: a secret for HS256 has 32 bytes"),
        (LOGO, None, "2: page.logo", f"{ABSENT}; name an SVG or a PNG file here"),
        (LOGO, "x", "2: page.logo", "file: neither an SVG nor a PNG; convert it to one of them"),
        (TLS, None, "3: tls.key_file", ABSENT),
        (TLS, "x", "3: tls.key_file", "file: no private key as PEM"),
        (TLS.replace("cert.pem", "file"), "x", "2: tls.cert_file", "file: no certificate as PEM"),
    ],
)
def test_files_that_can_not_be_used(
    command: str, section: str, file: str | None, setting: str, says: str
) -> None:
    certificate().write(Path.cwd())
    if file is not None:
        Path("file").write_text(file)
    Path("gateway.toml").write_text(section + ROUTE)
    result = invoke("check", "--offline") if command == "check" else invoke("serve", "--port", "0")
    assert result.exit_code == 2
    first, *shown = result.output.splitlines()
    if command == "check":
        assert first.startswith(f"gateway.toml:{setting}: {says}")
        line = int(setting.partition(":")[0])
        assert shown == [f"    {section.splitlines()[line - 1]}"]
    else:
        assert first.startswith(says)
        assert not shown


def test_check_warns_of_a_key_for_a_route_that_there_is_none_of() -> None:
    Path("gateway.toml").write_text(KEYS + ROUTE)
    add(Path("file"), "ada", ["chat", "games"])
    result = invoke("check", "--offline")
    assert result.exit_code == 0
    assert result.output.startswith(
        "gateway.toml:2: warning: auth.keys.file: [ada] may use route games, which does not exist\n"
    )


@pytest.mark.usefixtures("keys")
def test_check_asks_for_the_keys_of_an_address() -> None:
    folder = Path("served")
    folder.mkdir()
    write_key_set(folder / "jwks.json", Signer("one"))
    serve = partial(Quiet, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        Thread(target=server.serve_forever).start()
        config = JWKS.replace('jwks_file = "file"', "jwks_url = 'http://127.0.0.1:{}/{}'") + ROUTE
        port, file = server.server_address[1], Path("gateway.toml")
        file.write_text(config.format(port, "jwks.json"))
        assert invoke("check").output.startswith("route chat")
        file.write_text(config.format(port, "others.json"))
        result = invoke("check")
        server.shutdown()
    warning = "gateway.toml:4: warning: auth.jwt.jwks_url: keys can't be fetched"
    assert result.output.startswith(f"{warning} (answered with status 404); until they can, ")
    assert result.exit_code == 0
    assert invoke("check").output.startswith(f"{warning} (ClientConnectorError); ")
    assert invoke("check", "--offline").output.startswith("route chat")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        pass


@pytest.mark.usefixtures("keys")
def test_check_says_what_it_amounts_to() -> None:
    Path("other.toml").write_text(ROUTE)
    result = invoke("check", "--config", "other.toml")
    assert result.exit_code == 0
    assert result.output == (
        "route chat (default): endpoint e, session opened on connect, "
        "conversation kept by the model\n"
        "clients: anyone on this machine, and anyone that a proxy on it lets through (no [auth])\n"
        "ok\n"
    )


def test_check_says_who_may_come_in() -> None:
    write_key_set(Path("jwks"), Signer("one"))
    add(Path("file"), "ada", None)
    tokens = JWKS.replace('"file"', '"jwks"')
    for auth, who in (
        (KEYS, "a key ([auth.keys])"),
        (tokens, "a token ([auth.jwt])"),
        (KEYS + tokens, "a key ([auth.keys]) or a token ([auth.jwt])"),
    ):
        Path("gateway.toml").write_text(auth + ROUTE)
        result = invoke("check", "--offline")
        assert result.output.endswith(f"\nclients: anyone with {who}\nok\n")


def test_check_warns_of_a_file_without_keys() -> None:
    Path("file").write_text("# none yet\n")
    Path("gateway.toml").write_text(KEYS + ROUTE)
    result = invoke("check", "--offline")
    assert result.exit_code == 0
    assert result.stderr == (
        "gateway.toml:2: warning: auth.keys.file: contains no keys, so nobody can connect; "
        'add one with `session-gateway key add`\n    file = "file"\n'
    )


@pytest.mark.usefixtures("nothing_of_aws")
def test_check_looks_for_credentials() -> None:
    Path("gateway.toml").write_text(ROUTE)
    result = invoke("check")
    assert result.exit_code == 2
    assert result.output.startswith("no AWS credentials were found in AWS_ACCESS_KEY_ID, ")
    assert invoke("check", "--offline").exit_code == 0


def test_check_says_in_one_line_why_there_are_no_credentials() -> None:
    Path("gateway.toml").write_text(ROUTE)
    role = {"AWS_ROLE_ARN": "arn:aws:iam::111122223333:role/r"}
    with apart_from_aws(AWS_WEB_IDENTITY_TOKEN_FILE="/nonexistent", **role):
        done = subprocess.run(
            [sys.executable, "-m", "gateway", "check"], capture_output=True, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr == (
        "AWS credentials can't be loaded: No such file or directory: /nonexistent\n"
    )


@pytest.mark.usefixtures("keys")
def test_what_is_wrong_in_the_environment_is_not_said_of_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("gateway.toml").write_text(ROUTE)
    monkeypatch.setenv("AWS_PROFILE", "nope")
    for arguments in (["check"], ["serve", "--port", "0"]):
        result = invoke(*arguments)
        assert result.exit_code == 2
        assert result.output.startswith(
            "AWS_PROFILE: there is no profile with this name in /dev/null"
        )


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(
    ("aws", "says"),
    [
        (
            'region = "us-est-1"',
            "gateway.toml:2: aws.region: us-est-1 is not a region that botocore",
        ),
        ("", "gateway.toml:1: aws.region: no region is set"),
        (
            'profile = "x"',
            "gateway.toml:2: aws.profile: there is no profile with this name in /dev/null",
        ),
    ],
)
def test_check_finds_what_can_not_work(aws: str, says: str) -> None:
    Path("gateway.toml").write_text(f'[aws]\n{aws}\n[routes.chat]\nendpoint_name = "e"\n')
    result = invoke("check")
    assert result.exit_code == 2
    assert result.output.startswith(says)
    assert "ok" not in result.output.split()


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(
    ("route", "says"),
    [
        ("", ""),
        ('format = "openai-chat"', ""),
        ('request = { inputs = "$text" }', ""),
        ('format = "plain"', "gateway.toml:5: warning: routes.chat.content_type: this route takes"),
        ("body = 'json'", "gateway.toml:5: warning: routes.chat.content_type: this route takes"),
    ],
)
def test_check_warns_of_a_route_that_takes_no_text(route: str, says: str) -> None:
    content_type = 'content_type = "application/json"' if route else ""
    Path("gateway.toml").write_text(f"{ROUTE}{content_type}\n{route}\n")
    result = invoke("check")
    assert result.exit_code == 0
    assert result.stderr.startswith(says)
    assert bool(result.stderr) == bool(says)
    assert ("has no `request`, nor a `format` with one" in result.stderr) is bool(says)
    assert result.stdout.endswith("\nok\n")


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(("text", "warns"), [("", True), ('text = "answer"', False)])
def test_check_warns_of_a_history_of_json(text: str, warns: bool) -> None:
    Path("gateway.toml").write_text(f'{ROUTE}request = {{ all = "$messages" }}\n{text}\n')
    result = invoke("check")
    assert result.exit_code == 0
    says = "gateway.toml:5: warning: routes.chat.request: the gateway keeps the conversation with"
    assert result.stderr.startswith(says) is warns
    assert bool(result.stderr) is warns


@pytest.mark.usefixtures("keys")
def test_check_warns_where_any_name_of_a_proxy_is_the_gateways_own() -> None:
    server = '[server]\ntrusted_proxies = ["127.0.0.1"]\n'
    Path("gateway.toml").write_text(f"{server}{ROUTE}")
    result = invoke("check")
    assert result.exit_code == 0
    assert result.stderr == (
        "gateway.toml:2: warning: server.trusted_proxies: without public_url, pages of every "
        "host name that leads to the proxy may connect, including names that others have pointed "
        'at it; set public_url, such as "https://chat.example.com"\n'
        '    trusted_proxies = ["127.0.0.1"]\n'
    )
    Path("gateway.toml").write_text(f'{server}public_url = "https://chat.example.com"\n{ROUTE}')
    assert not invoke("check").stderr


STORE = """[store]
kind = "valkey"
url = "valkey://127.0.0.1:{}"
encryption_key_file = "store.key"
"""


@pytest.mark.usefixtures("keys")
def test_check_looks_for_the_store_and_its_key() -> None:
    Path("gateway.toml").write_text(STORE.format(free_port()) + ROUTE)
    result = invoke("check", "--offline")
    assert result.exit_code == 2
    assert result.output.startswith("gateway.toml:4: store.encryption_key_file: store.key: No such")
    Path("store.key").write_text("A" * 43 + "=\n")
    assert invoke("check", "--offline").output.startswith("route chat")
    result = invoke("check")
    assert result.exit_code == 0
    says = "gateway.toml:3: warning: store.url: can't be used (Error 111 connecting to"
    assert result.stderr.startswith(says)


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(("history", "warns"), [("", True), ('history = "model"', False)])
def test_check_warns_of_a_chat_that_forgets(history: str, warns: bool) -> None:
    chat = 'format = "openai-chat"\nrequest = { messages = [{ content = "$text" }] }\n'
    Path("gateway.toml").write_text(f"{ROUTE}{chat}{history}\n")
    result = invoke("check")
    assert result.exit_code == 0
    says = (
        "gateway.toml:6: warning: routes.chat.request: contains neither $messages nor $transcript"
    )
    assert result.stderr.startswith(says) is warns
    assert bool(result.stderr) is warns


@pytest.mark.parametrize(
    "arguments",
    [("serve", "--host", "0.0.0.0"), ("local", "--host", "0.0.0.0"), ("local", "--host", "x")],
)
def test_only_this_machine_is_served(arguments: tuple[str, ...]) -> None:
    Path("gateway.toml").write_text(ROUTE)
    result = invoke(*arguments)
    assert result.exit_code != 0
    assert "must be a loopback address" in result.output


@pytest.mark.parametrize("command", ["serve", "local", "demo"])
def test_a_port_in_use(command: str) -> None:
    Path("gateway.toml").write_text(ROUTE)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = invoke(command, "--port", port)
    assert result.exit_code == 1
    assert f"can't listen on 127.0.0.1, port {port}: Address already in use. " in result.output
    assert "choose another with --port (0: any free)" in result.output
    assert "Loading" not in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["serve", "local", "demo"])
def test_a_port_that_is_none(command: str) -> None:
    Path("gateway.toml").write_text(ROUTE)
    for port in ("70000", "-1"):
        result = invoke(command, "--port", port)
        assert result.exit_code == 2
        assert f"{port} is not in the range 0<=x<=65535" in result.output
    assert "'x' is not a valid whole number" in invoke(command, "--port", "x").output


CONTAINER = "--container=http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--lose", "i-9"], "there is no instance i-9; the instances are i-1, i-2."),
        ([CONTAINER, "--lose", "i-2"], "there is no instance i-2; the instances are i-1."),
        (["--container", "127.0.0.1:80"], "got 127.0.0.1:80; did you mean http://127.0.0.1:80?"),
        (["--container", "localhost"], "expected an address such as http://127.0.0.1:8080"),
        (["--container", "http://"], "expected an address such as"),
        (["--container", "http://[::1"], "expected an address such as"),
        (["--container", "ftp://host"], "expected an address such as"),
        (["--endpoint", "a b"], "expected 1 to 63 letters, digits and hyphens"),
        (["--endpoint", "a" * 64], "expected 1 to 63 letters, digits and hyphens"),
        (["--region", ""], "expected 1 to 63 letters, digits and hyphens"),
        (["--access-key", "a/b"], "without spaces, commas and slashes"),
        (["--secret-key", "a b"], "expected printable characters, without spaces."),
        (["--session-seconds", "nan"], "'nan' is not a number of seconds"),
        (["--session-seconds", "0"], "is not in the range 0<x<=86400"),
        (["--delay", "-1"], "is not in the range 0<=x<=86400"),
        (["--delay-parts", "inf"], "is not in the range 0<=x<=86400"),
        (["--max-sessions", "0"], "is not in the range 1<=x<=1000000"),
        (["--fail", "ModelError", "--fail-times", "-1"], "is not in the range 1<=x<=1000000"),
        (["--model-file", "/"], "is a directory"),
        ([CONTAINER, "--instances", "2"], "--instances can't be combined with --container."),
        ([CONTAINER, "--model", "builtin"], "--model can't be combined with --container."),
        ([CONTAINER, "--dialect", "torchserve"], "--dialect needs the built-in model."),
        (["--model", "language", "--expires", "naive"], "--expires needs the built-in model."),
        (["--model-file", __file__], "--model-file needs --model language."),
        (["--fail-times", "2"], "--fail-times needs --fail or --break-after-parts."),
        (["--break-mode", "cut"], "--break-mode needs --break-after-parts."),
        (["--part-seed", "1"], "--part-seed needs --part-bytes."),
    ],
)
def test_wrong_options_of_local(arguments: list[str], says: str) -> None:
    result = invoke("local", "--port", "0", *arguments)
    assert result.exit_code == 2
    assert says in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_local_reads_its_models_file_first() -> None:
    Path("broken.gguf").write_bytes(b"nothing of the kind")
    result = invoke("local", "--port", "0", "--model", "language", "--model-file", "broken.gguf")
    assert result.exit_code == 2
    assert "llama.cpp can't load broken.gguf" in result.output


@pytest.mark.usefixtures("keys")
def test_no_region() -> None:
    Path("gateway.toml").write_text('[routes.chat]\nendpoint_name = "e"\n')
    result = invoke("serve", "--port", "0")
    assert result.exit_code == 2
    assert 'set one, such as region = "us-east-1", or set AWS_DEFAULT_REGION' in result.output
    assert "Traceback" not in result.output
