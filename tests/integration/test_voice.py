"""Sound through the gateway, to a model whose every answer depends on all that came before.

However it is cut, whichever way it goes, and whatever is lost, it says the same to the last digit
as the library by itself of all of it at once.
"""

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.documents.blocks import ROOT, Document
from tests.integration.conftest import AWS
from tests.integration.test_tutorial import CONTAINER, shell
from tests.support.client import MSGPACK, Client, client, in_time, raw
from tests.support.node import run
from tests.support.processes import Process, admin, gateway, local
from tests.support.timing import UNIT
from tests.support.voice import ROUTE, SAMPLE, offline, sound

SHORT = ROUTE.replace("voice", "short").replace("1000", "4")
"""A route that keeps four messages only."""

VOICE = Document("docs/voice.md")
SOUND = sound()
OFFLINE = offline(SOUND)


@pytest.fixture(scope="module")
def stage(
    tmp_path_factory: pytest.TempPathFactory, transport: str
) -> Iterator[tuple[str, Process]]:
    """A gateway's address, and the platform behind it; each test may lose one instance."""
    with ExitStack() as stack:
        platform = stack.enter_context(local("--model", "voice", "--instances", "4"))
        file = tmp_path_factory.mktemp("voice") / "gateway.toml"
        file.write_text(AWS.format(url=platform.url, transport=transport) + ROUTE + SHORT)
        yield stack.enter_context(gateway(file)).url, platform


def websocket(url: str) -> str:
    return url.replace("http", "ws", 1)


def cut(samples: bytes, sizes: list[int]) -> list[bytes]:
    """Chunks of these sizes, over and over."""
    chunks: list[bytes] = []
    at = 0
    while at < len(samples):
        chunks.append(samples[at : at + sizes[len(chunks) % len(sizes)]])
        at += len(chunks[-1])
    return chunks


async def heard(chat: Client, number: int, chunk: bytes) -> dict[str, Any]:
    """What the model says of a chunk."""
    await chat.send("message.send", id=str(number), bytes=chunk)
    done = await chat.until("message.done", id=str(number))
    assert done["status"] == "completed", done
    said: dict[str, Any] = done["json"]
    return said


SIZES = st.lists(
    st.integers(1_500, 9_000) | st.sampled_from([8_192, 8_191, 1_024, 40_000]),
    min_size=1,
    max_size=4,
)


@settings(max_examples=6)
@given(sizes=SIZES)
async def test_however_it_is_cut(stage: tuple[str, Process], sizes: list[int]) -> None:
    url, _ = stage
    async with client(websocket(url), MSGPACK, route="voice") as chat:
        await chat.open()
        chunks = cut(SOUND, sizes)
        for number, chunk in enumerate(chunks):  # some wait: their order is the gateway's part
            await chat.send("message.send", id=str(number), bytes=chunk)
            if number >= 8:
                await chat.until("message.done", id=str(number - 8))
        await chat.until("message.done", id=str(len(chunks) - 1))
        done = [message["json"] for message in chat.messages if message["type"] == "message.done"]
        await chat.send("session.close")
        await chat.until("session.closed")
    assert [p for said in done for p in said["probabilities"]] == OFFLINE
    assert max(OFFLINE) > 0.9
    assert min(OFFLINE) < 0.1


async def test_in_raw_frames(stage: tuple[str, Process]) -> None:
    url, _ = stage
    got: list[float] = []
    async with raw(websocket(url), "voice") as socket:
        for chunk in cut(SOUND, [30_001]):
            await socket.send(chunk)
        while len(got) < len(OFFLINE):
            said = json.loads(await in_time(socket.recv()))
            assert said["frame"] == len(got)
            got += said["probabilities"]
    assert got == OFFLINE


async def test_the_page_is_there_for_such_a_route(stage: tuple[str, Process]) -> None:
    async with httpx.AsyncClient(base_url=stage[0], timeout=20 * UNIT) as http:
        page = await http.get("/voice")
        assert page.headers["content-type"].startswith("text/html")
        assert "script-src 'self'" in page.headers["content-security-policy"]
        sample = await http.get("/static/voice/sample.wav")
        assert sample.content == SAMPLE.read_bytes()


async def test_over_http(stage: tuple[str, Process]) -> None:
    url, _ = stage
    async with httpx.AsyncClient(base_url=url, timeout=20 * UNIT) as http:
        opened = (await http.post("/v1/routes/voice/sessions")).json()
        session = f"/v1/sessions/{opened['session_id']}"
        headers = {
            "Session-Key": opened["resume_key"],
            "Content-Type": "application/octet-stream",
        }
        got: list[float] = []
        for chunk in cut(SOUND, [50_000]):
            reply = await http.post(f"{session}/messages", content=chunk, headers=headers)
            got += reply.raise_for_status().json()["probabilities"]
        assert got == OFFLINE
        headers["Content-Type"] = "text/plain"
        reply = await http.post(f"{session}/messages", content="Hello", headers=headers)
        assert reply.json()["code"] == "model_error"
        await http.delete(session, headers=headers)


