"""The container that forgets, by AWS's own client: what it answers is in the request alone."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import ClientError

from tests.support.processes import Forgetful, Process, admin, local

TURN = {"EndpointName": "my-endpoint", "ContentType": "application/json"}
ADA = {"role": "user", "content": "Hello, my name is Ada."}
REPLY = {"role": "assistant", "content": "You said 1 thing; your name is Ada."}
WHO = {"role": "user", "content": "Who am I?"}


class Talk:
    """Calls to two containers behind a platform."""

    def __init__(self, runtime: Any) -> None:
        self.runtime = runtime

    async def open(self) -> str:
        """Open a session; its id."""
        body = b'{"requestType":"NEW_SESSION"}'
        reply = await self.runtime.invoke_endpoint(Body=body, SessionId="NEW_SESSION", **TURN)
        return str(reply["NewSessionId"]).partition(";")[0]

    async def say(self, session: str, *messages: Any, **more: Any) -> Any:
        """Send messages; the reply."""
        body = json.dumps({"messages": messages, **more}).encode()
        reply = await self.runtime.invoke_endpoint(Body=body, SessionId=session, **TURN)
        return json.loads(await reply["Body"].read())

    async def hear(self, session: str, *messages: Any) -> tuple[str, str]:
        """Send messages; the reply's stream and its content type."""
        body = json.dumps({"messages": messages, "stream": True}).encode()
        reply = await self.runtime.invoke_endpoint_with_response_stream(
            Body=body, SessionId=session, **TURN
        )
        parts = [event["PayloadPart"]["Bytes"] async for event in reply["Body"]]
        return b"".join(parts).decode(), reply["ContentType"]


@pytest.fixture(scope="module")
def platform(forgetful: list[Forgetful]) -> Iterator[Process]:
    with local(*(f"--container={container.url}" for container in forgetful)) as process:
        yield process


@pytest.fixture
async def talk(platform: Process) -> AsyncIterator[Talk]:
    session: Any = AioSession()
    async with session.create_client(
        "sagemaker-runtime",
        region_name="us-east-1",
        endpoint_url=platform.url,
        config=AioConfig(retries={"total_max_attempts": 1}),
    ) as runtime:
        yield Talk(runtime)


def text(reply: Any) -> str:
    return str(reply["choices"][0]["message"]["content"])


async def test_it_knows_what_is_in_the_request_and_nothing_else(
    talk: Talk, forgetful: list[Forgetful]
) -> None:
    session = await talk.open()
    assert text(await talk.say(session, ADA)) == "You said 1 thing; your name is Ada."
    assert text(await talk.say(session, WHO)) == "You said 1 thing; I do not know your name."
    said = {"role": "system", "content": "Be brief."}, ADA, REPLY, WHO
    reply = await talk.say(session, *said, max_tokens=5, temperature=0.5, model="any", top_k=1)
    assert text(reply) == "You said 2 things; your name is Ada."
    turns = [turn for one in forgetful for turn in one.received() if turn["session"] == session]
    assert [turn["body"]["messages"] for turn in turns] == [[ADA], [WHO], list(said)]


async def test_it_streams_as_vllm_does(talk: Talk) -> None:
    stream, content_type = await talk.hear(await talk.open(), ADA, REPLY, WHO)
    assert content_type.startswith("text/event-stream")
    *events, done, rest = stream.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    chunks = [json.loads(event.removeprefix("data: "))["choices"][0] for event in events]
    assert chunks[0]["delta"] == {"role": "assistant", "content": ""}
    assert [chunk["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    said = "".join(chunk["delta"]["content"] for chunk in chunks)
    assert said == "You said 2 things; your name is Ada."


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [REPLY],
        [ADA, WHO],
        [ADA, REPLY],
        [{"role": "system", "content": "Be brief."}],
        [ADA, REPLY, {"role": "system", "content": "Be brief."}, WHO],
        [{"role": "user"}],
        [{"role": "stranger", "content": "Hello"}],
        ["Hello"],
    ],
)
async def test_it_is_strict(talk: Talk, messages: list[Any]) -> None:
    session = await talk.open()
    with pytest.raises(ClientError) as caught:
        await talk.say(session, *messages)
    assert caught.value.response["OriginalStatusCode"] == 400


async def test_it_fails_as_asked(talk: Talk) -> None:
    session = await talk.open()
    for command in ("/fail", "/break 2"):
        with pytest.raises(ClientError) as caught:
            await talk.say(session, {"role": "user", "content": command})
        assert caught.value.response["OriginalStatusCode"] == 500
    stream, _ = await talk.hear(session, {"role": "user", "content": "/break 2"})
    assert '"content":"2 "' in stream
    assert stream.endswith('"code":500}}\n\ndata: [DONE]\n\n')
    assert text(await talk.say(session, {"role": "user", "content": "/count 3"})) == "1 2 3 "


async def test_its_sessions_are_real_ones(talk: Talk, platform: Process) -> None:
    def closed() -> int:
        return sum(one["closed"] for one in admin(platform)["instances"])

    before = closed()
    session = await talk.open()
    await talk.runtime.invoke_endpoint(Body=b'{"requestType":"CLOSE"}', SessionId=session, **TURN)
    assert closed() == before + 1
    with pytest.raises(ClientError):
        await talk.say(session, ADA)
