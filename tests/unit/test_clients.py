"""docs/clients.md names what the clients have: options, exports, arguments."""

import inspect
import re
from pathlib import Path

import pytest

import gateway.client
from gateway.client import sync

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "clients.md").read_text()
PROSE = re.sub(r"^```.*?^```", "", TEXT, flags=re.DOTALL | re.MULTILINE)
NAMED = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", PROSE))))
STATIC = ROOT / "static"


def properties(module: Path, typedef: str) -> set[str]:
    """Those of a type in JSDoc."""
    (block,) = re.findall(
        rf"@typedef \{{object\}} {typedef}\b(.*?)\*/", module.read_text(), re.DOTALL
    )
    return set(re.findall(r"@property \{.*\} \[?(\w+)", block))


def exported(module: Path) -> set[str]:
    """The values and types that a module exports."""
    source = module.read_text()
    lists = re.findall(r"^export \{(.*?)\}", source, re.DOTALL | re.MULTILINE)
    types = re.findall(r"^/\*\* @typedef \{.*\} (\w+) \*/$", source, re.MULTILINE)
    return {name for each in lists for name in re.findall(r"\w+", each)} | set(types)


@pytest.mark.parametrize(
    ("names", "least"),
    [
        (properties(STATIC / "client" / "types.js", "Options"), "storage"),
        (exported(STATIC / "client.js"), "SessionClient"),
        (properties(ROOT / "clients" / "js" / "react.js", "Session"), "turns"),
        (set(gateway.client.__all__), "Reply"),
        (set(sync.__all__), "connect"),
        (set(inspect.signature(sync.connect).parameters), "resume"),
    ],
    ids=["options", "package", "hook", "python", "sync", "connect"],
)
def test_the_document_names_all_of(names: set[str], least: str) -> None:
    assert least in names
    assert names - NAMED == set()