async def test_sessions_do_not_mix(stage: tuple[str, Process]) -> None:
    url, _ = stage
    backwards = SOUND[::-1]
    async with (
        client(websocket(url), MSGPACK, route="voice") as one,
        client(websocket(url), MSGPACK, route="voice") as other,
    ):
        await one.open()
        await other.open()
        got: tuple[list[float], list[float]] = [], []
        chunks = zip(cut(SOUND, [8_192]), cut(backwards, [8_192]), strict=True)
        for number, pair in enumerate(chunks):
            for chat, chunk, into in zip((one, other), pair, got, strict=True):
                into.extend((await heard(chat, number, chunk))["probabilities"])
    assert got == (OFFLINE, offline(backwards))
    assert got[0] != got[1]


async def test_an_instance_is_lost_in_the_middle(stage: tuple[str, Process]) -> None:
    """Another one hears all of it again, messages that end within a sample included."""
    url, platform = stage
    async with client(websocket(url), MSGPACK, route="voice") as chat:
        await chat.open()
        got: list[float] = []
        instances: list[str] = []
        for number, chunk in enumerate(cut(SOUND, [12_345])):
            if number == 6:
                admin(platform, f"/instances/{instances[-1]}/lose")
            said = await heard(chat, number, chunk)
            assert said["frame"] == len(got)
            got += said["probabilities"]
            instances.append(said["instance"])
        (renewed,) = (m for m in chat.messages if m["type"] == "session.renewed")
    assert (renewed["reason"], renewed["context"]) == ("lost", "replayed")
    assert len(set(instances[:6])) == len(set(instances[6:])) == 1
    assert instances[0] != instances[-1]
    assert got == OFFLINE


async def test_what_is_no_longer_kept_is_not_heard_again(stage: tuple[str, Process]) -> None:
    """It is said. Messages of whole frames leave the frames where they are."""
    url, platform = stage
    async with client(websocket(url), MSGPACK, route="short") as chat:
        await chat.open()
        chunks = cut(SOUND, [8_192])
        said = [await heard(chat, number, chunk) for number, chunk in enumerate(chunks[:10])]
        admin(platform, f"/instances/{said[-1]['instance']}/lose")
        after = await heard(chat, 10, chunks[10])
        (renewed,) = (m for m in chat.messages if m["type"] == "session.renewed")
    assert renewed["context"] == "partial"
    assert after["frame"] == 4 * 8
    assert after["probabilities"] == offline(SOUND[6 * 8_192 : 11 * 8_192])[-8:]


async def test_the_container_of_the_document(stack: ExitStack, tmp_path: Path) -> None:
    (tmp_path / "container.py").write_text(VOICE.block("python"))
    container = Process(shell(tmp_path, CONTAINER.replace("--port 8081", "--port 0")), tmp_path)
    stack.callback(container.stop)
    platform = stack.enter_context(local("--container", container.url))
    config = VOICE.block("toml").replace("http://127.0.0.1:9000", platform.url)
    (tmp_path / "gateway.toml").write_text(config)
    front = stack.enter_context(gateway(tmp_path / "gateway.toml"))
    async with client(front.websocket, MSGPACK, route="voice") as chat:
        await chat.open()
        got: list[float] = []
        for number, chunk in enumerate(cut(SOUND, [33_333])):
            got += (await heard(chat, number, chunk))["probabilities"]
        assert got == OFFLINE
        failed = await chat.ask("Hello")
        assert failed["error"]["message"].endswith("(status 415).")
        await chat.send("session.close")
        await chat.until("session.closed")
    (instance,) = admin(platform)["instances"]
    assert (instance["opened"], instance["closed"]) == (1, 1)
    script = VOICE.block("js").replace("./client.js", (ROOT / "static" / "client.js").as_uri())
    script = script.replace("ws://127.0.0.1:8080", front.websocket)
    node = 'import { WebSocket } from "ws";\nglobalThis.WebSocket = WebSocket;\n'
    (tmp_path / "node").mkdir()
    silence = await asyncio.to_thread(run, tmp_path / "node", node + script)
    assert silence == offline(bytes(8_192))
    headers = {"Content-Type": "application/json"}
    async with httpx.AsyncClient(base_url=container.url, timeout=20 * UNIT) as http:
        assert (await http.get("/ping")).is_success
        nobody = await http.post(
            "/invocations", content=b'{"requestType":"CLOSE"}', headers=headers
        )
        assert (nobody.status_code, "session not found" in nobody.text) == (400, True)
