"""The test suite itself: a program for Python 2.7, in an environment of its own."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

VERSION = "25.10.1"
"""Of autobahntestsuite."""

VIRTUALENV = "20.15.1"
"""The last version of virtualenv that makes environments for Python 2.7."""

AGENT = "session-gateway"
"""What the gateway is called in the reports."""

PLACE = Path(sys.prefix) / f"autobahn-{VERSION}"
"""Where the suite is installed: inside this environment, so that both go together."""

RUN_SECONDS = 1800
"""How long all cases may take; most of a minute is usual."""

_PLANNED = re.compile(r"will run (\d+) test cases")


class SuiteError(Exception):
    """The suite could not be installed, or did not come to its end."""


def find_python() -> Path | None:
    """CPython 2.7: what ``AUTOBAHN_PYTHON`` names, or one on the path, or one of pyenv's.

    Raises:
        SuiteError: What ``AUTOBAHN_PYTHON`` names is none.
    """
    named = os.environ.get("AUTOBAHN_PYTHON")
    if named:
        found = shutil.which(named)
        if found is None or not _is_python_27(Path(found)):
            raise SuiteError(f"AUTOBAHN_PYTHON is no CPython 2.7: {named}")
        return Path(found)
    return next(filter(_is_python_27, _candidates()), None)


def _candidates() -> Iterator[Path]:
    for place in os.get_exec_path():
        yield Path(place) / "python2.7"
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted(root.glob("versions/2.7*/bin/python2.7"), reverse=True)


def _is_python_27(path: Path) -> bool:
    """Whether it runs, and is that: pyenv has wrappers without anything behind them."""
    script = "from platform import *; print(python_implementation() + python_version())"
    try:
        done = subprocess.run([path, "-c", script], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.returncode == 0 and done.stdout.startswith("CPython2.7.")


def install(python: Path) -> Path:
    """Install the suite, unless it is; returns its program.

    Args:
        python: A Python 2.7.

    Raises:
        SuiteError: That failed.
    """
    program = PLACE / "bin" / "wstest"
    if not program.exists():  # it is written when all it needs is installed
        uv = (sys.executable, "-m", "uv", "--quiet", "--no-config", "tool", "run")
        virtualenv = ("--from", f"virtualenv=={VIRTUALENV}", "virtualenv", "--quiet", "--clear")
        _checked(*uv, "--python", sys.executable, *virtualenv, "--python", python, PLACE)
        pip = (PLACE / "bin" / "python", "-m", "pip", "install", "--quiet")
        _checked(*pip, f"autobahntestsuite=={VERSION}")
    return program


def _checked(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SuiteError(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")


def run(
    program: Path, url: str, cases: Sequence[str], excluded: Iterable[str], folder: Path
) -> Mapping[str, Mapping[str, Any]]:
    """Run cases; returns what the suite's index says of each.

    Args:
        program: The suite's.
        url: A WebSocket that echoes.
        cases: Which ones, such as ``6.*``.
        excluded: Which of these not.
        folder: Where the reports go, ``index.html`` first.

    Raises:
        SuiteError: It did not run all of them.
    """
    specification = {
        "outdir": str(folder),
        "servers": [{"agent": AGENT, "url": url}],
        "cases": cases,
        "exclude-cases": [*excluded],
        "exclude-agent-cases": {},
    }
    file = folder / "fuzzingclient.json"
    file.write_text(json.dumps(specification))
    log = folder / "wstest.log"
    with log.open("w") as output:
        try:
            done = subprocess.run(
                [program, "--mode", "fuzzingclient", "--spec", file],
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=RUN_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise SuiteError(f"{RUN_SECONDS} s are over; see {log}") from None
    index, planned = folder / "index.json", _PLANNED.search(log.read_text())
    if done.returncode or planned is None or not index.exists():
        raise SuiteError(f"wstest failed; see {log}")
    rows: dict[str, dict[str, Any]] = json.loads(index.read_text()).get(AGENT, {})
    if len(rows) != int(planned[1]):
        raise SuiteError(f"{len(rows)} of {planned[1]} cases were run; see {log}")
    return rows
