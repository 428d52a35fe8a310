"""Replies in parts, end to end: every format, cut anywhere, stopped, broken off."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.integration.conftest import Start
from tests.support.client import MSGPACK, Client, Message, client, raw
from tests.support.processes import Process, admin
from tests.support.timing import UNIT

FORMATS = ["openai-chat", "lmi", "tgi", "plain"]
ROUTES = "\n".join(
    f'[routes.{name}]\nendpoint_name = "my-endpoint"\nformat = "{name}"\n' for name in FORMATS
)
for name, parameters in (("lmi", "{}"), ("tgi", "{ details = true }")):
    ROUTES += f"""
[routes.{name}-inputs]
endpoint_name = "my-endpoint"
format = "{name}"
request = {{ inputs = "$text", parameters = {parameters}, stream = "$stream" }}
"""
FORMATS += ["lmi-inputs", "tgi-inputs"]
ROUTES += """
[routes.first]
endpoint_name = "my-endpoint"
session = "first-message"
format = "plain"
"""
SAID = "Hello Ada, I will remember your name."


def parts(chat: Client, message_id: str) -> list[str]:
    return [
        message["text"]
        for message in chat.messages
        if message["type"] == "message.delta" and message["id"] == message_id
    ]


async def ask(chat: Client, text: str, message_id: str) -> tuple[Message, str]:
    """The end of the turn, and its reply's text."""
    done = await chat.ask(text, message_id)
    said = parts(chat, message_id)
    assert done["deltas"] == len(said)
    return done, "".join(said)


@pytest.fixture(params=[0, 1, 7])
def cut(request: pytest.FixtureRequest, shared_platform: Process) -> Iterator[None]:
    """Streams come in parts of so many bytes; with 0 as the model writes them."""
    admin(shared_platform, "/faults", part_bytes=request.param)
    yield
    admin(shared_platform, "/faults", part_bytes=0)


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("route", FORMATS)
async def test_every_format_cut_anywhere(url: str, route: str) -> None:
    async with client(url, route=route) as chat:
        await chat.open()
        done, text = await ask(chat, "My name is Ada.", "a")
        assert (done["status"], done["deltas"] > 1) == ("completed", True), done
        assert done["content_type"] == "text/plain; charset=utf-8"
        assert done["invoked_production_variant"] == "AllTraffic"
        assert "text" not in done
        assert text.endswith(SAID)
        _, text = await ask(chat, "Remember that 木 is 🌳.", "b")
        assert text.endswith("I will remember that 木 is 🌳.")
        whole = await chat.ask("What is my name?", "c", stream=False)
        assert whole["deltas"] == 0
        assert "Your name is Ada." in whole["text"]


async def test_messagepack_and_raw(url: str) -> None:
    async with client(url, MSGPACK, route="plain") as chat:
        await chat.open()
        _, text = await ask(chat, "My name is Ada.", "a")
        assert text.endswith(SAID)
    async with raw(url, route="plain") as socket:
        await socket.send("My name is Ada.")
        assert str(await socket.recv()).endswith(SAID), "one reply is one frame"


async def test_a_turn_that_opens_its_session_comes_in_one_piece(
    start_local: Start, start_gateway: Start
) -> None:
    platform = start_local("--dialect", "first-message")
    async with client(start_gateway(platform.url, ROUTES).websocket, route="first") as chat:
        await chat.open()
        assert (await chat.ask("My name is Ada.", "a"))["text"].endswith(SAID)
        done, text = await ask(chat, "What is my name?", "b")
        assert done["deltas"] > 1
        assert "Your name is Ada." in text


@pytest.mark.parametrize("route", FORMATS)
async def test_a_model_that_fails_in_the_middle(url: str, route: str) -> None:
    async with client(url, route=route) as chat:
        await chat.open()
        done, text = await ask(chat, "/break 3", "a")
        assert text.split() == ["1", "2", "3"]
        expected = "stream_broken" if route == "plain" else "model_error"
        assert (done["error"]["code"], done["error"]["outcome"]) == (expected, "invoked")
        done, _ = await ask(chat, "hi", "b")
        assert done["status"] == "completed"


