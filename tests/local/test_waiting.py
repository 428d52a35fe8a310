"""What is shown while models load."""

import io
import re

import pytest
from rich.console import Console

from gateway.local.waiting import waiting


def shown(file: io.StringIO, *, terminal: bool, fails: bool = False) -> str:
    """What a wait in two steps writes."""
    console = Console(file=file, force_terminal=terminal, width=200)
    with waiting("Loading [a].gguf", 2, "Loaded [a].gguf", console) as loaded:
        loaded()
        if fails:
            raise OSError("no room")
        loaded()
    return file.getvalue()


def test_a_bar_on_a_terminal() -> None:
    text = shown(io.StringIO(), terminal=True)
    for says in ("Loading [a].gguf", "2/2", "0:00:0", "━"):
        assert says in text
    assert re.search(r"Loaded \[a\]\.gguf in \d+\.\d s\.\n$", text)


def test_two_lines_elsewhere() -> None:
    text = shown(io.StringIO(), terminal=False)
    assert re.fullmatch(r"Loading \[a\]\.gguf …\nLoaded \[a\]\.gguf in \d+\.\d s\.\n", text)


@pytest.mark.parametrize("terminal", [True, False])
def test_what_fails_is_not_done(terminal: bool) -> None:
    file = io.StringIO()
    with pytest.raises(OSError, match="no room"):
        shown(file, terminal=terminal, fails=True)
    assert "Loading" in file.getvalue()
    assert "Loaded" not in file.getvalue()
