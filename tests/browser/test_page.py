"""The chat page as a person uses it, by keyboard, and as assistive technology sees it."""

import asyncio
import re
import signal
from collections.abc import Callable
from typing import Any

import pytest
from playwright.async_api import Route, expect

from tests.browser.conftest import Chat
from tests.support.processes import Process, admin

Start = Callable[..., Process]


async def test_a_conversation_keeps_its_state(chat: Chat) -> None:
    await expect(chat.page.locator("#expiry")).to_contain_text("min")
    session = await chat.page.locator("#session").get_attribute("title")
    assert session is not None
    assert len(session) == 32
    assert "Hello Ada" in await chat.ask("My name is Ada.")
    assert "Your name is Ada." in await chat.ask("What is my name?")
    assert "AllTraffic" in await chat.entries.last.inner_text()
    await chat.screenshot("conversation")


async def test_a_session_is_opened_when_something_is_written(
    new_chat: Callable[..., Any], start_gateway: Start, platform: Process
) -> None:
    """It is a place at the model."""
    chat = await new_chat()
    await chat.page.goto(start_gateway().url)
    await expect(chat.state).to_have_text("Ready")
    await chat.page.reload()
    await expect(chat.state).to_have_text("Ready")
    assert opened(platform) == 0
    await chat.page.get_by_label("Message").press("H")
    await chat.connected()
    assert opened(platform) == 1
    await chat.page.keyboard.press("Enter")
    await expect(chat.page.locator(".entry.model")).to_contain_text("Turn 1")
    assert opened(platform) == 1


def opened(platform: Process) -> int:
    """How many sessions the model has had."""
    return sum(instance["opened"] for instance in admin(platform)["instances"])


async def test_what_is_written_while_the_page_loads_is_kept(
    new_chat: Callable[..., Any], start_gateway: Start
) -> None:
    chat = await new_chat()
    release = asyncio.Event()

    async def slowly(route: Route) -> None:
        await release.wait()
        await route.continue_()

    await chat.page.route("**/page.json", slowly)
    await chat.page.goto(start_gateway().url)
    await expect(chat.state).to_have_text("Loading …")
    await chat.page.get_by_label("Message").press_sequentially("Hello")
    release.set()
    await chat.connected()
    await expect(chat.page.get_by_label("Message")).to_have_value("Hello")


async def test_messages_may_be_sent_while_one_is_answered(chat: Chat, platform: Process) -> None:
    platform.popen.send_signal(signal.SIGSTOP)  # the answer is not to end before there are two
    try:
        await chat.write("/echo first")
        await chat.write("/echo second")
        await expect(chat.page.locator(".pending")).to_have_count(2)
    finally:
        platform.popen.send_signal(signal.SIGCONT)
    await expect(chat.page.locator(".pending")).to_have_count(0)
    texts = await chat.page.locator(".entry.model .body").all_inner_texts()
    assert texts[1] == "second"


async def test_lines_and_enter(chat: Chat) -> None:
    box = chat.page.get_by_label("Message")
    await expect(box).to_be_focused()
    await box.press_sequentially("/echo one")
    await chat.page.keyboard.press("Shift+Enter")
    await box.press_sequentially("two")
    await chat.page.keyboard.press("Enter")
    answer = chat.page.locator(".entry.model .body")
    await expect(answer).to_have_text("one\ntwo", use_inner_text=True)
    await expect(box).to_have_value("")
    await chat.page.keyboard.press("Enter")  # nothing to send
    await expect(chat.entries).to_have_count(2)


async def test_what_is_written_is_shown_as_text(chat: Chat) -> None:
    attack = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    assert attack in await chat.ask(f"/echo {attack}")
    assert await chat.page.locator("#log img, #log script").count() == 0


async def test_errors_are_shown_in_words(chat: Chat, platform: Process) -> None:
    assert "status 500" in await chat.ask("/fail 500")
    admin(platform, "/faults", error="ThrottlingException", times=4)
    assert "You can send it again." in await chat.ask("hi")
    assert "Turn" in await chat.ask("hi")
    await chat.screenshot("errors")


async def test_a_reply_that_is_no_text(chat: Chat) -> None:
    assert "100 bytes of application/octet-stream" in await chat.ask("/bytes 100")


async def test_another_route_is_another_session(chat: Chat) -> None:
    await chat.ask("My name is Ada.")
    before = await chat.page.locator("#session").get_attribute("title")
    await chat.page.get_by_label("Route").select_option("other")
    await expect(chat.entries).to_have_count(0)
    await chat.begin()
    assert await chat.page.locator("#session").get_attribute("title") != before
    assert "I know nothing" in await chat.ask("What is my name?")


