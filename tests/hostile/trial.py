"""One attack on one gateway, and what a neighbour feels of it."""

import asyncio
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from gateway.security.keys import add
from tests.support.client import JSON, MSGPACK, Client, client, raw
from tests.support.processes import ENVIRONMENT, Command, Process
from tests.support.timing import UNIT

EVERY_SECONDS = 0.02
"""How often the neighbour sends a turn."""

SLOWEST_SECONDS = 0.25
"""How long one may take, unless the machine is slow."""

MEMORY_BYTES = 100_000_000
"""How much more than before the gateway may keep."""

SETTLE_SECONDS = 20
"""How long it may take for that."""

CONFIG = """
[aws]
region = "us-east-1"
endpoint_url = "{url}"
[routes.chat]
endpoint_name = "reply-200"
content_type = "text/plain"
[routes.silent]
endpoint_name = "silent"
resume_seconds = 5
content_type = "text/plain"
[routes.lines]
endpoint_name = "lines-1000000"
resume_seconds = 5
content_type = "text/plain"
stream = "lines"
text = "choices[0].delta.content"
[routes.crumbs]
endpoint_name = "crumbs-50000"
resume_seconds = 5
content_type = "text/plain"
stream = "raw"
[routes.lists]
endpoint_name = "json-20000000"
resume_seconds = 5
content_type = "text/plain"
body = "json"
[routes.hoard]
endpoint_name = "reply-5000000"
content_type = "text/plain"
resume_seconds = 5
"""
"""All bounds are the default ones; clients that are gone are forgotten sooner."""

AUTH = """
[auth.keys]
file = "{folder}/keys.toml"
"""
NEIGHBOUR = "neighbour"
"""Whose limits let it measure as often as it does."""


class Attacker(StrEnum):
    """Who attacks."""

    ANYBODY = "anybody"
    """Nobody has to say who they are."""
    KEY = "key"
    """Somebody with a key of its own."""
    NOBODY = "nobody"
    """Somebody without, where one is needed."""


@dataclass(frozen=True)
class Round:
    """How long and how hard.

    Attributes:
        scale: How much of each attack is done.
        seconds: How long what has no end goes on.
        quiet_seconds: How long the neighbour is alone before.
        forked: Whether the gateway starts as in most tests, faster, and checks its own tables.
        attacker: Who attacks.
    """

    scale: float
    seconds: float
    quiet_seconds: float
    forked: bool
    attacker: Attacker = Attacker.ANYBODY


WHOLE = Round(1, 5, 2, forked=False)
SHORT = Round(0.15, 0.3, 0.2, forked=True)


@dataclass
class Turns:
    """What the neighbour has measured, in seconds.

    Attributes:
        slowest: By the clock.
        work: What the gateway has worked in the meantime of one at most, which does not depend on
            what else the machine does.
        count: How many there were.
    """

    slowest: float = 0
    work: float = 0
    count: int = 0


@dataclass
class Trial:
    """What came of one attack.

    Attributes:
        name: The attack's.
        quiet: Before it.
        during: From its beginning until the gateway has settled.
        before: The gateway's memory, in bytes.
        peak: Its highest.
        after: Its last.
        ended: The sessions of others that have ended, and how.
        answers: What came of the attacker's connections, and of how many.
    """

    name: str
    quiet: Turns = field(default_factory=Turns)
    during: Turns = field(default_factory=Turns)
    before: int = 0
    peak: int = 0
    after: int = 0
    ended: list[str] = field(default_factory=list)
    answers: dict[str, int] = field(default_factory=dict)

    def failures(self, *, of_work: bool = False) -> list[str]:
        """What a neighbour has felt, or the gateway has not got over.

        Args:
            of_work: Whether to judge what the gateway has worked during a turn, and not how long
                the turn took.
        """
        failures = [f"a session of somebody else ended: {how}" for how in self.ended]
        if not self.during.count:
            failures.append("no turn was done")
        quiet = self.quiet.work if of_work else self.quiet.slowest
        slowest = self.during.work if of_work else self.during.slowest
        if slowest > max(SLOWEST_SECONDS * (UNIT if of_work else 1), 3 * quiet):
            failures.append(f"a turn took {slowest * 1000:.0f} ms, {quiet * 1000:.0f} before")
        if self.after - self.before > MEMORY_BYTES:
            failures.append(f"{(self.after - self.before) / 1e6:.0f} MB were kept")
        return failures


