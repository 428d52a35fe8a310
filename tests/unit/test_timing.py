"""The tests' unit of time: measured once, and never less than a second."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.timing import MOST, UNIT, VARIABLE

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("given", "most"), [(None, MOST), ("7.5", 7.5), ("0.5", 0.5)])
def test_it_is_measured_unless_it_is_given(given: str | None, most: float) -> None:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    command = "from os import environ; from tests.support.timing import UNIT, VARIABLE"
    told = subprocess.run(
        [sys.executable, "-c", f"{command}; print(UNIT, environ[VARIABLE])"],
        env=environment if given is None else {**environment, VARIABLE: given},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    unit, handed_on = map(float, told.stdout.split())
    assert unit == handed_on
    assert unit == most if given else 1 <= unit <= most


def test_who_is_started_has_the_same() -> None:
    assert float(os.environ[VARIABLE]) == UNIT