async def test_a_session_that_the_model_closes_is_followed_by_a_new_one(
    chat: Chat, platform: Process
) -> None:
    await chat.write("/close")
    await expect(chat.notice("The model has closed the session.")).to_be_visible()
    await expect(chat.notice("Your next message starts a new session")).to_be_visible()
    await expect(chat.state).to_have_text("Ready")
    assert opened(platform) == 1
    assert "Turn 1" in await chat.ask("Hello?")
    await expect(chat.notice("This is a new session")).to_be_visible()
    assert opened(platform) == 2


async def test_a_gateway_that_goes_and_comes_back(
    new_chat: Callable[..., Any], start_gateway: Start
) -> None:
    """Another one knows nothing of the session, and that is said."""
    chat = await new_chat()
    first = start_gateway()
    await chat.open(first.url)
    await chat.write("/sleep 60")
    await expect(chat.page.locator(".pending")).to_have_count(1)
    first.popen.kill()
    await expect(chat.state).to_contain_text("The connection was lost. Connecting again")
    await chat.write("/echo Still to be sent.")
    await expect(chat.page.locator(".pending")).to_have_count(2)
    await chat.screenshot("gateway-gone")
    start_gateway("--port", first.url.rpartition(":")[2])
    await chat.connected()
    await expect(chat.page.locator(".problem")).to_contain_text("may or may not have seen")
    await expect(chat.notice("This is a new session")).to_be_visible()
    await chat.page.get_by_role("button", name="Send anyway").click()
    await expect(chat.page.locator(".entry.model .body")).to_have_text("Still to be sent.")
    assert "Turn 2" in await chat.ask("hi")
    chat.complaints.clear()  # Chromium's own, of refused connections


async def test_a_name_that_somebody_has_pointed_at_this_machine(
    new_chat: Callable[..., Any], start_gateway: Start
) -> None:
    chat = await new_chat()
    port = start_gateway().url.rpartition(":")[2]
    answer = await chat.page.goto(f"http://chat.localhost:{port}")
    assert answer.status == 421
    await expect(chat.page.locator("body")).to_contain_text("set public_url in [server]")
    chat.complaints.clear()  # Chromium's own, of the status


