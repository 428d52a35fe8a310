"""The conversation on the page: long ones, where the reader is in them, and what entries offer."""

import base64
import re
from typing import Literal

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests.browser.conftest import Chat
from tests.browser.scripted import until
from tests.browser.sheet import run

AT_END = "element.scrollHeight - element.scrollTop - element.clientHeight < 2"

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQ"
    "DwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)
SILENCE = base64.b64encode(
    b"RIFF\x2c\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x40\x1f\0\0\1\0\x08\0"
    b"data\x08\0\0\0\x80\x80\x80\x80\x80\x80\x80\x80"
).decode()

ALL_OF_IT = """
# A heading

Words in **bold**, *italic*, `code`, with a [link](https://a.b) and ![a picture](https://c.d).

### One that skips a level

- [x] done
- [ ] to do

> quoted

```python
@cache
def greet(name: str = "Ada") -> None:
    print(f"Hello {name}", 42, None)  # a comment
```

| a | b |
| --- | ---: |
| 1 | 2 |
"""


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def empty(sheet: Page) -> None:
    """Each test begins with a conversation of its own."""
    await sheet.set_viewport_size({"width": 1000, "height": 700})
    await run(sheet, "client.history = []; log.use(client); options.actions = undefined;")


class TestALongConversation:
    """Of 10,000 messages only those are on the page that are near what is in sight."""

    @pytest_asyncio.fixture(autouse=True, loop_scope="session")
    async def many(self, sheet: Page) -> None:
        """Their lengths differ much, so that what is guessed of them is wrong."""
        await run(
            sheet,
            """
            for (let i = 0; i < 5000; i += 1) {
              const more = "- and so on\\n".repeat((i * 7) % 23);
              said(`Question ${i}`, `Answer **${i}**\\n\\n${more}`);
            }
            log.use(client);
            await settle();
            """,
        )

    async def test_few_of_them_are_on_the_page(self, sheet: Page) -> None:
        script = f"""
            const found = [];
            for (const part of [1, 0.5, 0.001, 0]) {{
              element.scrollTop = part * element.scrollHeight;
              await settle();
              found.push([element.querySelectorAll(".entry").length,
                element.querySelectorAll("*").length]);
            }}
            log.scrollToEnd();
            await settle();
            return [found, {AT_END}, element.querySelector(".entry:last-of-type").ariaPosInSet,
              element.querySelector(".entry").ariaSetSize];
        """
        found, at_end, last, count = await run(sheet, script)
        for entries, nodes in found:
            assert 2 <= entries < 60
            assert nodes < 2500
        assert at_end
        assert (last, count) == ("10000", "10000")

    async def test_the_keyboard_goes_through_it(self, sheet: Page) -> None:
        log = sheet.locator("#log")
        await log.focus()
        await sheet.keyboard.press("Control+Home")
        await expect(sheet.get_by_text("Question 0", exact=True)).to_be_in_viewport()
        await sheet.keyboard.press("PageDown")
        await until(lambda: log.evaluate("log => log.scrollTop > 300"))
        await sheet.keyboard.press("Control+End")
        await expect(sheet.get_by_text("Answer 4999")).to_be_in_viewport()
        await run(sheet, "await settle();")
        assert await sheet.evaluate(AT_END)
        await sheet.keyboard.press("PageUp")
        await until(lambda: sheet.evaluate(f"!({AT_END})"))

    async def test_nothing_jumps_while_it_scrolls_up(self, sheet: Page) -> None:
        """Past rows that nobody has measured before."""
        script = """
            const top = (entry) => entry.getBoundingClientRect().top;
            const wrong = [];
            element.scrollTop = element.scrollHeight / 2;
            await settle();
            for (let step = 0; step < 30; step += 1) {
              const box = element.getBoundingClientRect();
              const entry = [...element.querySelectorAll(".entry")]
                .find((each) => each.getBoundingClientRect().bottom > box.top + 50);
              const before = top(entry);
              element.scrollTop -= 120;
              await frame();
              await frame();
              const moved = top(entry) - before;
              if (Math.abs(moved - 120) > 2) wrong.push([step, moved]);
            }
            return wrong;
        """
        assert await run(sheet, script) == []

    async def test_what_has_the_focus_or_is_selected_stays(self, sheet: Page) -> None:
        script = """
            const [first, second] = element.querySelectorAll(".entry.model");
            const away = async () => {
              element.scrollTop = element.scrollTop > 5000 ? 0 : 20_000;
              await settle();
            };
            first.querySelector(".tools button").focus();
            await away();
            const stays = [first.isConnected, second.isConnected];
            const entry = element.querySelector(".entry.you");
            getSelection().selectAllChildren(entry.querySelector(".body"));
            const selected = `${getSelection()}`;
            await away();
            stays.push(selected === `${getSelection()}`, entry.isConnected);
            getSelection().empty();
            document.activeElement.blur();
            await away();
            await away();
            return [...stays, first.isConnected];
        """
        assert await run(sheet, script) == [True, False, True, True, False]

    async def test_another_conversation_is_shown(self, sheet: Page) -> None:
        script = """
            element.scrollTop = 0;
            await settle();
            const other = { history: [] };
            log.use(other);
            await settle();
            const [welcome] = element.children;
            const nothing = [welcome.hidden, element.querySelectorAll(".entry").length];
            log.use({ history: client.history.slice(0, 2) });
            await settle();
            return [nothing, welcome.hidden,
              [...element.querySelectorAll(".you .body")].map(({ textContent }) => textContent)];
        """
        shown = [[False, 0], True, ["Question 0", "Question 1"]]
        assert await run(sheet, script) == shown