class Measured:
    """The gateway's process, seen from outside."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._folder = Path(f"/proc/{pid}")

    def work(self) -> float:
        """CPU time so far, in seconds."""
        try:
            # clock_getcpuclockid(3): /proc/PID/stat says the same in hundredths of a second.
            return time.clock_gettime(~self._pid << 3 | 2)
        except OSError:  # it is gone, and so is each session
            return 0

    def memory(self) -> int:
        """Resident set, in bytes."""
        return self._status("VmRSS")

    def forget_peak(self) -> None:
        """Begin anew to note the highest: see proc(5), clear_refs."""
        with suppress(OSError):
            self._folder.joinpath("clear_refs").write_text("5")

    def peak(self) -> int:
        """The highest resident set, in bytes."""
        return self._status("VmHWM")

    def _status(self, name: str) -> int:
        with suppress(OSError, IndexError):
            status = self._folder.joinpath("status").read_text()
            return int(status.partition(f"{name}:")[2].split()[0]) * 1024
        return 0


class Neighbours:
    """One client that measures its turns, and three that keep a session and are still."""

    def __init__(self, chat: Client, still: list[Client], device: ClientConnection) -> None:
        self._chat = chat
        self._still = still
        self._device = device
        self._number = 0
        self._stopped = False
        self.turns = Turns()

    def stop(self) -> None:
        """The turn that is under way is the last."""
        self._stopped = True

    async def measure(self, process: Measured) -> None:
        """Send turns, and wait for the last when it is enough.

        Raises:
            ConnectionClosed: The session has ended.
        """
        while not self._stopped:
            self._number += 1
            began, worked = time.perf_counter(), process.work()
            try:
                done = await self._ask(self._chat, f"m{self._number}")
            finally:
                took, turns = time.perf_counter() - began, self.turns
                turns.slowest = max(turns.slowest, took)
                turns.work = max(turns.work, process.work() - worked)
                turns.count += 1
            if self._number % 16 == 0:
                await self._chat.send("event.ack", event=done["event"])
            await asyncio.sleep(max(0, EVERY_SECONDS - took))

    async def ended(self) -> list[str]:
        """Whose session has ended, and how: each is to do another turn."""
        asked = [self._ask(one, "last") for one in (self._chat, *self._still)]
        results = await asyncio.gather(*asked, self._frame(), return_exceptions=True)
        return [str(result) for result in results if isinstance(result, BaseException)]

    async def begin(self) -> None:
        """Let each have a session."""
        for one in (self._chat, *self._still):
            await one.open()
        await self._frame()

    async def _ask(self, one: Client, message_id: str) -> dict[str, Any]:
        async with asyncio.timeout(60 * UNIT):
            await one.send("message.send", id=message_id, text="x")
            done = await one.until("message.done", id=message_id)
        one.messages.clear()
        if done["status"] != "completed":
            raise AssertionError(done)
        return done

    async def _frame(self) -> None:
        async with asyncio.timeout(60 * UNIT):
            await self._device.send("x")
            await self._device.recv()


@asynccontextmanager
async def neighbours(url: str, key: str) -> AsyncIterator[Neighbours]:
    """Clients of each kind, with a key where they need one."""
    options: dict[str, Any] = {"ping_interval": None}  # patient
    if key:
        options["additional_headers"] = {"Authorization": f"Bearer {key}"}
    async with AsyncExitStack() as stack:
        chat, *still = [
            await stack.enter_async_context(client(url, subprotocol, route="chat", **options))
            for subprotocol in (JSON, JSON, MSGPACK)
        ]
        all_of_them = Neighbours(
            chat, still, await stack.enter_async_context(raw(url, "chat", **options))
        )
        await all_of_them.begin()
        yield all_of_them


@contextmanager
def upstream() -> Iterator[str]:
    """The platform's address."""
    endpoints = re.findall(r'endpoint_name = "(.+)"', CONFIG)
    process = Process([sys.executable, "-m", "tests.hostile.upstream", *endpoints])
    try:
        yield process.url
    finally:
        process.stop(signal.SIGKILL)


