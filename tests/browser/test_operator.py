"""The operator's page, in front of two gateways that share a real Valkey, and of one alone."""

import re
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from playwright.async_api import Locator, Page, ViewportSize, expect

from gateway.local.valkey import running
from tests.browser.conftest import CONFIG, Chat
from tests.support.client import Client, client
from tests.support.processes import Process, gateway
from tests.support.timing import UNIT
from tests.support.tokens import add_key

NewChat = Callable[..., Awaitable[Chat]]
SHARED = """
[server]
drain_seconds = 2
[store]
kind = "valkey"
url = "{valkey.url}"
password = "{valkey.password}"
lease_seconds = 60
[auth.keys]
file = "{keys}"
"""
MANY = 52
"""More sessions than a page has."""
PHONE = ViewportSize(width=320, height=640)
DESK = ViewportSize(width=1280, height=900)
SERIES = """async () => {
  const { Series, ceiling, lines, range } = await import("./static/operator/series.js");
  const { bytes, plural, seconds } = await import("./static/operator/format.js");
  const series = new Series(["a", "b"]);
  series.add([1, 0]);
  series.add([null, 2]);
  const stacked = series.stacked();
  const long = new Series(["a"]);
  for (let second = 0; second < 130; second += 1) long.add([second]);
  return {
    tops: [...[0, 1, 1.1, 3, 5.1, 1001].map((value) => ceiling(value)), ceiling(0.011, 0.01)],
    lines: lines([2, null, 1], 2),
    range: range([2, null, 1]),
    nothing: range([null]),
    stacked: [series.of("a"), stacked.of("a"), stacked.of("b")],
    kept: long.of("a").length,
    words: [
      ...[null, 0.0123, 1.5, 125, 18000].map(seconds),
      plural(1, "turn"), plural(1200, "turn"), bytes(2048),
    ],
  };
}"""


