"""An application that people put in front of models: LiteLLM's proxy, with the gateway upstream.

``make litellm`` installs it, in a virtual environment of its own: it can be no extra of this
project. ``LITELLM_PYTHON`` may name the interpreter of another.
"""

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from tests.integration.conftest import AWS
from tests.support.processes import Forgetful, Process, gateway, local
from tests.support.timing import UNIT

PYTHON = os.environ.get("LITELLM_PYTHON") or f"{sys.prefix}/litellm/bin/python"
pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
ROUTES = '[routes.tools]\nendpoint_name = "my-endpoint"\nformat = "openai-chat"\n'
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


async def is_up(url: str) -> None:
    """Wait until the proxy answers: it takes seconds to import itself."""
    async with httpx.AsyncClient(base_url=url) as http, asyncio.timeout(120 * UNIT):
        while True:
            try:
                if (await http.get("/health/liveliness")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)


@pytest.fixture(scope="module")
def container(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forgetful]:
    """Another for each transport, since tests look at all that has reached it."""
    folder = tmp_path_factory.mktemp(f"toolbox-{transport}")
    container = Forgetful(folder / "1", module="toolbox")
    yield container
    container.stop()


@pytest.fixture(scope="module")
def client(
    container: Forgetful, transport: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OpenAI]:
    """OpenAI's client, of the proxy."""
    file = tmp_path_factory.mktemp("gateway") / "gateway.toml"
    with local(f"--container={container.url}") as platform:
        file.write_text(AWS.format(url=platform.url, transport=transport) + ROUTES)
        with gateway(file) as served:
            proxy = Process([PYTHON, "-m", "tests.support.litellm_proxy", served.url], cwd=ROOT)
            try:
                asyncio.run(is_up(proxy.url))
                with OpenAI(base_url=f"{proxy.url}/v1", api_key="any") as client:
                    yield client
            finally:
                proxy.stop()


def user(text: str) -> Any:
    return {"role": "user", "content": text}


def test_a_conversation_stays_with_its_session(client: OpenAI, container: Forgetful) -> None:
    messages = [user("LiteLLM says hello")]
    first = client.chat.completions.create(model="anything", messages=messages)
    assert first.choices[0].message.content == "You said: LiteLLM says hello"
    messages += [first.choices[0].message.model_dump(exclude_none=True), user("and more")]
    stream = client.chat.completions.create(model="anything", messages=messages, stream=True)
    said = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert "".join(said) == "You said: and more"
    turns = [turn for turn in container.received() if "says hello" in json.dumps(turn["body"])]
    assert [len(turn["body"]["messages"]) for turn in turns] == [1, 3]
    assert len({turn["session"] for turn in turns}) == 1


def test_functions_are_called(client: OpenAI) -> None:
    done = client.chat.completions.create(
        model="anything", messages=[user("What is the weather in Linz?")], tools=[WEATHER]
    )
    (call,) = done.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert json.loads(call.function.arguments) == {"city": "Linz"}


def test_a_turn_that_has_run_is_sent_once(client: OpenAI, container: Forgetful) -> None:
    """Though the proxy and the client both send again what they may."""
    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(model="anything", messages=[user("/fail 500 LiteLLM")])
    assert refused.value.status_code == 424
    failed = [turn for turn in container.received() if "/fail" in json.dumps(turn["body"])]
    assert len(failed) == 1