async def test_a_message_of_seven_megabytes(sheet: Page) -> None:
    script = """
        said("A line of what was pasted.\\n".repeat(260_000), "Thank you.");
        log.use(client);
    """
    await run(sheet, script)
    body = sheet.locator(".you .body")
    length = "body => body.textContent.length"
    assert await body.evaluate(length) == 4000
    more = sheet.get_by_role("button", name="Show all 7,020,000 characters")
    await more.focus()
    script = """
        const body = element.querySelector(".you .body");
        document.activeElement.click();
        const lengths = [];
        while (lengths.at(-1) !== 7_020_000) {
          lengths.push(body.textContent.length);
          await frame();
        }
        return Math.max(...lengths.slice(1).map((length, index) => length - lengths[index]));
    """
    assert 0 < await run(sheet, script) <= 100_000  # in a frame
    await expect(more).to_be_hidden()


async def test_an_answer_of_seven_megabytes(sheet: Page) -> None:
    script = """
        said("Much?", "Words of a paragraph that is not so short.\\n\\n".repeat(160_000));
        log.use(client);
    """
    await run(sheet, script)
    await expect(sheet.get_by_role("button", name="Show all 7,040,000 char")).to_be_visible()
    body = sheet.locator(".model .body")
    await until(lambda: body.evaluate("body => body.textContent.length > 90000"))
    assert await body.evaluate("body => body.textContent.length <= 100000")


