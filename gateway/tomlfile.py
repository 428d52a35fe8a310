"""A TOML file by its lines: which of them says what, and as much of it as may be shown.

`tomllib` gives values without their places. A statement of TOML can be read by itself, so each is
read again here until what it says is what was asked for.
"""

import re
import tomllib
from collections.abc import Iterator
from typing import Any, NamedTuple

Location = tuple[str | int, ...]
Tree = dict[str, Any]

_TOKEN = re.compile(r""""[^"]*"|'[^']*'|\#.*|[][{},=\s]|[^][{},=\s"'\#]+|.""")
_WORD = re.compile(
    r"[A-Za-z_-]{1,20}|(?=.{1,32}$)[a-z]+([-_./+][a-z0-9]{1,12})*|[-+]?[0-9._]{1,12}"
)


class Statement(NamedTuple):
    """One statement of a file.

    Attributes:
        number: Of its first line, from 1.
        line: That line.
        says: What the file would be with this statement alone.
    """

    number: int
    line: str
    says: Tree


def statements(text: str) -> Iterator[Statement]:
    """The statements of a file that is TOML."""
    lines = text.replace("\r\n", "\n").split("\n")
    table: Location = ()
    start = 0
    for end in range(1, len(lines) + 1):
        try:
            says = tomllib.loads("\n".join(lines[start:end]))
        except ValueError:
            continue  # it goes on in the next line
        if lines[start].lstrip().startswith("["):
            table = _only_path(says)
        else:
            for key in reversed(table):
                says = {str(key): says}
        yield Statement(start + 1, lines[start], says)
        start = end


def holds(tree: Any, location: Location) -> bool:
    """Whether something is there; the items of a list are where the list is."""
    for key in location:
        if not isinstance(tree, dict):
            return True
        if key not in tree:
            return False
        tree = tree[key]
    return True


def shown(line: str, *, known: bool) -> str:
    """A line with ``…`` for each value that could be a secret, and without its comment.

    Args:
        line: As it stands in the file.
        known: Whether its key is a setting's, or like one: then words and numbers are shown.
    """
    key, equals, value = line.strip().partition("=")
    if not equals:
        return key if key.startswith("[") else "…"
    if not known or "\\" in value or '"""' in value or "'''" in value:
        return f"{key}= …"
    tokens = (found[0] for found in _TOKEN.finditer(value))
    return key + equals + "".join(map(_shown_token, tokens)).rstrip()


def _shown_token(token: str) -> str:
    quote = token[0]
    if quote in "\"'" and len(token) > 1:
        return token if _WORD.fullmatch(token[1:-1]) else f"{quote}…{quote}"
    if quote == "#":
        return ""
    return token if quote in "[]{},= \t" or _WORD.fullmatch(token) else "…"


def _only_path(tree: Any) -> Location:
    """The keys that a header names."""
    path: list[str] = []
    while isinstance(tree, dict) and tree:
        (key,) = tree
        path.append(key)
        tree = tree[key]
    return tuple(path)
