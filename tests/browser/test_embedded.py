"""The page in Chromium, of a gateway that is mounted in somebody else's application."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.async_api import expect

from tests.browser.conftest import CONFIG
from tests.support.processes import Process
from tests.support.servers import PREFIX, served


async def test_the_page_of_a_mounted_gateway(
    new_chat: Callable[..., Any], platform: Process, tmp_path: Path
) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(CONFIG.format(url=platform.url))
    with served("uvicorn-websockets-sansio", "app", file) as process:
        chat = await new_chat()
        await chat.open(process.url + PREFIX)  # without the slash at its end
        assert chat.page.url.startswith(f"{process.url}{PREFIX}/#")
        assert "Hello Ada" in await chat.ask("My name is Ada.")
        await chat.page.get_by_label("Route").select_option("other")
        await expect(chat.entries).to_have_count(0)
        await chat.begin()
        assert "I know nothing" in await chat.ask("What is my name?")
        await chat.page.goto("about:blank")
