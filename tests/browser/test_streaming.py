"""The chat page while answers stream, stop, wait, and the session moves on beneath them."""

import re
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import pytest
import pytest_asyncio
from playwright.async_api import FilePayload, Locator, expect

from tests.browser.conftest import Chat
from tests.browser.scripted import ScriptedGateway, until
from tests.support.processes import Process

Start = Callable[..., Process]

COUNT_ANNOUNCEMENTS = """() => {
  window.announced = [];
  const announcer = document.getElementById("announcer");
  new MutationObserver(() => announced.push(announcer.textContent))
    .observe(announcer, { childList: true, characterData: true, subtree: true });
}"""

AT_END = "log => log.scrollHeight - log.scrollTop - log.clientHeight < 2"


class Scripted:
    """A page, and the gateway that it speaks to."""

    def __init__(self, chat: Chat, wire: ScriptedGateway) -> None:
        self.chat = chat
        self.wire = wire
        self.page = chat.page
        self.answers = chat.page.locator(".entry.model .body")
        self.notices = chat.page.locator(".entry.notice")
        self.stop = chat.page.get_by_role("button", name="Stop")

    async def ask(self, text: str) -> str:
        """Send a message that the gateway leaves running; its id."""
        known = len(self.wire.invoked)
        await self.chat.write(text)
        await until(lambda: len(self.wire.invoked) > known)
        return self.wire.invoked[-1]


@pytest_asyncio.fixture(loop_scope="session")
async def scripted(new_chat: Callable[..., Any], start_gateway: Start) -> Scripted:
    """A page that is connected to a scripted gateway."""
    chat: Chat = await new_chat(viewport={"width": 1100, "height": 760})
    wire = await ScriptedGateway().play(chat.page.context)
    wire.reply = None
    await chat.open(start_gateway().url)
    return Scripted(chat, wire)


async def test_an_answer_grows_and_is_announced_once(scripted: Scripted) -> None:
    await scripted.page.evaluate(COUNT_ANNOUNCEMENTS)
    turn = await scripted.ask("Count.")
    scripted.wire.answer(turn, "One ", "two ")
    await expect(scripted.answers).to_have_text("One two")
    await expect(scripted.page.locator(".pending")).to_have_count(1)
    scripted.wire.answer(turn, "<b>three.</b>", start=2)
    scripted.wire.done(turn, 3)
    await expect(scripted.answers).to_have_text("One two <b>three.</b>")
    await expect(scripted.page.locator(".pending")).to_have_count(0)
    assert await scripted.page.evaluate("announced") == ["Model: One two <b>three.</b>"]
    assert await scripted.page.locator("#log").get_attribute("aria-live") == "off"


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_growing_answer_is_accessible(
    new_chat: Callable[..., Any], start_gateway: Start, scheme: str
) -> None:
    chat = await new_chat(color_scheme=scheme, viewport={"width": 360, "height": 720})
    scripted = Scripted(chat, await ScriptedGateway().play(chat.page.context))
    scripted.wire.reply = None
    await chat.open(start_gateway().url)
    first = await scripted.ask("Count.")
    await scripted.ask("And then?")
    scripted.wire.answer(first, *(f"{number}, " for number in range(30)))
    scripted.wire.emit("session.renewed", reason="lost", context="lost", expires_at=None)
    await expect(scripted.answers.first).to_contain_text("29")
    await expect(scripted.stop).to_be_visible()
    await chat.accessible()
    await chat.screenshot(f"streaming-{scheme}")
    scripted.wire.close(4409)
    await expect(chat.page.get_by_role("button", name="Use here")).to_be_visible()
    await chat.accessible()


@pytest.mark.parametrize(
    ("outcome", "words"),
    [("invoked", "has seen"), ("unknown", "may have seen"), ("not_invoked", "has not seen")],
)
async def test_a_stop_says_what_came_of_it(scripted: Scripted, outcome: str, words: str) -> None:
    turn = await scripted.ask("Count.")
    scripted.wire.answer(turn, "One ")
    await expect(scripted.answers).to_contain_text("One")
    await scripted.stop.click()
    await expect(scripted.stop).to_have_text("Stopping …")
    await expect(scripted.page.get_by_label("Message")).to_be_focused()
    await until(lambda: scripted.wire.of_type("message.cancel") != [])
    scripted.wire.done(turn, 1, "cancelled", outcome=outcome)
    await expect(scripted.answers).to_have_text("One ")
    await expect(scripted.page.locator(".remark")).to_contain_text(f"Stopped. The model {words}")
    await expect(scripted.stop).to_be_hidden()


