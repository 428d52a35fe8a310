"""Conversations with a container that forgets, end to end: what it was sent at each turn.

With the default transport only: the others show that both send what they are given.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.conftest import Start
from tests.support.client import Client, client, raw
from tests.support.processes import MARGIN, Forgetful, Process, admin, lifetime
from tests.support.timing import UNIT

Said = list[tuple[str, str]]

ROUTE = """
[routes.chat]
endpoint_name = "my-endpoint"
format = "openai-chat"
system = "Be brief."
"""
SYSTEM = ("system", "Be brief.")
ADA = ("user", "My name is Ada.")
HELLO = ("assistant", "You said 1 thing; your name is Ada.")
WHO = ("user", "Who am I?")
AGAIN = ("assistant", "You said 2 things; your name is Ada.")


@pytest.fixture(scope="module")
def transport() -> str:
    return "lean"


class House:
    """Two containers behind a platform of the test's own."""

    def __init__(self, containers: list[Forgetful], platform: Process) -> None:
        self.platform = platform
        self._containers = containers
        self._before = [len(container.received()) for container in containers]

    def turns(self) -> list[list[Any]]:
        """What has reached each container since the test began."""
        pairs = zip(self._containers, self._before, strict=True)
        return [container.received()[before:] for container, before in pairs]

    def received(self) -> list[list[Said]]:
        """The messages of those."""
        return [messages(turns) for turns in self.turns()]

    def lose(self) -> int:
        """Let the platform lose the one that has answered; its index."""
        (holder,) = (n for n, turns in enumerate(self.turns()) if turns)
        admin(self.platform, f"/instances/i-{holder + 1}/lose")
        return holder


def messages(turns: list[Any]) -> list[Said]:
    return [
        [(message["role"], message["content"]) for message in turn["body"]["messages"]]
        for turn in turns
    ]


@pytest.fixture
def house(forgetful: list[Forgetful], start_local: Start) -> House:
    return House(forgetful, start_local(*(f"--container={one.url}" for one in forgetful)))


async def hear(chat: Client, text: str, message_id: str | None = None) -> str:
    """Say something, and hear the answer in parts."""
    before = len(chat.messages)
    done = await chat.ask(text, message_id)
    assert done["status"] == "completed", done
    deltas = [one for one in chat.messages[before:] if one["type"] == "message.delta"]
    assert done["deltas"] == len(deltas) > 1
    return "".join(delta["text"] for delta in deltas)


def renewals(chat: Client) -> list[tuple[str, str]]:
    return [
        (told["reason"], told["context"])
        for told in chat.messages
        if told["type"] == "session.renewed"
    ]


async def test_a_conversation_whose_instance_is_lost(house: House, start_gateway: Start) -> None:
    async with client(start_gateway(house.platform.url, ROUTE).websocket) as chat:
        await chat.open()
        assert await hear(chat, ADA[1]) == HELLO[1]
        assert await hear(chat, WHO[1]) == AGAIN[1]
        holder = house.lose()
        whole = await chat.ask("And now?", stream=False)
        assert whole["text"] == "You said 3 things; your name is Ada."
        assert renewals(chat) == [("lost", "replayed")]
    sessions = [{turn["session"] for turn in turns} for turns in house.turns()]
    assert [len(one) for one in sessions] == [1, 1], "of its own, at the one that knew it already"
    received = house.received()
    assert received[holder] == [[SYSTEM, ADA], [SYSTEM, ADA, HELLO, WHO]]
    assert received[1 - holder] == [[SYSTEM, ADA, HELLO, WHO, AGAIN, ("user", "And now?")]]


async def test_expiries_cost_nothing(
    start_forgetful: Callable[..., Forgetful], start_local: Start, start_gateway: Start
) -> None:
    container = start_forgetful(SAGEMAKER_SESSIONS_EXPIRATION=lifetime(1))
    route = f"{ROUTE}expiry_margin_seconds = {MARGIN}\n"
    process = start_gateway(start_local(f"--container={container.url}").url, route)
    async with client(process.websocket) as chat:
        await chat.open()
        await hear(chat, ADA[1])
        turns = 1
        while len(renewals(chat)) < 2:
            await asyncio.sleep(0.25 * UNIT)
            turns += 1
            answer = await hear(chat, f"Still {turns}?", str(turns))
            assert answer == f"You said {turns} things; your name is Ada."
        assert {context for _, context in renewals(chat)} == {"replayed"}
    sent = container.received()
    assert len({turn["session"] for turn in sent}) == 3
    assert [len(said) for said in messages(sent)] == [2 * turn for turn in range(1, turns + 1)]


async def test_a_stopped_answer_stays_and_a_failed_one_does_not(
    house: House, start_gateway: Start
) -> None:
    async with client(start_gateway(house.platform.url, ROUTE).websocket) as chat:
        await chat.open()
        await chat.send("message.send", id="a", text="/count 10000")
        await chat.until("message.delta")
        await chat.send("message.cancel", id="a")
        assert (await chat.until("message.done"))["status"] == "cancelled"
        heard = "".join(one["text"] for one in chat.messages if one["type"] == "message.delta")
        failed = await chat.ask("/break 2")
        assert (failed["status"], failed["deltas"]) == ("failed", 2)
        await hear(chat, WHO[1])
    (received,) = filter(None, house.received())
    assert received[-1] == [SYSTEM, ("user", "/count 10000"), ("assistant", heard), WHO]


async def test_what_no_longer_fits_is_said(house: House, start_gateway: Start) -> None:
    process = start_gateway(house.platform.url, f"{ROUTE}transcript_turns = 1\n")
    async with client(process.websocket) as chat:
        await chat.open()
        dropped = [(await chat.ask(f"{n}")).get("dropped_turns") for n in range(4)]
        assert dropped == [None, None, 1, 2]
        holder = house.lose()
        assert (await chat.ask("4"))["dropped_turns"] == 3
        assert renewals(chat) == [("lost", "partial")]
    ((_, newest_kept, answer, new),) = house.received()[1 - holder]
    assert (newest_kept, new) == (("user", "3"), ("user", "4"))
    assert answer == ("assistant", "You said 2 things; I do not know your name.")


@pytest.mark.parametrize("session", ["stateless", "prefix-aware"])
async def test_it_needs_no_sessions(house: House, start_gateway: Start, session: str) -> None:
    process = start_gateway(house.platform.url, f'{ROUTE}session = "{session}"\n')
    async with raw(process.websocket) as socket:
        await socket.send(ADA[1])
        assert await socket.recv() == HELLO[1]
        await socket.send(WHO[1])
        assert await socket.recv() == AGAIN[1]
    assert {turn["session"] for turns in house.turns() for turn in turns} == {None}
