"""Chat completions at several gateways: any of them goes on with what another has begun."""

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.integration.conftest import Start
from tests.support import valkey
from tests.support.processes import Forgetful, Process
from tests.support.timing import UNIT

CONFIG = """
[store]
kind = "valkey"
url = "{url}"
lease_seconds = 1
[routes.tools]
endpoint_name = "my-endpoint"
format = "openai-chat"
"""


class Replicas:
    """Two gateways in front of one container."""

    def __init__(
        self, container: Forgetful, start_local: Start, start_gateway: Start, url: str
    ) -> None:
        self.container = container
        platform = start_local(f"--container={container.url}")
        config = CONFIG.format(url=url)
        self.one: Process = start_gateway(platform.url, config)
        self.other: Process = start_gateway(platform.url, config)

    def sessions(self, words: str) -> list[str]:
        """The sessions of all turns that have these words in them."""
        turns = self.container.received()
        return [turn["session"] for turn in turns if words in json.dumps(turn["body"])]


@pytest.fixture
def store() -> Iterator[valkey.Server]:
    with valkey.server() as server:
        yield server


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Forgetful]:
    container = Forgetful(tmp_path / "toolbox", module="toolbox")
    yield container
    container.stop()


@pytest.fixture
def replicas(
    store: valkey.Server, container: Forgetful, start_local: Start, start_gateway: Start
) -> Replicas:
    return Replicas(container, start_local, start_gateway, store.url)


def ask(served: Process, messages: list[Any]) -> None:
    """Go on with a conversation."""
    with OpenAI(base_url=f"{served.url}/openai/v1", api_key="any") as client:
        done = client.chat.completions.create(model="tools", messages=messages)
    messages.append({"role": "assistant", "content": done.choices[0].message.content})


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_conversation_outlives_its_gateway(replicas: Replicas, how: signal.Signals) -> None:
    messages: list[Any] = []
    for number, served in enumerate((replicas.one, replicas.other, replicas.one)):
        messages.append({"role": "user", "content": f"Hello {number}"})
        ask(served, messages)
    replicas.one.stop(how)
    messages.append({"role": "user", "content": "Hello again"})
    ask(replicas.other, messages)
    sessions = replicas.sessions("Hello")
    assert len(sessions) == 4
    assert len({*sessions}) == 1


async def test_a_turn_whose_gateway_dies_is_not_sent_again(replicas: Replicas) -> None:
    """Its client sends the request again by itself, since the connection broke."""
    asked = {"model": "tools", "messages": [{"role": "user", "content": "/slow 1 for long"}]}

    async def send(served: Process, count: int) -> httpx.Response:
        async with httpx.AsyncClient(timeout=30 * UNIT) as http:
            return await http.post(
                f"{served.url}/openai/v1/chat/completions",
                json=asked,
                headers={"Idempotency-Key": "once", "x-stainless-retry-count": str(count)},
            )

    first = asyncio.create_task(send(replicas.one, 0))
    async with asyncio.timeout(20 * UNIT):
        while not replicas.sessions("for long"):  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.01)
    replicas.one.popen.send_signal(signal.SIGKILL)
    with pytest.raises(httpx.TransportError):
        await first
    again = await send(replicas.other, 1)
    while again.headers.get("x-should-retry") == "true":  # until it is known that the other is dead
        await asyncio.sleep(0.1)
        again = await send(replicas.other, 1)
    assert again.status_code == 424, again.text
    assert again.json()["error"]["code"] == "gateway_lost"
    assert len(replicas.sessions("for long")) == 1
