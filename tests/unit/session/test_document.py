"""docs/sessions.md shows the table as it is. Run as a module, this writes it there."""

import re
from enum import Enum
from pathlib import Path

from gateway.session.events import Timer
from gateway.session.session import Session
from gateway.session.table import TABLE

DOCUMENT = Path(__file__).parents[3] / "docs" / "sessions.md"
TABLE_IN_DOCUMENT = re.compile(r"(?<=<!-- table -->\n).*(?=<!-- /table -->)", re.DOTALL)


def names(states: list[Enum] | frozenset[Enum]) -> str:
    return ", ".join(sorted(str(state.value) for state in states))


def printed() -> str:
    rows: dict[tuple[str, str, str], list[Enum]] = {}
    for (state, event), transition in TABLE.items():
        doc = getattr(Session, f"_{transition.action}").__doc__.rstrip(".")
        then = "the same" if transition.to == {state} else names(frozenset(transition.to))
        rows.setdefault((event.__name__, doc, then), []).append(state)
    lines = ["| event | while | does | then |", "| --- | --- | --- | --- |"]
    for (name, doc, then), states in rows.items():
        lines.append(f"| `{name}` | {names(states)} | {doc} | {then} |")
    return "\n".join(lines) + "\n"


def test_the_table_in_the_document_is_the_tables() -> None:
    found = TABLE_IN_DOCUMENT.search(DOCUMENT.read_text())
    assert found is not None
    assert found.group() == printed()


def test_every_timer_is_in_the_document() -> None:
    text = DOCUMENT.read_text()
    assert all(f"| `{timer.value}` |" in text for timer in Timer)


if __name__ == "__main__":
    DOCUMENT.write_text(TABLE_IN_DOCUMENT.sub(lambda _: printed(), DOCUMENT.read_text()))
