"""The Dockerfile's steps in a clean directory: no Docker here, but all that it would run."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.packaging.licences import shipped
from tests.support.processes import Process
from tests.support.timing import UNIT

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
STAGES = re.split(r"^FROM .*$", DOCKERFILE, flags=re.MULTILINE)[1:]
COMMANDS: list[str] = re.findall(r"^RUN (.*)$", STAGES[0], flags=re.MULTILINE)
CONFIG = (
    '[aws]\nregion = "us-east-1"\n[routes.chat]\nendpoint_name = "e"\n[server]\nport = {port}\n'
)


def instruction(name: str) -> str:
    """The rest of the last line of the final stage that begins so."""
    found: list[str] = re.findall(rf"^{name}\s+(.*)$", STAGES[-1], flags=re.MULTILINE)
    return found[-1]


def listed(name: str) -> list[str]:
    """An instruction's JSON list."""
    text = instruction(name)
    values: list[str] = json.loads(text[text.index("[") :])
    return values


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the build copies, and nothing else."""
    folder = tmp_path_factory.mktemp("context")
    for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", STAGES[0], flags=re.MULTILINE):
        for source in sources.split():
            if (ROOT / source).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / source, folder / source, ignore=ignored)
            else:
                shutil.copy(ROOT / source, folder / source)
    return folder


@pytest.fixture(scope="module")
def wheel(context: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, context], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(context: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of the environment that the build's own commands make."""
    folder = tmp_path_factory.mktemp("opt")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in COMMANDS:
        here = command.replace("/opt/", f"{folder}/").replace(" --no-cache-dir", "")
        subprocess.run(here, shell=True, check=True, cwd=context, env={**os.environ, "PATH": path})
    return folder / "session-gateway" / "bin"


def test_the_final_stage_is_small_and_safe() -> None:
    assert len(STAGES) == 2
    final = STAGES[-1]
    assert int(instruction("USER")) > 0
    assert not re.search(r"\b(apt|apt-get|gcc|make|pip)\b", final)
    assert instruction("STOPSIGNAL") == "SIGTERM"
    copied = {source.split()[0] for source in re.findall(r"^COPY (.*)$", final, re.MULTILINE)}
    assert copied == {"--from=build"}


def test_the_context_holds_no_more_than_the_build_copies(context: Path) -> None:
    allowed = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert allowed == {path.name for path in context.iterdir()}


def test_the_build_takes_no_version_that_is_not_locked() -> None:
    steps = [step for command in COMMANDS for step in command.split("&&") if "pip" in step]
    locked, own, sbom = (step.strip() for step in steps)
    assert locked.endswith(" --no-deps --require-hashes -r requirements.lock")
    assert own.endswith(" --no-deps .")
    assert sbom.endswith(" --no-deps --require-hashes -r requirements-sbom.lock")


def test_the_wheel_holds_the_page_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for file in (ROOT / "static").rglob("*.*"):
        assert f"gateway/static/{file.relative_to(ROOT / 'static')}" in names
    assert {"gateway/py.typed", "gateway/protocol/PROTOCOL.md"} <= set(names)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {
        "gateway",
        "session_gateway",
    }


@pytest.fixture
def server(installed: Path, tmp_path: Path) -> Iterator[Process]:
    """The image's own command, its configuration elsewhere and its port a free one."""
    config = tmp_path / "gateway.toml"
    config.write_text(CONFIG.format(port=0))
    command = [*listed("ENTRYPOINT"), *listed("CMD")]
    assert command[-2:] == ["--config", "/etc/session-gateway/gateway.toml"]
    process = Process([str(installed / command[0]), *command[1:-1], str(config)], cwd=tmp_path)
    yield process
    process.stop()


@pytest.mark.long
def test_its_command_starts_serves_the_page_and_stops(server: Process, installed: Path) -> None:
    assert "<title>session-gateway</title>" in httpx.get(server.url, timeout=20 * UNIT).text
    assert httpx.get(f"{server.url}/static/client.js", timeout=20 * UNIT).status_code == 200
    check = [part.replace("http://127.0.0.1:8080", server.url) for part in health()]
    subprocess.run([installed / check[0], *check[1:]], check=True)
    assert server.stop(signal.SIGTERM) == 0
    failed = subprocess.run([installed / check[0], *check[1:]], check=False, capture_output=True)
    assert failed.returncode != 0


@pytest.mark.long
def test_it_says_what_it_is_made_of(installed: Path) -> None:
    bill = json.loads((installed.parent / "sbom.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "session-gateway"
    parts = {part["name"].lower().replace("_", "-"): part for part in bill["components"]}
    for each in shipped():
        part = parts[each.name]
        assert part["version"] == each.version
        assert part["licenses"]


def health() -> list[str]:
    """The health check's command."""
    match = re.search(r"^HEALTHCHECK.*?CMD (\[.*\])$", STAGES[-1], flags=re.MULTILINE)
    assert match is not None
    command: list[str] = json.loads(match[1])
    return command
