"""What the pages are brought to show: each scene goes from state to state, and has each taken.

The chat speaks to a scripted gateway, which breaks where a picture wants it; the other pages speak
to real ones.
"""

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import FilePayload, expect

from gateway.local.valkey import running
from tests.browser.conftest import CONFIG
from tests.browser.scripted import ScriptedGateway, until
from tests.screenshots.camera import DEVICES, Camera, Shot
from tests.support.client import Client, client
from tests.support.processes import Process, aside, gateway, local
from tests.support.timing import UNIT
from tests.support.tokens import add_key
from tests.support.voice import ROUTE, SAMPLE

SITE = Path(__file__).parents[2] / "artifacts" / "site"

CHAT = """
[aws]
region = "us-east-1"
endpoint_url = "http://127.0.0.1:9"
[page]
examples = ["My name is Ada.", "What is my name?", "Compare three sorting algorithms."]
[routes.chat]
endpoint_name = "my-endpoint"
on_lost = "replay"
[routes.summaries]
endpoint_name = "my-endpoint"
"""
SHARED = """
[store]
kind = "valkey"
url = "{valkey.url}"
password = "{valkey.password}"
[auth.keys]
file = "{keys}"
"""

QUESTION = "How do I find the largest files below a folder? And how do the ways compare?"
ANSWER = """\
`pathlib` walks the tree, and `heapq` keeps **only as many as you ask for**, so that memory stays \
small however many files there are:

```python
import heapq
from pathlib import Path

def largest(folder: Path, count: int = 10) -> list[tuple[int, Path]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return heapq.nlargest(count, ((path.stat().st_size, path) for path in files))
```

How the usual ways compare, for a folder with *n* files:

| Way | Time | Memory | Follows links |
| --- | --- | ---: | --- |
| `heapq.nlargest` | O(n log k) | 12 kB | no |
| `sorted(...)[:k]` | O(n log n) | 84 MB | no |
| `du -a \\| sort -n` | O(n log n) | 31 MB | with `-L` |

Two things to watch:

1. A file may vanish between `rglob` and `stat`; catch `FileNotFoundError`.
2. Sizes are those of the [file's content](https://docs.python.org/3/library/os.html), not of the \
blocks that"""
REST = """ it takes on the disk.

> On Windows, `st_size` of a placeholder is its size in the cloud.
"""
REMEMBERED = {
    "My name is Ada, and I write Python.": "Hello Ada. I will write my examples in **Python**.",
    "How do I count the words of a text?": """\
With a `Counter`, which is a dictionary of how often each word was seen:

```python
from collections import Counter

words = Counter(text.lower().split())
print(words.most_common(3))
```
""",
    "And who am I?": "You are Ada, and you write Python.",
}
EARLIER = {
    "Draft a release note for version 2.4": "Here is a first draft.",
    "Translate “drain a replica” into German": "“Ein Replikat leeren” is the usual wording.",
    "Why is the sky blue at noon and red in the evening?": "Short waves are scattered more.",
}

DRAWN = re.compile(r"(\S+ ){40}")
"""So many seconds of a plot are worth a look."""


