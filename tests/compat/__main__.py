"""``python -m tests.compat``: whether the versions that pyproject.toml names are true.

The tests run in environments of their own, which are removed afterwards: with the lowest version of
each direct dependency on the oldest Python, and with the newest of all on each other one that this
machine has; the oldest with the locked versions is what ``make test`` runs. The tools of the tests
are the newest everywhere, and warnings are errors as ever. ``--short`` leaves out the Pythons
between the oldest and the newest.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = ".[demo,otel,test]"
SUITE = (
    "tests/unit",
    "tests/contract",
    "tests/integration/test_conversation.py",
    "tests/integration/test_shutdown.py",
    "tests/integration/test_streaming.py",
)
UV = (sys.executable, "-m", "uv", "--quiet", "--no-config")
SHOWN = 40
"""How many lines of a failure's output are printed."""


class Python(NamedTuple):
    """An interpreter."""

    version: tuple[int, ...]
    path: Path

    @property
    def minor(self) -> str:
        """Its version without the last number, which the libraries do not tell apart."""
        return ".".join(map(str, self.version[:2]))


class Cell(NamedTuple):
    """One of the environments."""

    python: Python
    resolution: Literal["lowest-direct", "highest"]


def pythons() -> list[Python]:
    """The latest of each minor version that may run the gateway, from the oldest one."""
    supported = SpecifierSet(PROJECT["requires-python"])
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    places = [*os.get_exec_path(), *map(str, root.glob("versions/*/bin"))]
    named = (Path(place) / f"python3.{minor}" for place in places for minor in range(100))
    found: dict[str, Python] = {}
    for path in [Path(sys.executable), *filter(Path.is_file, named)]:
        python = _asked(path)
        if python is not None and supported.contains(python.minor):
            found[python.minor] = max(found.get(python.minor, python), python)
    return sorted(found.values())


def _asked(path: Path) -> Python | None:
    """What an interpreter says of itself; None where it is a wrapper without one behind it."""
    script = "import sys; print(*sys.version_info[:3], sys.implementation.name)"
    done = subprocess.run([path, "-c", script], capture_output=True, text=True, check=False)
    *version, implementation = done.stdout.split() or [""]
    if done.returncode != 0 or implementation != "cpython":
        return None
    return Python(tuple(map(int, version)), path)


def run(cell: Cell, folder: Path) -> str:
    """Run the tests in an environment; returns what pytest says of them in the end.

    Raises:
        subprocess.CalledProcessError: The environment can't be made, or a test fails.
    """
    versions, environment = str(folder / "versions.txt"), folder / "environment"
    python = str(environment / "bin" / "python")
    resolved = ("--resolution", cell.resolution, "--python-version", cell.python.minor)
    _checked(*UV, "pip", "compile", "pyproject.toml", *resolved, "--output-file", versions)
    _checked(*UV, "venv", "--python", str(cell.python.path), str(environment))
    into = ("--python", python, "--constraint", versions)
    _checked(*UV, "pip", "install", *into, "--editable", EXTRAS)
    workers = str(2 * len(os.sched_getaffinity(0)))
    distributed = ("-n", workers, "--dist", "worksteal")
    output = _checked(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *distributed, *SUITE)
    return output.splitlines()[-1]


def _checked(*command: str) -> str:
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    return done.stdout


def main() -> int:
    """Fill the matrix and print it; returns the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and clean up
    oldest, *others = pythons()
    if "--short" in sys.argv:
        others = others[-1:]
    cells = [Cell(oldest, "lowest-direct"), *(Cell(python, "highest") for python in others)]
    lines, failed = ["Python   resolution     result"], False
    for cell in cells:
        begun = time.monotonic()
        try:
            with tempfile.TemporaryDirectory(prefix="session-gateway-compat-") as folder:
                result = run(cell, Path(folder))
        except subprocess.CalledProcessError as error:
            failed = True
            print(*str(error.output).splitlines()[-SHOWN:], sep="\n")  # noqa: T201
            result = "failed"
        version, seconds = ".".join(map(str, cell.python.version)), time.monotonic() - begun
        lines.append(f"{version:8} {cell.resolution:14} {result}, {seconds:.0f} s with installing")
        print(lines[-1], flush=True)  # noqa: T201
    print("", *lines, sep="\n")  # noqa: T201
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
