"""A gateway that asks who is there, and the page and the client in front of it."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Error, expect

from tests.browser.conftest import Chat
from tests.support.processes import Process
from tests.support.tokens import add_key

Start = Callable[..., Process]
ROOT = Path(__file__).parents[2]
NewChat = Callable[..., Awaitable[Chat]]


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A key, which the gateway that is started takes."""
    file = tmp_path / "keys.toml"
    monkeypatch.setenv("GATEWAY_AUTH__KEYS__FILE", str(file))
    return add_key(file, "ada")


@pytest.fixture
def guarded(key: str, start_gateway: Start) -> Process:  # noqa: ARG001 - it takes that key
    return start_gateway()


def refusals(chat: Chat) -> None:
    """A browser says on its console which requests were refused; that alone is no failure."""
    assert all("401" in text for text in chat.complaints)
    chat.complaints.clear()


async def test_the_page_signs_in(guarded: Process, key: str, new_chat: NewChat) -> None:
    chat = await new_chat()
    page = chat.page
    await page.goto(guarded.url)
    await expect(page.get_by_label("Key or token")).to_be_focused()
    await expect(chat.state).to_contain_text("not signed in")
    await chat.screenshot("sign-in")
    await page.keyboard.type("sgk_wrong")
    await page.keyboard.press("Enter")
    await expect(page.locator("#known")).to_contain_text("a valid key")
    await page.get_by_label("Key or token").fill(key)
    await page.keyboard.press("Enter")
    await chat.connected()
    await expect(page.get_by_label("Key or token")).to_be_hidden()
    assert "Hello Ada" in await chat.ask("My name is Ada.")
    kept = await page.evaluate("JSON.stringify([sessionStorage, localStorage, document.cookie])")
    assert key not in kept
    assert key not in await page.content()
    refusals(chat)


async def test_the_page_for_sound_signs_in(
    key: str, start_gateway: Start, new_chat: NewChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_ROUTES__VOICE__ENDPOINT_NAME", "my-endpoint")
    chat = await new_chat()
    page = chat.page
    await page.goto(f"{start_gateway().url}/voice")
    sample = page.get_by_role("button", name="Use the sample")
    await sample.click()
    await expect(page.get_by_role("alert")).to_contain_text("not signed in")
    await page.get_by_label("Key or token").fill(key)
    await page.keyboard.press("Enter")
    await expect(page.get_by_label("Key or token")).to_be_hidden()
    await sample.click()
    await expect(page.get_by_role("alert")).to_contain_text("not a voice-activity model")
    assert key not in await page.content()
    refusals(chat)


async def test_a_page_that_is_loaded_again_asks_again_and_goes_on(
    guarded: Process, key: str, new_chat: NewChat
) -> None:
    chat = await new_chat()
    page = chat.page
    await page.goto(guarded.url)
    session = None
    for _ in range(2):
        await page.get_by_label("Key or token").fill(key)
        await page.keyboard.press("Enter")
        await chat.connected()
        await chat.ask("My name is Ada.")
        session = await page.locator("#session").get_attribute("title")
        refusals(chat)
        await page.reload()
    await page.get_by_label("Key or token").fill(key)
    await page.keyboard.press("Enter")
    await chat.connected()
    assert await page.locator("#session").get_attribute("title") == session
    assert "Your name is Ada." in await chat.ask("What is my name?")
    refusals(chat)


CONNECT = """async ([url, tokens]) => {
  const { SessionClient } = await import("./static/client.js");
  let asked = 0;
  const token = Array.isArray(tokens) ? () => tokens[Math.min(asked++, tokens.length - 1)] : tokens;
  const client = new SessionClient(url, { token });
  const ended = new Promise((resolve) => client.addEventListener("state", () => {
    if (client.state === "open" || client.state === "closed") resolve();
  }));
  client.connect();
  await ended;
  const { state, code, reason } = client;
  const text = state === "open" ? (await client.send("/echo hi")).text : null;
  client.close();
  return { state, code, reason, text, asked };
}"""


async def test_the_documents_script(guarded: Process, key: str, new_chat: NewChat) -> None:
    """With a browser's own WebSocket."""
    document = (ROOT / "docs" / "authentication.md").read_text()
    (script,) = re.findall(r"```js\n(.*?)```", document, re.DOTALL)
    script = script.replace("127.0.0.1:8080", guarded.url.removeprefix("http://"))
    chat = await new_chat()
    await chat.page.goto(guarded.url)
    opened = await chat.page.evaluate(
        f"""async (token) => {{
          {script}
          const socket = await connect(token);
          socket.onopen = () => socket.send('{{"type": "session.open"}}');
          return JSON.parse((await new Promise((resolve) => socket.onmessage = resolve)).data).type;
        }}""",
        key,
    )
    assert opened == "session.opened"
    with pytest.raises(Error, match="This requires a valid key, token or ticket"):
        await chat.page.evaluate(f"async (token) => {{ {script}; await connect(token); }}", "bad")
    refusals(chat)


@pytest.mark.parametrize(
    ("tokens", "state", "asked"),
    [
        ("good", "open", 0),
        (["good"], "open", 1),
        (["bad", "good"], "open", 2),
        (["bad"], "closed", 2),
    ],
)
async def test_the_client_shows_what_it_is_given(
    guarded: Process, key: str, new_chat: NewChat, tokens: Any, state: str, asked: int
) -> None:
    chat = await new_chat()
    page = chat.page
    await page.goto(guarded.url)
    real = {"good": key, "bad": "sgk_bad"}
    given = [real[name] for name in tokens] if isinstance(tokens, list) else real[tokens]
    got = await page.evaluate(CONNECT, [guarded.websocket + "/ws", given])
    assert (got["state"], got["asked"]) == (state, asked)
    if state == "open":
        assert got["text"] == "hi"
    else:
        assert got["code"] == 4401
        assert "valid key" in got["reason"]
    refusals(chat)