async def test_escape_stops_the_oldest_first(scripted: Scripted) -> None:
    first = await scripted.ask("one")
    second = await scripted.ask("two")
    await expect(scripted.page.locator(".details")).to_have_text(
        [re.compile("^Thinking …"), "Waiting …"]
    )
    await scripted.page.keyboard.press("Escape")
    await scripted.page.keyboard.press("Escape")
    await until(lambda: len(scripted.wire.of_type("message.cancel")) == 2)
    assert [m["id"] for m in scripted.wire.of_type("message.cancel")] == [first, second]
    scripted.wire.done(second, 0, "cancelled", outcome="not_invoked")
    scripted.wire.done(first, 0, "completed", text="Too late.")
    await expect(scripted.answers).to_have_text(["Too late."])
    await expect(scripted.page.locator(".remark")).to_have_text(
        ["Stopped. The model has not seen this message."]
    )


async def test_a_failure_in_the_middle_leaves_what_came(scripted: Scripted) -> None:
    turn = await scripted.ask("Count.")
    scripted.wire.answer(turn, "One ")
    error = {
        "code": "stream_broken",
        "message": "The reply broke off.",
        "retryable": False,
        "outcome": "invoked",
    }
    scripted.wire.done(turn, 1, "failed", error=error)
    await expect(scripted.answers).to_have_text("One ")
    await expect(scripted.page.locator(".remark.problem")).to_have_text("The reply broke off.")
    await expect(scripted.page.locator(".entry.problem")).to_have_count(0)


@pytest.mark.parametrize(
    ("context", "words"),
    [
        ("lost", "the model has forgotten"),
        ("replayed", "was replayed to it"),
        ("partial", "was told the newest of the conversation again"),
        ("of a later gateway", "may have forgotten"),
    ],
)
async def test_a_renewed_session_is_told(scripted: Scripted, context: str, words: str) -> None:
    scripted.wire.emit("session.renewed", reason="expired", context=context, expires_at=None)
    await expect(scripted.notices).to_contain_text(words)
    await scripted.page.reload()
    await scripted.chat.connected()
    await expect(scripted.notices).to_contain_text(words)


async def test_what_befalls_a_session_stands_above_the_answers_that_follow(
    scripted: Scripted,
) -> None:
    first = await scripted.ask("one")
    scripted.wire.answer(first, "The first.")
    second = await scripted.ask("two")
    scripted.wire.done(first, 1)
    scripted.wire.emit("session.renewed", reason="lost", context="lost", expires_at=None)
    scripted.wire.done(second, 0, text="The second.")
    renewed = re.compile("has forgotten")
    shown: list[str | re.Pattern[str]] = ["one", "The first.", renewed, "two", "The second."]
    for _ in range(2):
        await expect(scripted.page.locator(".entry .body")).to_have_text(shown)
        await scripted.page.reload()
        await scripted.chat.connected()


async def test_a_conversation_that_is_too_long_is_told_once(scripted: Scripted) -> None:
    await scripted.page.evaluate(COUNT_ANNOUNCEMENTS)
    for number, dropped in enumerate([0, 1, 3]):
        turn = await scripted.ask("go on")
        scripted.wire.done(turn, 0, text=f"{number}", dropped_turns=dropped)
    await expect(scripted.page.locator(".pending")).to_have_count(0)
    announced = await scripted.page.evaluate("announced")
    assert announced[0::2] == ["Model: 0", "Model: 2"]
    assert announced[1].startswith("This conversation is now too long for the model: ")
    assert announced[1].endswith(" Model: 1")
    details = [
        "0.005 s",
        "0.005 s · without the oldest turn",
        "0.005 s · without the oldest 3 turns",
    ]
    too_long = re.compile("too long for the model")
    for _ in range(2):
        await expect(scripted.page.locator(".entry .details")).to_have_text(details)
        await expect(scripted.page.locator(".entry .body")).to_have_text(
            ["go on", "0", too_long, "go on", "1", "go on", "2"]
        )
        await scripted.chat.screenshot("dropped-turns")
        await scripted.page.reload()
        await scripted.chat.connected()


