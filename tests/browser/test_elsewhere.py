"""client.js away from the gateway's page: on a page of another origin, and in Node."""

import json
import re
import subprocess
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.browser.conftest import Chat
from tests.browser.scripted import until
from tests.support import npm
from tests.support.folder import serving
from tests.support.npm import MODULES as PACKAGES
from tests.support.npm import NEWEST, OLDEST
from tests.support.processes import Process
from tests.support.timing import UNIT

Start = Callable[..., Process]

ROOT = Path(__file__).parents[2]
MODULES = ROOT / "static" / "client"

# A page's script that knows nothing but the gateway's address, and counts its handshakes.
PAGE = """async (gateway) => {
  const { SessionClient } = await import(`${gateway}/static/client.js`);
  window.handshakes = 0;
  class Counted extends WebSocket {
    constructor(...given) {
      super(...given);
      handshakes += 1;
    }
  }
  const url = `${gateway.replace("http", "ws")}/ws`;
  window.client = new SessionClient(url, { WebSocket: Counted });
  window.settled = new Promise((resolve) =>
    client.addEventListener("state", () => client.state !== "connecting" && resolve(client.state)));
  client.connect();
  window.early = client.send("hi").catch((error) => error.failure);
  return await settled;
}"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[str]:
    """The origin of another server, which has a page of its own."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "index.html").write_text(
        '<!doctype html><title>An app</title><link rel="icon" href="data:,">'
    )
    with serving(folder) as origin:
        yield origin


