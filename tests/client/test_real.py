"""The Python client and the real gateway: what is its own; the rest is in `test_scenarios`."""

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
    connect,
)
from gateway.errors import Outcome
from tests.client.test_chat import piped
from tests.client.test_scenarios import another_begins, begun
from tests.support.processes import Process, gateway, local
from tests.support.proxy import proxy_to
from tests.support.timing import UNIT

ROOT = Path(__file__).parents[2]

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
    assert "/ws/nowhere: the route does not exist" in str(failed)
    failed = await refusal(url.removesuffix("/ws"))
    assert "its addresses end in /ws" in str(failed)


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


EXAMPLES = [
    example
    for document in ("README.md", "docs/clients.md")
    for example in re.findall(
        r"```python\n(from gateway.client.*?)```", (ROOT / document).read_text(), re.DOTALL
    )
]


@pytest.mark.parametrize("example", EXAMPLES)
async def test_the_documents_examples(
    url: str, example: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = example.replace("ws://127.0.0.1:8080/ws", url)
    code = compile(source, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    running = eval(code, {})
    if running is not None:
        await running
    assert "Your name is Ada." in capsys.readouterr().out


async def test_the_chat(url: str) -> None:
    address = url.replace("ws://", "http://").removesuffix("/ws")
    script = "My name is Ada.\nWhat is my name?\n"
    code, out, err = await piped(address, script, "--route", "chat")
    assert code == 0, err
    assert "Your name is Ada." in out.splitlines()[1]
