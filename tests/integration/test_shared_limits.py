"""Limits of a principal hold over two gateways together, which share a real Valkey."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from gateway.local.valkey import LocalValkey
from tests.integration.conftest import Start
from tests.support.client import Client, client
from tests.support.processes import Process
from tests.support.timing import UNIT
from tests.support.tokens import add_key

CONFIG = """
[server]
drain_seconds = 0.1
[store]
kind = "valkey"
url = "{valkey.url}"
password = "{valkey.password}"
lease_seconds = 2
[auth.keys]
file = "{path}/keys.toml"
[limits]
{limits}
[routes.chat]
endpoint_name = "my-endpoint"
content_type = "text/plain"
"""
SLOW = 0.001
"""So few messages in a second that there is one in the time of a test, however long that is."""


class Two:
    """Two gateways."""

    def __init__(self, path: Path) -> None:
        self.keys = path / "keys.toml"
        self.ada, self.bob = add_key(self.keys, "ada"), add_key(self.keys, "bob")
        self.gateways: list[Process] = []

    def connect(self, which: int, key: str | None = None) -> AbstractAsyncContextManager[Client]:
        headers = {"Authorization": f"Bearer {key or self.ada}"}
        url = self.gateways[which].websocket
        return client(url, route="chat", additional_headers=headers)

    async def refused(self, which: int) -> str | None:
        """With what code a session is refused; None where it is there, and closed again."""
        async with self.connect(which) as chat:
            with suppress(ConnectionClosed):  # it may be closed before it has said anything
                await chat.send("session.open")
            answer = await chat.receive()
            if answer["type"] == "session.opened":
                await chat.send("session.close")
                await chat.closed()
                return None
            assert (await chat.closed())[0] == 4429
            return str(answer["code"])

    async def until(self, which: int, code: str | None) -> None:
        """Wait until a session is so refused, or not: what others have told is known by then."""
        async with asyncio.timeout(30 * UNIT):
            while await self.refused(which) != code:  # noqa: ASYNC110 - other processes tell
                await asyncio.sleep(0.05)


Begin = Callable[..., Two]


@pytest.fixture
def begin(tmp_path: Path, start_gateway: Start, platform: Process, valkey: LocalValkey) -> Begin:
    def begin(**limits: float) -> Two:
        two = Two(tmp_path)
        lines = "\n".join(f"{name} = {value}" for name, value in limits.items())
        config = CONFIG.format(valkey=valkey, path=tmp_path, limits=lines)
        two.gateways = [start_gateway(platform.url, config) for _ in range(2)]
        return two

    return begin


async def test_connections(begin: Begin) -> None:
    two = begin(connections_per_principal=3)
    async with AsyncExitStack() as stack, AsyncExitStack() as first:
        for which, on in ((0, first), (1, stack), (0, stack)):
            await (await on.enter_async_context(two.connect(which))).open()
        for which in (0, 1):
            await two.until(which, "rate_limited")
        await (await stack.enter_async_context(two.connect(1, two.bob))).open()
        await first.aclose()
        await two.until(1, None)


async def test_sessions(begin: Begin) -> None:
    two = begin(sessions_per_principal=2)
    async with AsyncExitStack() as stack:
        chats = [await stack.enter_async_context(two.connect(which)) for which in (0, 1)]
        for chat in chats:
            await chat.open()
        for which in (0, 1):
            await two.until(which, "rate_limited")
        await chats[0].send("session.close")
        await chats[0].closed()
        await two.until(1, None)


async def test_what_a_gateway_had_that_has_died(begin: Begin) -> None:
    two = begin(connections_per_principal=2)
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await (await stack.enter_async_context(two.connect(0))).open()
        await two.until(1, "rate_limited")
        two.gateways[0].popen.send_signal(signal.SIGKILL)
        await two.until(1, None)


async def test_messages(begin: Begin) -> None:
    two = begin(messages_per_second=SLOW)
    async with two.connect(0) as here:
        await here.open()
        assert (await here.ask("hi", "1"))["status"] == "completed"
        async with two.connect(1) as there:
            await there.open()
            # What was used elsewhere is asked for before its session is opened.
            await there.send("message.send", id="1", text="hi")
            error = await there.receive()
            assert error["code"] == "rate_limited"
            assert 0 < error["retry_after"] <= 1 / SLOW
        async with two.connect(1, two.bob) as there:
            await there.open()
            assert (await there.ask("hi", "1"))["status"] == "completed"


async def test_limits_of_a_key_that_change(begin: Begin) -> None:
    two = begin(connections_per_principal=2)
    async with AsyncExitStack() as stack:
        for which in (0, 1):
            await (await stack.enter_async_context(two.connect(which))).open()
        await two.until(0, "rate_limited")
        text = two.keys.read_text()
        two.keys.write_text(text.replace("[ada]\n", "[ada]\nconnections = 3\n"))
        for gateway in two.gateways:
            await gateway.hang_up("files reloaded")
        await two.until(0, None)
        await (await stack.enter_async_context(two.connect(0))).open()
        await two.until(1, "rate_limited")
