"""The page's conversations: kept in the browser, found again, gone on with, and branched."""

import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, FilePayload, Locator, expect

from tests.browser.conftest import Chat
from tests.browser.scripted import until
from tests.support.processes import Process, admin
from tests.support.timing import UNIT

Start = Callable[..., Process]

DRAFTS = """async (text) => {
  const { Conversations } = await import("/static/chat/conversations.js");
  const all = await (await Conversations.open("session-gateway")).list();
  return all.some(({ draft }) => draft === text);
}"""


def listed(chat: Chat) -> Locator:
    return chat.page.locator(".conversation")


async def begin(chat: Chat) -> None:
    await chat.page.get_by_role("button", name="New conversation").first.click()
    await expect(chat.page.locator(".entry.model")).to_have_count(0)
    await chat.begin()


async def options(chat: Chat, title: str) -> None:
    await chat.page.get_by_role("button", name=f"Options for {title}").click()


async def test_several_conversations(chat: Chat, platform: Process) -> None:
    page = chat.page
    await chat.ask("My name is Ada.")
    await begin(chat)
    assert "I know nothing" in await chat.ask("What is my name?")
    await expect(listed(chat)).to_have_count(2)
    await expect(listed(chat).first).to_contain_text("What is my name?")
    await chat.accessible()
    await listed(chat).filter(has_text="Ada").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("My name is Ada.")
    await chat.connected()
    assert "Your name is Ada." in await chat.ask("And what is my name?")
    await page.get_by_label("Message").fill("To be continued")
    await expect(listed(chat).first).to_contain_text("Ada")
    await listed(chat).last.click()
    await expect(page.get_by_label("Message")).to_have_value("")
    await listed(chat).filter(has_text="Ada").click()
    await expect(page.get_by_label("Message")).to_have_value("To be continued")
    await page.reload()
    await chat.connected()
    await expect(page.get_by_label("Message")).to_have_value("To be continued")
    await expect(chat.entries).to_have_count(4)
    assert sum(instance["opened"] for instance in admin(platform)["instances"]) == 2

    await page.get_by_label("Search").fill("KNOW NOTHING")
    await expect(page.get_by_text("1 found")).to_be_visible()
    await expect(listed(chat)).to_have_text([re.compile("What is my name")])
    await page.get_by_label("Search").fill("nowhere")
    await expect(page.get_by_text("None found")).to_be_visible()
    await page.get_by_label("Search").fill("")

    await options(chat, "My name is Ada.")
    await chat.accessible()
    await page.get_by_label("Title").fill("Ada")
    await page.get_by_role("button", name="Rename").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Ada")
    await options(chat, "Ada")
    text = await saved(chat, "Export as Markdown", "Ada.md")
    assert text.startswith("# Ada\n\n## You\n\nMy name is Ada.\n\n## Model\n\nTurn 1 on")
    kept = json.loads(await saved(chat, "Export as JSON", "Ada.json"))
    assert [item["sent"]["text"] for item in kept["items"] if "sent" in item] == [
        "My name is Ada.",
        "And what is my name?",
    ]
    assert "resume_key" not in json.dumps(kept)
    await page.get_by_role("button", name="Delete", exact=True).click()
    await expect(listed(chat).filter(has_text="Ada")).to_have_count(0)
    await expect(page.get_by_role("heading", level=1)).to_have_text("New conversation")
    await page.get_by_role("button", name="Details").click()
    await chat.accessible()
    await page.get_by_role("button", name="Delete all conversations").click()
    await expect(listed(chat)).to_have_count(1)


async def saved(chat: Chat, button: str, name: str) -> str:
    """What the button gives the user."""
    async with chat.page.expect_download() as download:
        await chat.page.get_by_role("button", name=button).click()
    file = await download.value
    assert file.suggested_filename == name
    return Path(await file.path()).read_text()  # noqa: ASYNC240 - the test waits for it


