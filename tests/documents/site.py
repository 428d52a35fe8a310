"""What `make docs` has built: its links lead somewhere, and it asks nobody else for anything.

Sphinx looks at the Markdown; this looks at what a browser gets.
"""

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
"""What a browser fetches with a page, by the attribute that names it."""
NEEDED = {"aside": "aria-label", "pre": "tabindex", "img": "alt"}
"""What an element is asked to have, for who reads the page by ear or by keyboard."""
STYLE = re.compile(r"(?:url\(|@import\s+)[\"']?((?:https?:)?//[^\"')]+)")


class Page(HTMLParser):
    """What a page's links and parts are called.

    Attributes:
        ids: Where links to it may lead.
        links: What it links to.
        loads: What it fetches.
        lacks: What its elements should have and do not.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.lacks: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See `HTMLParser`."""
        given = {name: value for name, value in attrs if value}
        self.ids.update(given[name] for name in ("id", "name") if name in given)
        wanted = "aria-level" if given.get("role") == "heading" else NEEDED.get(tag)
        if wanted and wanted not in given:
            self.lacks.add(f"<{tag}> without {wanted}")
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        if LOADS.get(tag) in given:
            self.loads.add(given[LOADS[tag]])


def wrong(site: Path) -> Iterator[str]:
    """What is wrong with a site."""
    pages = {file: Page(file.read_text()) for file in site.rglob("*.html")}
    for file, page in pages.items():
        where = file.relative_to(site)
        yield from (f"{where}: {each}" for each in sorted(page.lacks))
        for address in sorted(page.links | page.loads):
            if urlsplit(address).netloc:
                if address in page.loads:
                    yield f"{where}: fetches {address}"
                continue
            if urlsplit(address).scheme:
                continue
            path, _, anchor = address.partition("#")
            target = (file.parent / unquote(path.partition("?")[0])).resolve() if path else file
            if not target.exists():
                yield f"{where}: {address} leads nowhere"
            elif anchor and target in pages and unquote(anchor) not in pages[target].ids:
                yield f"{where}: {address} has no such place"
    for file in site.rglob("*.css"):
        for address in STYLE.findall(file.read_text()):
            yield f"{file.relative_to(site)}: fetches {address}"


if __name__ == "__main__":
    found = list(wrong(Path(sys.argv[1]).resolve()))
    print("\n".join(found) or "Every link leads somewhere.")  # noqa: T201
    sys.exit(bool(found))
