"""Answers as they are shown: Markdown while it comes in, code, and what nobody may slip in."""

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests.browser.sheet import run

PIECES = [
    "# Head\n",
    "## Sub\n\n",
    "text **bold** and *it* `code`\n",
    "\n",
    "\n",
    "- item\n",
    "- [ ] todo\n",
    "- [x] done\n",
    "  - nested\n",
    "1. one\n",
    "2. two\n   more\n",
    "> quote\n",
    "> - in it\n",
    "```js\nlet a = 1;\n```\n",
    "```\nopen\n",
    "| a | b |\n|---|:-:|\n| 1 | 2 |\n",
    "| 3 | **x** |\n",
    "---\n",
    "text\n===\n",
    "text\n---\n",
    "[ref] and [other][ref]\n",
    "[ref]: http://a.b/c\n",
    '[l](http://x.y "t") ![i](http://z) <http://q.r> https://w.w\n',
    "<div>raw</div>\n",
    "<b>in</b> a<br>b &amp; &copy; \\* 5 < 6\n",
    "    indented\n",
    "~~no~~ **un\n",
    "a_b_c 2*3*4 __x__\n",
    "`open code\n",
    "* star\n",
    "10) ten\n",
    "### third\n",
    "~~~\ntil\n~~~\n",
    "<!-- c\n",
    "-->\n",
    "text  \nbreak\n",
    "***both*** and **a *b* c**\n",
    "| no table\n",
    "a | b\n--|--\nc | d\n",
]
"""What texts are made of, in any order; not all of it goes together."""

SETTLING = [
    "Hi **bold** and *it*, ~~no~~ `code` there.\n\n# A head\n\n1. one\n2. two\n   - [x] c\n   - b",
    "See [the link](https://a.b/c_d?e=f&g) or ![a picture](http://x.y/z.png), **[b](http://a)**!",
    "| a | b |\n|---|---|\n| 1 | **2** |\n| 3 | `4` |\n\nafter &amp; before\n\n---\n\nend",
    "First:\n\n```python\ndef f(x):\n    return `x`\n```\n\n> quoted *words*\n> more\n\n- a\n\n- b",
    "Text\nand a line\n- with a list\n\n***all of it***",
]
"""Texts that grow by a character at a time, and of which nothing is taken back."""


async def test_what_comes_in_bit_by_bit_is_what_comes_at_once(sheet: Page) -> None:
    script = """
        const [pieces] = given;
        let seed = 7;
        const random = (below) => (seed = (seed * 1103515245 + 12345) % 2 ** 31) % below;
        const wrong = [];
        for (let round = 0; round < 250; round += 1) {
          const text = Array.from({ length: 1 + random(7) }, () => pieces[random(pieces.length)]);
          const joined = text.join("");
          const cuts = [];
          for (let at = 0; at < joined.length; at += 1 + random(9)) cuts.push(at);
          const [once, bits] = [rendered(joined), rendered(joined, cuts)];
          const [all, parts] = [once.innerHTML, bits.innerHTML];
          if (all !== parts) wrong.push([joined, parts, all]);
        }
        return wrong.slice(0, 3);
    """
    assert await run(sheet, script, PIECES) == []


async def test_nothing_that_is_shown_is_taken_back(sheet: Page) -> None:
    script = """
        const shape = (element) => [...element.querySelectorAll("p, li, td, th, pre, h4")];
        const wrong = [];
        for (const text of given[0]) {
          const into = document.createElement("div");
          const markdown = new Markdown(into);
          let before = "";
          let blocks = [];
          for (let end = 1; end <= text.length; end += 1) {
            markdown.update(text.slice(0, end), false);
            const words = [...into.querySelectorAll("figcaption")].reduce(
              (all, { textContent }) => all.replace(textContent, ""), into.textContent);
            if (!words.startsWith(before.trimEnd())) {
              wrong.push([text.slice(0, end), before, words]);
            }
            if (!blocks.every((block) => block.isConnected || into.contains(block))) {
              wrong.push([text.slice(0, end), blocks.map(({ localName }) => localName)]);
            }
            before = words;
            blocks = shape(into);
          }
        }
        return wrong;
    """
    assert await run(sheet, script, SETTLING) == []


