"""What chaos is done to: Valkey, gateways that are started again, the model, and a balancer."""

import asyncio
import os
import random
import signal
import socket
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.chaos.balancer import Balancer
from tests.support import processes
from tests.support.processes import ENVIRONMENT
from tests.support.timing import UNIT
from tests.support.valkey import Server

LEASE_SECONDS = 2.0
RESUME_SECONDS = 30.0
DRAIN_SECONDS = 10.0
HEARTBEAT_SECONDS = 4.0

NEAR_SECONDS = 3 * LEASE_SECONDS
"""How far apart the loss of all data and the death of a session's owner may be to have lost it:
after as long as that whoever is alive has written again what it has."""

START_SECONDS = 60 * UNIT

CONFIG = """
[server]
host = "127.0.0.1"
heartbeat_seconds = {heartbeat}
drain_seconds = {drain}
max_connections = 20000
log_format = "json"
[store]
kind = "valkey"
url = "{store}"
lease_seconds = {lease}
max_sessions = 20000
[aws]
region = "us-east-1"
[routes.chat]
endpoint_name = "counted"
content_type = "text/plain"
stream = "raw"
resume_seconds = {resume}
max_turns_in_flight = {in_flight}
idle_seconds = 3000
"""


class Trouble(NamedTuple):
    """Something that a fault did to one of the parts.

    Attributes:
        began: When, by the clock of all processes.
        ended: When that was over; infinity while it is not.
        kind: What.
        who: To whom.
    """

    began: float
    ended: float
    kind: str
    who: str


def steady_port() -> int:
    """One that nobody listens on, and that no client's connection takes while nobody does."""
    while True:
        port = random.randrange(10_000, 30_000)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue


def environment(**more: str) -> dict[str, str]:
    """This one's without settings of the gateway or AWS, and those of a test."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "COVERAGE_", "GATEWAY_"))
    }
    return kept | ENVIRONMENT | more


class Gateway:
    """One replica, which is started again whenever it has ended.

    Args:
        number: Which.
        config: The file of its settings.
        model: The model's address.
        folder: For its log.
        troubles: Takes what was done to it.

    Attributes:
        port: Where it listens.
        starts: How often it was started.
        codes: How its processes have ended.
        stays_away: How many seconds it is not there after an end.
    """

    def __init__(
        self, number: int, config: Path, model: str, folder: Path, troubles: list[Trouble]
    ) -> None:
        self.number = number
        self.port = steady_port()
        self.starts = 0
        self.codes: list[int] = []
        self.stays_away = 0.3
        self.log = folder / f"gw-{number}.log"
        self._config = config
        self._model = model
        self._troubles = troubles
        self._process: Process | None = None
        self._paused_at: float | None = None
        self._ending = False
        self._ready = asyncio.Event()

    @property
    def name(self) -> str:
        """Of the process that is there now, or was last."""
        return f"gw-{self.number}.{self.starts}"

    @property
    def pid(self) -> int:
        """Of the process that is there."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_up(self) -> bool:
        """Whether it serves."""
        return self._ready.is_set() and self._paused_at is None

    async def ready(self) -> None:
        """Wait until it serves."""
        async with asyncio.timeout(START_SECONDS):
            await self._ready.wait()

    async def run(self) -> None:
        """Start it again and again."""
        while not self._ending:
            self.starts += 1
            with self.log.open("ab") as log:
                log.write(f"--- {self.name} at {time.monotonic():.3f}\n".encode())
                log.flush()
                self._process = await asyncio.create_subprocess_exec(
                    *[sys.executable, "-m", "gateway", "serve", "--config", str(self._config)],
                    *["--port", str(self.port)],
                    stdout=log,
                    stderr=log,
                    env=environment(
                        GATEWAY_AWS__ENDPOINT_URL=f"{self._model}/{self.name}",
                        GATEWAY_SERVER__REPLICA=f"gw-{self.number}",
                    ),
                )
            watching = asyncio.create_task(self._watch())
            code = await self._process.wait()
            watching.cancel()
            self._ready.clear()
            self._paused_at = None
            self.codes.append(code)
            if not self._ending:
                await asyncio.sleep(self.stays_away)

    async def _watch(self) -> None:
        async with httpx.AsyncClient(trust_env=False) as http:
            while True:
                try:
                    answer = await http.get(f"http://127.0.0.1:{self.port}/healthz")
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
                    continue
                if answer.status_code == 200:
                    self._ready.set()
                    return

    def _has(self, kind: str, ended: float | None = None) -> None:
        now = time.monotonic()
        self._troubles.append(Trouble(now, ended or now, kind, self.name))

    def kill(self) -> None:
        """End it without a word."""
        if self._process is not None and self._process.returncode is None:
            self._has("kill")
            self._ready.clear()
            self._process.kill()

    def terminate(self) -> None:
        """Ask it to end, as a rolling restart does; one that does not serve yet is let be."""
        if self._process is not None and self._process.returncode is None and self.is_up:
            self._has("term", time.monotonic() + DRAIN_SECONDS)
            self._process.send_signal(signal.SIGTERM)

    async def restarted(self, starts: int) -> None:
        """Wait until it serves that was started after so many others."""
        async with asyncio.timeout(START_SECONDS):
            while self.starts <= starts or not self._ready.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def pause(self, seconds: float) -> None:
        """Let it stand still for so long."""
        process = self._process
        if process is None or process.returncode is not None or self._paused_at is not None:
            return
        began = self._paused_at = time.monotonic()
        process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            self._troubles.append(Trouble(began, time.monotonic(), "pause", self.name))
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)
                self._paused_at = None

    async def close(self) -> None:
        """End it for good."""
        self._ending = True
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@dataclass
class Fleet:
    """All that there is.

    Attributes:
        folder: For logs.
        valkey: The store.
        gateways: The replicas.
        balancer: Before them.
        model: The address of the model.
        troubles: What was done, and when.
    """

    folder: Path
    valkey: Server
    gateways: Sequence[Gateway]
    balancer: Balancer
    model: str
    troubles: list[Trouble] = field(default_factory=list)
    store_is_up: bool = True

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"ws://127.0.0.1:{self.balancer.port}/ws"

    @property
    def is_calm(self) -> bool:
        """Whether all is well, and has been for long enough."""
        quiet = time.monotonic() - NEAR_SECONDS
        return (
            self.store_is_up
            and all(gateway.is_up for gateway in self.gateways)
            and all(t.ended < quiet for t in self.troubles)
        )

    @contextmanager
    def _without_store(self, kind: str) -> Iterator[None]:
        began = time.monotonic()
        self.store_is_up = False
        try:
            yield
        finally:
            self.store_is_up = True
            self.troubles.append(Trouble(began, time.monotonic(), kind, "valkey"))

    async def stop_store(self, seconds: float) -> None:
        """Have Valkey answer nobody for so long."""
        with self._without_store("stop"), self.valkey.paused():
            await asyncio.sleep(seconds)

    async def empty_store(self, seconds: float) -> None:
        """Kill Valkey, and start it after so long: it has forgotten everything."""
        with self._without_store("empty"):
            self.valkey.kill()
            try:
                await asyncio.sleep(seconds)
            finally:
                await asyncio.to_thread(self.valkey.start)

    def tell_troubles(self) -> None:
        """Write what was done, and when."""
        lines = [f"{t.began:.3f} to {t.ended:.3f}: {t.kind} {t.who}\n" for t in self.troubles]
        (self.folder / "troubles").write_text("".join(lines))

    async def counts(self) -> dict[str, Any]:
        """What the model has counted."""
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            counted: dict[str, Any] = (await http.get(f"{self.model}/state")).json()
        return counted

    def logs(self) -> list[str]:
        """What the gateways have logged."""
        return [
            line
            for gateway in self.gateways
            for line in gateway.log.read_text(errors="replace").splitlines()
        ]


@asynccontextmanager
async def fleet(
    folder: Path,
    replicas: int = 3,
    lease: float = LEASE_SECONDS,
    resume: float = RESUME_SECONDS,
    heartbeat: float = HEARTBEAT_SECONDS,
) -> AsyncIterator[Fleet]:
    """Start everything, and end it."""
    async with AsyncExitStack() as stack:
        store = folder / "valkey"
        store.mkdir(exist_ok=True)
        valkey = await asyncio.to_thread(Server, store, port=str(steady_port()))
        stack.callback(valkey.kill)
        model = await asyncio.to_thread(
            processes.Process, [sys.executable, "-m", "tests.chaos.model"]
        )
        stack.callback(model.stop, signal.SIGKILL)
        config = folder / "gateway.toml"
        config.write_text(
            CONFIG.format(
                heartbeat=heartbeat,
                drain=DRAIN_SECONDS,
                store=valkey.url,
                lease=lease,
                resume=resume,
                in_flight=1000,
            )
        )
        troubles: list[Trouble] = []
        gateways = [
            Gateway(number, config, model.url, folder, troubles)
            for number in range(1, replicas + 1)
        ]
        balancer = Balancer([each.port for each in gateways], lambda at: gateways[at].name)
        tasks = [asyncio.create_task(gateway.run()) for gateway in gateways]
        try:
            await asyncio.gather(*[gateway.ready() for gateway in gateways])
            await balancer.start()
            yield Fleet(folder, valkey, gateways, balancer, model.url, troubles)
        finally:
            balancer.close()
            for gateway in gateways:
                await gateway.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
