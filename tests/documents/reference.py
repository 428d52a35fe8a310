"""``python -m tests.documents.reference`` writes the documents of this folder from the code."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from tests.documents import commands, events, javascript_api, python_api

DOCS = Path(__file__).parents[2] / "docs"
WRITTEN: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {
        "commands.md": commands.written,
        "events.md": events.written,
        "javascript.md": javascript_api.written,
        "python.md": python_api.written,
    }
)
"""The documents of this folder, and what makes each from the one that there is."""

if __name__ == "__main__":
    for name, written in WRITTEN.items():
        file = DOCS / name
        file.write_text(written(file.read_text() if file.exists() else ""))
