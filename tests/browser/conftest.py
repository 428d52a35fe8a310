"""The page in headless Chromium, in front of a real gateway and a real local SageMaker.

With the default transport only: what a page is sent does not depend on it, as all the other tests
show with both. One browser serves all tests, each in a context of its own; so that tests and
fixtures run in the browser's event loop, which is the session's.
"""

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Locator, Page, ViewportSize, async_playwright, expect

from tests.browser.sheet import open_sheet
from tests.support.processes import Process, gateway, local
from tests.support.timing import UNIT

CHROMIUM = "/usr/bin/chromium-headless-shell"
"""Chromium without windows and extensions, which take twice the time that its pages take."""
ARGUMENTS = [
    "--no-sandbox",  # the tests may run as root, where Chromium has no sandbox
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SCREENSHOTS = Path(__file__).parents[2] / "artifacts" / "screenshots"

CONFIG = """
[aws]
region = "us-east-1"
endpoint_url = "{url}"

[routes.chat]
endpoint_name = "my-endpoint"
content_type = "text/plain; charset=utf-8"

[routes.other]
endpoint_name = "my-endpoint"
content_type = "text/plain; charset=utf-8"
"""

expect.set_options(timeout=20_000 * UNIT)


@pytest.fixture
def platform() -> Iterator[Process]:
    with local() as process:
        yield process


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway's default route streams."""
    monkeypatch.setenv("GATEWAY_ROUTES__CHAT__STREAM", "raw")


@pytest.fixture
def start_gateway(platform: Process, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start the gateway, on a port of choice, as often as a test wants."""
    file = tmp_path / "gateway.toml"
    file.write_text(CONFIG.format(url=platform.url))
    with ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(gateway(file, *arguments))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run them in the browser's event loop."""
    for item in items:
        if item.path.parent == Path(__file__).parent and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        await browser.close()


class Chat:
    """What a user does with the page and sees on it; anything on the console is a failure."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.entries = page.locator(".entry")
        self.state = page.locator("#state")
        page.set_default_timeout(20_000 * UNIT)
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    async def open(self, url: str) -> None:
        """Load the page and begin to write, so that it connects."""
        await self.page.goto(url)
        await self.begin()

    async def ready(self) -> None:
        """Wait until there is something to write into."""
        await expect(self.state).to_have_text(re.compile("Ready|Connected"))

    async def begin(self) -> None:
        """Begin to write, think better of it, and wait until there is a session."""
        await self.ready()
        await self.page.get_by_label("Message").press("x")
        await self.page.keyboard.press("Backspace")
        await self.connected()

    async def connected(self) -> None:
        """Wait until there is a session."""
        await expect(self.state).to_have_text("Connected")

    async def write(self, text: str) -> None:
        """Send a message, as a person with a keyboard does."""
        await self.page.get_by_label("Message").fill(text)
        await self.page.keyboard.press("Enter")

    async def ask(self, text: str) -> str:
        """Send a message and wait for what comes of it."""
        await self.write(text)
        await expect(self.page.locator(".pending")).to_have_count(0)
        return await self.entries.last.inner_text()

    def notice(self, text: str) -> Locator:
        """The notice in the conversation that says so."""
        return self.page.locator(".entry.notice", has_text=text)

    async def accessible(self) -> None:
        """Nothing that axe-core knows of keeps anybody out, and nothing is cut off at the side."""
        results = await Axe().run(self.page)
        found = [(v["id"], [n["html"] for n in v["nodes"]]) for v in results.response["violations"]]
        assert found == []
        wide, window = await self.page.evaluate(
            "[document.documentElement.scrollWidth, window.innerWidth]"
        )
        assert wide <= window

    async def screenshot(self, name: str) -> None:
        """Keep a picture for people."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        await self.page.screenshot(path=SCREENSHOTS / f"{name}.png")


@pytest_asyncio.fixture(loop_scope="session")
async def new_chat(browser: Browser) -> AsyncIterator[Callable[..., Any]]:
    """Opens pages; none may have complained when the test is over."""
    chats: list[Chat] = []

    async def new(**options: Any) -> Chat:
        chats.append(Chat(await browser.new_page(**options)))
        return chats[-1]

    yield new
    complaints = [complaint for chat in chats for complaint in chat.complaints]
    for chat in chats:
        await chat.page.context.close()
    assert complaints == []


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def sheet(browser: Browser) -> AsyncIterator[Page]:
    """The page's modules without a gateway, for all tests of a file."""
    permissions = ["clipboard-read", "clipboard-write"]
    size: ViewportSize = {"width": 1000, "height": 700}
    context = await browser.new_context(permissions=permissions, viewport=size)
    chat = Chat(await context.new_page())
    await open_sheet(chat.page)
    yield chat.page
    await context.close()
    assert chat.complaints == []


@pytest_asyncio.fixture(loop_scope="session")
async def chat(new_chat: Callable[..., Any], start_gateway: Callable[..., Process]) -> Chat:
    """A page that is connected."""
    chat: Chat = await new_chat(viewport={"width": 1100, "height": 760})
    await chat.open(start_gateway().url)
    return chat
