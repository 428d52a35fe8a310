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
_KEY = re.compile(r"[A-Za-z0-9_-]{1,32}(\s*\.\s*[A-Za-z0-9_-]{1,32})*")
_HEADER = re.compile(rf"\[{{1,2}}\s*{_KEY.pattern}\s*\]{{1,2}}")


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

    def __repr__(self) -> str:
        return f"<Statement of line {self.number}>"


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


def shown(line: str, *, known: bool, plain: bool = True) -> str:
    """A line with ``…`` for each value that could be a secret, and without its comment.

    Args:
        line: As it stands in the file.
        known: Whether its key is a setting's, or like one; else the key alone is shown.
        plain: Whether words and numbers may be shown too. In a table they are not, only keys.
    """
    if header := _HEADER.match(line.strip()):
        return header[0]
    key, equals, value = line.strip().partition("=")
    if not equals or not _KEY.fullmatch(key.rstrip()):
        return "…"
    if not known or "\\" in value or '"""' in value or "'''" in value:
        return f"{key}= …"
    tokens = list(_TOKEN.finditer(value))
    plain = plain and all(token[0] != "{" for token in tokens)
    return key + equals + "".join(_shown_token(token, plain) for token in tokens).rstrip()


def _shown_token(token: re.Match[str], plain: bool) -> str:
    text = token[0]
    if text.startswith("#"):
        return ""
    if text in "[]{},= \t":
        return text
    quote = text[0] if text[0] in "\"'" and len(text) > 1 else ""
    is_key = token.string[token.end() :].lstrip().startswith("=")
    if (plain or is_key) and _WORD.fullmatch(text.strip(quote) if quote else text):
        return text
    return f"{quote}…{quote}"


def _only_path(tree: Any) -> Location:
    """The keys that a header names."""
    path: list[str] = []
    while isinstance(tree, dict) and tree:
        (key,) = tree
        path.append(key)
        tree = tree[key]
    return tuple(path)