async def test_an_answer_goes_on_while_another_conversation_is_shown(
    chat: Chat, platform: Process
) -> None:
    await chat.write(f"/sleep {2 * UNIT}")
    await expect(chat.page.locator(".pending")).to_have_count(1)
    await begin(chat)
    await chat.ask("/echo here")
    await listed(chat).filter(has_text="/sleep").click()
    await expect(chat.entries).to_have_count(2)
    await expect(chat.page.locator(".pending")).to_have_count(0)
    assert sum(instance["opened"] for instance in admin(platform)["instances"]) == 2


async def test_nothing_is_forgotten_that_somebody_has_said(
    browser: Browser, start_gateway: Start
) -> None:
    """Though it is left before it was read, or was said in another window."""
    context = await browser.new_context(viewport={"width": 1100, "height": 760})
    chat, other = Chat(await context.new_page()), Chat(await context.new_page())
    await chat.open(start_gateway().url)
    await chat.ask("/echo one")
    await begin(chat)
    await chat.ask("/echo two")
    await begin(chat)
    await other.open(chat.page.url)
    await expect(chat.page.get_by_text("goes on in another window")).to_be_visible()
    await other.ask("/echo three")
    await expect(listed(chat)).to_have_count(3)
    await chat.page.evaluate(
        "document.querySelectorAll('.conversation').forEach((button) => button.click())"
    )
    await chat.connected()
    await chat.page.reload()
    await chat.connected()
    await expect(listed(chat)).to_have_count(3)
    assert chat.complaints + other.complaints == []
    await context.close()


class TestTwoWindows:
    """Of one conversation, each with a message field of its own."""

    @pytest_asyncio.fixture(loop_scope="session")
    async def windows(
        self, browser: Browser, start_gateway: Start, monkeypatch: pytest.MonkeyPatch
    ) -> AsyncIterator[tuple[Chat, Chat]]:
        monkeypatch.setenv("GATEWAY_ROUTES__CHAT__ON_LOST", "replay")
        context = await browser.new_context(viewport={"width": 1100, "height": 760})
        chat, other = Chat(await context.new_page()), Chat(await context.new_page())
        await chat.open(start_gateway().url)
        yield chat, other
        assert chat.complaints + other.complaints == []
        await context.close()

    async def test_a_window_that_leaves_it_keeps_what_the_other_has_written(
        self, windows: tuple[Chat, Chat]
    ) -> None:
        chat, other = windows
        await chat.ask("/echo one")
        await other.page.goto(chat.page.url)
        await self.written(other)
        await chat.page.get_by_role("button", name="New conversation").first.click()
        await expect(chat.page.locator(".entry.you")).to_have_count(0)
        await other.page.reload()
        await expect(other.page.get_by_label("Message")).to_have_value("To be continued")

    async def test_a_conversation_in_which_the_other_has_written_is_not_discarded(
        self, windows: tuple[Chat, Chat]
    ) -> None:
        chat, other = windows
        await other.page.goto(chat.page.url)
        await self.written(other)
        url = other.page.url
        await chat.page.get_by_label("Route").select_option("other")
        await chat.ready()
        assert chat.page.url != url
        await other.page.reload()
        await expect(other.page.get_by_label("Message")).to_have_value("To be continued")
        assert other.page.url == url

    async def test_what_is_edited_is_found_though_it_was_read_anew(
        self, windows: tuple[Chat, Chat]
    ) -> None:
        """The branch knows what was said before it, and nothing else."""
        chat, other = windows
        for text in ("/echo one", "/echo two", "/echo three"):
            await chat.ask(text)
        await chat.entries.nth(2).get_by_role("button", name="Edit").click()
        await other.open(chat.page.url)
        await chat.page.get_by_role("button", name="Use here").click()
        await chat.connected()
        await chat.write("/echo four")
        await expect(chat.page.get_by_role("heading", level=1)).to_contain_text("(branch)")
        said = chat.page.locator(".entry.you .body")
        await expect(said).to_have_text(["/echo one", "/echo four"])

    async def written(self, other: Chat) -> None:
        """Something is written in the other window, and kept."""
        await other.ready()
        await other.page.get_by_label("Message").fill("To be continued")
        await until(lambda: other.page.evaluate(DRAFTS, "To be continued"))


