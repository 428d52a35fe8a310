"""The client and the real gateway, over a cable that a test cuts."""

import ast
import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.client import (
    ConnectionFailed,
    Disconnected,
    MessageFailed,
    Notice,
    Opened,
    Resumed,
    connect,
)
from gateway.errors import Outcome
from tests.client.test_chat import piped
from tests.support.processes import Process, admin, gateway, local
from tests.support.proxy import proxy_to
from tests.support.timing import UNIT

CONFIG = """
[aws]
region = "us-east-1"
endpoint_url = "{url}"
transport = "{transport}"

[routes.chat]
endpoint_name = "my-endpoint"
content_type = "text/plain"

[routes.forgetful]
endpoint_name = "my-endpoint"
content_type = "text/plain"
resume_seconds = 0
"""


@pytest.fixture(scope="module")
def platform() -> Iterator[Process]:
    with local() as process:
        yield process


@pytest.fixture
def url(platform: Process, tmp_path: Path, transport: str) -> Iterator[str]:
    file = tmp_path / "gateway.toml"
    file.write_text(CONFIG.format(url=platform.url, transport=transport))
    with gateway(file) as process:
        yield f"{process.websocket}/ws"


def begun(platform: Process) -> int:
    """How many turns the model has begun."""
    instances = admin(platform)["instances"]
    return sum(count for instance in instances for count in instance["turns"].values())


async def another_begins(platform: Process, before: int) -> None:
    """Wait until the model has begun more than so many turns."""
    async with asyncio.timeout(20 * UNIT):
        while begun(platform) <= before:  # noqa: ASYNC110 - the model tells nobody
            await asyncio.sleep(0.01 * UNIT)


async def test_a_conversation(url: str, platform: Process) -> None:
    for codec in ("json", "msgpack"):
        async with connect(url, codec=codec) as session:
            await session.send("My name is Ada.")
            reply = await session.send("What is my name?")
            assert "Turn 2" in reply.text
            assert "Your name is Ada." in reply.text
            assert reply.variant == "AllTraffic"
            before = begun(platform)
            slow = session.send("/sleep 600")
            queued = session.send("never")
            await another_begins(platform, before)
            await queued.cancel()
            assert (await queued).outcome is Outcome.NOT_INVOKED
            await slow.cancel()
            assert (await slow).status == "cancelled"
            with pytest.raises(MessageFailed) as failed:
                await session.send("/fail 500")
            assert failed.value.outcome is Outcome.INVOKED


async def test_refusals_are_told_and_final(url: str) -> None:
    async def refusal(address: str, **options: str) -> ConnectionFailed:
        with pytest.raises(ConnectionFailed) as failed:
            async with connect(address, **options):  # type: ignore[arg-type]
                pass
        return failed.value

    failed = await refusal(url, origin="https://elsewhere.example")
    assert failed.code == 4403
    assert "allow it in the route's allowed_origins" in str(failed)
    failed = await refusal(f"{url}/nowhere")
    assert failed.code == 4404
    assert "/ws/nowhere: there is no such route" in str(failed)
    failed = await refusal(url.removesuffix("/ws"))
    assert "its addresses end in /ws" in str(failed)


async def test_a_turn_goes_on_while_the_cable_is_cut(url: str, platform: Process) -> None:
    notices: list[Notice] = []
    async with (
        asyncio.timeout(20 * UNIT),
        proxy_to(url) as line,
        connect(line.url, on_notice=notices.append) as session,
    ):
        await session.send("My name is Ada.")
        for _ in range(3):
            before = begun(platform)
            turns = [session.send(text) for text in ("/sleep 0.3", "What is my name?", "hi")]
            await another_begins(platform, before)
            line.cut_all()
            late = session.send("What is my name?")
            replies = [(await turn).text for turn in (*turns, late)]
            assert "Your name is Ada." in replies[1]
            assert "Your name is Ada." in replies[3]
        assert "Turn 14" in (await session.send("hi")).text, "each was invoked once"
    assert notices.count(Resumed(None)) == 3
    instances = admin(platform)["instances"]
    assert sum(instance["sessions"] for instance in instances) == 0, "closed at the model too"


async def test_a_session_that_is_not_kept(url: str, platform: Process) -> None:
    notices: list[Notice] = []
    before = begun(platform)
    async with (
        asyncio.timeout(20 * UNIT),
        proxy_to(f"{url}/forgetful") as line,
        connect(line.url, on_notice=notices.append) as session,
    ):
        turn = session.send("/sleep 2")
        await another_begins(platform, before)
        line.cut_all()
        with pytest.raises(MessageFailed) as failed:
            await turn
        assert failed.value.outcome is Outcome.UNKNOWN
        assert "Turn 1" in (await session.send("hi")).text
    assert [type(notice) for notice in notices] == [Opened, Disconnected, Opened]
    assert isinstance(notices[2], Opened)
    assert notices[2].replaces


async def test_the_readmes_example(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (example,) = re.findall(r"```python\n(from gateway.client.*?)```", readme, re.DOTALL)
    source = example.replace("ws://127.0.0.1:8080/ws", url)
    code = compile(source, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    await eval(code, {})
    assert "Your name is Ada." in capsys.readouterr().out


async def test_the_chat(url: str) -> None:
    address = url.replace("ws://", "http://").removesuffix("/ws")
    script = "My name is Ada.\nWhat is my name?\n"
    code, out, err = await piped(address, script, "--route", "chat")
    assert code == 0, err
    assert "Your name is Ada." in out.splitlines()[1]