@pytest.mark.parametrize(
    ("mode", "code"),
    [
        ("exception", "stream_broken"),
        ("time", "timeout"),
        ("internal", "stream_broken"),
        ("cut", "stream_broken"),
    ],
)
async def test_a_stream_that_breaks(
    url: str, shared_platform: Process, mode: str, code: str
) -> None:
    async with client(url, route="plain") as chat:
        await chat.open()
        admin(shared_platform, "/faults", break_after_parts=3, break_mode=mode)
        done, text = await ask(chat, "/count 10 0", "a")
        assert (done["error"]["code"], done["error"]["outcome"]) == (code, "invoked")
        assert text == "1 2 3 "
        done, text = await ask(chat, "/count 3 0", "b")
        assert text == "1 2 3"


async def test_a_container_that_refuses_a_stream(url: str) -> None:
    async with client(url, route="plain") as chat:
        await chat.open()
        done = await chat.ask("/fail 500", "a")
        assert (done["error"]["code"], done["error"]["outcome"]) == ("model_error", "invoked")


async def test_stopping_closes_the_request(own_url: str, platform: Process) -> None:
    async with client(own_url, route="plain") as chat:
        await chat.open()
        await chat.send("message.send", id="a", text="/count 100000 10")
        await chat.send("message.send", id="b", text="hi")
        await chat.until("message.delta", index=2)
        await chat.send("message.cancel", id="b")
        removed = await chat.until("message.done", id="b")
        assert (removed["status"], removed["outcome"]) == ("cancelled", "not_invoked")
        await chat.send("message.cancel", id="a")
        stopped = await chat.until("message.done", id="a")
        assert (stopped["status"], stopped["outcome"]) == ("cancelled", "invoked")
        assert stopped["deltas"] == len(parts(chat, "a"))
        for _ in range(1000):
            if admin(platform)["abandoned"]:
                break
            await asyncio.sleep(0.01 * UNIT)
        assert admin(platform)["abandoned"] == 1
        _, text = await ask(chat, "What do you know?", "c")
        assert "Turn 2 " in text, "the stopped turn was one, the removed one was not"


async def test_an_answer_goes_on_while_its_client_is_away(own_url: str, platform: Process) -> None:
    async with client(own_url, route="plain") as chat:
        opened = await chat.open()
        await chat.send("message.send", id="a", text="/count 60 5")
        await chat.until("message.delta", index=4)
        last = chat.messages[-1]["event"]
        first = parts(chat, "a")
        chat.socket.transport.abort()
    async with client(own_url, route="plain") as again:
        await again.send(
            "session.open",
            session_id=opened["session_id"],
            resume_key=opened["resume_key"],
            last_event=last,
        )
        resumed = await again.receive()
        assert resumed["type"] == "session.resumed"
        assert resumed["lost"] is None
        assert resumed["resume_key"] != opened["resume_key"]
        assert len(resumed["resume_key"]) == len(opened["resume_key"]) == 43, "32 bytes"
        await again.until("message.done", id="a")
        numbers = [message["event"] for message in again.messages[1:]]
        assert numbers == list(range(last + 1, last + 1 + len(numbers)))
        text = "".join(first + parts(again, "a"))
        assert text == " ".join(str(number) for number in range(1, 61))
        async with client(own_url, route="plain") as thief:
            await thief.send(
                "session.open",
                session_id=opened["session_id"],
                resume_key=resumed["resume_key"],
                last_event=numbers[-1],
            )
            await thief.until("session.resumed")
            assert await again.closed() == (4409, "taken over")
            _, text = await ask(thief, "What do you know?", "b")
            assert "Turn 2 " in text
        async with client(own_url, route="plain") as late:
            await late.send(
                "session.open",
                session_id=opened["session_id"],
                resume_key=resumed["resume_key"],
                last_event=0,
            )
            assert (await late.closed())[0] == 4410, "the key died with the first message"
    assert admin(platform)["streams"] == 2
