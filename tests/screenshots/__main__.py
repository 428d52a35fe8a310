"""``python -m tests.screenshots``: pictures of all pages in their states, and a sheet of them.

Each state is taken on a phone and on a desktop, light and dark. ``index.html`` in
``artifacts/screenshots`` shows them side by side; ``--docs`` also writes those in the documents.
"""

import argparse
import asyncio
import html
import os
import shutil
from pathlib import Path

from playwright.async_api import async_playwright

from tests.browser.conftest import ARGUMENTS, CHROMIUM, SCREENSHOTS
from tests.screenshots.camera import DEVICES, SCHEMES, Camera
from tests.screenshots.scenes import SCENES
from tests.support.processes import ENVIRONMENT

DOCS = Path(__file__).parents[2] / "docs"
SHOWN = {
    "chat.png": "chat-conversation-desktop-light.png",
    "operator.png": "operator-live-desktop-light.png",
    "voice.png": "voice-heard-desktop-light.png",
}
"""What the documents show."""
SHEET = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Screenshots</title>
<style>
  body {{ font: 14px system-ui, sans-serif; margin: 1rem; background: #888; }}
  div {{ display: flex; gap: 1rem; align-items: flex-start; }}
  img {{ height: 30rem; }}
</style>
{rows}
</html>
"""


def sheet() -> str:
    """A page with all pictures that there are, a row for each state."""
    last = f"-{list(DEVICES)[-1]}-{SCHEMES[-1]}.png"
    rows = []
    for name in sorted(file.name.removesuffix(last) for file in SCREENSHOTS.glob(f"*{last}")):
        files = [f"{name}-{device}-{scheme}.png" for device in DEVICES for scheme in SCHEMES]
        images = "".join(f'<a href="{file}"><img src="{file}" alt=""></a>' for file in files)
        rows.append(f"<h2>{html.escape(name)}</h2>\n<div>{images}</div>")
    return SHEET.format(rows="\n".join(rows))


async def take(only: list[str]) -> None:
    """Take the pictures of some scenes."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        await asyncio.gather(*(SCENES[scene](Camera(browser, scene)) for scene in only))
        await browser.close()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.screenshots")
    parser.add_argument("--only", nargs="+", choices=list(SCENES), default=list(SCENES))
    parser.add_argument("--docs", action="store_true", help="write those in docs, too")
    given = parser.parse_args()
    os.environ |= ENVIRONMENT
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    asyncio.run(take(given.only))
    (SCREENSHOTS / "index.html").write_text(sheet())
    if given.docs:
        for name, file in SHOWN.items():
            shutil.copy(SCREENSHOTS / file, DOCS / name)


if __name__ == "__main__":
    main()
