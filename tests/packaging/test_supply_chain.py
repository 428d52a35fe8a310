"""What is shipped: its licences are listed, and its weaknesses are asked for."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.packaging.licences import LIST, listed, shipped
from tests.packaging.locks import ROOT, pins

PERMISSIVE = {
    "0BSD",
    "Apache-2.0",
    "BSD",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "MIT-0",
    "PSF-2.0",
}
"""Licences that ask for no more than to be named."""


def test_the_licences_are_listed() -> None:
    assert LIST.read_text() == listed(), "run `make licences`"


def test_no_licence_asks_for_more() -> None:
    for each in shipped():
        names = re.split(r" (?:AND|OR|and) ", each.licence)
        assert PERMISSIVE.issuperset(names), each


def test_what_lists_the_image_is_what_is_tested() -> None:
    everything = pins("requirements-dev.lock")
    for name, locked in pins("requirements-sbom.lock").items():
        assert [str(pin.specifier) for pin in locked] == [
            str(pin.specifier) for pin in everything[name]
        ]


def test_an_audit_that_can_not_ask_does_not_pass(tmp_path: Path) -> None:
    """From a program that is there and asks an address where nobody listens."""
    nowhere = "http://127.0.0.1:9"
    environment = {
        **os.environ,
        "HTTPS_PROXY": nowhere,
        "https_proxy": nowhere,
        "NO_PROXY": "",
        "no_proxy": "",
        "XDG_CACHE_HOME": str(tmp_path),
        "HOME": str(tmp_path),
    }
    (recipe,) = re.findall(
        r"^audit: .*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    command = recipe.replace("$(BIN)", str(Path(sys.executable).parent)).replace("\t@", "")
    done = subprocess.run(
        command, shell=True, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Not audited, or not passed" in done.stderr