@contextmanager
def serving(config: str, *more: str) -> Iterator[Process]:
    """A gateway with this configuration."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "gateway.toml"
        file.write_text(config)
        with gateway(file, *more) as process:
            yield process


# The chat page


class Talk:
    """A chat page, and the script of what its gateway says."""

    def __init__(self, shot: Shot, wire: ScriptedGateway) -> None:
        self.shot = shot
        self.page = shot.page
        self.wire = wire

    async def ready(self) -> None:
        """Wait until there is something to write into."""
        await expect(self.page.locator("#state")).to_have_text(re.compile("Ready|Connected"))

    async def begin(self) -> None:
        """Have a new conversation, with a session: somebody has begun to write."""
        sessions = self.wire.sessions
        await self.page.evaluate("document.getElementById('fresh').click()")
        await self.page.get_by_label("Message").press("x")
        await self.page.keyboard.press("Backspace")
        await until(lambda: self.wire.sessions > sessions)
        await expect(self.page.locator("#state")).to_have_text("Connected")

    async def say(self, text: str) -> str:
        """Send a message; its id."""
        known = len(self.wire.invoked)
        await self.page.get_by_label("Message").fill(text)
        await self.page.locator("#send").click()
        await until(lambda: len(self.wire.invoked) > known)
        return self.wire.invoked[-1]

    async def answer(self, turn: str, text: str, **done: Any) -> None:
        """Answer it, in as many parts as there are words, and wait until that is shown."""
        parts = re.findall(r"\S+\s*|\s+", text)
        self.wire.answer(turn, *parts)
        if done:
            self.wire.done(turn, len(parts), **done)
            await expect(self.page.locator(".pending")).to_have_count(0)
        await self.page.wait_for_timeout(300)

    async def tell(self, text: str, answer: str) -> None:
        """Send a message, and have it answered."""
        turn = await self.say(text)
        await self.page.wait_for_timeout(200)
        await self.answer(turn, answer, duration_ms=410)


async def chat(camera: Camera) -> None:
    """The chat page."""
    async with aside(serving(CHAT)) as process:

        async def act(shot: Shot) -> None:
            wire = await ScriptedGateway().play(shot.context)
            wire.reply = None
            talk = Talk(shot, wire)
            await shot.page.goto(process.url)
            await talk.ready()
            await shot.take("welcome")
            for question, answer in EARLIER.items():
                await talk.tell(question, answer)
                await talk.begin()
            await _conversation(talk)
            await _troubles(talk)
            await _long(talk)

        await camera.on_each(act)


async def _conversation(talk: Talk) -> None:
    shot, page, wire = talk.shot, talk.page, talk.wire
    for question, answer in REMEMBERED.items():
        await talk.tell(question, answer)
    await shot.take("conversation")
    await talk.begin()
    turn = await talk.say(QUESTION)
    await shot.take("thinking")
    await talk.answer(turn, ANSWER)
    await shot.take("streaming")
    sent = len(re.findall(r"\S+\s*|\s+", ANSWER))
    wire.answer(turn, REST, start=sent)
    wire.done(turn, sent + 1, duration_ms=6420)
    await expect(page.locator(".pending")).to_have_count(0)
    await shot.take("answered")
    await page.locator("#log").evaluate("log => { log.scrollTop = 0; }")
    await page.locator(".entry.you").first.hover()
    await page.wait_for_timeout(300)
    await shot.take("scrolled")
    await page.locator("#about").click()
    await shot.take("details")
    await page.keyboard.press("Escape")
    if shot.is_phone:
        await page.locator("#menu").click()
    await shot.take("list")
    await page.locator("#conversations .more").first.click()
    await shot.take("options")
    await page.keyboard.press("Escape")
    if shot.is_phone:
        await page.keyboard.press("Escape")
    await page.get_by_label("Message").fill("These are the two.\nWhich of them is newer?")
    files: list[FilePayload] = [
        {"name": name, "mimeType": "", "buffer": bytes(40_000)}
        for name in ("plan of the second floor.pdf", "notes.md")
    ]
    await page.locator("#files").set_input_files(files)
    await expect(page.get_by_role("button", name="Remove")).to_have_count(2)
    await shot.take("composer")
    await page.evaluate("document.querySelectorAll('#attached button').forEach(b => b.click())")
    await page.get_by_label("Message").fill("")


async def _troubles(talk: Talk) -> None:
    shot, page, wire = talk.shot, talk.page, talk.wire
    await talk.begin()
    await talk.tell("What did we agree on yesterday?", "To ship on Thursday, if the tests pass.")
    turn = await talk.say("And who tells the customers?")
    throttled = {"code": "throttled", "message": "The model is busy.", "retryable": True}
    wire.done(turn, 0, "failed", error={**throttled, "outcome": "not_invoked"})
    turn = await talk.say("List all that is left to do.")
    broken = {
        "code": "model_error",
        "message": "The model broke off its answer.",
        "retryable": False,
        "outcome": "invoked",
    }
    part = "There are three things left:\n\n1. The release notes\n2. The upgrade of"
    await talk.answer(turn, part, status="failed", error=broken)
    await shot.take("error")

    turn = await talk.say("Tell me more about the second one.")
    await talk.answer(turn, "It moves the store from version 7 to")
    wire.away = True
    wire.close(1011)
    await expect(page.locator("#trouble")).to_be_visible()
    await page.get_by_label("Message").fill("Never mind.")
    await page.wait_for_timeout(2500)
    await shot.take("reconnect")
    await page.locator("#send").click()
    wire.away = False
    wire.forget()
    await page.locator("#again").dispatch_event("click")
    await expect(page.locator("#question")).to_be_visible()
    await shot.take("gone")
    await page.locator("#discard").click()
    await talk.tell("Are you still there?", "Yes.")
    wire.emit("session.renewed", reason="lost", context="replayed", expires_at=None)
    await talk.tell("What did we agree on yesterday?", "To ship on Thursday.")
    await shot.take("restored")
    wire.close(4409)
    await expect(page.locator("#elsewhere")).to_be_visible()
    await shot.take("elsewhere")
    await talk.begin()
    await talk.tell(
        "متى يبدأ الاجتماع؟ أريد ملخصا.",
        "يبدأ **الاجتماع** الساعة `10:00`.\n\n- القاعة 3\n- مع Ada",
    )
    await shot.take("right-to-left")
    await talk.begin()
    wire.close(4401)
    await expect(page.locator("#signin")).to_be_visible()
    await shot.take("sign-in")


async def _long(talk: Talk) -> None:
    shot, page, wire = talk.shot, talk.page, talk.wire
    await page.reload()
    await talk.ready()
    wire.reply = ["One ", "**more** ", "line."]
    await page.evaluate(
        """async () => {
          const text = document.getElementById("text");
          for (let number = 1; number <= 150; number += 1) {
            text.value = `Question ${number}`;
            text.dispatchEvent(new Event("input"));
            document.getElementById("send").click();
            await new Promise((done) => setTimeout(done, 20));
          }
        }"""
    )
    await expect(page.locator(".pending")).to_have_count(0)
    wire.reply = None
    await talk.tell(QUESTION, ANSWER + REST)
    await page.locator("#log").evaluate("log => { log.scrollTop -= 2500; }")
    await page.wait_for_timeout(500)
    await shot.take("long")


# The operator's page


async def _busy(stack: AsyncExitStack, url: str, key: str, route: str, pause: float) -> None:
    """A client with something to ask, again and again."""
    headers = {"Authorization": f"Bearer {key}"}
    one: Client = await stack.enter_async_context(
        client(url, route=route, additional_headers=headers)
    )
    await one.open()
    while True:
        await one.ask(f"/sleep {pause}")
        await asyncio.sleep(pause)


@asynccontextmanager
async def _replicas() -> AsyncIterator[tuple[list[Process], str, list[asyncio.Task[None]]]]:
    """Two gateways with clients at work, and the key of an operator."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        platform = await stack.enter_async_context(aside(local()))
        valkey = stack.enter_context(running())
        keys = folder / "keys.toml"
        names = [add_key(keys, name) for name in ("ada", "grace")]
        olga = add_key(keys, "olga", operator=True)
        streams = CONFIG.replace("content_type", 'stream = "raw"\ncontent_type')
        config = streams.format(url=platform.url) + SHARED.format(valkey=valkey, keys=keys)
        both = [await stack.enter_async_context(aside(serving(config))) for _ in range(2)]
        async with asyncio.TaskGroup() as tasks:
            busy = [
                tasks.create_task(
                    _busy(
                        stack,
                        both[number % 2].websocket,
                        names[number % 3 % 2],
                        "other" if number % 4 == 0 else "chat",
                        0.15 + 0.1 * (number % 5),
                    )
                )
                for number in range(9)
            ]
            yield both, olga, busy
            for each in busy:
                each.cancel()