class TestBranches:
    @pytest_asyncio.fixture(loop_scope="session")
    async def told(
        self, new_chat: Callable[..., Any], start_gateway: Start, monkeypatch: pytest.MonkeyPatch
    ) -> Chat:
        """The model's sessions can be told what was said before them."""
        monkeypatch.setenv("GATEWAY_ROUTES__CHAT__ON_LOST", "replay")
        chat: Chat = await new_chat(viewport={"width": 360, "height": 640})
        self.gateway = start_gateway()
        self.start = start_gateway
        await chat.open(self.gateway.url)
        await chat.ask("My name is Ada.")
        return chat

    async def test_an_earlier_message_is_said_in_other_words(self, told: Chat) -> None:
        await told.ask("What is my name?")
        await told.page.get_by_label("Message").fill("What I was writing")
        await told.entries.nth(2).get_by_role("button", name="Edit").click()
        await expect(told.page.get_by_label("Message")).to_have_value("What is my name?")
        await told.page.get_by_role("button", name="Cancel").click()
        await expect(told.page.get_by_label("Message")).to_have_value("What I was writing")
        await told.entries.nth(2).get_by_role("button", name="Edit").click()
        await told.accessible()
        await told.write("Tell me: what is my name?")
        await expect(told.entries.last).to_contain_text("Your name is Ada.")
        notice = told.notice("all of your messages were sent to it again")
        await expect(notice).to_have_count(1)
        await expect(told.page.get_by_role("heading", level=1)).to_contain_text("(branch)")
        await expect(told.entries).to_have_count(5)
        await told.page.get_by_role("button", name="Conversations").click()
        await listed(told).filter(has_text="Ada").last.click()
        await expect(told.page.get_by_label("Message")).to_have_value("What I was writing")

    async def test_another_wording_is_kept_where_its_conversation_is_left(self, told: Chat) -> None:
        message = told.page.get_by_label("Message")
        await message.fill("What I was writing")
        await told.entries.first.get_by_role("button", name="Edit").click()
        await told.page.reload()
        await expect(message).to_have_value("What I was writing")  # for nothing was changed
        await told.entries.first.get_by_role("button", name="Edit").click()
        await message.fill("My name is Grace.")
        url = told.page.url
        await told.page.get_by_role("button", name="Conversations").click()
        await told.page.get_by_role("button", name="New conversation").first.click()
        await expect(message).to_have_value("")
        await told.page.goto(url)
        await expect(message).to_have_value("My name is Grace.\nWhat I was writing")

    async def test_a_session_that_could_not_be_told_is_sent_nothing_unasked(
        self, told: Chat
    ) -> None:
        await told.page.route("**/v1/routes/*/sessions", lambda route: route.fulfill(status=503))
        await told.ask("What is my name?")
        await told.entries.last.get_by_role("button", name="Regenerate").click()
        await expect(told.page.locator("#asked")).to_contain_text("Send your message anyway?")
        await expect(told.page.get_by_role("heading", level=1)).to_contain_text("(branch)")
        told.complaints.clear()  # Chromium's own, of the 503
        await told.page.get_by_role("button", name="Send anyway").click()
        await expect(told.entries.last).to_contain_text("I know nothing")

    async def test_an_answer_is_made_again(self, told: Chat) -> None:
        await told.entries.last.get_by_role("button", name="Regenerate").click()
        await expect(told.entries.last).to_contain_text("Turn 1")
        await expect(told.entries).to_have_count(2)
        await told.page.get_by_role("button", name="Conversations").click()
        await expect(listed(told)).to_have_count(2)
        await told.accessible()

    async def test_a_gateway_that_has_forgotten_is_told_again(self, told: Chat) -> None:
        self.gateway.popen.kill()
        await expect(told.page.get_by_role("button", name="Retry now")).to_be_visible()
        await expect(told.page.locator("#trouble")).to_contain_text("The connection was lost.")
        await told.accessible()
        self.start("--port", self.gateway.url.rpartition(":")[2])
        await expect(told.notice("starts a new session, which is given this")).to_be_visible()
        assert "Your name is Ada." in await told.ask("What is my name?")
        await expect(told.notice("all of your messages were sent to it again")).to_have_count(1)
        told.complaints.clear()  # Chromium's own, of refused connections


