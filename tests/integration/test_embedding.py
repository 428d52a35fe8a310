"""The gateway in somebody else's application, under the ASGI servers that people run.

One of them here; all the others in the long run.
"""

import asyncio
import json
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests.integration.conftest import AWS
from tests.support.client import JSON, MSGPACK, client, raw
from tests.support.processes import Process, admin
from tests.support.servers import PREFIX, SERVERS, served

ROUTES = """
reply_bytes = 1000000

[routes.chat]
endpoint_name = "my-endpoint"
content_type = "text/plain"
message_bytes = 100000
log_bytes = 4000000

[routes.streamed]
endpoint_name = "my-endpoint"
content_type = "text/plain"
stream = "raw"
"""

SHORT = "uvicorn-websockets-sansio"
EVERY = [
    pytest.param(server, marks=[] if server == SHORT else pytest.mark.long) for server in SERVERS
]


@pytest.fixture(scope="module")
def config(shared_platform: Process, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("embedded") / "gateway.toml"
    file.write_text(AWS.format(url=shared_platform.url, transport="lean") + ROUTES)
    return file


@pytest.fixture(scope="module", params=EVERY)
def server(request: pytest.FixtureRequest) -> str:
    """Its name."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def mounted(server: str, config: Path) -> Iterator[Process]:
    """A server with an application that the gateway is mounted in."""
    with served(server, "app", config) as process:
        yield process


@pytest.fixture(scope="module")
def url(mounted: Process) -> str:
    return mounted.websocket + PREFIX


@pytest.mark.parametrize("subprotocol", [JSON, MSGPACK])
async def test_a_conversation(url: str, subprotocol: str) -> None:
    async with client(url, subprotocol) as chat:
        assert chat.socket.subprotocol == subprotocol
        await chat.open()
        await chat.ask("My name is Ada.")
        assert "Your name is Ada." in (await chat.ask("What is my name?"))["text"]
        await chat.send("ping", data="x")
        assert await chat.receive() == {"type": "pong", "data": "x"}
        await chat.send("session.close")
        await chat.until("session.closed")
        assert await chat.closed() == (1000, "")


async def test_a_raw_conversation(url: str) -> None:
    async with raw(url, "chat") as socket:
        await socket.send("My name is Ada.")
        await socket.recv()
        await socket.send("What is my name?")
        assert "Your name is Ada." in str(await socket.recv())


async def test_a_stream_goes_on_where_the_connection_was_cut(url: str) -> None:
    async with client(url, route="streamed") as first:
        opened = await first.open()
        await first.send("message.send", id="a", text="/count 300 0.002", stream=True)
        await first.until("message.delta", index=10)
        first.socket.transport.abort()
    seen = first.messages[-1]["event"]
    async with client(url, route="streamed") as second:
        resume = {"session_id": opened["session_id"], "resume_key": opened["resume_key"]}
        await second.send("session.open", **resume, last_event=seen)
        assert (await second.until("session.resumed"))["lost"] is None
        assert (await second.until("message.done"))["status"] == "completed"
    events = [m["event"] for m in (*first.messages, *second.messages) if "event" in m]
    assert events == list(range(1, len(events) + 1))
    heard = (m["text"] for m in (*first.messages, *second.messages) if m["type"] == "message.delta")
    assert "".join(heard).split() == [str(number) for number in range(1, 301)]


async def test_a_client_that_does_not_read(url: str, server: str, mounted: Process) -> None:
    async with client(url, max_queue=1, compression=None) as slow, client(url) as other:
        opened = await slow.open()
        await other.open()
        slow.socket.transport.pause_reading()
        for number in range(16):
            await slow.send("message.send", id=f"{number}", text="/bytes 900000")
        await mounted.says("code=4413")
        assert (await other.ask("hi"))["status"] == "completed"
        slow.socket.transport.resume_reading()
        # granian resets a connection that it closes with something unread, as here.
        assert (await slow.closed())[0] in ({4413, 1006} if server == "granian" else {4413})
    seen = max(message.get("event", 0) for message in slow.messages)
    async with client(url) as back:
        resume = {"session_id": opened["session_id"], "resume_key": opened["resume_key"]}
        await back.send("session.open", **resume, last_event=seen)
        assert (await back.until("session.resumed"))["session_id"] == opened["session_id"]


async def test_closes_with_the_protocols_codes(url: str) -> None:
    async with client(url) as chat:
        await chat.open()
        await chat.send("message.send", id="a", text="x" * 200_000)
        assert await chat.closed() == (1009, "too_large")
    async with client(url, route="nothing") as chat:
        assert (await chat.closed())[0] == 4404
    async with client(url, "unknown.subprotocol") as chat:
        assert (await chat.closed())[0] == 4406
    async with client(url) as chat:
        await chat.send("ping")
        assert (await chat.closed())[0] == 4400
    async with client(url) as chat:
        await chat.open()
        chat.send_at_once(*[{"type": "nonsense"}] * 20)
        assert (await chat.closed())[0] == 4400


async def test_a_foreign_origin_is_refused(url: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with client(url, origin="https://elsewhere.example.com"):
            pass
    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body or b"")["code"] == "forbidden"
    own = url.replace("ws", "http").removesuffix(PREFIX)
    async with client(url, origin=own) as chat:
        await chat.open()


async def test_pages_are_below_the_prefix(mounted: Process) -> None:
    async with httpx.AsyncClient(base_url=mounted.url, follow_redirects=True, verify=False) as http:
        page = await http.get(PREFIX)
        assert page.url.path == f"{PREFIX}/"
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert '"static/chat/main.js"' in page.text
        assert (await http.get(f"{PREFIX}/static/chat/main.js")).status_code == 200
        assert (await http.get(f"{PREFIX}/page.json")).json()["default"] == "chat"
        assert (await http.get(f"{PREFIX}/readyz")).text == "ok\n"
        assert (await http.get(f"{PREFIX}/ws")).status_code == 426
        outer = await http.get("/")
        assert outer.json() == "the outer application"
        assert "Content-Security-Policy" not in outer.headers


@pytest.mark.parametrize(
    ("app", "prefix"), [("app", PREFIX), ("without_lifespan", PREFIX), ("alone", "")]
)
async def test_a_server_stops(
    server: str, app: str, prefix: str, platform: Process, tmp_path: Path
) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(AWS.format(url=platform.url, transport="lean") + ROUTES)
    with served(server, app, file) as process:
        url = process.websocket + prefix
        async with client(url) as chat, client(url) as other:
            await chat.open()
            await other.open()
            process.popen.send_signal(signal.SIGTERM)
            assert (await chat.closed())[0] in {1006, 1011, 1012}, "as the server has it"
        await asyncio.to_thread(process.wait)
    if (
        app != "without_lifespan"
    ):  # uvicorn ends the process by the signal before the gateway could act
        instances = admin(platform)["instances"]
        assert sum(instance["closed"] for instance in instances) == 2, process.output
    for complaint in ("gateway/", "was never", "was destroyed"):  # hypercorn has its own
        assert complaint not in process.output, process.output


async def test_the_documents_example(platform: Process, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    pattern = re.compile(
        r"```python\n(from fastapi import FastAPI\n\nfrom gateway.*?)```", re.DOTALL
    )
    (example,) = pattern.findall((root / "README.md").read_text())
    assert pattern.findall((root / "docs" / "embedding.md").read_text()) == [example]
    (tmp_path / "main.py").write_text(example)
    (tmp_path / "gateway.toml").write_text(AWS.format(url=platform.url, transport="lean") + ROUTES)
    command = [sys.executable, "-m", "uvicorn", "main:app", "--port", "0"]
    process = Process(command, cwd=tmp_path)
    try:
        async with client(f"{process.websocket}/chat") as chat:
            await chat.open()
            assert "Turn 1" in (await chat.ask("hi"))["text"]
    finally:
        process.stop()
