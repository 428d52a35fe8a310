"""The JavaScript client on pages in Chromium, as a program that does what its input's lines say.

Each session has a page of its own, of the gateway that it connects to: see `tests.client.driven`.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import BrowserContext, Page, Route, async_playwright

from tests.browser.conftest import ARGUMENTS, CHROMIUM

SESSIONS = "/tests/sessions.mjs"
FILE = Path(__file__).with_name("sessions.mjs")
BEGIN = f"""async () => {{
  const [imported, {{ answering }}] = await Promise.all([
    import("/static/client.js"), import("{SESSIONS}")]);
  window.answer = answering(imported);
}}"""


async def page_for(context: BrowserContext, url: str) -> Page:
    """A page of the gateway whose WebSockets have this address."""
    page = await context.new_page()
    await page.goto(f"http://{urlsplit(url).netloc}/page.json")
    await page.evaluate(BEGIN)
    return page


async def serve(context: BrowserContext) -> None:
    """Answer requests, several at once, until there are no more."""
    pages: dict[str, Page] = {}

    async def answer(request: dict[str, Any]) -> None:
        name = request["session"]
        if request["do"] == "open":
            pages[name] = await page_for(context, request["url"])
        answered = await pages[name].evaluate("(request) => answer(request)", request)
        if request["do"] == "leave":
            await pages[name].close()
        print(json.dumps(answered), flush=True)  # noqa: T201 - that is its output

    async with asyncio.TaskGroup() as answers:
        while line := await asyncio.to_thread(sys.stdin.readline):
            answers.create_task(answer(json.loads(line)))


async def main() -> None:
    """Until the input ends."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        context = await browser.new_context()

        async def sessions(route: Route) -> None:
            await route.fulfill(path=FILE, content_type="text/javascript")

        await context.route(f"**{SESSIONS}", sessions)
        await serve(context)
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
