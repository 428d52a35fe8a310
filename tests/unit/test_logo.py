"""The pages' logo: what it may be, and that what can't be used changes nothing."""

from pathlib import Path

import pytest

from gateway.logo import MAX_BYTES, Logo, LogoError

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    "content",
    [
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        b"<svg>",
        b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- <html> -->\n<!DOCTYPE svg>\n <svg\n>',
    ],
)
def test_an_svg(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "logo"
    file.write_bytes(content)
    logo = Logo(file)
    assert (logo.content, logo.media_type) == (content, "image/svg+xml")


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"<html><svg>", b"<svgs>", b"GIF89a", b"<!-- <svg>", PNG[:-1]),
        pytest.param(b"<!-- a -->" * 10_000 + b"<html>", id="each comment is read once"),
    ],
)
def test_what_is_neither(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "logo"
    file.write_bytes(content)
    with pytest.raises(LogoError, match=r"logo: neither an SVG nor a PNG; convert"):
        Logo(file)


def test_one_that_changes(tmp_path: Path) -> None:
    file = tmp_path / "logo"
    file.write_bytes(PNG + bytes(MAX_BYTES - len(PNG)))
    logo = Logo(file)
    assert logo.media_type == "image/png"
    file.write_bytes(PNG + bytes(MAX_BYTES))
    with pytest.raises(LogoError, match="logo: larger than 262144 bytes; make it smaller"):
        logo.reload()
    file.unlink()
    with pytest.raises(LogoError, match="logo: No such file or directory; name an SVG or a PNG"):
        logo.reload()
    assert len(logo.content) == MAX_BYTES
    file.write_bytes(b"<svg/>")
    logo.reload()
    assert (logo.content, logo.media_type) == (b"<svg/>", "image/svg+xml")