class TestTheReader:
    """Who is at the end stays there; who is not, is told what comes, and not moved."""

    @pytest_asyncio.fixture(autouse=True, loop_scope="session")
    async def some(self, sheet: Page) -> None:
        """More than there is room for."""
        await run(
            sheet,
            """
            for (let i = 0; i < 20; i += 1) said(`Question ${i}`, "An answer.\\n\\n".repeat(5));
            log.use(client);
            await settle();
            """,
        )

    async def test_the_end_is_followed(self, sheet: Page) -> None:
        script = f"""
            const results = [];
            const turn = ask({{ text: "More?" }});
            for (let index = 0; index < 40; index += 1) {{
              turn.add({{ index, text: "more and more words\\n\\n" }});
              log.show([turn]);
              await frame();
              await frame();
              results.push({AT_END});
            }}
            const bar = document.createElement("p");
            bar.style.height = "200px";
            element.parentElement.querySelector("form").before(bar);
            await settle();
            results.push({AT_END});
            bar.remove();
            await settle();
            return [...results, {AT_END}];
        """
        assert set(await run(sheet, script)) == {True}

    async def test_a_box_that_grows_while_something_comes_is_no_reader(self, sheet: Page) -> None:
        """It has no more to show for a moment, and begins further up."""
        at_end = await run(
            sheet,
            f"""
            element.style.maxHeight = "200px";
            await settle();
            const turn = ask({{ text: "Go" }});
            log.show([turn]);
            await settle();
            requestAnimationFrame(() => {{
              element.style.maxHeight = "";
              element.scrollTop; // which lays it out
            }});
            turn.add({{ index: 0, text: "word ".repeat(500) }});
            log.show([turn]);
            await settle();
            return {AT_END};
            """,
        )
        assert at_end

    async def test_a_reader_of_what_was_said_is_told_of_what_comes(self, sheet: Page) -> None:
        jump = sheet.get_by_role("button", name="Jump to latest")
        await expect(jump).to_be_hidden()
        await sheet.locator("#log").hover()
        await sheet.mouse.wheel(0, -400)
        await expect(jump).to_be_visible()
        script = """
            await settle();
            const top = element.scrollTop;
            log.show([said("One more", "Yes."), said("And one", "Yes.")]);
            log.say("notice", "Something happened.");
            await settle();
            return element.scrollTop - top;
        """
        assert await run(sheet, script) == 0
        await expect(jump).to_have_text("Jump to latest (3 new)")
        await jump.press("Enter")
        await expect(jump).to_be_hidden()
        await expect(sheet.get_by_text("Something happened.")).to_be_in_viewport()
        await expect(sheet.locator("#log")).to_be_focused()

    async def test_what_is_read_stays_where_it_is(self, sheet: Page) -> None:
        """Though something above it grows, or is put in, or gets another width."""
        script = """
            element.scrollTop -= 700;
            await settle();
            const box = element.getBoundingClientRect();
            const entry = [...element.querySelectorAll(".entry.model")]
              .find((each) => each.getBoundingClientRect().top > box.top);
            const top = () => Math.round(entry.getBoundingClientRect().top);
            const tops = [top()];
            const entries = [...element.querySelectorAll(".entry.model")];
            const above = entries[entries.indexOf(entry) - 2];
            above.querySelector(".body").append("more ".repeat(2000));
            await settle();
            tops.push(top());
            client.history.unshift({ type: "closed", detail: { reason: "idle" } });
            log.show(client.history.slice(0, 1));
            await settle();
            tops.push(top());
            return tops.map((each) => each - tops[0]);
        """
        moved = await run(sheet, script)
        assert all(abs(each) <= 1 for each in moved), moved

    async def test_a_little_way_up_is_enough_to_stay(self, sheet: Page) -> None:
        """Else what comes in would drag a reader down who has just begun to go up."""
        script = """
            element.scrollTop -= 20;
            await settle();
            const top = element.scrollTop;
            log.show([said("One more", "Yes.")]);
            await settle();
            return element.scrollTop - top;
        """
        assert await run(sheet, script) == 0


async def test_how_often_is_painted(sheet: Page) -> None:
    """Once a frame, however much has come in."""
    script = """
        const turn = ask({ text: "Go" });
        log.show([turn]);
        await settle();
        let painted = 0;
        const body = element.querySelector(".model .body");
        new MutationObserver(() => { painted += 1; })
          .observe(body, { childList: true, characterData: true, subtree: true });
        let frames = 0;
        let index = 0;
        for (; frames < 20; frames += 1) {
          for (let part = 0; part < 25; part += 1) {
            turn.add({ index, text: `word${index++} ` });
            log.show([turn]);
          }
          await frame();
        }
        return [frames, painted];
    """
    frames, painted = await run(sheet, script)
    assert painted <= frames + 1
    await expect(sheet.locator(".model .body")).to_contain_text("word499")


