"""What is looked for in the built site is found where it is."""

from pathlib import Path

import pytest

from tests.documents.site import wrong

GOOD = '<link href="style.css" rel="stylesheet"><h1 id="top">A</h1><a href="b.html#end">B</a>'


@pytest.mark.parametrize(
    ("page", "says"),
    [
        ('<a href="c.html">C</a>', "index.html: c.html leads nowhere"),
        ('<a href="b.html#middle">B</a>', "index.html: b.html#middle has no such place"),
        ('<a href="#bottom">A</a>', "index.html: #bottom has no such place"),
        ('<img src="//cdn.example/x.png">', "index.html: fetches //cdn.example/x.png"),
        (
            '<script src="https://cdn.example/x.js"></script>',
            "index.html: fetches https://cdn.example/x.js",
        ),
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
