"""What is looked for in the built site is found where it is."""

import importlib.util
from pathlib import Path

import pytest

from tests.documents.blocks import ROOT
from tests.documents.site import wrong

GOOD = '<link href="style.css" rel="stylesheet"><h1 id="top">A</h1><a href="b.html#end">B</a>'


@pytest.mark.parametrize(
    ("page", "says"),
    [
        ('<a href="c.html">C</a>', "index.html: c.html leads nowhere"),
        ('<a href="b.html#middle">B</a>', "index.html: b.html#middle has no such place"),
        ('<a href="#bottom">A</a>', "index.html: #bottom has no such place"),
        ('<img alt="x" src="//cdn.example/x.png">', "index.html: fetches //cdn.example/x.png"),
        (
            '<script src="https://cdn.example/x.js"></script>',
            "index.html: fetches https://cdn.example/x.js",
        ),
        ('<p role="heading">Pages</p>', "index.html: <p> without aria-level"),
        ("<pre>x</pre>", "index.html: <pre> without tabindex"),
        ("", None),
        ('<a href="https://example.com/#there">elsewhere</a>', None),
    ],
)
def test_a_site_is_whole(tmp_path: Path, page: str, says: str | None) -> None:
    (tmp_path / "index.html").write_text(GOOD + page)
    (tmp_path / "b.html").write_text('<p id="end"></p>')
    (tmp_path / "style.css").write_text("body { background: url(data:image/png;base64,AA) }")
    assert list(wrong(tmp_path.resolve())) == ([says] if says else [])


def test_a_style_fetches_nothing(tmp_path: Path) -> None:
    (tmp_path / "style.css").write_text("@import 'https://fonts.example/a.css';")
    assert list(wrong(tmp_path)) == ["style.css: fetches https://fonts.example/a.css"]


def test_a_page_that_nobody_lists_is_in_the_contents(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("conf", ROOT / "docs" / "conf.py")
    assert spec is not None
    assert spec.loader is not None
    conf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conf)
    monkeypatch.setattr(conf, "PAGES", {"a": "a.md", "b": "b.md"})
    source = ["# All\n\n## First\n\n- [The A](a.md)\n"]
    conf.with_contents(None, "index", source)
    assert ":caption: First\n\nThe A <a>\n" in source[0]
    assert ":caption: More\n\nb\n" in source[0]
    page = ["# A\n"]
    conf.with_contents(None, "a", page)
    assert page == ["# A\n"]
