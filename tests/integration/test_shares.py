"""Turns go to a model in the principals' turns, through a whole gateway, however fast it is.

The model here answers when it is told to, so that who is served next is the gateway's choice alone.
"""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator
from pathlib import Path

from gateway.guard.overload import RESERVED
from gateway.security.keys import add
from tests.bench.upstream import OPENED, answer
from tests.hostile.field import Field
from tests.hostile.peer import text
from tests.integration.conftest import Start
from tests.support.client import in_time
from tests.support.listener import Listener

SESSIONS = 1000
IN_FLIGHT = 100  # so many that all others have a place in the queue: none asks again and again
FEW = 80
CONFIG = """
[server]
drain_seconds = 0.1
[auth.keys]
file = "{path}"
[limits]
messages_per_second = 1000
sessions_per_principal = {sessions}
connections_per_principal = {sessions}
[routes.chat]
endpoint_name = "my-endpoint"
content_type = "text/plain"
max_turns_in_flight = {in_flight}
"""


class Model:
    """SageMaker Runtime, as far as it takes to hold turns back. It opens sessions at once."""

    def __init__(self) -> None:
        self.url = ""
        self.came: asyncio.Queue[str] = asyncio.Queue()
        self._held: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].split(maxsplit=1)[0])
            body = await reader.readexactly(length)
            if b"NEW_SESSION" in body:
                writer.write(OPENED)
            else:
                self._held.put_nowait(writer)
                self.came.put_nowait(body.decode())

    async def answer(self) -> None:
        """The turn that has waited for longest."""
        (await self._held.get()).write(answer("reply-100"))


@contextlib.asynccontextmanager
async def model() -> AsyncIterator[Model]:
    made = Model()
    listener = Listener(made.serve)
    await listener.open()
    made.url = f"http://127.0.0.1:{listener.port}"
    try:
        yield made
    finally:
        listener.cut()
        await listener.close()


async def test_one_with_a_thousand_sessions_and_one_with_a_few(
    start_gateway: Start, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.toml"
    many, few = (add(keys, name, None) for name in ("many", "few"))
    config = CONFIG.format(path=keys, sessions=SESSIONS, in_flight=IN_FLIGHT)
    async with model() as at:
        process = await asyncio.to_thread(start_gateway, at.url, config)
        fields = []
        for name, key, sessions in (("many", many, SESSIONS), ("few", few, FEW)):
            field = Field(process.url, scale=1, seconds=0, key=key)
            fields.append(field)
            for _ in range(sessions):
                peer = await in_time(field.session())
                await peer.send(text(type="message.send", id="1", text=name))
        first = [await in_time(at.came.get()) for _ in range(IN_FLIGHT)]
        assert Counter(first) == {
            "many": IN_FLIGHT - IN_FLIGHT // RESERVED,
            "few": IN_FLIGHT // RESERVED,
        }
        there = deque(first)
        shares = []
        for _ in range(FEW - IN_FLIGHT // RESERVED):
            await in_time(at.answer())
            there.popleft()
            there.append(await in_time(at.came.get()))
            shares.append(there.count("few"))
        for field in fields:
            field.leave()
    half, own = IN_FLIGHT // 2, IN_FLIGHT // RESERVED
    assert shares[: half - own] == [*range(own + 1, half + 1)], "each that is free, up to half"
    assert {*shares[half - own :]} == {half}, "and then it stays so"
