"""Tables in documents, of which the code says some columns and a person the last one."""

import re
from collections.abc import Iterable, Sequence


def part(document: str, name: str) -> str:
    """What stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``."""
    found = re.search(rf"<!-- {re.escape(name)} -->\n(.*?)<!-- /", document, re.DOTALL)
    if found is None:
        raise LookupError(f"no such part: {name}")
    return found[1]


def replaced(document: str, name: str, text: str) -> str:
    """The document with another text in that place."""
    return document.replace(
        f"<!-- {name} -->\n{part(document, name)}<!-- /", f"<!-- {name} -->\n{text}<!-- /", 1
    )


def rows(table: str) -> list[list[str]]:
    """The cells of a table, without its head."""
    lines = [line for line in table.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def table(head: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def merged(document: str, name: str, head: Sequence[str], known: Iterable[Sequence[str]]) -> str:
    """The document with a table whose last column stays what it was, by the first one.

    Args:
        document: With the part of this name.
        name: Of the part.
        head: Of all columns.
        known: The rows that the code says, without the last cell.
    """
    said = {row[0]: row[-1] for row in rows(part(document, name)) if len(row) == len(head)}
    cells = [[*row, said.get(row[0], "")] for row in known]
    return replaced(document, name, table(head, cells))