async def test_blocks_that_are_whole_stay_as_they_are(sheet: Page) -> None:
    script = """
        const into = document.createElement("div");
        document.body.append(into);
        const markdown = new Markdown(into);
        markdown.update("One **two** three.\\n\\n- a\\n- b", false);
        const [first, list] = into.children;
        getSelection().selectAllChildren(first);
        const item = list.firstChild;
        markdown.update("One **two** three.\\n\\n- a\\n- b\\n- c\\n\\n```\\nx", false);
        markdown.update("One **two** three.\\n\\n- a\\n- b\\n- c\\n\\n```\\nx\\n```\\nend", true);
        const same = [into.children[0] === first, into.children[1] === list,
          list.firstChild === item, `${getSelection()}`];
        getSelection().removeAllRanges();
        into.remove();
        return same;
    """
    assert await run(sheet, script) == [True, True, True, "One two three."]


@pytest.mark.parametrize("paragraphs", [20, 200])
async def test_the_work_for_a_part_does_not_grow_with_the_answer(
    sheet: Page, paragraphs: int
) -> None:
    script = """
        const markdown = new Markdown(document.createElement("div"));
        const text = "Some **words** of a paragraph.\\n\\n".repeat(given[0]);
        let parts = 0;
        for (let end = 4; end <= text.length; end += 4, parts += 1) {
          markdown.update(text.slice(0, end), false);
        }
        return [parts, markdown.rendered];
    """
    parts, blocks = await run(sheet, script, paragraphs)
    assert parts == 8 * paragraphs
    assert blocks <= parts + paragraphs  # and each once more, when it is whole


async def test_a_list_that_grows_is_not_made_anew(sheet: Page) -> None:
    script = """
        const markdown = new Markdown(document.createElement("div"));
        let text = "";
        for (let item = 0; item < 300; item += 1) {
          text += `- item ${item}\\n`;
          markdown.update(text, false);
        }
        return markdown.rendered;
    """
    # The list, the item that grows and its paragraph; and those of the one before, now whole.
    assert await run(sheet, script) <= 300 * 5


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("[a](https://b.c) <https://d.e> www.f.g x@y.zz", 4),
        ("[a](javascript:alert(1)) [b](data:text/html,x) [c](/d) [e](vbscript:f)", 0),
        ("[a](&#106;avascript:alert(1)) [b]( javascript:x) <javascript:alert(1)>", 0),
        ("![a](https://b.c/d.png) ![](javascript:x)", 1),
    ],
)
async def test_links(sheet: Page, text: str, addresses: int) -> None:
    script = """
        const links = [...rendered(given[0]).querySelectorAll("a[href]")];
        return links.map((link) => [link.protocol, link.target, link.rel]);
    """
    links = await run(sheet, script, text)
    assert len(links) == addresses
    for protocol, target, rel in links:
        assert protocol in {"https:", "http:", "mailto:"}
        assert (target, rel) == ("_blank", "noopener noreferrer")


async def test_each_block_has_its_direction(sheet: Page) -> None:
    script = """
        const into = rendered(given[0]);
        document.body.append(into);
        const found = [...into.children].map((each) =>
          [each.localName, getComputedStyle(each).direction]);
        into.remove();
        return found;
    """
    hello = "\u05e9\u05dc\u05d5\u05dd"
    blocks = [
        "Hello",
        hello,
        f"- {hello}\n- and so on",
        f"| {hello} |\n|---|",
        f"~~~\n{hello}\n~~~",
    ]
    text = "\n\n".join(blocks)
    assert await run(sheet, script, text) == [
        ["p", "ltr"],
        ["p", "rtl"],
        ["ul", "rtl"],
        ["div", "rtl"],
        ["figure", "ltr"],
    ]


async def test_html_is_text(sheet: Page) -> None:
    attack = "<script>alert(1)</script>\n\nHi <img src=x onerror=alert(2)> <b>you</b><br>there\n"
    script = """
        const into = rendered(given[0]);
        const names = [...into.querySelectorAll("*")].map(({ localName }) => localName);
        return [into.textContent, names];
    """
    text, names = await run(sheet, script, attack)
    assert "<script>alert(1)</script>" in text
    assert "<img src=x onerror=alert(2)> <b>you</b>" in text
    assert sorted(names) == ["br", "p", "p"]