async def test_a_page_of_another_origin(
    new_chat: Callable[..., Any],
    start_gateway: Start,
    elsewhere: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GATEWAY_ROUTES__CHAT__ALLOWED_ORIGINS", json.dumps([elsewhere]))
    gateway = start_gateway()
    chat: Chat = await new_chat()
    await chat.page.goto(elsewhere)
    assert await chat.page.evaluate(PAGE, gateway.url) == "open"
    text = await chat.page.evaluate("client.send('My name is Ada.').then((done) => done.text)")
    assert "Hello Ada" in text
    text = await chat.page.evaluate("client.send('What is my name?').then((done) => done.text)")
    assert "Your name is Ada." in text
    await chat.page.evaluate("client.close()")
    assert await chat.page.evaluate("handshakes") == 1


async def test_the_readmes_script(
    new_chat: Callable[..., Any],
    start_gateway: Start,
    elsewhere: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a page of another origin, as it stands there."""
    monkeypatch.setenv("GATEWAY_ROUTES__CHAT__ALLOWED_ORIGINS", json.dumps([elsewhere]))
    gateway = start_gateway()
    (script,) = re.findall(r"```js\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    script = script.replace("127.0.0.1:8080", gateway.url.removeprefix("http://"))
    page = '<!doctype html><link rel="icon" href="data:,"><script type="module">'
    (tmp_path / "elsewhere" / "readme.html").write_text(f"{page}{script}</script>")
    chat: Chat = await new_chat()
    await chat.page.goto(f"{elsewhere}/readme.html")
    await until(lambda: chat.complaints != [])
    (said,) = chat.complaints
    assert "Turn 1" in said
    chat.complaints.clear()


async def test_a_forbidden_origin_is_told_and_does_not_try_again(
    new_chat: Callable[..., Any], start_gateway: Start, elsewhere: str
) -> None:
    chat: Chat = await new_chat()
    await chat.page.clock.install()
    await chat.page.goto(elsewhere)
    assert await chat.page.evaluate(PAGE, start_gateway().url) == "closed"
    code, reason = await chat.page.evaluate("[client.code, client.reason]")
    assert code == 4403
    assert "allow it in the route's allowed_origins" in reason
    forbidden = {
        "code": "forbidden",
        "message": reason,
        "outcome": "not_invoked",
        "retryable": False,
    }
    assert await chat.page.evaluate("early") == forbidden
    late = "client.send('hi').catch((error) => error.failure)"
    assert await chat.page.evaluate(late) == forbidden
    await chat.page.clock.run_for(120_000)
    assert await chat.page.evaluate("handshakes") == 1
    chat.complaints.clear()  # Chromium's own, of the refused handshake


class Node:
    """Runs scripts as users do who have installed the client.

    Attributes:
        folder: Where they run, with the packages ``ws`` and ``session-gateway-client``.
    """

    def __init__(self, folder: Path, package: Path) -> None:
        self.folder = folder
        packages = folder / "node_modules"
        packages.mkdir(parents=True)
        (packages / "ws").symlink_to(PACKAGES / "ws")
        (packages / "session-gateway-client").symlink_to(package)

    def run(self, executable: str, script: str) -> Any:
        """What the script prints, as JSON; it has to end by itself, without a complaint."""
        (self.folder / "app.mjs").write_text(script)
        ended = subprocess.run(
            [executable, "app.mjs"],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=30 * UNIT,
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        return json.loads(ended.stdout)


@pytest.fixture
def node(tmp_path: Path, npm_package: Path) -> Node:
    installed = npm_package / "app" / "node_modules" / "session-gateway-client"
    return Node(tmp_path / "node", installed)


IMPORT = 'import { SessionClient } from "session-gateway-client";'
IMPORT_WS = 'import { WebSocket } from "ws";'
NODES = pytest.mark.parametrize(
    ("executable", "websocket"),
    [(OLDEST, IMPORT_WS), (NEWEST, IMPORT_WS), (NEWEST, "const { WebSocket } = globalThis;")],
    ids=["20-ws", "newest-ws", "newest"],
)


def test_the_oldest_node_is_the_one_that_is_promised() -> None:
    version = subprocess.run([OLDEST, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("v20.")


@NODES
def test_a_gateway_that_is_not_there(node: Node, executable: str, websocket: str) -> None:
    """It is tried again until the client is closed; nothing is thrown meanwhile."""
    script = f"""{IMPORT}
        {websocket}
        const client = new SessionClient("ws://127.0.0.1:9/ws", {{ WebSocket }});
        const states = [];
        client.addEventListener("state", ({{ detail }}) => {{
          states.push(detail);
          if (states.length === 4) client.close();
        }});
        client.connect();
        const sent = client.send("hi").catch(({{ failure }}) => failure.outcome);
        console.log(JSON.stringify([await sent, states]));
    """
    outcome, states = node.run(executable, script)
    assert outcome == "not_invoked"
    assert states == ["connecting", "waiting", "connecting", "waiting", "closed"]


def test_the_examples_in_node(node: Node, start_gateway: Start) -> None:
    url = f"{start_gateway().websocket}/ws"
    documents = (ROOT / "docs" / "clients.md", npm.CLIENT / "README.md")
    for number, document in enumerate(documents):
        (script,) = re.findall(r"```js\n(.*?)```", document.read_text(), re.DOTALL)
        script = script.replace("ws://127.0.0.1:8080/ws", url)
        (node.folder / f"document{number}.mjs").write_text(script)
    for example in ("node.js", "typescript.ts"):
        copied = node.folder / example
        copied.write_text((npm.CLIENT / "examples" / example).read_text())
    (node.folder / "package.json").write_text('{ "type": "module" }')
    esbuild = str(PACKAGES / ".bin" / "esbuild")
    npm.command(esbuild, "typescript.ts", "--outfile=typescript.js", cwd=node.folder)
    for executable, program in (
        (NEWEST, "document0.mjs"),
        (NEWEST, "document1.mjs"),
        (NEWEST, "node.js"),
        (OLDEST, "typescript.js"),
    ):
        said = npm.command(executable, program, url, cwd=node.folder)
        assert "Your name is Ada." in said


def test_a_copy_of_what_the_gateway_serves(node: Node, start_gateway: Start) -> None:
    gateway = start_gateway()
    folder = node.folder / "copied"
    (folder / "client").mkdir(parents=True)
    package = httpx.get(f"{gateway.url}/static/package.json", verify=False, timeout=20 * UNIT)
    (folder / "package.json").write_text(package.text)
    for path in ["client.js", *(f"client/{file.name}" for file in MODULES.iterdir())]:
        module = httpx.get(f"{gateway.url}/static/{path}", verify=False, timeout=20 * UNIT)
        assert module.headers["access-control-allow-origin"] == "*"
        (folder / path).write_text(module.text)
    script = f"""import {{ SessionClient }} from "./copied/client.js";
        const storage = {{ getItem: () => null, setItem: (_, kept) => (storage.kept = kept) }};
        const client = new SessionClient("{gateway.websocket}/ws", {{ storage }});
        client.connect();
        const {{ text }} = await client.send("/echo Hello");
        client.close();
        console.log(JSON.stringify([text, JSON.parse(storage.kept).history.length]));
    """
    assert node.run(NEWEST, script) == ["Hello", 2]


@NODES
@pytest.mark.usefixtures("streams")
def test_a_conversation_in_messagepack_goes_on_in_json(
    node: Node, start_gateway: Start, executable: str, websocket: str
) -> None:
    script = f"""{IMPORT}
        {websocket}
        const storage = {{
          getItem: () => storage.kept ?? null,
          setItem: (_, kept) => (storage.kept = kept),
        }};
        const shown = [];
        class Seen extends WebSocket {{
          constructor(...given) {{
            super(...given);
            this.addEventListener("message", ({{ data }}) => shown.push(typeof data));
          }}
        }}
        const options = {{ WebSocket: Seen, storage }};
        const bytes = (text) => new TextEncoder().encode(text);
        const binary = new SessionClient(
          "{start_gateway().websocket}/ws", {{ ...options, binary: true }},
        );
        binary.connect();
        await binary.send({{ bytes: bytes("My name is Ada.") }});
        const {{ base64 }} = await binary.send({{ bytes: bytes("/bytes 5"), stream: false }});
        const bad = await binary.send({{ base64: "?" }}).catch(({{ failure }}) => failure.code);
        const seen = [...new Set(shown.splice(0))];
        const json = new SessionClient(binary.url, options);
        json.connect();
        const {{ text }} = await json.send("What is my name?");
        const ended = json.history.filter((item) => item.ended);
        const kept = ended.map((turn) => [turn.sent.base64, turn.ended.base64]);
        json.close();
        binary.close();
        console.log(JSON.stringify([base64, bad, seen, [...new Set(shown)], text, kept]));
    """
    base64, bad, seen, then, text, kept = node.run(executable, script)
    assert b64decode(base64) == b"xxxxx"
    assert bad == "bad_message"
    assert (seen, then) == (["object"], ["string"])
    assert "Your name is Ada." in text
    assert [b64decode(sent) for sent, _ in kept[:2]] == [b"My name is Ada.", b"/bytes 5"]
    assert kept[1][1] == base64


def test_where_there_is_no_websocket_it_says_what_to_do(node: Node) -> None:
    script = f"""{IMPORT}
        try {{
          new SessionClient("ws://127.0.0.1:9/ws");
        }} catch (error) {{
          console.log(JSON.stringify([error.name, error.message]));
        }}
    """
    name, message = node.run(OLDEST, script)
    assert name == "TypeError"
    assert "package ws" in message
    assert "new SessionClient(url, { WebSocket })" in message
