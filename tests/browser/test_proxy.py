"""The page in Chromium behind nginx, with TLS and under a path."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.async_api import async_playwright, expect

from tests.browser.conftest import ARGUMENTS, CHROMIUM, Chat
from tests.support import fronts
from tests.support.processes import Process

UNDER_A_PATH = {
    "location / {\n        proxy_pass http://session_gateway;": "location /gw/ {\n"
    "        proxy_pass http://session_gateway/;",
    'auth_basic           "session-gateway";': "",  # no person is there to type a password
}


async def test_the_page_under_a_path(
    start_gateway: Callable[..., Process], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = fronts.free_port()
    url = f"https://{fronts.HOST}:{port}/gw"
    monkeypatch.setenv("GATEWAY_SERVER__PUBLIC_URL", url)
    at = start_gateway().url.removeprefix("http://")
    arguments = [
        *ARGUMENTS,
        f"--host-resolver-rules=MAP {fronts.HOST} 127.0.0.1",
        "--ignore-certificate-errors",
    ]
    with fronts.nginx(tmp_path, at, port, UNDER_A_PATH):
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
            chat = Chat(await browser.new_page())
            await chat.open(f"{url}/")
            assert "Hello Ada" in await chat.ask("My name is Ada.")
            await chat.page.get_by_label("Route").select_option("other")
            await expect(chat.entries).to_have_count(0)
            await chat.begin()
            assert "I know nothing" in await chat.ask("What is my name?")
            await browser.close()
    assert chat.complaints == []
