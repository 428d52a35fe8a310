"""The page ``/voice``: what it draws and saves is what the library itself says of the file."""

import asyncio
import re
import wave
from array import array
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

import pytest
from playwright.async_api import FilePayload, Page, async_playwright, expect

from tests.browser.conftest import ARGUMENTS, CHROMIUM, CONFIG, Chat
from tests.support.processes import Process, admin, gateway, local
from tests.support.voice import ROUTE, SAMPLE, offline, sound

New = Callable[..., Awaitable[Chat]]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Process]]:
    """A gateway's address, and the platform behind it."""
    with ExitStack() as stack:
        platform = stack.enter_context(local("--model", "voice"))
        file = tmp_path_factory.mktemp("voice") / "gateway.toml"
        file.write_text(CONFIG.format(url=platform.url) + ROUTE)
        yield stack.enter_context(gateway(file)).url, platform


def quiet(samples: bytes) -> bytes:
    """The same at half the level, where browsers agree: some take 32,767 for the loudest sample."""
    return array("h", (sample // 2 for sample in array("h", samples))).tobytes()


QUIET = quiet(sound())


def wav(samples: bytes) -> FilePayload:
    """A file with these samples."""
    buffer = BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(samples)
    return {"name": "sound.wav", "mimeType": "audio/wav", "buffer": buffer.getvalue()}


async def numbers(page: Page) -> list[float]:
    """The probabilities that the page saves."""
    async with page.expect_download() as saving:
        await page.get_by_role("button", name="Save as CSV").click()
    saved = Path(await (await saving.value).path())
    header, *rows = (await asyncio.to_thread(saved.read_text)).splitlines()
    assert header == "frame,seconds,probability"
    return [float(row.split(",")[2]) for row in rows]


async def over(page: Page) -> None:
    """Wait until all of the sound was heard."""
    await expect(page.get_by_role("button", name="Stop")).to_be_hidden()


async def test_a_file_whose_instance_is_lost(stage: tuple[str, Process], new_chat: New) -> None:
    url, platform = stage
    chat = await new_chat(viewport={"width": 1100, "height": 900})
    page = chat.page
    await page.goto(f"{url}/voice")
    await chat.accessible()
    await page.get_by_label("Use a file").set_input_files(wav(QUIET))
    # As fast as speech at first: there is time to lose the instance.
    instance = page.locator("#instance")
    await expect(instance).to_have_text(re.compile("i-[12]"))
    admin(platform, f"/instances/{await instance.inner_text()}/lose")
    await page.get_by_label("Send faster than real time").check()
    await over(page)
    assert await numbers(page) == offline(QUIET)
    happened = page.locator("#events li")
    await expect(happened).to_have_count(2)
    await expect(happened.last).to_contain_text("The instance was lost after message")
    await expect(happened.last).to_contain_text("all the audio was replayed")
    spoken = await page.locator("#segments li").all_inner_texts()
    assert len(spoken) >= 2, "two sentences"
    assert all(re.fullmatch(r"0:0\d\.\d to 0:0\d\.\d", each) for each in spoken)
    label = await page.locator("#plot").get_attribute("aria-label")
    assert label is not None
    assert label.endswith(f"speech {', '.join(spoken)}")
    await expect(page.locator("#trip")).to_contain_text("of 20 the median")
    await page.get_by_role("button", name="Compare with one message").click()
    await expect(page.locator("#compared")).to_have_text(
        "All 155 frames are identical to the last digit."
    )
    await chat.accessible()
    await chat.screenshot("voice")
    # What is read as sound, but ends in the middle of a frame, and on a small screen.
    await page.set_viewport_size({"width": 320, "height": 700})
    await page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    await page.get_by_label("Use a file").set_input_files(wav(QUIET[: 50_001 * 2]))
    await expect(page.locator("#heard")).to_have_text("0:03.1")
    await over(page)
    assert await numbers(page) == offline(QUIET[: 50_001 * 2])
    await chat.accessible()
    await chat.screenshot("voice-small")


async def test_what_can_go_wrong_is_said(stage: tuple[str, Process], new_chat: New) -> None:
    url, _ = stage
    chat = await new_chat()
    page = chat.page
    alert = page.get_by_role("alert")
    await page.goto(f"{url}/voice")
    await page.get_by_role("button", name="Use the microphone").click()
    await expect(alert).to_contain_text("or use a file or the sample.")
    await chat.accessible()
    await page.evaluate("Object.defineProperty(window, 'isSecureContext', { value: false })")
    await page.get_by_role("button", name="Use the microphone").press("Enter")
    await expect(alert).to_contain_text("Browsers allow the microphone only for pages over HTTPS")
    text: FilePayload = {"name": "text.wav", "mimeType": "audio/wav", "buffer": b"no sound"}
    await page.get_by_label("Use a file").set_input_files(text)
    await expect(alert).to_contain_text("This browser can't decode the file.")
    # A route with a model for text.
    await page.goto(f"{url}/voice?route=chat")
    await page.get_by_role("button", name="Use the sample").click()
    await expect(alert).to_contain_text("did not process the audio after 0:00.0")
    await over(page)
    await chat.accessible()


@pytest.mark.long
async def test_the_microphone(stage: tuple[str, Process]) -> None:
    """A browser that takes the sample for its microphone, which has another sample rate."""
    url, platform = stage
    arguments = [
        *ARGUMENTS,
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={SAMPLE}",
    ]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        chat = Chat(await browser.new_page())
        page = chat.page
        await page.goto(f"{url}/voice")
        await page.get_by_role("button", name="Use the microphone").click()
        await expect(page.locator("#segments li")).to_have_count(1)
        # Each call takes as long as eight messages: more and more of them wait.
        admin(platform, "/faults", delay_seconds=2.0)
        await expect(page.get_by_role("alert")).to_contain_text(
            "seconds of audio are waiting to be sent"
        )
        admin(platform, "/faults", delay_seconds=0.0)
        await expect(page.get_by_role("alert")).to_be_hidden()
        await page.get_by_role("button", name="Stop").click()
        await over(page)
        await expect(page.get_by_role("button", name="Use the microphone")).to_be_focused()
        assert max(await numbers(page)) > 0.9
        assert (
            await page.locator("#heard").inner_text() == await page.locator("#taken").inner_text()
        )
        await page.get_by_role("button", name="Compare with one message").click()
        await expect(page.locator("#compared")).to_contain_text("identical to the last digit")
        assert chat.complaints == []
        await browser.close()
