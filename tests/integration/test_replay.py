"""Conversations that outlive the containers they were held in: AWS's own session code, and a
process that is killed.
"""

import asyncio
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Start
from tests.integration.test_containers import ROUTE
from tests.support.client import Client, client
from tests.support.processes import MARGIN, Container, Process, admin, lifetime
from tests.support.timing import UNIT

SAID = ["one", "two", "three"]


class House:
    """Two containers behind the local platform, and a gateway in front of it."""

    def __init__(self, containers: list[Container], platform: Process, gateway: Process) -> None:
        self.containers = containers
        self.platform = platform
        self.gateway = gateway

    def holder(self) -> int:
        """The index of the container that holds the session."""
        (index,) = (n for n, one in enumerate(self.instances()) if one["sessions"])
        return index

    def instances(self) -> list[dict[str, Any]]:
        """What the platform knows of its instances."""
        instances: list[dict[str, Any]] = admin(self.platform)["instances"]
        return instances


@pytest.fixture
def house(
    stack: ExitStack, tmp_path: Path, start_local: Start, start_gateway: Start, on_lost: str
) -> House:
    containers = [Container(tmp_path / f"sessions-{number}") for number in (1, 2)]
    for container in containers:
        stack.callback(container.stop)
    platform = start_local(*(f"--container={container.url}" for container in containers))
    return House(
        containers, platform, start_gateway(platform.url, f'{ROUTE}on_lost = "{on_lost}"\n')
    )


async def say(chat: Client, word: str) -> dict[str, Any]:
    """Say something; the end of the turn."""
    await chat.send("message.send", id=word, json={"say": word})
    return await chat.until("message.done", id=word)


async def converse(chat: Client) -> None:
    """Three turns, which prove that there is a state."""
    await chat.open()
    for turn, word in enumerate(SAID, 1):
        assert (await say(chat, word))["json"] == {"turn": turn, "said": SAID[:turn]}


async def kill_holder(house: House, chat: Client) -> int:
    """Kill the container that holds the session, and let the platform find out after a turn."""
    index = house.holder()
    house.containers[index].stop(signal.SIGKILL)
    error = (await say(chat, "lost"))["error"]
    assert (error["code"], error["outcome"]) == ("model_error", "unknown"), "nobody knows"
    assert not error["retryable"]
    return index


def renewed(chat: Client) -> list[dict[str, Any]]:
    """What was said of renewals."""
    return [message for message in chat.messages if message["type"] == "session.renewed"]


@pytest.mark.parametrize("on_lost", ["replay"])
async def test_the_conversation_goes_on_in_the_other_instance(house: House) -> None:
    async with client(house.gateway.websocket) as chat:
        await converse(chat)
        index = await kill_holder(house, chat)
        admin(house.platform, f"/instances/i-{index + 1}/lose")
        done = await say(chat, "four")
        # What nobody knows the end of is not said again; all else is, once each.
        assert done["json"] == {"turn": 4, "said": [*SAID, "four"]}
        (told,) = renewed(chat)
        assert (told["reason"], told["context"]) == ("lost", "replayed")
        assert told["event"] < done["event"]
        assert house.instances()[1 - index]["opened"] == 1
        await chat.send("session.close")
        assert (await chat.until("session.closed"))["reason"] == "client"
    survivor = house.containers[1 - index]
    survivor.stop()
    assert survivor.output.count(" created") == survivor.output.count(" closed") == 1


@pytest.mark.parametrize("on_lost", ["renew"])
async def test_the_conversation_goes_on_without_its_past(house: House) -> None:
    async with client(house.gateway.websocket) as chat:
        await converse(chat)
        index = await kill_holder(house, chat)
        admin(house.platform, f"/instances/i-{index + 1}/lose")
        done = await say(chat, "four")
        assert done["json"] == {"turn": 1, "said": ["four"]}
        (told,) = renewed(chat)
        assert (told["reason"], told["context"]) == ("lost", "lost")
        assert told["event"] < done["event"]


@pytest.mark.parametrize("on_lost", ["fail"])
async def test_the_conversation_ends(house: House) -> None:
    async with client(house.gateway.websocket) as chat:
        await converse(chat)
        index = await kill_holder(house, chat)
        admin(house.platform, f"/instances/i-{index + 1}/lose")
        error = (await say(chat, "four"))["error"]
        assert (error["code"], error["outcome"]) == ("session_lost", "not_invoked")
        assert (await chat.until("session.closed"))["reason"] == "lost"
        assert (await chat.closed())[0] == 4410
        assert not renewed(chat)


@pytest.mark.parametrize("on_lost", ["replay"])
async def test_a_container_that_is_started_anew(
    house: House, stack: ExitStack, tmp_path: Path
) -> None:
    """The platform still leads to it: it is the container that says what it has lost."""
    async with client(house.gateway.websocket) as chat:
        await converse(chat)
        index = await kill_holder(house, chat)
        port = house.containers[index].url.rpartition(":")[2]
        again = Container(tmp_path / "sessions-3", port=port)
        stack.callback(again.stop)
        done = await say(chat, "four")
        assert done["json"] == {"turn": 4, "said": [*SAID, "four"]}
        (told,) = renewed(chat)
        assert (told["reason"], told["context"]) == ("lost", "replayed")


@pytest.mark.parametrize("on_expiry", ["replay", "renew"])
async def test_no_turn_is_without_a_session_however_often_they_expire(
    stack: ExitStack, tmp_path: Path, start_local: Start, start_gateway: Start, on_expiry: str
) -> None:
    """A container answers the first turn after the expiry as if there were no session: 200, and a
    state that is nowhere. So none may come then.
    """
    container = Container(tmp_path / "sessions", SAGEMAKER_SESSIONS_EXPIRATION=lifetime(1))
    stack.callback(container.stop)
    times = f'on_expiry = "{on_expiry}"\nexpiry_margin_seconds = {MARGIN}\n'
    process = start_gateway(start_local(f"--container={container.url}").url, ROUTE + times)
    said: list[str] = []
    counted = 0
    async with client(process.websocket) as chat:
        await chat.open()
        number = 0
        while len(renewed(chat)) < 4:
            number += 1
            before = len(renewed(chat))
            done = await say(chat, f"{number}")
            if on_expiry == "replay":
                said.append(f"{number}")
                assert done["json"] == {"turn": number, "said": said}
            else:
                counted = 1 if len(renewed(chat)) > before else counted + 1
                assert done["json"]["turn"] == counted
            await asyncio.sleep(0.25 * UNIT)
        contexts = {told["context"] for told in renewed(chat)}
        assert contexts == {"replayed" if on_expiry == "replay" else "lost"}
        assert {told["reason"] for told in renewed(chat)} <= {"expiring", "expired"}
