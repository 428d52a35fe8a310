"""The documents as a site, for Sphinx: ``make docs``.

The pages are the Markdown files of this repository as they are, so that they read the same here, in
an editor and where the repository is hosted. This gathers them into one folder, lets their links
lead from page to page there, and makes the table of contents of the links in ``docs/index.md``.
"""

import re
import shutil
import tomllib
from itertools import chain
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ConfigError
from sphinx.util import logging

ROOT = Path(__file__).parents[1]
PAGES = {
    ROOT / "README.md": "overview.md",
    ROOT / "SECURITY.md": "security.md",
    ROOT / "CONTRIBUTING.md": "contributing.md",
    ROOT / "CHANGELOG.md": "changelog.md",
    ROOT / "gateway" / "protocol" / "PROTOCOL.md": "protocol.md",
    **{file: file.name for file in (ROOT / "docs").glob("*.md")},
}
LINK = re.compile(r"(?P<text>!?\[(?:[^\[\]]|\[[^\]]*\]\([^)]*\))*\])\((?P<to>[^)\s]+)\)")
FENCE = re.compile(r"^(```.*?^```$)", re.MULTILINE | re.DOTALL)

ACCESSIBLE = {
    '<p class="caption" role="heading">': '<p class="caption" role="heading" aria-level="2">',
    '<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="All pages">',
    '<aside class="toc-drawer">': '<aside class="toc-drawer" aria-label="This page">',
    '<aside class="toc-drawer no-toc">': '<aside class="toc-drawer no-toc" aria-label="This page">',
    "<pre>": '<pre tabindex="0">',
}

project = "session-gateway"
author = "the authors of session-gateway"
release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

extensions = ["myst_parser"]
myst_heading_anchors = 4
highlight_language = "none"

html_theme = "furo"
html_title = f"session-gateway {release}"
html_favicon = str(ROOT / "static" / "icon.svg")
html_copy_source = False
html_show_copyright = False
html_theme_options = {
    # The colours of static/theme.css, so that the pages of a gateway and these go together.
    "light_css_variables": {"color-brand-primary": "#2456c8", "color-brand-content": "#2456c8"},
    "dark_css_variables": {"color-brand-primary": "#8db0ff", "color-brand-content": "#8db0ff"},
}

linkcheck_ignore = [r"https?://(localhost|127\.0\.0\.1|[\w.]*example\.com)", r"wss?://"]
linkcheck_anchors = False

log = logging.getLogger(__name__)


def setup(app: Sphinx) -> None:
    """Gather the pages, before Sphinx looks for them."""
    folder = Path(app.srcdir)
    if not folder.is_relative_to(ROOT / "artifacts") and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not a folder for copies of the pages; see `make docs`")
    shutil.rmtree(folder)
    for file, name in PAGES.items():
        page = folder / name
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(staged(file, folder))
    app.connect("source-read", with_contents)
    app.connect("build-finished", made_accessible)


def staged(file: Path, folder: Path) -> str:
    """A page's text with the links that it needs in that folder; fenced blocks stay as they are."""
    parts = FENCE.split(file.read_text())
    for place in range(0, len(parts), 2):
        parts[place] = LINK.sub(lambda link: led(link, file, folder), parts[place])
    return "".join(parts)


def led(link: re.Match[str], file: Path, folder: Path) -> str:
    """A link to another page, to a file that is copied beside the pages, or as it is."""
    text = LINK.sub(lambda inner: led(inner, file, folder), link["text"][1:])
    text = link["text"][0] + text
    path, _, anchor = link["to"].partition("#")
    if not path or re.match(r"\w+:", path):
        return f"{text}({link['to']})"
    target = (file.parent / path).resolve()
    if target in PAGES:
        return f"{text}({PAGES[target]}{'#' * bool(anchor)}{anchor})"
    if target.is_dir():  # a page has nothing to show of it
        return text[1:-1]
    if not target.is_file():
        log.warning("no such file: %s", link["to"], location=str(file.relative_to(ROOT)))
        return text
    copy = Path("files") / target.relative_to(ROOT)
    (folder / copy).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(target, folder / copy)
    return f"{text}({copy})"


def with_contents(_app: Sphinx, page: str, source: list[str]) -> None:
    """Give the first page the tables of contents that its sections' links are.

    A document that none of them names is in a section of its own, so that it can be found.
    """
    if page != "index":
        return
    sections = re.split(r"^## (.*)$", source[0], flags=re.MULTILINE)[1:]
    contents = {
        title: {
            to.removesuffix(".md"): words.strip("[]")
            for words, to in LINK.findall(text)
            if to.endswith(".md")
        }
        for title, text in zip(sections[::2], sections[1::2], strict=True)
    }
    named = {"index", *chain.from_iterable(contents.values())}
    others = sorted({name.removesuffix(".md") for name in PAGES.values()} - named)
    for title, pages in [*contents.items(), ("More", dict.fromkeys(others))]:
        if pages:
            entries = [f"{words} <{name}>" if words else name for name, words in pages.items()]
            lines = ["```{toctree}", ":hidden:", f":caption: {title}", "", *entries, "```"]
            source[0] += "\n" + "\n".join(lines) + "\n"


def made_accessible(app: Sphinx, error: Exception | None) -> None:
    """Put in what the theme leaves out for a screen reader and for the keyboard."""
    if error is not None or app.builder.format != "html":
        return
    for file in Path(app.outdir).rglob("*.html"):
        text = file.read_text()
        for there, wanted in ACCESSIBLE.items():
            text = text.replace(there, wanted)
        file.write_text(text)
