"""The pages: how much they are, what they are told, their logo, and that they can be left out."""

import re
from pathlib import Path

import httpx

from gateway.transports.pages import PAGES
from tests.integration.conftest import Start
from tests.support.processes import Process
from tests.support.timing import UNIT

ROUTE = """
[routes.chat]
endpoint_name = "my-endpoint"
format = "openai-chat"
"""
VOICE = """
[routes.voice]
endpoint_name = "my-endpoint"
"""
PAGE = """
[page]
title = "Ask Ada"
logo = "{logo}"
welcome = "She knows <b>engines</b>."
examples = ["Who are you?", "What is a loop?"]
"""
NOWHERE = "http://127.0.0.1:9"
PNG = b"\x89PNG\r\n\x1a\n"


def asking(process: Process) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=process.url, timeout=20 * UNIT)


async def test_what_pages_are_told_and_their_logo(start_gateway: Start, tmp_path: Path) -> None:
    file = tmp_path / "logo.svg"
    file.write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    process = start_gateway(NOWHERE, ROUTE + PAGE.format(logo=file))
    async with asking(process) as http:
        told = (await http.get("/page.json")).json()
        assert told["title"] == "Ask Ada"
        assert told["welcome"] == "She knows <b>engines</b>."
        assert told["examples"] == ["Who are you?", "What is a loop?"]
        assert told["routes"][0]["branches"] == "sent"
        logo = await http.get(f"/{told['logo']}")
        assert logo.text == file.read_text()
        assert logo.headers["content-type"] == "image/svg+xml"
        assert logo.headers["x-content-type-options"] == "nosniff"
        assert logo.headers["cross-origin-resource-policy"] == "same-origin"
        assert logo.headers["content-security-policy"] == (
            "default-src 'none'; style-src 'unsafe-inline'; sandbox"
        )
        assert (await http.get("/index")).status_code == 404, "it is at / alone"

        tag = {"If-None-Match": logo.headers["etag"]}
        again = await http.get(f"/{told['logo']}", headers=tag)
        assert again.status_code == 304
        for name in ("etag", "content-security-policy"):
            assert again.headers[name] == logo.headers[name]

        file.write_bytes(PNG)
        await process.hang_up("files reloaded")
        file.write_bytes(b"GIF89a")
        await process.hang_up("files could not be reloaded")
        logo = await http.get(f"/{told['logo']}")
        assert (logo.content, logo.headers["content-type"]) == (PNG, "image/png")


async def test_a_first_paint_is_small(start_gateway: Start) -> None:
    """What a browser gets that has nothing: the page, and what it names, heads of answers too."""
    async with asking(start_gateway(NOWHERE, ROUTE + VOICE)) as http:
        for name in ("", *PAGES[1:]):
            page = await http.get(f"/{name}")
            named = re.findall(r'<(?:link|script|img) [^>]*(?:href|src)="([^"]+)"', page.text)
            assert any(path.endswith(".js") for path in named)
            answers = [page, *[await http.get(f"/{path}") for path in {*named, "page.json"}]]
            sizes = {each.url.path: transferred(each) for each in answers}
            assert sum(sizes.values()) < 100_000, sizes
            for each in answers:
                assert each.headers["x-content-type-options"] == "nosniff"
                is_part = each.url.path.endswith((".js", ".css"))
                assert is_part != ("content-security-policy" in each.headers), each.url
        for path in ("/openapi.json", "/page.json", "/openai/v1/models"):
            answer = await http.get(path)
            assert answer.status_code == 200
            assert "content-encoding" not in answer.headers, "it is an API's, or may hold a secret"


def transferred(answer: httpx.Response) -> int:
    """How many bytes an answer was."""
    assert answer.status_code == 200, answer.url
    head = sum(len(name) + len(value) + 4 for name, value in answer.headers.raw)
    return answer.num_bytes_downloaded + head


async def test_without_pages_there_are_apis_alone(start_gateway: Start) -> None:
    process = start_gateway(NOWHERE, f"{ROUTE}[page]\nenabled = false\n")
    async with asking(process) as http:
        for path in ("/", "/page.json", "/static/client.js", "/static/icon.svg", "/logo"):
            answer = await http.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, "unknown_route")
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/openapi.json")).status_code == 200
