"""The licences of what the image ships, as the packages state them. Run, this writes the list."""

import importlib.metadata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.packaging.locks import pins, version
from tests.packaging.vendor import Vendored, vendored

LIST = Path(__file__).parents[2] / "docs" / "licences.md"

INTRODUCTION = """\
# Licences

What the image ships besides the gateway, which is under Apache-2.0: the versions that
`requirements.lock` has for it, each with the licence that its own metadata states. The texts that
packages bring are in the image beside them. `make licences` writes this list, and a test holds it
to the lock.

| package | version | licence |
| --- | --- | --- |
"""

OF_PAGES = """
What the pages ship is in `static/vendor`, file by file as npm's packages have it, with their
licences; `packages.json` there says which file is whose, and `make vendor` takes them anew.

| package | version | licence |
| --- | --- | --- |
"""

IMAGE = {
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": "3.13.0",
    "python_version": "3.13",
    "sys_platform": "linux",
}
"""The system of the image, for the lock's markers."""

CLASSIFIER = "License :: OSI Approved :: "
NAMES = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
"""What classifiers call licences, and SPDX does."""


class Shipped(NamedTuple):
    """A package of the image."""

    name: str
    version: str
    licence: str


def shipped() -> Iterator[Shipped]:
    """All of them, by name.

    Raises:
        PackageNotFoundError: One is not installed here, or in another version.
    """
    for name, locked in sorted(pins("requirements.lock").items()):
        for pin in locked:
            if pin.marker is None or pin.marker.evaluate(IMAGE):
                found = importlib.metadata.version(name)
                assert found == version(pin), f"{pin} is locked, and {found} installed: make test"
                yield Shipped(name, found, licence(importlib.metadata.metadata(name)))


def licence(stated: importlib.metadata.PackageMetadata) -> str:
    """What a package's metadata says; the newest field for it that there is."""
    if "License-Expression" in stated:
        return stated["License-Expression"]
    classifiers = stated.get_all("Classifier") or []
    named = [each.removeprefix(CLASSIFIER) for each in classifiers if each.startswith(CLASSIFIER)]
    return " and ".join(NAMES[each] for each in named) or stated["License"]


def listed() -> str:
    """The list."""

    def rows(found: Iterable[Shipped | Vendored]) -> str:
        return "".join(f"| {each.name} | {each.version} | {each.licence} |\n" for each in found)

    return INTRODUCTION + rows(shipped()) + OF_PAGES + rows(vendored())


if __name__ == "__main__":
    LIST.write_text(listed())