class TestEntries:
    """What is shown of messages and answers."""

    async def test_attachments(self, sheet: Page) -> None:
        script = """
            const [picture, sound] = given;
            options.fileName = ({ sent }) => sent.content_type && "dot.png";
            const image = { base64: picture, content_type: "image/png" };
            said(image, { base64: sound, content_type: "audio/wav" });
            said({ json: { a: [1] } }, { base64: btoa("<svg/>"), content_type: "image/svg+xml" });
            log.use(client);
            await settle();
        """
        await run(sheet, script, PIXEL, SILENCE)
        picture = sheet.get_by_role("img", name="dot.png")
        await expect(picture).to_have_js_property("naturalWidth", 1)
        await expect(
            sheet.get_by_role("link", name="dot.png 70 bytes of image/png")
        ).to_be_visible()
        sound = sheet.locator(".model audio")
        await until(lambda: sound.evaluate("audio => audio.readyState > 0"))
        await expect(sheet.locator(".model img")).to_have_count(0)  # of what can run scripts
        async with sheet.expect_download() as saved:
            await sheet.get_by_role("link", name="6 bytes of image/svg+xml").click()
        download = await saved.value
        assert download.suggested_filename == "reply.svg"
        assert (await download.path()).read_bytes() == b"<svg/>"
        await expect(sheet.locator(".you .code")).to_contain_text('"a"')

    @pytest.mark.parametrize("kind", ["image/png+xml", "image/png-x+xml; a=b", "audio/x+xml"])
    async def test_no_attachment_is_a_document(self, sheet: Page, kind: str) -> None:
        """A browser that opens one in a window of its own would run what is in it."""
        script = """
            const create = URL.createObjectURL;
            const types = [];
            URL.createObjectURL = (blob) => create.call(URL, blob, types.push(blob.type));
            said("Draw", { base64: btoa("<html/>"), content_type: given[0] });
            log.use(client);
            await settle();
            URL.createObjectURL = create;
            return types.at(-1);
        """
        assert await run(sheet, script, kind) == "application/octet-stream"

    async def test_a_sound_that_plays_stays(self, sheet: Page) -> None:
        script = """
            said("Sing", { base64: given[0], content_type: "audio/wav" });
            for (let i = 0; i < 100; i += 1) said(`Question ${i}`, "An answer.");
            log.use(client);
            element.scrollTop = 0;
            await settle();
            const sound = element.querySelector("audio");
            Object.defineProperty(sound, "paused", { value: false });
            log.scrollToEnd();
            await settle();
            const stays = sound.isConnected;
            Object.defineProperty(sound, "ended", { value: true });
            element.scrollTop -= 10;
            await settle();
            return [stays, sound.isConnected];
        """
        assert await run(sheet, script, SILENCE) == [True, False]

    async def test_times(self, sheet: Page) -> None:
        script = """
            window.turn = ask({ text: "Go" });
            turn.startedAt = Date.now() - 3_500;
            log.use(client);
        """
        await run(sheet, script)
        details = sheet.locator(".details")
        await expect(details).to_have_text(re.compile(r"^Thinking … \d+ s$"))
        script = """
            turn.firstAt = turn.startedAt + 1_500;
            turn.add({ index: 0, text: "word ".repeat(80) });
            log.show([turn]);
        """
        await run(sheet, script)
        await expect(details).to_have_text(re.compile(r"^Answering … \d+ s$"))
        script = """
            turn.end({ id: turn.id, status: "completed", deltas: 1, duration_ms: 3_500,
              invoked_production_variant: "Blue" });
            log.show([turn]);
        """
        await run(sheet, script)
        await expect(details).to_have_text(
            "first words after 1.5 s · 3.5 s · about 50 tokens/s (estimate) · Blue"
        )

    async def test_what_is_kept_of_times(self, sheet: Page) -> None:
        script = """
            const turn = ask({ text: "Go" });
            turn.add({ index: 0, text: "word" });
            const again = ask({ text: "Go" });
            again.startedAt = null;
            again.load(JSON.parse(JSON.stringify(turn)));
            return [turn.firstAt >= turn.startedAt, again.startedAt === turn.startedAt,
              again.firstAt === turn.firstAt];
        """
        assert await run(sheet, script) == [True, True, True]

    async def test_actions(self, sheet: Page) -> None:
        script = """
            window.done = [];
            const action = (label, turn) => ({ label, run: () => done.push([label, turn.id]) });
            options.actions = (turn, who) =>
              who === "you" ? [action("Edit", turn)] : turn.ended ? [action("Retry", turn)] : [];
            window.turn = ask({ text: "Hello" });
            log.use(client);
            await settle();
        """
        await run(sheet, script)
        tools = sheet.locator(".tools")
        await expect(tools.nth(0).get_by_role("button")).to_have_text(["Copy", "Edit"])
        await expect(tools.nth(1).get_by_role("button")).to_have_count(0)
        await run(
            sheet,
            """
            const done = { status: "completed", deltas: 0, duration_ms: 1, text: "Hi **x**" };
            turn.end({ id: turn.id, ...done });
            log.show([turn]);
            """,
        )
        await sheet.mouse.move(0, 0)
        await expect(tools.nth(1).get_by_role("button")).to_have_text(["Copy", "Retry"])
        await expect(tools.nth(1)).to_have_css("opacity", "0")
        await tools.nth(1).get_by_role("button", name="Retry").focus()
        await expect(tools.nth(1)).to_have_css("opacity", "1")
        await sheet.keyboard.press("Enter")
        assert await sheet.evaluate("done") == [["Retry", "m0"]]
        await tools.nth(1).get_by_role("button", name="Copy").press("Enter")
        assert await sheet.evaluate("navigator.clipboard.readText()") == "Hi **x**"

    async def test_a_failure_keeps_what_came(self, sheet: Page) -> None:
        script = """
            const error = { code: "timeout", message: "It took too long.", retryable: true };
            const failed = { status: "failed", error };
            said("One", { ...failed, text: "Half an" });
            said("Two", { ...failed, text: undefined });
            log.use(client);
            await settle();
            return [...element.querySelectorAll(".model")].map((entry) => [
              entry.querySelector(".body")?.textContent,
              entry.querySelector(".remark.problem").textContent,
            ]);
        """
        words = "It took too long. You can send it again."
        assert await run(sheet, script) == [["Half an", words], [None, words]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1000])
