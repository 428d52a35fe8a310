"""The wheel in an empty environment, and the sdist: what ``pip install`` gives works by itself."""

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.processes import Process
from tests.support.timing import UNIT

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
UV = [sys.executable, "-m", "uv", "--quiet", "--no-config"]
CONFIG = """
[aws]
region = "us-east-1"
endpoint_url = "{url}"

[routes.chat]
endpoint_name = "my-endpoint"
format = "plain"
"""
PROGRAM = """
import gateway, sys
from gateway.client.sync import connect

with connect(sys.argv[1]) as session:
    session.send("My name is Ada.").result()
    print(session.send("What is my name?").result().text)
print(gateway.__file__)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([*UV, "build", "--out-dir", folder, ROOT], check=True)
    return folder


@pytest.fixture(scope="module")
def programs(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel and what it depends on, without extras."""
    folder = tmp_path_factory.mktemp("environment")
    (wheel,) = built.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    programs = folder / "bin"
    subprocess.run([programs / "pip", "install", "--quiet", wheel], check=True)
    subprocess.run([programs / "pip", "check"], check=True, stdout=subprocess.DEVNULL)
    return programs


@contextmanager
def running(folder: Path, *command: str | Path) -> Iterator[Process]:
    process = Process([str(word) for word in command], cwd=folder)
    try:
        yield process
    finally:
        process.stop()


def page_of(url: str) -> None:
    """It is there, with its modules."""
    with httpx.Client(base_url=url, timeout=20 * UNIT) as http:
        assert "<!doctype html>" in http.get("/").text.lower()
        for module in (ROOT / "static").rglob("*.js"):
            path = f"/static/{module.relative_to(ROOT / 'static')}"
            assert http.get(path).content == module.read_bytes()


def test_it_serves_and_chats(programs: Path, tmp_path: Path) -> None:
    command = programs / "session-gateway"
    with running(tmp_path, command, "local", "--port", "0") as platform:
        (tmp_path / "gateway.toml").write_text(CONFIG.format(url=platform.url))
        with running(tmp_path, command, "serve", "--port", "0") as gateway:
            page_of(gateway.url)
            chat = subprocess.run(
                [command, "chat", gateway.url],
                cwd=tmp_path,
                input="My name is Ada.\nWhat is my name?\n",
                capture_output=True,
                text=True,
                check=True,
            )
            assert "Your name is Ada." in chat.stdout
            program = [str(programs / "python"), "-c", PROGRAM, f"{gateway.websocket}/ws"]
            out = subprocess.run(
                program, cwd=tmp_path, capture_output=True, text=True, check=True
            ).stdout
            said, place = out.splitlines()
            assert "Your name is Ada." in said
            assert Path(place).is_relative_to(programs.parent)


def test_the_demonstration(programs: Path, tmp_path: Path) -> None:
    command = programs / "session-gateway"
    with running(tmp_path, command, "demo", "--builtin", "--port", "0") as process:
        # The address of the page comes after that of the local SageMaker.
        url = next(line for line in reversed(process.lines) if "http://" in line)
        page_of(url[url.index("http://") :].strip().split()[0])


def test_the_sdist_holds_the_clients(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    listing = ["git", "ls-files", "clients", "static", "gateway", "tsconfig.json"]
    tracked = subprocess.run(
        listing, cwd=ROOT, env={"PATH": os.environ["PATH"]}, capture_output=True, check=True
    )
    assert set(tracked.stdout.decode().split()) <= names
    assert not [name for name in names if "node_modules" in name or "/dist/" in name]
