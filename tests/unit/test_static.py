"""What pages load and what an app copies is what the modules import; how files are served."""

import gzip
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from unittest.mock import Mock

import httpx
import pytest

from gateway.transports.files import Files, takes_gzip
from gateway.transports.pages import PAGES

STATIC = Path(__file__).parents[2] / "static"
IMPORT = re.compile(r'^(?:import|export)\b[^;]*?\bfrom "([^"]+)";', re.MULTILINE)


def imported(entry: Path) -> set[str]:
    """A module and all that it imports, as addresses beside the page's own."""
    found: set[Path] = set()
    left = [entry]
    while left:
        module = left.pop()
        if module not in found:
            found.add(module)
            left += [
                (module.parent / name).resolve() for name in IMPORT.findall(module.read_text())
            ]
    return {module.relative_to(STATIC).as_posix() for module in found}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_asks_for_all_its_modules_at_once(name: str) -> None:
    """Else the browser would find them one after the other, each a round trip later."""
    page = (STATIC / f"{name}.html").read_text()
    preloaded = re.findall(r'<link rel="modulepreload" href="static/([^"]+)">', page)
    (entry,) = re.findall(r'<script type="module" src="static/([^"]+)">', page)
    assert sorted(preloaded) == sorted(imported(STATIC / entry) - {entry})


def test_all_modules_of_the_client_are_imported_by_it() -> None:
    modules = {f"client/{path.name}" for path in (STATIC / "client").iterdir()}
    types = {"client/types.js"}
    assert imported(STATIC / "client.js") == {"client.js"} | modules - types


# Files

MODULE = "export const greeting = 'hello';\n" * 100
PICTURE = bytes(10_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "module.js").write_text(MODULE)
    (tmp_path / "style.css").write_text("p { color: red }\n" * 100)
    (tmp_path / "small.json").write_text("{}")
    (tmp_path / "picture.png").write_bytes(PICTURE)
    return tmp_path


@pytest.fixture
async def http(folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(Files(folder))
    headers = {"Accept-Encoding": "gzip"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://files", headers=headers
    ) as http:
        yield http


AS_IT_IS = {"Accept-Encoding": "identity"}


async def test_texts_are_compressed_for_who_takes_that(http: httpx.AsyncClient) -> None:
    for path, size in (("part/module.js", len(MODULE)), ("style.css", 1700)):
        packed = await http.get(path)
        assert packed.headers["content-encoding"] == "gzip"
        assert int(packed.headers["content-length"]) < size / 10
        plain = await http.get(path, headers=AS_IT_IS)
        assert "content-encoding" not in plain.headers
        assert int(plain.headers["content-length"]) == size
        assert packed.text == plain.text
        assert packed.headers["content-type"] == plain.headers["content-type"]
        assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
        assert packed.headers["etag"] != plain.headers["etag"]


@pytest.mark.parametrize("path", ["picture.png", "small.json"])
async def test_what_would_be_no_smaller_is_not(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(path)
    assert "content-encoding" not in answer.headers
    assert "vary" not in answer.headers


async def test_each_form_has_its_own_tag(http: httpx.AsyncClient) -> None:
    packed = await http.get("part/module.js")
    plain = await http.get("part/module.js", headers=AS_IT_IS)
    for answer, other, headers in ((packed, plain, {}), (plain, packed, AS_IT_IS)):
        tag = answer.headers["etag"]
        for known in (tag, f"W/{tag}", f'"x", {tag}'):
            again = await http.get("part/module.js", headers={**headers, "If-None-Match": known})
            assert (again.status_code, again.content) == (304, b"")
            for name in ("etag", "vary", "access-control-allow-origin"):
                assert again.headers[name] == answer.headers[name]
            assert "content-encoding" not in again.headers
        of_other = {**headers, "If-None-Match": other.headers["etag"]}
        assert (await http.get("part/module.js", headers=of_other)).text == MODULE
    since = {"If-Modified-Since": packed.headers["last-modified"]}
    assert (await http.get("part/module.js", headers=since)).status_code == 304


async def test_only_heads(http: httpx.AsyncClient) -> None:
    for headers in ({}, AS_IT_IS):
        got = await http.get("style.css", headers=headers)
        head = await http.head("style.css", headers=headers)
        assert head.headers == got.headers
        assert not head.content
        tag = {**headers, "If-None-Match": got.headers["etag"]}
        assert (await http.head("style.css", headers=tag)).status_code == 304


async def test_a_part_is_one_of_the_file_as_it_is(http: httpx.AsyncClient) -> None:
    packed, plain = await http.get("style.css"), await http.get("style.css", headers=AS_IT_IS)
    part = await http.get("style.css", headers={"Range": "bytes=4-8"})
    assert (part.status_code, part.text) == (206, "color")
    assert part.headers["etag"] == plain.headers["etag"]
    assert part.headers["vary"] == "Accept-Encoding"
    for answer, status in ((plain, 206), (packed, 200)):
        wanted = {"Range": "bytes=4-8", "If-Range": answer.headers["etag"]}
        assert (await http.get("style.css", headers=wanted)).status_code == status
    beyond = await http.get("style.css", headers={"Range": "bytes=99999-"})
    assert beyond.status_code == 416


async def test_a_file_that_changes(
    http: httpx.AsyncClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await http.get("style.css")
    compressing = Mock(wraps=gzip.compress)
    monkeypatch.setattr(gzip, "compress", compressing)
    assert (await http.get("style.css")).content == before.content
    assert not compressing.called, "it is compressed once"
    os.utime(folder / "style.css", ns=(1, 1))
    assert (await http.get("style.css")).headers["etag"] == before.headers["etag"]
    (folder / "style.css").write_text("p { color: blue }\n" * 100)
    after = await http.get("style.css")
    assert "blue" in after.text
    assert after.headers["etag"] != before.headers["etag"]
    assert compressing.call_count == 2


@pytest.mark.parametrize(
    ("accepted", "takes"),
    [
        ("", False),
        ("gzip", True),
        ("GZip", True),
        ("x-gzip", True),
        ("deflate, gzip;q=1.0, *;q=0.5", True),
        ("br;q=1.0, gzip ; q=0.001", True),
        ("gzip;q=0", False),
        ("gzip;q=0.000, *", False),
        ("*", True),
        ("*;q=0", False),
        ("br, deflate", False),
        ("gzip;q=0.5, identity", False),
        ("gzip;q=0.5, identity;q=0.5", True),
        ("identity;q=0, gzip", True),
        ("gzip;q=2", False),
        ("gzip;level=9", False),
        ("notgzip", False),
        (",,;;", False),
    ],
)
def test_who_takes_it(accepted: str, takes: bool) -> None:
    assert takes_gzip(accepted) is takes
