"""Docstrings as Markdown."""

import inspect
import re
import textwrap
from collections.abc import Sequence

SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields):$", re.MULTILINE)
TITLES = {"Args": "Arguments", "Raises": "Raises", "Attributes": "Attributes"}
ENTRY = re.compile(r"^(\S[^:\n]*): ?(.*)$")


def markdown(docstring: str | None, *, without: Sequence[str] = ()) -> str:
    """A docstring's text, its blocks of code fenced and its sections as lists.

    Args:
        docstring: As `ast` or the object has it.
        without: Sections to leave out.
    """
    parts = SECTION.split(inspect.cleandoc(docstring or ""))
    text = [prose(parts[0])]
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        if name not in without:
            text.append(f"{TITLES.get(name, name)}:\n\n{listed(inspect.cleandoc(body))}")
    return "\n\n".join(filter(None, text))


def prose(text: str) -> str:
    """Paragraphs, each of them one line; what follows a double colon is code."""
    paragraphs: list[str] = []
    code = False
    for paragraph in re.split(r"\n{2,}", text.strip()):
        if code and paragraph.startswith("    "):
            if paragraphs and paragraphs[-1].endswith("\n```"):  # a blank line in the code
                paragraphs[-1] = paragraphs[-1].removesuffix("```") + "\n" + fenced(paragraph)
            else:
                paragraphs.append("```python\n" + fenced(paragraph))
            continue
        code = paragraph.endswith("::")
        said = paragraph.removesuffix("::").rstrip()
        if said:
            paragraphs.append(inline(said + ":" * (code and not said.endswith("."))))
    return "\n\n".join(paragraphs)


def fenced(paragraph: str) -> str:
    """The end of a block of code, as the formatter has it."""
    return re.sub(r"(?<=\S) +# ", "  # ", textwrap.dedent(paragraph)) + "\n```"


def listed(body: str) -> str:
    """The entries of a section as a list."""
    lines: list[str] = []
    for line in body.splitlines():
        entry = ENTRY.match(line)
        if entry and not line.startswith(" "):
            lines.append(f"- `{entry[1]}`: {entry[2]}")
        elif line.strip() and lines:
            lines[-1] += " " + line.strip()
    return "\n".join(inline(line) for line in lines)


def inline(text: str) -> str:
    """One line, with Markdown's quotes."""
    return re.sub(r"``(.+?)``", r"`\1`", " ".join(text.split()))