async def test_a_page_of_a_foreign_origin_says_so(
    new_chat: Callable[..., Any], start_gateway: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own gateway refuses it where its name for this machine is another than the gateway's."""
    monkeypatch.setenv("GATEWAY_SERVER__TRUSTED_PROXIES", '["127.0.0.1"]')
    chat = await new_chat(viewport={"width": 1100, "height": 760})
    port = start_gateway().url.rpartition(":")[2]
    await chat.page.goto(f"http://chat.localhost:{port}")
    await chat.ready()
    await chat.page.get_by_label("Message").press("H")
    await expect(chat.state).to_contain_text("allow it in the route's allowed_origins")
    await expect(chat.entries.last).not_to_contain_text("New session")
    await chat.accessible()
    await chat.screenshot("forbidden-origin")
    chat.complaints.clear()  # Chromium's own, of the refused handshake


@pytest.mark.usefixtures("streams")
async def test_a_browser_that_is_offline_for_a_while(chat: Chat) -> None:
    session = await chat.page.locator("#session").get_attribute("title")
    await chat.write("/count 100 20")
    await expect(chat.page.locator(".entry.model")).to_contain_text("5")
    await chat.page.context.set_offline(True)
    await expect(chat.state).to_contain_text("This device is offline.")
    await chat.write("/echo Written offline.")
    await expect(chat.page.locator(".pending")).to_have_count(2)
    await chat.page.context.set_offline(False)
    await chat.connected()
    answers = chat.page.locator(".entry.model .body")
    await expect(answers.last).to_have_text("Written offline.")
    assert counted(await answers.first.inner_text()) == 100
    assert await chat.page.locator("#session").get_attribute("title") == session
    chat.complaints.clear()  # Chromium's own, of refused connections


@pytest.mark.usefixtures("streams")
async def test_an_answer_is_stopped(chat: Chat) -> None:
    await chat.write("/count 1000 20")
    answer = chat.page.locator(".entry.model").first
    await expect(answer).to_contain_text("5")
    await chat.page.keyboard.press("Escape")
    await expect(answer).to_contain_text("Stopped. The model has seen this message.")
    assert 5 <= counted(await answer.locator(".body").inner_text()) < 1000
    await chat.screenshot("stopped")
    assert "Turn" in await chat.ask("hi")


@pytest.mark.usefixtures("streams")
async def test_a_page_that_is_loaded_again_in_the_middle_of_an_answer(chat: Chat) -> None:
    await chat.ask("My name is Ada.")
    session = await chat.page.locator("#session").get_attribute("title")
    await chat.write("/count 100 20")
    answers = chat.page.locator(".entry.model .body")
    await expect(answers.last).to_contain_text("5")
    await chat.page.reload()
    await expect(answers.first).to_contain_text("Hello Ada")
    await expect(chat.page.locator(".pending")).to_have_count(1)
    await expect(chat.page.locator(".pending")).to_have_count(0)
    assert counted(await answers.last.inner_text()) == 100
    assert await chat.page.locator("#session").get_attribute("title") == session
    assert "Your name is Ada." in await chat.ask("What is my name?")


@pytest.mark.usefixtures("streams")
async def test_two_windows_with_one_conversation(chat: Chat, platform: Process) -> None:
    await chat.write("/count 100 20")
    await expect(chat.page.locator(".entry.model")).to_contain_text("1")
    platform.popen.send_signal(signal.SIGSTOP)  # the answer is not to end before there are two
    try:
        async with chat.page.context.expect_page() as opened:
            await chat.page.evaluate("void window.open(location.href)")
        other = Chat(await opened.value)
        await other.connected()
    finally:
        platform.popen.send_signal(signal.SIGCONT)
    here = chat.page.get_by_role("button", name="Use here")
    await expect(here).to_be_visible()
    await expect(other.page.locator(".pending")).to_have_count(0)
    assert counted(await other.page.locator(".entry.model .body").inner_text()) == 100
    await other.ask("My name is Ada.")
    await here.click()
    await chat.connected()
    await expect(chat.page.get_by_label("Message")).to_be_focused()
    await expect(other.page.get_by_role("button", name="Use here")).to_be_visible()
    answers = chat.page.locator(".entry.model .body")
    await expect(answers.last).to_contain_text("Hello Ada")
    assert counted(await answers.first.inner_text()) == 100
    assert "Your name is Ada." in await chat.ask("What is my name?")
    assert other.complaints == []


def counted(text: str) -> int:
    """How far a count goes that has every number once and in order."""
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return len(numbers)


async def test_a_page_that_nobody_uses_opens_no_further_sessions(
    new_chat: Callable[..., Any],
    start_gateway: Start,
    platform: Process,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GATEWAY_ROUTES__CHAT__IDLE_SECONDS", "0.5")
    chat = await new_chat()
    await chat.open(start_gateway().url)
    await expect(chat.state).to_have_text("Ready")
    await expect(chat.entries.last).to_contain_text("was unused for too long")
    assert opened(platform) == 1


async def test_a_page_that_was_asleep_keeps_its_session(
    new_chat: Callable[..., Any], start_gateway: Start
) -> None:
    chat = await new_chat()
    await chat.page.clock.install()
    await chat.open(start_gateway().url)
    await chat.ask("My name is Ada.")
    await chat.page.clock.fast_forward(120_000)
    assert "Your name is Ada." in await chat.ask("What is my name?")


async def test_a_gateway_that_says_nothing_is_left(
    new_chat: Callable[..., Any], start_gateway: Start
) -> None:
    chat = await new_chat()
    await chat.page.clock.install()
    gateway = start_gateway()
    await chat.open(gateway.url)
    gateway.popen.send_signal(signal.SIGSTOP)
    try:
        await chat.page.clock.run_for(80_000)
        await expect(chat.state).to_have_text("Connecting …")
    finally:
        gateway.popen.send_signal(signal.SIGCONT)
    chat.complaints.clear()  # Chromium's own, of the attempts to connect


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1100])
async def test_accessibility(
    new_chat: Callable[..., Any], start_gateway: Start, scheme: str, width: int
) -> None:
    chat = await new_chat(color_scheme=scheme, viewport={"width": width, "height": 720})
    await chat.open(start_gateway().url)
    for step in ("welcome", "conversation"):
        await chat.accessible()
        if step == "welcome":
            await chat.ask("Remember that the harbour is closed on Mondays.")
            await chat.ask("/fail 500")
    await chat.screenshot(f"{scheme}-{width}")