async def operator(camera: Camera) -> None:
    """The operator's page."""
    together = asyncio.Barrier(len(DEVICES))
    async with _replicas() as (both, key, busy):

        async def act(shot: Shot) -> None:
            page = shot.page
            await page.goto(f"{both[0].url}/operator")
            await expect(page.locator("#signin")).to_be_visible()
            await shot.take("sign-in")
            await page.locator("#token").fill(key)
            await page.keyboard.press("Enter")
            await expect(page.locator("#replicas tbody tr")).to_have_count(2)
            drawn = page.locator("polyline").first
            await expect(drawn).to_have_attribute("points", DRAWN, timeout=90_000 * UNIT)
            await shot.take("live")
            await shot.take("whole", full_page=True)
            await page.get_by_role("button", name="Inspect").first.click()
            await expect(page.locator("#facts dd").first).to_be_visible()
            await expect(page.locator("#turns tbody tr").first).to_be_visible()
            await shot.take("session")
            await page.keyboard.press("Escape")
            await page.get_by_role("button", name="Drain").last.click()
            await shot.take("drain")
            await page.keyboard.press("Escape")
            await page.evaluate("scrollTo(0, 0)")
            if await together.wait() == 0:
                for task in busy:
                    task.cancel()
                for process in both:
                    await asyncio.to_thread(process.stop)
            await expect(page.locator("#lost")).to_be_visible()
            await page.wait_for_timeout(1500)
            await shot.take("lost")

        await camera.on_each(act)