@asynccontextmanager
async def serving(config: Path, *, forked: bool) -> AsyncIterator[Process]:
    """A gateway, which is not stopped gently: it would wait for turns that never end."""
    serve = ("serve", "--port", "0", "--config", str(config))
    whole = (sys.executable, "-m", "gateway", *serve)
    kind, command = (Command, serve) if forked else (Process, whole)
    process = await asyncio.to_thread(kind, command)
    try:
        yield process
    finally:
        await asyncio.to_thread(process.stop, signal.SIGKILL)


def _write_keys(path: Path) -> tuple[str, str]:
    """Keys of the neighbours and of the attacker."""
    path.unlink(missing_ok=True)
    theirs, own = add(path, "attacker", None), add(path, NEIGHBOUR, None)
    with path.open("a") as file:
        file.write("messages_per_second = 1000\n")
    return own, theirs


async def attempt(name: str, platform: str, folder: Path, how: Round) -> Trial:
    """Start a gateway, attack it, and see.

    Args:
        name: The attack's.
        platform: The address of `upstream`.
        folder: For the gateway's configuration.
        how: How long and how hard.
    """
    trial = Trial(name)
    config = folder / "gateway.toml"
    text, own, theirs = CONFIG.format(url=platform), "", ""
    if how.attacker is not Attacker.ANYBODY:
        text += AUTH.format(folder=folder)
        own, theirs = _write_keys(folder / "keys.toml")
    config.write_text(text)
    shown = theirs if how.attacker is Attacker.KEY else ""
    os.environ.update(ENVIRONMENT)
    async with serving(config, forked=how.forked) as process:
        measured = Measured(process.popen.pid)
        async with neighbours(process.websocket, own) as others:
            attacker = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.hostile.attacker"),
                *(name, process.url, str(how.scale), str(how.seconds), shown),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            try:
                await _observe(trial, measured, others, attacker, how)
            finally:
                with suppress(ProcessLookupError):
                    attacker.kill()
                await attacker.communicate()
    return trial


async def _observe(
    trial: Trial,
    measured: Measured,
    others: Neighbours,
    attacker: asyncio.subprocess.Process,
    how: Round,
) -> None:
    assert attacker.stdin is not None
    assert attacker.stdout is not None
    said = await attacker.stdout.readline()  # ready, unless it was turned away before
    turns = asyncio.create_task(others.measure(measured))
    try:
        await asyncio.sleep(how.quiet_seconds)
        trial.quiet, others.turns = others.turns, Turns()
        measured.forget_peak()
        trial.before = measured.memory()
        if said == b"ready\n":
            attacker.stdin.write(b"go\n")
            said = await attacker.stdout.readline()
        trial.answers = json.loads(said or b'{"answers": {}}')["answers"]
        await _settle(measured, trial.before, how)
        trial.peak, trial.after = measured.peak(), measured.memory()
    finally:
        others.stop()
        with suppress(ConnectionClosed, AssertionError, TimeoutError):  # `ended` says so too
            await turns
    trial.during = others.turns
    trial.ended = await others.ended()


async def _settle(measured: Measured, before: int, how: Round) -> None:
    """Wait until the memory is as it was."""
    await asyncio.sleep(how.quiet_seconds)
    with suppress(TimeoutError):
        async with asyncio.timeout(SETTLE_SECONDS * UNIT):
            while measured.memory() - before > MEMORY_BYTES:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)
