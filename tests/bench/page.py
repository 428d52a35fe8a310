"""``python -m tests.bench.page``: how evenly the chat page moves, in headless Chromium.

The page's log alone, without a gateway: what is measured is what the browser does between two
frames. It shows 60 of them a second at best; one that takes longer than 50 ms is felt.
"""

import asyncio

from playwright.async_api import async_playwright

from tests.browser.conftest import ARGUMENTS, CHROMIUM
from tests.browser.sheet import open_sheet, run

MEASURE = """
  const gaps = [];
  const long = [];
  let last = 0;
  new PerformanceObserver((list) => long.push(...list.getEntries())).observe({ type: "longtask" });
  const tick = (now) => {
    if (last) gaps.push(now - last);
    last = now;
    requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
  /** What the frames of some work were like. */
  window.measured = async (work) => {
    await settle();
    gaps.length = long.length = 0;
    await work();
    await settle();
    await new Promise((resolve) => setTimeout(resolve, 100));
    const sorted = gaps.toSorted((a, b) => a - b);
    return [sorted.length, sorted[sorted.length >> 1], sorted[Math.floor(sorted.length * 0.99)],
      sorted.at(-1), sorted.filter((gap) => gap > 50).length, long.length];
  };
"""

MANY = """
  for (let i = 0; i < 5000; i += 1) {
    const code = i % 10 ? "" : "```js\\nlet a = 1;\\n```";
    const more = `${"text ".repeat((i * 7) % 200)}\\n\\n${code}`;
    said(`Question ${i} ${"word ".repeat(i % 40)}`, `Answer **${i}**\\n\\n- item\\n\\n${more}`);
  }
"""

WORK = {
    "200 parts a second come in, 10 s": """
      const turn = ask({ text: "Go" });
      const words = "Some **words** with `code`, a [link](https://a.b), and on. ".split(/(?<= )/);
      const blocks = ["\\n\\n## Head\\n\\n", "\\n- an item\\n",
        "\\n```py\\ndef f():\\n  pass\\n```\\n\\n",
        "\\n\\n| a | b |\\n|---|---|\\n| 1 | 2 |\\n\\n"];
      log.show([turn]);
      const began = performance.now();
      for (let index = 0; index < 2000; ) {
        await new Promise((resolve) => setTimeout(resolve, 5));
        for (const due = (performance.now() - began) / 5; index < Math.min(due, 2000); index += 1) {
          const block = blocks[Math.floor(index / 40) % blocks.length];
          turn.add({ index, text: index % 40 === 39 ? block : words[index % words.length] });
          log.show([turn]);
        }
      }
      turn.end({ id: turn.id, status: "completed", deltas: 2000, duration_ms: 10_000 });
      log.show([turn]);
    """,
    "a list of 1,000 items comes in, 240 a second": """
      const turn = ask({ text: "Go" });
      for (let index = 0; index < 1000; index += 1) {
        turn.add({ index, text: `- item ${index} with **bold** and \\`code\\`\\n` });
        if (index % 4 === 3) {
          log.show([turn]);
          await frame();
        }
      }
      turn.end({ id: turn.id, status: "completed", deltas: 1000, duration_ms: 5_000 });
      log.show([turn]);
    """,
    "10,000 messages are shown": f"{MANY} log.use(client);",
    "through 10,000 messages, 9,000 pixels a second": """
      for (let step = 0; step < 300; step += 1) {
        element.scrollTop -= 150;
        await frame();
      }
    """,
    "from end to end of 10,000 messages, in jumps": """
      for (let step = 0; step < 100; step += 1) {
        element.scrollTop = (element.scrollHeight * step) / 100;
        await frame();
      }
    """,
    "a message of 7 MB is shown": """
      log.scrollToEnd();
      log.show([said("A line of what was pasted.\\n".repeat(260_000), "Thank you.")]);
    """,
    "and all of it": """
      [...element.querySelectorAll(".more:not([hidden])")].at(-1).click();
      while (element.querySelector(".more:not([hidden])")) await frame();
      const length = () => [...element.querySelectorAll(".you .body")].at(-1).textContent.length;
      while (length() < 7_000_000) await new Promise((resolve) => setTimeout(resolve, 200));
    """,
}


async def table() -> str:
    """What docs/performance.md has of it."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = await browser.new_page(viewport={"width": 1100, "height": 760})
        await open_sheet(page)
        await run(page, MEASURE)
        lines = [
            "| while | frames | median | 99 % | longest | over 50 ms | long tasks |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for name, work in WORK.items():
            measured = await run(page, f"return measured(async () => {{ {work} }});")
            frames, median, most, longest, slow, tasks = measured
            times = f"{median:.0f} ms | {most:.0f} ms | {longest:.0f} ms"
            lines.append(f"| {name} | {frames} | {times} | {slow} | {tasks} |")
        lines += ["", f"Chromium {browser.version}."]
        await browser.close()
        return "\n".join(lines)


if __name__ == "__main__":
    print(asyncio.run(table()))  # noqa: T201
