"""Many clients at once: each conversation's state stays its own."""

import asyncio

from tests.integration.conftest import Start
from tests.support.client import client
from tests.support.processes import admin

ROUTE = """
[routes.chat]
endpoint_name = "my-endpoint"
content_type = "text/plain"
"""
CLIENTS = 200
TURNS = 5


async def test_two_hundred_clients_on_four_instances(
    start_local: Start, start_gateway: Start
) -> None:
    platform = start_local("--instances=4")
    url = start_gateway(platform.url, ROUTE).websocket
    instances: list[str] = []

    async def converse(number: int) -> None:
        async with client(url) as chat:
            await chat.open()
            await chat.ask(f"My name is Client {number}.", "name")
            seen = set()
            for turn in range(2, TURNS + 2):
                done = await chat.ask("What is my name?", f"{number}-{turn}")
                assert f"Your name is Client {number}." in done["text"]
                assert f"Turn {turn} " in done["text"], "no turn was sent twice or got lost"
                seen.add(done["custom_attributes"].partition("instance=")[2])
            assert len(seen) == 1, "always the same instance"
            instances.extend(seen)
            ids = {m["id"] for m in chat.messages if "id" in m}
            assert ids <= {"name", *(f"{number}-{turn}" for turn in range(2, TURNS + 2))}
            await chat.send("session.close")
            assert (await chat.closed())[0] == 1000

    async with asyncio.TaskGroup() as tasks:
        for number in range(CLIENTS):
            tasks.create_task(converse(number))
    assert set(instances) == {"i-1", "i-2", "i-3", "i-4"}
    state = admin(platform)["instances"]
    assert sum(i["opened"] for i in state) == sum(i["closed"] for i in state) == CLIENTS
    assert sum(i["invocations"] for i in state) == CLIENTS * (TURNS + 3)