class Desk:
    """What an operator does with the page, and sees on it."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self.page: Page = chat.page
        self.state = self.page.locator("#state")
        self.sessions = self.page.locator("#sessions tbody tr")
        self.replicas = self.page.locator("#replicas tbody tr")
        self.asked = self.page.locator("#ask")

    async def sign_in(self, key: str) -> None:
        await self.page.get_by_label("key or token").fill(key)
        await self.page.keyboard.press("Enter")

    async def total(self, name: str) -> Locator:
        return self.page.locator("#totals div", has_text=name).locator("dd")

    async def accessible(self, name: str) -> None:
        """On a desk in light, and on a phone in the dark."""
        schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
        for scheme, size in zip(schemes, (DESK, PHONE), strict=True):
            await self.page.emulate_media(color_scheme=scheme)
            await self.page.set_viewport_size(size)
            await self.chat.accessible()
            await self.chat.screenshot(f"operator-{name}-{scheme}")
        await self.page.set_viewport_size(DESK)

    def forget(self, *texts: str) -> None:
        """A browser says on its console which requests were refused; that alone is no failure."""
        left = [each for each in self.chat.complaints if not any(text in each for text in texts)]
        assert left == []
        self.chat.complaints.clear()


async def opened(stack: AsyncExitStack, url: str, key: str, route: str = "chat") -> Client:
    headers = {"Authorization": f"Bearer {key}"}
    return await stack.enter_async_context(client(url, route=route, additional_headers=headers))


async def open_many(process: Process, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(headers=headers, timeout=20 * UNIT) as http:
        for _ in range(MANY):
            response = await http.post(f"{process.url}/v1/routes/chat/sessions")
            assert response.status_code == 201


async def test_two_replicas(platform: Process, tmp_path: Path, new_chat: NewChat) -> None:
    file, keys = tmp_path / "gateway.toml", tmp_path / "keys.toml"
    ada, olga = add_key(keys, "ada"), add_key(keys, "olga", operator=True)
    keys.write_text(keys.read_text().replace("[ada]\n", "[ada]\nmessages_per_second = 1000\n"))
    desk = Desk(await new_chat(viewport=DESK))
    page = desk.page
    async with AsyncExitStack() as stack:
        valkey = stack.enter_context(running())
        config = SHARED.format(valkey=valkey, keys=keys)
        file.write_text(CONFIG.format(url=platform.url) + config)
        one, other = (stack.enter_context(gateway(file)) for _ in range(2))

        await page.goto(f"{one.url}/operator")
        await expect(desk.state).to_have_text("Not signed in")
        await expect(page.get_by_label("key or token")).to_be_focused()
        await desk.accessible("sign-in")
        await desk.sign_in("sgk_wrong")
        await expect(page.locator("#known")).to_contain_text("a valid key")
        await desk.sign_in(ada)
        await expect(desk.state).to_have_text("No permission")
        await expect(page.locator("#known")).to_contain_text("an operator's key")
        await expect(page.locator("#shown")).to_be_hidden()
        await desk.sign_in(olga)
        await expect(desk.state).to_have_text("Live")
        await expect(page.locator("#found")).to_have_text("There are no sessions.")
        await expect(desk.replicas).to_have_count(2)
        desk.forget("401", "403")
        kept = await page.evaluate(
            "JSON.stringify([sessionStorage, localStorage, document.cookie])"
        )
        assert olga not in kept + await page.content()

        here, there = (
            await opened(stack, one.websocket, ada),
            await opened(stack, other.websocket, ada, "other"),
        )
        await here.open()
        session_id = (await there.open())["session_id"]
        assert (await here.ask("/stream 20 0.01"))["status"] == "completed"
        await there.send("message.send", id="slow", text=f"/sleep {3600 * UNIT}")
        await check_what_goes_on(desk)
        await check_sessions(desk, session_id, there)
        await open_many(other, ada)
        await check_many(desk)
        await check_draining(desk)
        assert other.wait() == 0
        await here.socket.close()

        port = one.url.rpartition(":")[2]
        assert one.stop() == 0
        await expect(desk.state).to_have_text("Connection lost")
        await expect(page.locator("#why")).not_to_be_empty()
        await expect(page.locator("#shown")).to_be_visible()
        await desk.accessible("lost")
        retry = page.get_by_role("button", name="Retry now")
        await retry.click()
        await expect(desk.state).to_have_text("Connection lost")
        stack.enter_context(gateway(file, "--port", port))
        # It may have tried by itself by now, when there is no button any more.
        await page.locator("#retry").dispatch_event("click")
        await expect(desk.state).to_have_text("Live")
        desk.forget("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_")


async def check_what_goes_on(desk: Desk) -> None:
    """Totals, plots, routes and replicas, which move."""
    page = desk.page
    await expect(await desk.total("Turns in flight")).to_have_text("1")
    await expect(await desk.total("Sessions")).to_have_text("2")
    plots = page.get_by_role("img")
    await expect(plots).to_have_count(4)
    await expect(
        page.get_by_role("img", name=re.compile("Turns, .*In flight: now 1"))
    ).to_be_visible()
    by_state = page.get_by_role("img", name=re.compile(r"Sessions by state.*Running: now 1"))
    await expect(by_state).to_be_visible()
    before = await by_state.locator("polyline").first.get_attribute("points")
    assert before is not None
    await page.wait_for_function(
        "before => document.querySelectorAll('figure')[3].querySelector('polyline')"
        ".getAttribute('points') !== before",
        arg=before,
    )
    summary = page.locator("figure").nth(1).locator("summary")
    await summary.focus()
    await page.keyboard.press("Enter")
    rows = page.locator("figure").nth(1).locator("tbody tr")
    await expect(rows.first.locator("td").first).to_have_text("1")
    other = page.locator("#routes tbody tr", has_text="other")
    await expect(other).to_contain_text("my-endpoint")
    await expect(other).to_contain_text("closed")
    await expect(desk.replicas.first).to_contain_text("serving")
    await desk.accessible("live")
    await summary.click()
    pause = page.get_by_role("button", name="Pause")
    await pause.click()
    await expect(desk.state).to_have_text("Paused")
    await expect(pause).to_have_attribute("aria-pressed", "true")
    await pause.click()
    await expect(desk.state).to_have_text("Live")


async def check_sessions(desk: Desk, session_id: str, there: Client) -> None:
    """One is found, looked at and closed, which is at the other replica."""
    page = desk.page
    await page.get_by_label("ID begins with").fill(session_id[:16])
    await expect(desk.sessions).to_have_count(1)
    await expect(desk.sessions.first).to_contain_text("running")
    await page.get_by_label("State", exact=True).select_option("ready")
    await expect(page.locator("#found")).to_have_text("No session matches.")
    await desk.accessible("none-found")
    await page.get_by_label("State", exact=True).select_option("")
    await expect(desk.sessions).to_have_count(1)

    inspect = page.get_by_role("button", name=f"Inspect session {session_id[:12]}")
    await inspect.focus()
    await page.keyboard.press("Enter")
    detail = page.locator("#detail")
    await expect(detail.locator("#facts")).to_contain_text("key:ada")
    await expect(detail.locator("#facts")).to_contain_text(session_id)
    await expect(detail.locator("#turns tbody tr").first).to_contain_text("running")
    await desk.accessible("detail")
    await page.keyboard.press("Escape")
    await expect(detail).to_be_hidden()
    await expect(inspect).to_be_focused()

    close = page.get_by_role("button", name=f"Close session {session_id[:12]}")
    await close.click()
    await expect(desk.asked).to_contain_text("be undone")
    await expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    await desk.accessible("asked")
    await page.keyboard.press("Escape")
    await expect(desk.asked).to_be_hidden()
    await inspect.click()
    await detail.get_by_role("button", name="Close session").click()
    await desk.asked.get_by_role("button", name="Close session").click()
    await expect(page.locator("#notice")).to_have_text(f"Session {session_id[:12]}… was closed.")
    await expect(detail).to_be_hidden()
    assert (await there.until("session.closed"))["reason"] == "operator"
    await page.get_by_label("ID begins with").fill("")


async def check_many(desk: Desk) -> None:
    """They are in pages."""
    page = desk.page
    await page.get_by_role("button", name="Find").click()
    await expect(desk.sessions).to_have_count(50)
    first = await desk.sessions.first.get_attribute("data-key")
    await page.get_by_role("button", name="Next").click()
    await expect(page.locator("#found")).to_contain_text("page 2, the last")
    await expect(page.get_by_role("button", name="Next")).to_be_disabled()
    await expect(page.get_by_role("button", name="Previous")).to_be_focused()
    assert await desk.sessions.first.get_attribute("data-key") != first
    await page.keyboard.press("Enter")
    await expect(desk.sessions).to_have_count(50)
    await desk.accessible("many")


async def check_draining(desk: Desk) -> None:
    """The other replica hands its sessions over, and is gone."""
    page = desk.page
    row = page.locator("#replicas tbody tr").filter(has_not_text="this one")
    await row.get_by_role("button").click()
    await expect(desk.asked).to_contain_text("over to the other replicas")
    await desk.asked.get_by_role("button", name="Drain").click()
    await expect(page.locator("#notice")).to_contain_text("is draining.")
    await expect(desk.replicas).to_have_count(1)
    await desk.replicas.first.get_by_role("button").click()
    await expect(desk.asked).to_contain_text("It is the only replica")
    await page.keyboard.press("Escape")


async def test_who_may_not_is_told_what_to_do(
    start_gateway: Callable[..., Process], new_chat: NewChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_SERVER__TRUSTED_PROXIES", '["127.0.0.1"]')
    desk = Desk(await new_chat(viewport=DESK, reduced_motion="reduce"))
    await desk.page.goto(f"{start_gateway().url}/operator")
    await expect(desk.state).to_have_text("No permission")
    await expect(desk.page.locator("#notice")).to_contain_text("set up [auth]")
    await desk.accessible("no-permission")
    desk.forget("403")


async def test_alone_without_keys_and_without_motion(
    start_gateway: Callable[..., Process], new_chat: NewChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_SERVER__LOCAL_OPERATOR", "true")
    desk = Desk(await new_chat(viewport=DESK, reduced_motion="reduce"))
    process = start_gateway()
    moved: Any = "window.moved = 0; Element.prototype.animate = () => { window.moved += 1; }"
    await desk.page.add_init_script(moved)
    await desk.page.goto(f"{process.url}/operator")
    await expect(desk.state).to_have_text("Live")
    await expect(desk.replicas).to_have_count(1)
    plot = desk.page.get_by_role("img", name=re.compile("Turns, .*now 0"))
    await expect(plot).to_be_visible()
    assert await desk.page.evaluate("window.moved") == 0
    assert await desk.page.evaluate(SERIES) == {
        "tops": [1, 1, 2, 5, 10, 2000, 0.02],
        "lines": [[[118, 0]], [[120, 50]]],
        "range": {"low": 1, "high": 2, "now": 1},
        "nothing": None,
        "stacked": [[1, None], [1, 0], [1, 2]],
        "kept": 120,
        "words": ["\u2013", "12.3 ms", "1.5 s", "2 min", "5 h", "1 turn", "1,200 turns", "2 KiB"],
    }
