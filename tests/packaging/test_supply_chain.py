"""What is shipped: its licences are listed, and its weaknesses are asked for."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.licences import LIST, listed, shipped
from tests.packaging.locks import ROOT, pins
from tests.packaging.vendor import VENDOR, Vendored, taken, vendored

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
    stated = {each.name: each.licence for each in shipped()}
    stated |= {each.name: each.licence for each in vendored()}
    for name, licence in stated.items():
        assert PERMISSIVE.issuperset(re.split(r" (?:AND|OR|and) ", licence)), name


def test_what_the_pages_ship_is_what_was_taken() -> None:
    there = {file.relative_to(VENDOR).as_posix() for file in VENDOR.rglob("*") if file.is_file()}
    files = {name: copied for each in vendored() for name, copied in each.files.items()}
    assert there == {"packages.json", *files}
    for name, copied in files.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == copied.sha256, name
    for each in vendored():
        assert any(copied.path == "LICENSE" for copied in each.files.values()), each.name


@pytest.mark.long
@pytest.mark.parametrize("package", vendored(), ids=lambda package: package.name)
def test_what_the_pages_ship_is_what_npm_has(package: Vendored) -> None:
    for name, content in taken(package).items():
        assert (VENDOR / name).read_bytes() == content, name


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
