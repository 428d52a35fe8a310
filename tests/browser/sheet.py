"""The page's modules and styles alone, with its headers, and conversations that a test makes up."""

from pathlib import Path
from typing import Any

from playwright.async_api import Page, Route

from gateway.transports.pages import DOCUMENT_HEADERS

STATIC = Path(__file__).parents[2] / "static"
ADDRESS = "http://localhost:9/"
"""Where nobody listens: what is asked for there is taken from the files."""

TYPES = {".js": "text/javascript", ".css": "text/css"}
HEADERS = {name.decode(): value.decode() for name, value in DOCUMENT_HEADERS}

DOCUMENT = """<!doctype html>
<html lang="en">
  <head>
    <title>Sheet</title>
    <link rel="stylesheet" href="static/theme.css">
    <link rel="stylesheet" href="static/chat/page.css">
    <link rel="stylesheet" href="static/chat/log.css">
  </head>
  <body>
    <main>
      <h1>Sheet</h1>
      <h2>Conversation</h2>
      <div id="log" role="log" aria-live="off" aria-label="Conversation" tabindex="0">
        <div id="welcome">Welcome</div>
      </div>
      <form><label>Message <textarea></textarea></label></form>
    </main>
  </body>
</html>
"""

SCRIPT = """async () => {
  const [{ Turn }, { Log }, { Markdown }] = await Promise.all(
    ["client", "chat/log", "chat/markdown"].map((name) => import(`./static/${name}.js`)),
  );
  const nobody = { cancel() {}, release() {} };
  const client = { history: [] };
  const element = document.getElementById("log");
  const options = {};
  const log = new Log(element, document.getElementById("welcome"), {
    actions: (turn, who) => options.actions?.(turn, who) ?? [],
    fileName: (turn) => options.fileName?.(turn),
  });
  log.use(client);
  const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
  Object.assign(window, {
    Markdown, Log, client, element, log, options, frame,
    /** A turn that runs. */
    ask(sent) {
      const turn = new Turn(`m${client.history.length}`, sent, nobody);
      client.history.push(turn);
      turn.start();
      return turn;
    },
    /** A turn that has ended. */
    said(sent, reply) {
      const turn = ask(typeof sent === "string" ? { text: sent } : sent);
      const ended = typeof reply === "string" ? { text: reply } : reply;
      turn.end({ id: turn.id, status: "completed", deltas: 0, duration_ms: 5, ...ended });
      return turn;
    },
    /** What is rendered of a text, at once or in parts. */
    rendered(text, cuts = []) {
      const into = document.createElement("div");
      const markdown = new Markdown(into);
      for (const cut of cuts) markdown.update(text.slice(0, cut), false);
      markdown.update(text, true);
      return into;
    },
    /** Wait until nothing has moved for some frames. */
    async settle() {
      for (let same = 0, before = ""; same < 4; ) {
        await frame();
        const { scrollTop, scrollHeight, childElementCount } = element;
        const now = [scrollTop, scrollHeight, childElementCount].join();
        same = now === before ? same + 1 : 0;
        before = now;
      }
    },
  });
}"""


async def run(page: Page, script: str, *arguments: Any) -> Any:
    """The value of a script's ``return``; what is given are its ``given``."""
    return await page.evaluate(f"async (given) => {{ {script} }}", list(arguments))


async def open_sheet(page: Page) -> None:
    """Load it, and what a test's scripts call."""

    async def serve(route: Route) -> None:
        path = route.request.url.removeprefix(ADDRESS).partition("?")[0]
        file = STATIC / path.removeprefix("static/")
        if path == "":
            await route.fulfill(body=DOCUMENT, content_type="text/html", headers=HEADERS)
        elif file.is_file():
            kind = TYPES.get(file.suffix, "text/plain")
            await route.fulfill(body=file.read_bytes(), content_type=kind)
        else:
            await route.fulfill(status=404)

    await page.route(f"{ADDRESS}**", serve)
    await page.goto(ADDRESS)
    await page.evaluate(SCRIPT)
