"""The React hook in Chromium, in front of a real gateway, on pages that esbuild has bundled."""

import json
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import Chat
from tests.browser.scripted import until
from tests.support import npm
from tests.support.folder import serving
from tests.support.processes import Process, admin

EXAMPLE = npm.CLIENT / "examples" / "react"
TIMER = 250
"""So many milliseconds the hook waits for a frame, see `react.js`."""

# Two components have the session that the page's buttons open, change and leave.
APP = """
import { Profiler, StrictMode, useState } from "react";
import { createRoot } from "react-dom/client";
import { useSession } from "session-gateway-client/react";
import { SessionClient } from "session-gateway-client";

const gateway = new URLSearchParams(location.search).get("gateway");
window.commits = 0;
const shared = (window.shared = new SessionClient(gateway));
shared.connect();

const done = { id: "m1", status: "completed", text: "Hello", deltas: 0, duration_ms: 1 };
const turn = { id: "m1", sent: { text: "Hi" }, deltas: 0, text: "", base64: [], done };
const kept = { url: gateway, session: null, last_event: 0, history: [turn] };
const storage = { claim: async () => kept, read: async () => kept, write: async () => {} };
window.stored = new SessionClient(gateway, { storage });

function Session({ name, session }) {
  const { state, turns, history, send } = useSession(session);
  window[name] = { state, turns, history, send };
  return <p id={name}>{state} {turns.at(-1)?.done?.text}</p>;
}

function App() {
  const [route, setRoute] = useState("chat");
  window.setRoute = setRoute;
  return <main>
    <h1>Sessions</h1>
    <Profiler id="own" onRender={() => (window.commits += 1)}>
      {route && <Session name="own" session={`${gateway}/${route}`} />}
    </Profiler>
    <Session name="one" session={shared} />
    <Session name="two" session={shared} />
    <Session name="old" session={stored} />
  </main>;
}

createRoot(document.getElementById("chat")).render(<StrictMode><App /></StrictMode>);
"""

COUNTING = """async () => {
  const { commits } = window;
  const begun = performance.now();
  let frames = 0, over = false;
  const count = () => { frames += 1; if (!over) requestAnimationFrame(count); };
  requestAnimationFrame(count);
  const before = own.turns;
  const { deltas, text } = await own.send("/count 300 2");
  while (!own.turns.at(-1).done) await new Promise(requestAnimationFrame);
  over = true;
  const kept = before.every((view, number) => own.turns[number] === view);
  const time = performance.now() - begun;
  return { commits: window.commits - commits, frames, deltas, kept, time,
    whole: own.turns.at(-1).text === text };
}"""


@pytest.fixture
def project(npm_package: Path, tmp_path: Path) -> Path:
    """The example as it stands, with what it depends on installed."""
    folder = tmp_path / "react"
    shutil.copytree(EXAMPLE, folder)
    shutil.copytree(npm_package / "app" / "node_modules", folder / "node_modules")
    npm.link(folder, ("react", "react-dom", "scheduler", "esbuild", "@esbuild", ".bin"))
    return folder


@contextmanager
def bundled(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The page's origin, from which the gateway's routes take connections."""
    npm.command("npm", "run", "--silent", "bundle", cwd=project)
    with serving(project) as origin:
        for route in ("CHAT", "OTHER"):
            allowed = f"GATEWAY_ROUTES__{route}__ALLOWED_ORIGINS"
            monkeypatch.setenv(allowed, json.dumps([origin]))
        yield origin


@asynccontextmanager
async def opened(
    new_chat: Callable[..., Any], origin: str, gateway: Process
) -> AsyncIterator[tuple[Page, list[str]]]:
    """The page, and the last part of the address of each connection that it makes."""
    chat: Chat = await new_chat()
    sockets: list[str] = []
    chat.page.on("websocket", lambda socket: sockets.append(socket.url.rpartition("/")[2]))
    await chat.page.goto(f"{origin}/?gateway={gateway.websocket}/ws")
    yield chat.page, sockets
    await chat.accessible()
    await chat.page.goto("about:blank")
    (advertised,) = chat.complaints  # by React, where it is not built for production
    assert "React DevTools" in advertised
    chat.complaints.clear()


def sessions(platform: Process) -> int:
    return sum(instance["sessions"] for instance in admin(platform)["instances"])


@pytest.mark.usefixtures("streams")
async def test_the_example(
    project: Path,
    new_chat: Callable[..., Any],
    start_gateway: Callable[..., Process],
    platform: Process,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its StrictMode is that of development, which mounts everything twice."""
    with bundled(project, monkeypatch) as origin:
        async with opened(new_chat, origin, start_gateway()) as (page, sockets):
            await expect(page.get_by_role("status")).to_have_text("open")
            replies = page.get_by_role("listitem")
            for text, answer in (("My name is Ada.", "Hello Ada"), ("What is my name?", "Turn 2")):
                await page.get_by_label("Message").fill(text)
                await page.keyboard.press("Enter")
                await expect(replies.last).to_contain_text(answer)
            await expect(replies).to_have_count(2)
            await page.get_by_label("Message").fill("/sleep 60")
            await page.keyboard.press("Enter")
            await page.get_by_role("button", name="Stop").click()
            await expect(page.get_by_role("button", name="Stop")).to_have_count(0)
            assert (sockets, sessions(platform)) == (["ws"], 1)


@pytest.mark.usefixtures("streams")
async def test_the_hook(
    project: Path,
    new_chat: Callable[..., Any],
    start_gateway: Callable[..., Process],
    platform: Process,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (project / "chat.tsx").write_text(APP)
    with bundled(project, monkeypatch) as origin:
        async with opened(new_chat, origin, start_gateway()) as (page, sockets):
            for name in ("own", "one", "two"):
                await expect(page.locator(f"#{name}")).to_contain_text("open")
            assert sorted(sockets) == ["chat", "ws"], "each session is opened once"

            await page.evaluate("stored.restore()")
            await expect(page.locator("#old")).to_have_text("closed Hello")

            await page.evaluate("one.send('/echo Hello').then(() => {})")
            await expect(page.locator("#two")).to_have_text("open Hello")
            await page.evaluate("own.send('/echo Hi').then(() => {})")
            await expect(page.locator("#own")).to_have_text("open Hi")
            counted = await page.evaluate(COUNTING)
            assert counted["deltas"] == 300
            assert counted["whole"]
            assert counted["kept"], "what has not changed is the same object"
            assert counted["commits"] <= counted["frames"] + counted["time"] / TIMER + 1
            types = await page.evaluate("own.history.map(({ type }) => type)")
            assert types == ["opened", "turn", "turn"]
            keys = await page.evaluate("own.history.map(({ key }) => key)")
            assert len(set(keys)) == len(keys)

            await page.evaluate("setRoute('other')")
            await until(lambda: sockets.count("other") == 1)
            await expect(page.locator("#own")).to_contain_text("open")
            assert await page.evaluate("own.turns") == []
            await until(lambda: sessions(platform) == 2)
            await page.evaluate("window.late = own.send, setRoute(null)")
            await until(lambda: sessions(platform) == 1)
            told = await page.evaluate("try { late('hi') } catch (error) { error.message }")
            assert "not mounted" in told
            await page.evaluate("shared.close()")
            await expect(page.locator("#one")).to_contain_text("closed")
            await until(lambda: sessions(platform) == 0)