# The page of the voice-activity model


async def voice(camera: Camera) -> None:
    """The page that listens."""
    together = asyncio.Barrier(len(DEVICES))
    async with AsyncExitStack() as stack:
        platform = await stack.enter_async_context(aside(local("--model", "voice")))
        config = CONFIG.format(url=platform.url) + ROUTE
        process = await stack.enter_async_context(aside(serving(config)))

        async def act(shot: Shot) -> None:
            page = shot.page
            file, stop = page.locator("#file"), page.locator("#stop")
            await page.goto(f"{process.url}/voice")
            await shot.take("empty")
            await file.set_input_files(SAMPLE)
            await expect(page.locator("#heard")).to_have_text(re.compile("0:0[3-5]"))
            await shot.take("listening")
            await expect(stop).to_be_hidden()
            await page.locator("#compare").click()
            await expect(page.locator("#compared")).to_contain_text("155")
            await page.evaluate("scrollTo(0, 0)")
            await shot.take("heard")
            await shot.take("whole", full_page=True)
            await page.goto(f"{process.url}/voice?route=chat")
            await page.locator("#sample").click()
            await expect(page.locator("#problem")).to_be_visible()
            await shot.take("error")
            await page.goto(f"{process.url}/voice")
            await together.wait()  # else one has heard all of it before the other begins
            await page.locator("#sample").click()
            await expect(page.locator("#heard")).to_have_text(re.compile("0:0[1-4]"))
            if await together.wait() == 0:
                process.popen.kill()
            await expect(page.locator("#dot")).to_have_attribute("data-state", "waiting")
            await page.wait_for_timeout(500)
            await shot.take("reconnect")

        await camera.on_each(act)


# The documents


async def site(camera: Camera) -> None:
    """The first page of the documents' site."""

    async def act(shot: Shot) -> None:
        await shot.page.goto((SITE / "index.html").as_uri())
        await shot.take("index")

    await camera.on_each(act)


SCENES: dict[str, Callable[[Camera], Awaitable[None]]] = {
    "chat": chat,
    "operator": operator,
    "voice": voice,
    "site": site,
}
