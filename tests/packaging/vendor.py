"""What the pages ship of npm's packages, in `static/vendor`, unchanged.

Run, this takes the versions that `packages.json` there names anew, and writes down what was taken.
"""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import msgspec

VENDOR = Path(__file__).parents[2] / "static" / "vendor"
LIST = VENDOR / "packages.json"


class Copied(msgspec.Struct, frozen=True):
    """A file of a package.

    Attributes:
        path: Where the package has it.
        sha256: What it is.
    """

    path: str = msgspec.field(name="from")
    sha256: str


class Vendored(msgspec.Struct, frozen=True):
    """A package, and those of its files that are in `VENDOR`, by their names there."""

    name: str
    version: str
    licence: str
    files: dict[str, Copied]


def vendored() -> list[Vendored]:
    """All of them."""
    return msgspec.json.decode(LIST.read_bytes(), type=list[Vendored])


def taken(package: Vendored) -> dict[str, bytes]:
    """Those files as npm has them, by their names in `VENDOR`."""
    npm = [str(Path(sys.executable).with_name("npm")), "pack", "--silent"]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*npm, f"{package.name}@{package.version}"], cwd=folder, check=True)
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as files:
            return {name: _read(files, copied.path) for name, copied in package.files.items()}


def _read(files: tarfile.TarFile, path: str) -> bytes:
    file = files.extractfile(f"package/{path}")
    if file is None:
        raise ValueError(f"{path} is no file")
    return file.read()


def main() -> None:
    """Take all of them, and write the list."""
    packages = []
    for package in vendored():
        files = {}
        for name, content in taken(package).items():
            (VENDOR / name).parent.mkdir(parents=True, exist_ok=True)
            (VENDOR / name).write_bytes(content)
            path = package.files[name].path
            files[name] = Copied(path=path, sha256=hashlib.sha256(content).hexdigest())
        packages.append(msgspec.structs.replace(package, files=files))
    LIST.write_bytes(msgspec.json.format(msgspec.json.encode(packages), indent=2) + b"\n")


if __name__ == "__main__":
    main()
