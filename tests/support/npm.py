"""The JavaScript client as its users have it: packed, and installed from that.

It is made once in a run of the tests, whichever worker comes first.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from playwright._impl._driver import compute_driver_executable

from tests.support.timing import UNIT

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "clients" / "js"
BIN = Path(sys.executable).parent
MODULES = Path(sys.prefix) / "node_modules"
OLDEST = str(BIN / "node")
NEWEST = str(compute_driver_executable()[0])
"""The Node that Playwright brings, which has a ``WebSocket``."""
MADE = shutil.ignore_patterns("node_modules", "dist", "LICENSE")


def command(*words: str, cwd: Path) -> str:
    """What a command of Node's writes; it must succeed."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        words,
        cwd=cwd,
        env={"PATH": path, "HOME": str(Path.home()), "npm_config_update_notifier": "false"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60 * UNIT,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def tsc(*arguments: str, cwd: Path) -> str:
    """What the compiler says; it must be content."""
    compiler = MODULES / "typescript" / "bin" / "tsc"
    return command(OLDEST, str(compiler), *arguments, cwd=cwd)


def link(project: Path, packages: Sequence[str]) -> None:
    """Give a project these packages, as if they were installed there."""
    for name in packages:
        place = project / "node_modules" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(MODULES / name)


def packed(factory: pytest.TempPathFactory) -> Path:
    """A folder with the tarball, and the project ``app`` that it is installed in."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "npm"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "app").exists():
            _pack(folder)
    return folder


def _pack(folder: Path) -> None:
    sources = folder / "sources"
    shutil.copytree(ROOT / "static", sources / "static")
    shutil.copytree(CLIENT, sources / "clients" / "js", ignore=MADE)
    shutil.copy(ROOT / "LICENSE", sources)
    package = sources / "clients" / "js"
    (package / "node_modules").symlink_to(MODULES)
    command("npm", "pack", "--silent", "--pack-destination", str(folder), cwd=package)
    (tarball,) = folder.glob("*.tgz")
    app = folder / "installing"
    app.mkdir()
    (app / "package.json").write_text('{ "private": true, "type": "module" }')
    install = ("npm", "install", "--silent", "--offline", "--no-audit", "--no-fund")
    command(*install, str(tarball), cwd=app)
    app.rename(folder / "app")