@pytest.mark.parametrize(
    ("depths", "levels"),
    [([1, 2, 3, 4], [4, 5, 6, 6]), ([3, 1, 4, 4, 2], [4, 4, 5, 5, 5]), ([6], [4])],
)
async def test_headings_keep_the_outline(sheet: Page, depths: list[int], levels: list[int]) -> None:
    script = "return [...rendered(given[0]).children].map(({ localName }) => localName);"
    text = "".join(f"{'#' * depth} Heading\n\n" for depth in depths)
    assert await run(sheet, script, text) == [f"h{level}" for level in levels]


@pytest.mark.parametrize(
    "text",
    [
        ">" * 6000,
        "- " * 3000,
        "[" * 50_000,
        "_a_b" * 12_000,
        "a" * 50_000 + "@",
        "**a " * 20_000,
        "*" * 49_000 + "x",
        "=" + " " * 49_000 + "x",
    ],
    ids=lambda text: text[:4],
)
async def test_what_is_hard_to_read_is_shown_all_the_same(sheet: Page, text: str) -> None:
    """Nested too deeply, or such that a reader of Markdown would look at it again and again."""
    script = """
        const [text] = given;
        return rendered(text, [45000, 47000, 49000]).children.length;
    """
    assert await run(sheet, script, text) > 0


async def test_what_is_no_entity_stays_as_it_is(sheet: Page) -> None:
    script = "return rendered('&constructor; &eacut; &amp;').textContent.trim()"
    assert await run(sheet, script) == "&constructor; &eacut; &"


async def test_a_block_without_an_end_goes_on_as_text(sheet: Page) -> None:
    script = """
        const text = `# Log\\n\\n${"one line of many\\n".repeat(20000)}`;
        const [once, bits] = [rendered(text), rendered(text, [40000, 60000, 60010, 200000])];
        return [once.innerHTML === bits.innerHTML, once.querySelectorAll(".plain").length];
    """
    assert await run(sheet, script) == [True, 1]


class TestCode:
    """Blocks of code."""

    @pytest_asyncio.fixture(loop_scope="session")
    async def code(self, sheet: Page) -> Page:
        """An answer with some."""
        await run(
            sheet,
            """
            window.turn = ask({ text: "Code?" });
            window.part = (text) => {
              turn.add({ index: window.count++, text });
              log.show([turn]);
            };
            window.count = 0;
            client.history = [turn];
            log.use(client);
            part("```py\\ndef f(x):\\n    return 1  # yes\\n");
            """,
        )
        return sheet

    async def test_colours_come_when_it_is_whole(self, code: Page) -> None:
        block = code.locator("figure.code")
        await expect(block.locator("code")).to_contain_text("return 1  # yes")
        await expect(block.locator(".language")).to_have_text("py")
        assert await block.locator(".hl-keyword").count() == 0
        await run(code, 'part("```\\nAnd `so` on.\\n\\nThe end.")')
        await expect(block.locator(".hl-keyword")).to_have_text(["def", "return"])
        shown = await block.locator("code").evaluate("code => code.textContent")
        assert shown == "def f(x):\n    return 1  # yes"

    async def test_it_is_copied_by_keyboard(self, code: Page) -> None:
        button = code.locator("figure.code").get_by_role("button")
        await button.press("Enter")
        await expect(button.get_by_role("status")).to_have_text("Copied")
        copied = await code.evaluate("navigator.clipboard.readText()")
        assert copied == "def f(x):\n    return 1  # yes"

    async def test_a_clipboard_that_is_refused(self, code: Page) -> None:
        await run(code, "navigator.clipboard.writeText = () => Promise.reject(new Error());")
        button = code.locator("figure.code").get_by_role("button")
        await button.click()
        await expect(button.get_by_role("status")).to_contain_text("Ctrl+C")
        assert await code.evaluate("`${getSelection()}`") == "def f(x):\n    return 1  # yes"
        await code.evaluate("delete navigator.clipboard.writeText; getSelection().empty()")

    async def test_every_language_has_its_file(self, sheet: Page) -> None:
        script = """
            const { LANGUAGES } = await import("./static/chat/code.js");
            const blocks = Object.keys(LANGUAGES).map((name) => `~~~${name}\\nif 1\\n~~~\\n`);
            const into = rendered(blocks.join(""));
            document.body.append(into);
            return Object.keys(LANGUAGES).length;
        """
        count = await run(sheet, script)
        assert count > 30
        await sheet.wait_for_function(
            "count => document.querySelectorAll('body > div code:not(:has(.piece))').length"
            " === count",
            arg=count,
        )
        await run(sheet, "document.querySelector('body > div').remove()")
