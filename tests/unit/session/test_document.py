"""docs/sessions.md shows the table as it is. Run as a module, this writes it there."""

import re
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from gateway.session.events import Timer
from gateway.session.session import Session
from gateway.session.table import TABLE
from gateway.session.transitions import Cause, Table
from gateway.session.upstream import Upstream
from gateway.session.upstream_table import UPSTREAM

DOCUMENT = Path(__file__).parents[3] / "docs" / "sessions.md"
TABLES: dict[str, tuple[type, Table[Any]]] = {
    "session": (Session, TABLE),
    "upstream": (Upstream, UPSTREAM),
}


def names(states: list[Enum] | frozenset[Enum]) -> str:
    return ", ".join(sorted(str(state.value) for state in states))


def place(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<=<!-- {name} -->\n).*(?=<!-- /{name} -->)", re.DOTALL)


def name_of(cause: Cause) -> str:
    return f"timer `{cause.value}`" if isinstance(cause, Timer) else f"`{cause.__name__}`"


def printed(name: str) -> str:
    machine, table = TABLES[name]
    rows: dict[tuple[str, str, str], list[Enum]] = {}
    for (state, event), transition in table.items():
        doc = getattr(machine, f"_{transition.action}").__doc__.rstrip(".")
        then = "the same" if transition.to == {state} else names(frozenset(transition.to))
        rows.setdefault((name_of(event), doc, then), []).append(state)
    lines = ["| event | while | does | then |", "| --- | --- | --- | --- |"]
    for (cause, doc, then), states in rows.items():
        lines.append(f"| {cause} | {names(states)} | {doc} | {then} |")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", TABLES)
def test_a_table_in_the_document_is_the_machines(name: str) -> None:
    found = place(name).search(DOCUMENT.read_text())
    assert found is not None
    assert found.group() == printed(name)


def test_every_timer_is_in_the_document() -> None:
    text = DOCUMENT.read_text()
    assert all(f"| `{timer.value}` |" in text for timer in Timer)


if __name__ == "__main__":
    text = DOCUMENT.read_text()
    for name in TABLES:
        text = place(name).sub(printed(name).replace("\\", r"\\"), text)
    DOCUMENT.write_text(text)
