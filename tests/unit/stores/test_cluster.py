"""What is asked of a cluster, while that has not answered."""

import asyncio
import gc
import weakref
from typing import Any

import pytest
from valkey.exceptions import ClusterError, ValkeyClusterException

from gateway.session.storage import Fenced, StoreUnavailable
from gateway.stores.line import Reply
from gateway.stores.valkey import _ClusterLine


class Client:
    """Stands for the client of a cluster, as far as its answers come when a test wants.

    Attributes:
        asked: Each command, and what is its answer as long as anybody waits for it.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[Any, ...], weakref.ref[asyncio.Future[object]]]] = []

    async def execute_command(self, *command: object) -> object:
        waiter = asyncio.get_running_loop().create_future()
        self.asked.append((command, weakref.ref(waiter)))
        return await waiter

    async def answer(self, what: object) -> None:
        """Answer the newest command, and let that be told."""
        gc.collect()
        waiter = self.asked[-1][1]()
        assert waiter is not None, "nobody waits any more"
        if isinstance(what, Exception):
            waiter.set_exception(what)
        else:
            waiter.set_result(what)
        del waiter
        for _ in range(3):
            await asyncio.sleep(0)


def refuse(_reply: object) -> None:
    raise Fenced


async def test_what_nobody_waits_for_is_asked_all_the_same_and_told() -> None:
    client, told = Client(), list[Reply]()
    line = _ClusterLine(client)  # type: ignore[arg-type]
    reply = line.send(("GET", "key"), read=int)
    assert isinstance(reply, Reply)
    reply.add_done_callback(told.append)
    await asyncio.sleep(0)
    assert len(line._sending) == 1
    await client.answer(b"7")
    assert told == [reply]
    assert (reply.result(), reply.exception(), await reply) == (7, None, 7)
    assert not line._sending, "nothing is kept of it"


async def test_commands_that_go_together_go_one_after_the_other_and_the_last_one_counts() -> None:
    client = Client()
    line = _ClusterLine(client)  # type: ignore[arg-type]
    reply = line.send(("SADD", "key", 1), ("GET", "key"))
    await asyncio.sleep(0)
    await client.answer(b"first")
    await client.answer(b"second")
    assert [command for command, _ in client.asked] == [("SADD", "key", 1), ("GET", "key")]
    assert await reply == b"second"


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (ClusterError("CLUSTERDOWN"), StoreUnavailable, "ClusterError"),
        (ValkeyClusterException("something"), StoreUnavailable, "ValkeyClusterException"),
        (ConnectionResetError(104, "Reset"), StoreUnavailable, "[Errno 104] Reset"),
        (b"", Fenced, ""),
    ],
)
async def test_what_fails_is_told_as_well(
    answer: object, error: type[Exception], text: str
) -> None:
    client, told = Client(), list[Reply]()
    line = _ClusterLine(client)  # type: ignore[arg-type]
    reply = line.send(("GET", "key"), ("GET", "another"), read=refuse)
    reply.add_done_callback(told.append)
    await asyncio.sleep(0)
    await client.answer(answer)
    if not isinstance(answer, Exception):
        await client.answer(answer)
    assert told == [reply]
    assert isinstance(reply.exception(), error)
    with pytest.raises(error) as caught:
        await reply
    assert str(caught.value) == text
