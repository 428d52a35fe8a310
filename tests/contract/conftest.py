"""Each test of transports runs on both, and each of stores with every kind of them."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, NamedTuple

import pytest

from gateway.session.storage import Store, StoreUnavailable
from gateway.stores.memory import MemoryStore
from gateway.stores.sealing import KEY_BYTES
from tests.support import transports, valkey
from tests.support.timing import UNIT


@pytest.fixture(scope="module", params=transports.BOTH)
def transport(request: pytest.FixtureRequest) -> str:
    """Both, in every run."""
    each: str = request.param
    return each


@pytest.fixture(autouse=True)
def chosen(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transport that is chosen unless a test says so."""
    monkeypatch.setattr(transports, "chosen", transport)


@pytest.fixture(scope="module")
def shared_server() -> Iterator[valkey.Server]:
    """For all tests of a module that leave it as it was."""
    with valkey.server() as started:
        yield started


@pytest.fixture
def server(shared_server: valkey.Server) -> valkey.Server:
    """One that is empty."""
    shared_server.ask("FLUSHALL")
    return shared_server


@pytest.fixture
def own_server() -> Iterator[valkey.Server]:
    """One to be broken."""
    with valkey.server() as started:
        yield started


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[valkey.Cluster]:
    """For all tests of a module that leave it as it was."""
    with valkey.cluster() as started:
        yield started


@pytest.fixture
def cluster(shared_cluster: valkey.Cluster) -> valkey.Cluster:
    """One that is empty."""
    for node in shared_cluster.nodes:
        node.ask("FLUSHALL")
    return shared_cluster


class Two(NamedTuple):
    """One store, as two replicas have it."""

    one: Store
    other: Store


@pytest.fixture(params=["memory", "plain", "sealed", "cluster"])
async def two(request: pytest.FixtureRequest) -> AsyncIterator[Two]:
    """Each kind of store, empty."""
    kind: str = request.param
    if kind == "memory":
        memory = MemoryStore()
        yield Two(memory, memory)
        return
    url = request.getfixturevalue("cluster" if kind == "cluster" else "server").url
    keys = [] if kind == "plain" else [os.urandom(KEY_BYTES)]
    async with valkey.opened(url, *keys) as one, valkey.opened(url, *keys) as other:
        yield Two(one, other)


async def until(what: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what comes by itself."""
    async with asyncio.timeout(20 * UNIT):
        while not await what():  # noqa: ASYNC110 - another process does it
            await asyncio.sleep(0.01)


async def until_answered(what: Callable[[], Awaitable[object]]) -> Any:
    """Ask until there is an answer."""
    async with asyncio.timeout(30 * UNIT):
        while True:
            try:
                return await what()
            except StoreUnavailable:
                await asyncio.sleep(0.01)
