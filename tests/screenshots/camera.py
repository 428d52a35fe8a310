"""Takes pictures of pages on each device in each scheme."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from playwright.async_api import Browser, BrowserContext, Page

from tests.browser.conftest import SCREENSHOTS
from tests.support.timing import UNIT

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
DEVICES: dict[str, dict[str, Any]] = {
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
    },
    "desktop": {"viewport": {"width": 1280, "height": 800}},
}


class Camera:
    """Takes the pictures of a scene.

    Args:
        browser: Which shows it.
        scene: What the names of its pictures begin with.
    """

    def __init__(self, browser: Browser, scene: str) -> None:
        self._scene = scene
        self._browser = browser

    async def on_each(self, act: Callable[["Shot"], Awaitable[None]]) -> None:
        """Have it acted on each device, at the same time."""
        async with asyncio.TaskGroup() as tasks:
            for device in DEVICES:
                tasks.create_task(self._on(device, act))

    async def _on(self, device: str, act: Callable[["Shot"], Awaitable[None]]) -> None:
        options = DEVICES[device]
        context = await self._browser.new_context(**options, locale="en-GB")
        context.set_default_timeout(20_000 * UNIT)
        await act(Shot(self._scene, device, context, await context.new_page()))
        await context.close()


class Shot:
    """A page on a device."""

    def __init__(self, scene: str, device: str, context: BrowserContext, page: Page) -> None:
        self.context = context
        self.page = page
        self.is_phone = device == "phone"
        self._scene = scene
        self._device = device

    async def take(self, state: str, *, full_page: bool = False) -> None:
        """Keep the page as it looks, in each scheme."""
        for scheme in SCHEMES:
            await self.page.emulate_media(color_scheme=scheme)
            # What is drawn on a canvas is drawn anew with the next frame.
            await self.page.evaluate(
                "() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))"
            )
            name = f"{self._scene}-{state}-{self._device}-{scheme}.png"
            await self.page.screenshot(
                path=SCREENSHOTS / name, animations="disabled", full_page=full_page
            )