async def test_files_are_attached(
    new_chat: Callable[..., Any], start_gateway: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_ROUTES__CHAT__CONTENT_TYPE", "application/octet-stream")
    monkeypatch.setenv("GATEWAY_ROUTES__CHAT__MESSAGE_BYTES", "20000")
    chat: Chat = await new_chat()
    await chat.open(start_gateway().url)
    files = chat.page.locator("#files")
    await files.set_input_files({"name": "big.bin", "mimeType": "", "buffer": bytes(20_000)})
    words = "big.bin is 20 kB; the limit is 14 kB."
    await expect(chat.page.locator("#refused")).to_have_text(words)
    await files.set_input_files({"name": "a.txt", "mimeType": "text/plain", "buffer": b"/echo hi"})
    await expect(chat.page.locator("#attached")).to_contain_text("a.txt, 8 bytes")
    await chat.accessible()
    await chat.page.get_by_role("button", name="Send", exact=True).click()
    await expect(chat.page.locator(".entry.model .body")).to_have_text("hi")
    both: list[FilePayload] = [
        {"name": name, "mimeType": "text/plain", "buffer": b"/echo hi"} for name in ("c", "d")
    ]
    await files.set_input_files(both)
    remove = chat.page.get_by_role("button", name="Remove")
    await expect(remove).to_have_count(2)
    await remove.first.click()
    await remove.first.click()
    await expect(chat.page.locator("#attached")).to_be_hidden()
    await chat.write("Hello?")
    await expect(chat.page.locator("#refused")).to_have_text("This route takes files, not text.")
    await chat.page.evaluate("() => { Blob.prototype.arrayBuffer = async () => { throw 'gone' } }")
    await files.set_input_files({"name": "b.txt", "mimeType": "text/plain", "buffer": b"gone"})
    await expect(chat.page.locator("#refused")).to_have_text("b.txt can't be read.")


async def test_a_file_keeps_its_name(
    new_chat: Callable[..., Any], start_gateway: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the browser alone: the model is not told."""
    monkeypatch.setenv("GATEWAY_ROUTES__CHAT__CONTENT_TYPE", "application/octet-stream")
    chat: Chat = await new_chat()
    await chat.open(start_gateway().url)
    file: FilePayload = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"/echo hi"}
    await chat.page.locator("#files").set_input_files(file)
    await chat.page.get_by_role("button", name="Send", exact=True).click()
    await expect(chat.page.locator(".entry.model .body")).to_have_text("hi")
    sent = chat.page.locator(".entry.you .file")
    for _ in range(2):
        await expect(sent).to_contain_text("notes.txt")
        assert await sent.get_attribute("download") == "notes.txt"
        await expect(listed(chat)).to_contain_text("notes.txt")
        await chat.page.reload()
    await options(chat, "notes.txt")
    text = await saved(chat, "Export as Markdown", "notes.txt.md")
    assert "## You\n\n(notes.txt, 8 bytes of text/plain)\n\n## Model\n\nhi" in text


async def test_attachments_stay_with_their_conversation(
    new_chat: Callable[..., Any], start_gateway: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is still being read when another is shown, too."""
    monkeypatch.setenv("GATEWAY_ROUTES__CHAT__CONTENT_TYPE", "application/octet-stream")
    chat: Chat = await new_chat(viewport={"width": 1100, "height": 760})
    await chat.page.add_init_script(
        """const read = Blob.prototype.arrayBuffer;
        Blob.prototype.arrayBuffer = async function () {
          await new Promise((resolve) => Object.assign(window, { resolve }));
          return read.call(this);
        };"""
    )
    await chat.page.goto(start_gateway().url)
    await chat.ready()
    attached = chat.page.locator("#attached")
    file: FilePayload = {"name": "a.txt", "mimeType": "text/plain", "buffer": b"/echo hi"}
    await chat.page.locator("#files").set_input_files(file)
    await expect(attached).to_contain_text("a.txt, 8 bytes, being read …")
    await chat.page.get_by_role("button", name="Send", exact=True).click()
    await expect(chat.page.locator("#refused")).to_have_text("a.txt is still being read.")
    await chat.accessible()
    await chat.page.get_by_role("button", name="New conversation").first.click()
    await expect(listed(chat)).to_have_count(2)
    await expect(attached).to_be_hidden()
    await expect(chat.page.locator("#refused")).to_be_hidden()
    await chat.page.evaluate("resolve()")
    await expect(attached).to_be_hidden()
    await listed(chat).last.click()
    await expect(attached).to_have_text(re.compile("a.txt, 8 bytesRemove"))
    await chat.page.get_by_role("button", name="Send", exact=True).click()
    await expect(chat.page.locator(".entry.model .body")).to_have_text("hi")


async def test_json_is_exported(
    new_chat: Callable[..., Any], start_gateway: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_ROUTES__CHAT__CONTENT_TYPE", "application/json")
    chat: Chat = await new_chat(viewport={"width": 1100, "height": 760})
    await chat.open(start_gateway().url)
    await chat.ask('{ "inputs": "```Hello```" }')
    await chat.page.get_by_role("button", name="Options for").click()
    async with chat.page.expect_download() as download:
        await chat.page.get_by_role("button", name="Export as Markdown").click()
    text = Path(await (await download.value).path()).read_text()  # noqa: ASYNC240 - as above
    assert '## You\n\n````json\n{\n  "inputs": "```Hello```"\n}\n````\n\n## Model\n\n' in text


async def test_deleting_ends_the_session(chat: Chat, platform: Process) -> None:
    """Also while an answer is under way, and so is written down."""
    await chat.write("/sleep 60")
    await expect(chat.page.locator(".pending")).to_have_count(1)
    await options(chat, "/sleep 60")
    await chat.page.get_by_role("button", name="Delete", exact=True).click()
    await expect(listed(chat)).to_have_count(1)
    await until(lambda: sum(each["closed"] for each in admin(platform)["instances"]) == 1)
    await expect(listed(chat)).to_have_text([re.compile("New conversation")])
    await chat.page.reload()
    await expect(listed(chat)).to_have_text([re.compile("New conversation")])


async def test_a_conversation_that_another_window_deletes_is_there_again(
    browser: Browser, start_gateway: Start
) -> None:
    """All of it, with the next message."""
    context = await browser.new_context(viewport={"width": 1100, "height": 760})
    chat, other = Chat(await context.new_page()), Chat(await context.new_page())
    await chat.open(start_gateway().url)
    await chat.ask("/echo one")
    await other.open(chat.page.url.partition("#")[0])
    await options(other, "/echo one")
    await other.page.get_by_role("button", name="Delete", exact=True).click()
    await expect(listed(chat)).to_have_count(0)
    assert "two" in await chat.ask("/echo two")
    await expect(listed(other).filter(has_text="/echo one")).to_have_count(1)
    await chat.page.reload()
    await expect(chat.page.locator(".entry.you .body")).to_have_text(["/echo one", "/echo two"])
    assert chat.complaints + other.complaints == []
    await context.close()


@pytest.mark.parametrize("how", ["deleted", "cleared"])
async def test_a_database_that_is_closed_under_the_page(chat: Chat, how: str) -> None:
    await chat.ask("/echo one")
    if how == "deleted":
        deleted = """() => new Promise((resolve, reject) => {
          const request = indexedDB.deleteDatabase("session-gateway");
          Object.assign(request, { onsuccess: resolve, onerror: reject });
        }).then(() => null)"""
        await chat.page.evaluate(deleted)
    else:
        devtools = await chat.page.context.new_cdp_session(chat.page)
        origin = chat.page.url.partition("/#")[0]
        clear = {"origin": origin, "storageTypes": "indexeddb"}
        await devtools.send("Storage.clearDataForOrigin", clear)
    assert "two" in await chat.ask("/echo two")
    await expect(listed(chat)).to_contain_text(["/echo one"])
    await chat.page.reload()
    await expect(chat.page.locator(".entry.you .body")).to_have_text(["/echo one", "/echo two"])
    await expect(chat.page.locator(".entry.notice")).to_have_count(0)


async def test_a_route_that_is_gone(
    new_chat: Callable[..., Any], start_gateway: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its conversations can be read and exported, and are asked nothing."""
    monkeypatch.setenv("GATEWAY_ROUTES__OLD__ENDPOINT_NAME", "my-endpoint")
    monkeypatch.setenv("GATEWAY_ROUTES__OLD__CONTENT_TYPE", "text/plain; charset=utf-8")
    chat: Chat = await new_chat(viewport={"width": 1100, "height": 760})
    first = start_gateway()
    await chat.page.goto(first.url)
    await chat.page.get_by_label("Route").select_option("old")
    await chat.ask("/echo one")
    await chat.page.get_by_label("Message").fill("To be continued")
    url = chat.page.url
    await chat.page.goto("about:blank")
    first.popen.kill()
    monkeypatch.delenv("GATEWAY_ROUTES__OLD__ENDPOINT_NAME")
    monkeypatch.delenv("GATEWAY_ROUTES__OLD__CONTENT_TYPE")
    start_gateway("--port", first.url.rpartition(":")[2])
    await chat.page.goto(url)
    gone = chat.page.get_by_text("The route “old” is no longer available.")
    await expect(gone).to_be_visible()
    await expect(chat.entries).to_have_count(2)
    await expect(chat.state).to_have_text("Read only")
    await expect(chat.page.get_by_label("Message")).to_be_hidden()
    await expect(chat.entries.get_by_role("button", name="Send again")).to_have_count(0)
    await chat.accessible()
    await options(chat, "/echo one")
    assert "/echo one" in await saved(chat, "Export as Markdown", "_echo one.md")
    await chat.page.keyboard.press("Escape")
    await chat.page.locator("main").get_by_role("button", name="New conversation").click()
    await expect(gone).to_be_hidden()
    assert "two" in await chat.ask("/echo two")


async def test_a_large_paste(chat: Chat) -> None:
    """A field with so much text would be slow."""
    paste = """(size) => {
      const clipboardData = new DataTransfer();
      clipboardData.setData("text/plain", "/echo " + "x".repeat(size - 6));
      const event = new ClipboardEvent("paste", { clipboardData, cancelable: true, bubbles: true });
      document.getElementById("text").dispatchEvent(event);
    }"""
    await chat.page.evaluate(paste, 7_000_000)
    refused = chat.page.locator("#refused")
    await expect(refused).to_have_text("Pasted text is 7.0 MB; the limit is 6.3 MB.")
    await chat.page.evaluate(paste, 60_000)
    await expect(chat.page.locator("#attached")).to_contain_text("Pasted text, 60 kB")
    await chat.page.get_by_role("button", name="Send", exact=True).click()
    await expect(chat.page.locator(".entry.model .details")).to_contain_text("AllTraffic")
    await expect(chat.page.get_by_label("Message")).to_have_value("")


async def test_a_large_paste_of_json_is_json(
    new_chat: Callable[..., Any], start_gateway: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_ROUTES__CHAT__CONTENT_TYPE", "application/json")
    monkeypatch.setenv("GATEWAY_ROUTES__CHAT__BODY", "json")
    chat: Chat = await new_chat()
    await chat.open(start_gateway().url)
    prevented = """() => {
      const clipboardData = new DataTransfer();
      clipboardData.setData("text/plain", JSON.stringify({ a: "x".repeat(60_000) }));
      const event = new ClipboardEvent("paste", { clipboardData, cancelable: true, bubbles: true });
      return !document.getElementById("text").dispatchEvent(event);
    }"""
    assert await chat.page.evaluate(prevented) is False, "it goes into the field"
    await expect(chat.page.locator("#attached")).to_be_hidden()


async def test_an_example_takes_nothing_from_the_message_field(
    new_chat: Callable[..., Any], start_gateway: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_PAGE__EXAMPLES", '["/echo one"]')
    chat: Chat = await new_chat()
    await chat.open(start_gateway().url)
    await chat.page.get_by_label("Message").fill("To be continued")
    await chat.page.get_by_role("button", name="/echo one").click()
    await expect(chat.page.locator(".entry.you .body")).to_have_text("/echo one")
    await expect(chat.page.get_by_label("Message")).to_have_value("To be continued")


async def test_a_browser_that_keeps_nothing(
    new_chat: Callable[..., Any], start_gateway: Start
) -> None:
    chat: Chat = await new_chat()
    nothing = "Object.defineProperty(window, 'indexedDB', { value: undefined })"
    await chat.page.add_init_script(nothing)
    await chat.open(start_gateway().url)
    await chat.ask("My name is Ada.")
    assert "Your name is Ada." in await chat.ask("What is my name?")
    await begin(chat)
    assert "I know nothing" in await chat.ask("What is my name?")


async def test_a_browser_that_has_no_room(
    new_chat: Callable[..., Any], start_gateway: Start
) -> None:
    chat: Chat = await new_chat()
    full = """IDBObjectStore.prototype.put = () => {
      throw new DOMException("There is no room.", "QuotaExceededError");
    };"""
    await chat.page.add_init_script(
        "Storage.prototype.setItem = () => { throw new DOMException('', 'QuotaExceededError'); };"
    )
    await chat.page.add_init_script(full)
    await chat.open(start_gateway().url)
    await chat.ask("My name is Ada.")
    assert "Your name is Ada." in await chat.ask("What is my name?")
    await expect(chat.notice("This browser has no room")).to_have_count(1)
    await chat.page.get_by_label("Route").select_option("other")
    await chat.page.get_by_role("button", name="Details").click()
    await chat.page.get_by_label("Colours").select_option("dark")
    await chat.page.keyboard.press("Escape")
    assert "I know nothing" in await chat.ask("What is my name?")


async def test_what_can_not_be_kept_stays_on_the_page(chat: Chat) -> None:
    await chat.ask("/echo one")
    one = listed(chat).filter(has_text="/echo one")
    await expect(one).to_have_count(1)
    full = """() => {
      const { put } = IDBObjectStore.prototype;
      window.room = () => { IDBObjectStore.prototype.put = put; };
      IDBObjectStore.prototype.put = () => {
        throw new DOMException("There is no room.", "QuotaExceededError");
      };
    }"""
    await chat.page.evaluate(full)
    await chat.ask("/echo two")
    await expect(chat.notice("This browser has no room")).to_have_count(1)
    await chat.page.get_by_label("Message").fill("To be continued")
    await chat.page.get_by_role("button", name="New conversation").first.click()
    await expect(chat.page.locator(".entry.you")).to_have_count(0)
    await one.click()
    await expect(chat.page.locator(".entry.you .body")).to_have_text(["/echo one", "/echo two"])
    await expect(chat.notice("This browser has no room")).to_have_count(1)
    await expect(chat.page.get_by_label("Message")).to_have_value("To be continued")
    await chat.page.evaluate("room()")
    await chat.ask("/echo three")
    await chat.page.reload()
    said = ["/echo one", "/echo two", "/echo three"]
    await expect(chat.page.locator(".entry.you .body")).to_have_text(said)


async def test_a_conversation_is_read_where_there_is_no_room_left(chat: Chat) -> None:
    await chat.ask("My name is Ada.")
    full = """IDBObjectStore.prototype.put = () => {
      throw new DOMException("There is no room.", "QuotaExceededError");
    };"""
    await chat.page.add_init_script(full)
    handshakes: list[str] = []
    chat.page.on("websocket", lambda socket: handshakes.append(socket.url))
    await chat.page.reload()
    await expect(chat.notice("This browser has no room to save this conversation")).to_be_visible()
    await expect(chat.page.locator(".entry.you")).to_contain_text("My name is Ada.")
    await expect(chat.state).to_have_text("Ready")
    assert handshakes == []
    await chat.begin()
    assert "I know nothing" in await chat.ask("What is my name?")
