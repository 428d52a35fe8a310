"""The fenced blocks of a document, as a reader of the page sees them."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        kind: The word behind the fence, such as ``toml``; empty where there is none.
        text: What is in it.
        section: The heading that it is under.
        line: Of the file, where it begins.
    """

    kind: str
    text: str
    section: str
    line: int


class Document:
    """A Markdown file.

    Args:
        name: Its path in the repository.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = (ROOT / name).read_text()
        self.all = list(self._blocks())

    def _blocks(self) -> Iterator[Block]:
        section = ""
        tokens = MarkdownIt().enable("table").parse(self.text)
        for place, token in enumerate(tokens):
            if token.type == "heading_open":
                section = tokens[place + 1].content.replace("`", "")
            elif token.type == "fence":
                line = token.map[0] + 1 if token.map else 0
                yield Block(token.info.strip(), token.content, section, line)

    def blocks(self, kind: str, section: str | None = None) -> list[str]:
        """The texts of its blocks of that kind, in one section or in all."""
        return [
            each.text
            for each in self.all
            if each.kind == kind and (section is None or each.section == section)
        ]

    def block(self, kind: str, section: str | None = None) -> str:
        """The one that there is."""
        (text,) = self.blocks(kind, section)
        return text