async def test_a_gap_is_told(scripted: Scripted) -> None:
    turn = await scripted.ask("Count.")
    scripted.wire.answer(turn, "One ")
    await expect(scripted.answers).to_contain_text("One")
    await scripted.wire.socket.close(1011)
    scripted.wire.answer(turn, "two ", start=1)
    scripted.wire.forgotten = 4
    scripted.wire.answer(turn, "three.", start=2)
    scripted.wire.done(turn, 3)
    await expect(scripted.answers).to_have_text("One three.")
    await expect(scripted.page.locator(".remark")).to_have_text("Part of this answer is missing.")
    await expect(scripted.notices).to_contain_text("no longer had event 4")


async def test_editing_files_that_wait_keeps_them(
    new_chat: Callable[..., Any], start_gateway: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_ROUTES__CHAT__CONTENT_TYPE", "application/octet-stream")
    chat: Chat = await new_chat(viewport={"width": 1100, "height": 760})
    wire = await ScriptedGateway().play(chat.page.context)
    await chat.open(start_gateway().url)

    async def send(name: str) -> None:
        file: FilePayload = {"name": name, "mimeType": "text/plain", "buffer": b"Hello"}
        await chat.page.locator("#files").set_input_files(file)
        await chat.page.get_by_role("button", name="Send", exact=True).click()

    await send("a.txt")
    await lose_its_session(wire, chat, lambda: send("b.txt"), lambda: send("c.txt"))
    await chat.page.get_by_role("button", name="Edit").click()
    attached = chat.page.locator("#attached li")
    words = ["b.txt, 5 bytesRemove", "c.txt, 5 bytesRemove"]
    await expect(attached).to_have_text([*map(re.compile, words)])
    await chat.page.get_by_role("button", name="Send", exact=True).click()
    await until(lambda: len(wire.invoked) == 3)
    names = chat.page.locator(".entry.you .file .name")
    await expect(names).to_have_text(["a.txt", "b.txt", "c.txt", "b.txt", "c.txt"])


async def test_editing_json_that_waits_keeps_it(
    new_chat: Callable[..., Any], start_gateway: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One value in the field, and the others as they are: two of them are no JSON."""
    monkeypatch.setenv("GATEWAY_ROUTES__CHAT__CONTENT_TYPE", "application/json")
    chat: Chat = await new_chat(viewport={"width": 1100, "height": 760})
    wire = await ScriptedGateway().play(chat.page.context)
    await chat.open(start_gateway().url)
    await chat.write('{"a": 1}')
    second, third = '{"a": 2}', '{"a": 3}'
    await lose_its_session(wire, chat, lambda: chat.write(second), lambda: chat.write(third))
    await chat.page.locator("#question").get_by_role("button", name="Edit").click()
    await expect(chat.page.get_by_label("Message")).to_have_value('{\n  "a": 2\n}')
    await expect(chat.page.locator("#attached li")).to_contain_text(["JSON, 7 bytes"])
    await chat.page.get_by_label("Message").press("Enter")
    await until(lambda: len(wire.invoked) == 3)
    sent = [message["json"]["a"] for message in wire.of_type("message.send")]
    assert sent == [1, 3, 2]


async def lose_its_session(
    wire: ScriptedGateway, chat: Chat, *sends: Callable[[], Awaitable[None]]
) -> None:
    """Send something while there is no connection, and let the session be gone meanwhile."""
    await expect(chat.page.locator(".entry.model")).to_contain_text("three.")
    wire.away = True
    wire.close(1011)
    await expect(chat.state).not_to_have_text("Connected")
    for send in sends:
        await send()
    wire.forget()
    wire.away = False
    await expect(chat.page.get_by_role("alert")).to_contain_text("Send your 2 messages anyway?")


class TestASessionThatIsGone:
    """What was written for it does not go to the next one, which knows nothing, unasked."""

    QUESTION = "This is a new session: the model has forgotten what was said. Send"

    @pytest_asyncio.fixture(loop_scope="session")
    async def question(self, scripted: Scripted) -> Locator:
        """Two messages were written while there was no connection; the session is gone since."""
        turn = await scripted.ask("My name is Ada.")
        scripted.wire.done(turn, 0, text="Hello Ada.")
        await expect(scripted.answers).to_have_text("Hello Ada.")
        scripted.wire.away = True
        scripted.wire.close(1011)
        await expect(scripted.chat.state).not_to_have_text("Connected")
        await scripted.chat.write("What is my name?")
        await scripted.chat.write("And yours?")
        scripted.wire.forget()
        scripted.wire.away = False
        question = scripted.page.get_by_role("alert")
        await expect(question).to_contain_text(f"{self.QUESTION} your 2 messages anyway?")
        await scripted.chat.connected()
        assert len(scripted.wire.invoked) == 1
        return question

    async def test_sending_anyway(self, scripted: Scripted, question: Locator) -> None:
        await expect(scripted.stop).to_be_hidden()
        await question.get_by_role("button", name="Send anyway").press("Enter")
        await expect(question).to_be_hidden()
        await expect(scripted.page.get_by_label("Message")).to_be_focused()
        await until(lambda: len(scripted.wire.invoked) == 3)
        scripted.wire.done(scripted.wire.invoked[1], 0, text="I do not know.")
        await expect(scripted.page.locator(".entry .body")).to_have_text(
            [
                "My name is Ada.",
                "Hello Ada.",
                re.compile("This is a new session"),
                "What is my name?",
                "I do not know.",
                "And yours?",
                "…",
            ]
        )
        assert [message["text"] for message in scripted.wire.of_type("message.send")] == [
            "My name is Ada.",
            "What is my name?",
            "And yours?",
        ]

    async def test_it_is_asked_again_after_a_reload(
        self, scripted: Scripted, question: Locator
    ) -> None:
        await scripted.page.reload()
        await scripted.chat.connected()
        await expect(question).to_be_visible()
        await question.get_by_role("button", name="Discard").click()
        await expect(question).to_be_hidden()
        for _ in range(2):
            await expect(scripted.page.locator(".entry.you .details")).to_have_text(
                ["Not sent", "Not sent"]
            )
            answers = scripted.page.locator(".entry.model:visible .body")
            await expect(answers).to_have_text(["Hello Ada."])
            await scripted.page.reload()
            await scripted.chat.connected()
        assert len(scripted.wire.invoked) == 1

    async def test_writing_it_anew(self, scripted: Scripted, question: Locator) -> None:
        box = scripted.page.get_by_label("Message")
        await box.fill("Hello?")
        await box.press("Enter")  # which is no answer
        await expect(question.get_by_role("button", name="Send anyway")).to_be_focused()
        await question.get_by_role("button", name="Edit").click()
        await expect(box).to_have_value("What is my name?\nAnd yours?\nHello?")
        await expect(box).to_be_focused()
        await expect(question).to_be_hidden()
        await box.press("Enter")
        await until(lambda: len(scripted.wire.invoked) == 2)
        sent = scripted.wire.of_type("message.send")[-1]["text"]
        assert sent == "What is my name?\nAnd yours?\nHello?"

    async def test_another_session_is_asked_for(
        self, scripted: Scripted, question: Locator
    ) -> None:
        await scripted.page.get_by_role("button", name="New conversation").first.click()
        await expect(question).to_be_hidden()
        await scripted.ask("Hello?")
        assert scripted.wire.sessions == 3
        assert len(scripted.wire.invoked) == 2

    async def test_a_message_that_was_begun_for_it(self, scripted: Scripted) -> None:
        box = scripted.page.get_by_label("Message")
        question = scripted.page.get_by_role("alert")
        turn = await scripted.ask("My name is Ada.")
        scripted.wire.done(turn, 0, text="Hello Ada.")
        await expect(scripted.answers).to_have_text("Hello Ada.")
        await box.fill("What is my name?")
        scripted.wire.emit("session.closed", reason="expired")
        scripted.wire.close(4410)
        await until(lambda: scripted.wire.sessions == 2)
        await expect(scripted.chat.notice("This is a new session")).to_be_visible()
        await expect(question).to_be_hidden()
        await box.press("Enter")
        await expect(question).to_contain_text(f"{self.QUESTION} your message anyway?")
        await box.fill("")
        await expect(question).to_be_hidden()
        turn = await scripted.ask("Hello?")  # which was begun for this one
        scripted.wire.done(turn, 0, text="Hello.")
        await box.fill("What is my name?")
        scripted.wire.emit("session.closed", reason="expired")
        scripted.wire.close(4410)
        await until(lambda: scripted.wire.sessions == 3)
        await expect(scripted.chat.notice("This is a new session")).to_have_count(2)
        await box.press("Enter")
        await scripted.page.keyboard.press("Enter")  # on the answer that has the focus
        await until(lambda: len(scripted.wire.invoked) == 3)
        await expect(box).to_have_value("")

    @pytest.mark.parametrize("reason", ["idle", "expired"])
    async def test_another_is_opened_when_something_is_written(
        self, scripted: Scripted, reason: str
    ) -> None:
        """Its user was told what becomes of that, and need not be asked."""
        turn = await scripted.ask("My name is Ada.")
        scripted.wire.done(turn, 0, text="Hello Ada.")
        await expect(scripted.answers).to_have_text("Hello Ada.")
        scripted.wire.emit("session.closed", reason=reason)
        scripted.wire.close(4410)
        notice = scripted.chat.notice("starts a new session, which knows nothing of this")
        await expect(notice).to_be_visible()
        await expect(scripted.chat.state).to_have_text("Ready")
        assert scripted.wire.sessions == 1
        await scripted.page.get_by_label("Message").press("W")
        await until(lambda: scripted.wire.sessions == 2)
        await scripted.ask("What is my name?")
        await expect(scripted.page.get_by_role("alert")).to_be_hidden()

    async def test_it_is_gone_when_the_page_is_loaded_again(self, scripted: Scripted) -> None:
        turn = await scripted.ask("My name is Ada.")
        scripted.wire.done(turn, 0, text="Hello Ada.")
        await until(lambda: scripted.wire.forgotten == len(scripted.wire.log))
        scripted.wire.keys = []
        await scripted.page.reload()
        notice = scripted.chat.notice("The session has ended. Your next message starts a new")
        await expect(notice).to_be_visible()
        await expect(scripted.chat.state).to_have_text("Ready")
        await scripted.page.reload()
        await expect(notice).to_be_visible()
        assert scripted.wire.sessions == 1
        assert len(scripted.wire.sockets) == 2, "the first one and the one that found it gone"
        await scripted.page.get_by_role("button", name="Details").click()
        await expect(scripted.page.locator("#session")).to_have_text("none")
        await scripted.page.keyboard.press("Escape")
        await scripted.chat.begin()
        assert scripted.wire.sessions == 2

    async def test_a_draft_that_was_kept_is_not_sent_to_another_unasked(
        self, scripted: Scripted
    ) -> None:
        turn = await scripted.ask("My name is Ada.")
        scripted.wire.done(turn, 0, text="Hello Ada.")
        await until(lambda: scripted.wire.forgotten == len(scripted.wire.log))
        await scripted.page.get_by_label("Message").fill("What is my name?")
        scripted.wire.forget()
        await scripted.page.reload()
        await expect(scripted.chat.notice("starts a new session")).to_be_visible()
        await scripted.page.get_by_label("Message").press("Enter")
        await expect(scripted.page.get_by_role("alert")).to_contain_text(self.QUESTION)
        assert len(scripted.wire.invoked) == 1

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    async def test_the_question_is_accessible(
        self, scripted: Scripted, question: Locator, scheme: Literal["light", "dark"]
    ) -> None:
        await scripted.page.emulate_media(color_scheme=scheme)
        await scripted.chat.accessible()
        await scripted.chat.screenshot(f"question-{scheme}")
        await scripted.page.set_viewport_size({"width": 360, "height": 720})
        await scripted.chat.accessible()
        await until(lambda: scripted.page.locator("#log").evaluate(AT_END))
        await scripted.chat.screenshot(f"question-{scheme}-360")
        await expect(question).to_be_visible()


async def test_a_page_that_is_loaded_again_shows_the_same(scripted: Scripted) -> None:
    first = await scripted.ask("one")
    scripted.wire.answer(first, "The first.")
    scripted.wire.done(first, 1)
    second = await scripted.ask("two")
    scripted.wire.answer(second, "The ")
    await expect(scripted.answers.last).to_contain_text("The ")
    await scripted.page.reload()
    await expect(scripted.answers).to_have_text(["The first.", "The"])
    await scripted.chat.connected()
    scripted.wire.answer(second, "second.", start=1)
    scripted.wire.done(second, 2)
    await expect(scripted.answers).to_have_text(["The first.", "The second."])
    await expect(scripted.page.locator(".entry.you .body")).to_have_text(["one", "two"])
    assert scripted.wire.sessions == 1


async def test_two_windows(scripted: Scripted) -> None:
    """A duplicated tab has the first one's storage, and takes its session over."""
    await scripted.ask("one")
    async with scripted.page.context.expect_page() as opened:
        await scripted.page.evaluate("void window.open(location.href)")
    other = Scripted(Chat(await opened.value), scripted.wire)
    await other.chat.connected()
    here = scripted.page.get_by_role("button", name="Use here")
    await expect(here).to_be_visible()
    await expect(scripted.page.get_by_role("alert")).to_contain_text("in another window")
    await expect(scripted.page.get_by_role("button", name="Send")).to_be_disabled()
    await scripted.chat.screenshot("taken-over")
    (turn,) = scripted.wire.invoked
    scripted.wire.answer(turn, "Said ", "there.")
    scripted.wire.done(turn, 2)
    await expect(other.answers).to_have_text("Said there.")
    third = await other.ask("two")
    await here.click()
    await scripted.chat.connected()
    await expect(here).to_be_hidden()
    await expect(other.page.get_by_role("button", name="Use here")).to_be_visible()
    scripted.wire.answer(third, "And here.")
    scripted.wire.done(third, 1)
    await expect(scripted.answers).to_have_text(["Said there.", "And here."])
    assert scripted.wire.sessions == 1
    await other.page.close()


async def test_a_window_is_told_what_another_has_acknowledged(scripted: Scripted) -> None:
    """A duplicated tab's copy of the storage is as old as the tab."""
    turn = await scripted.ask("one")
    async with scripted.page.context.expect_page() as opened:
        await scripted.page.evaluate("void window.open('about:blank')")
    page = await opened.value
    scripted.wire.answer(turn, "Said ", "here.")
    scripted.wire.done(turn, 2)
    await until(lambda: scripted.wire.forgotten == len(scripted.wire.log))
    await page.goto(scripted.page.url)
    other = Scripted(Chat(page), scripted.wire)
    await other.chat.connected()
    await expect(other.answers).to_have_text("Said here.")
    await expect(page.get_by_text("Something is missing here")).to_have_count(0)
    again = await other.ask("two")
    scripted.wire.done(again, 0, text="And there.")
    await expect(other.answers).to_have_text(["Said here.", "And there."])


async def test_who_reads_what_was_said_is_not_dragged_along(scripted: Scripted) -> None:
    turn = await scripted.ask("one")
    scripted.wire.answer(turn, "line\n" * 100)
    log = scripted.page.locator("#log")
    await expect(scripted.answers).to_contain_text("line")
    await until(lambda: log.evaluate(AT_END))
    await scripted.page.set_viewport_size({"width": 1100, "height": 500})
    await until(lambda: log.evaluate(AT_END))
    await log.evaluate("log => { log.scrollTop = 100 }")
    scripted.wire.answer(turn, "more\n" * 100, start=1)
    await expect(scripted.answers).to_contain_text("more")
    assert await log.evaluate("log => log.scrollTop") == 100