async def test_all_of_it_is_accessible(
    sheet: Page, scheme: Literal["light", "dark"], width: int
) -> None:
    chat = Chat(sheet)
    await sheet.emulate_media(color_scheme=scheme)
    await sheet.set_viewport_size({"width": width, "height": 7000})
    script = """
        const [markdown, picture, sound] = given;
        options.actions = () => [{ label: "Retry", run() {} }];
        options.fileName = () => "dot.png";
        said({ base64: picture, content_type: "image/png" }, markdown);
        said("x".repeat(5000), { base64: sound, content_type: "audio/wav" });
        const error = { code: "timeout", message: "It took too long.", retryable: true };
        said("مرحبا", { status: "failed", error, text: "مرحبا" });
        const turn = ask({ text: "More" });
        turn.add({ index: 0, text: "Some **more" });
        ask({ text: "And then?" });
        log.use(client);
        log.say("problem", "Something is wrong.");
        await settle();
    """
    await run(sheet, script, ALL_OF_IT, PIXEL, SILENCE)
    await expect(sheet.locator(".hl-keyword").first).to_be_visible()
    await chat.accessible()
    await chat.screenshot(f"entries-{scheme}-{width}")
    await sheet.set_viewport_size({"width": width, "height": 600})
    await until(lambda: sheet.evaluate(f"element.scrollTop > 300 && {AT_END}"))
    await sheet.locator("#log").evaluate("log => { log.scrollTop = 300 }")
    await expect(sheet.get_by_role("button", name="Jump to latest")).to_be_visible()
    await chat.accessible()
    await chat.screenshot(f"reading-{scheme}-{width}")
