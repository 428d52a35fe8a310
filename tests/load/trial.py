"""A gateway under load: its processes, and what good clients feel of what others do."""

import asyncio
import os
import signal
import statistics
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec

from gateway.security.keys import digest
from tests.bench.processes import MEASURED, REST, Process
from tests.load.crowd import Command, Gather, Part, Talk, Told, Turn
from tests.load.gateway import Held
from tests.load.upstream import Behaviour
from tests.support.timing import UNIT

RATIO = 1.5
"""How much longer the slowest of a hundred turns of good clients may take beside others."""

GROWTH_BYTES = 50_000_000
"""How much more memory the gateway may take than when as many were there before, or had gone: what
was taken for thousands of clients stays, for the next ones, and does not lie where it did."""

SETTLE_SECONDS = 40
"""How long it may take until nothing is left."""

CONFIG = """
[server]
port = 0
[auth.keys]
file = "{folder}/keys.toml"
[aws]
region = "us-east-1"
endpoint_url = "{url}"
[routes.chat]
endpoint_name = "chat-20"
content_type = "text/plain"
resume_seconds = 2
[routes.sick]
endpoint_name = "sick-20"
content_type = "text/plain"
resume_seconds = 2
[routes.narrow]
endpoint_name = "narrow-20"
content_type = "text/plain"
resume_seconds = 2
max_turns_in_flight = 4
"""
"""All limits are the default ones; clients that are gone are forgotten sooner."""


@dataclass(frozen=True)
class Size:
    """How much there is.

    Attributes:
        idle: Connections that do nothing.
        busy: Those of good clients.
        noisy: Those of others, who send as much again.
        newcomers: How many of these connect while an endpoint is ill.
        rounds: How often all are measured without and with the others.
        seconds: How long each time.
        greedy_sessions: What the greedier of two principals has where shares are counted.
    """

    idle: int = 5000
    busy: int = 500
    noisy: int = 200
    newcomers: int = 1200
    rounds: int = 5
    seconds: float = 3.0
    greedy_sessions: int = 1000


WHOLE = Size()
SHORT = Size(40, 10, 10, 30, 1, 0.5, 30)

RECOVERY_SECONDS = 60 * UNIT
"""How soon an endpoint that is well again has to be asked: the breaker waits for half of it."""

PER_PRINCIPAL = 100
"""Connections that each may have."""
MESSAGES_PER_SECOND = 20
"""Messages that each may send."""


class Gateway(Process):
    """The gateway's process, seen from outside and asked."""

    def sockets(self) -> int:
        """Open files, of which sockets are the most."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))  # noqa: PTH208 - nothing but their number

    def held(self) -> Held:
        """What it says that it holds."""
        os.kill(self.pid, signal.SIGUSR1)
        return msgspec.json.decode(self._line(60), type=Held)


class Group:
    """A crowd's process.

    Args:
        process: `tests.load.crowd`.
    """

    def __init__(self, process: Process) -> None:
        self._process = process

    async def do(self, command: Command) -> Told:
        """Have that done."""
        answer = await asyncio.to_thread(self._process.command_it, command)
        return msgspec.json.decode(answer, type=Told)


@dataclass
class Scene:
    """All that there is.

    Attributes:
        size: How much.
        gateway: Under load.
        platform: The address of what stands for SageMaker.
        folder: For logs and files.
        keys: Of all principals, by name.
        stack: Ends processes.
    """

    size: Size
    gateway: Gateway
    platform: str
    url: str
    folder: Path
    keys: dict[str, str]
    stack: AsyncExitStack

    def group(self, name: str, nice: int = 0) -> Group:
        """A process for clients."""
        log = self.folder / f"{name}.log"
        command = ("tests.load.crowd", self.url, str(self.gateway.pid), str(nice))
        return Group(self.stack.enter_context(Process(command, cores=REST, log=log)))

    def keys_of(self, name: str, count: int) -> list[str]:
        """Those of so many principals."""
        return [self.keys[f"{name}-{number}"] for number in range(count)]

    async def behave(self, endpoint: str, how: Behaviour) -> None:
        """Have an endpoint behave so from now on."""
        async with httpx.AsyncClient(verify=False) as http:
            await http.post(f"{self.platform}/behave/{endpoint}/{how}")


def _write_keys(path: Path, size: Size) -> dict[str, str]:
    """Make keys for everybody."""
    names = [
        *(f"idle-{number}" for number in range(-(-size.idle // PER_PRINCIPAL))),
        *(f"good-{number}" for number in range(-(-size.busy // 10))),
        *(f"noisy-{number}" for number in range(40)),
        *("greedy-0", "second-0", "one-0", "thousand-0"),
    ]
    keys = {name: f"sgk_{name}" for name in names}
    lines = [f'[{name}]\nsha256 = "{digest(key)}"\n' for name, key in keys.items()]
    lines.append("connections = 2000\nsessions = 2000\nmessages_per_second = 10000\n")  # thousand
    path.write_text("".join(lines))
    return keys


@asynccontextmanager
async def scene(size: Size, folder: Path) -> AsyncIterator[Scene]:
    """Start a gateway and what it calls."""
    async with AsyncExitStack() as stack:
        platform = stack.enter_context(
            Process(["tests.load.upstream"], cores=REST, log=folder / "upstream.log")
        ).url()
        keys = _write_keys(folder / "keys.toml", size)
        config = folder / "gateway.toml"
        config.write_text(CONFIG.format(folder=folder, url=platform))
        command = ("tests.load.gateway", "serve", "--config", str(config))
        gateway = stack.enter_context(Gateway(command, cores=MEASURED, log=folder / "gateway.log"))
        url = gateway.url().replace("http", "ws", 1)
        yield Scene(size, gateway, platform, url, folder, keys, stack)


def percentile(turns: Sequence[Turn], share: float) -> float:
    """The time that this share of those that were answered took at most."""
    times = sorted(turn.seconds for turn in turns if turn.seconds is not None)
    return times[min(len(times) - 1, int(len(times) * share))] if times else float("nan")


def work(rounds: Sequence[Sequence[Turn]]) -> float:
    """What the gateway has worked during 99 of 100 turns at most."""
    worked = sorted(turn.work for turns in rounds for turn in turns if turn.seconds is not None)
    return worked[int(len(worked) * 0.99)] if worked else float("nan")


def errors(turns: Sequence[Turn]) -> Counter[str]:
    """What those have failed for that have."""
    codes = ["unanswered" if turn.seconds is None else turn.code for turn in turns]
    return Counter(code for code in codes if code is not None)


@dataclass
class Trial:
    """What good clients have felt of one kind of others.

    Attributes:
        name: Of the others.
        quiet: Their turns without, each time.
        loaded: Their turns with.
        others: What came of the others' turns.
        closed: What came of the others' connections.
        second: Turns of another principal at the same endpoint, where it falls ill.
        recovered: How long after the endpoint was well again that one was answered, each time.
    """

    name: str
    quiet: list[list[Turn]] = field(default_factory=list)
    loaded: list[list[Turn]] = field(default_factory=list)
    others: list[Turn] = field(default_factory=list)
    closed: Counter[str] = field(default_factory=Counter)
    second: list[Turn] = field(default_factory=list)
    recovered: list[float] = field(default_factory=list)

    def ratio(self, share: float) -> float:
        """By how much longer the good clients' turns took: of the medians of all rounds."""
        loaded, quiet = (
            statistics.median(percentile(turns, share) for turns in rounds)
            for rounds in (self.loaded, self.quiet)
        )
        return loaded / quiet

    def failures(self, *, timed: bool = True) -> list[str]:
        """What good clients have felt.

        Args:
            timed: Whether to judge how long their turns took.
        """
        failures = [
            f"{count} of the good clients' turns: {code}"
            for turns in (*self.quiet, *self.loaded)
            for code, count in errors(turns).items()
        ]
        if timed and not self.ratio(0.99) <= RATIO:
            failures.append(f"p99 is {self.ratio(0.99):.2f} of the quiet one")
        if self.second and len(self.recovered) < len(self.loaded):
            failures.append("the second principal was not answered again")
        return failures


ILL = {
    "stalled": Behaviour.STALLED,
    "throttling": Behaviour.THROTTLING,
    "dead": Behaviour.DEAD,
}


class Load:
    """A scene with clients in it."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._idle = scene.group("idle")
        self._good = scene.group("good")
        self._second = scene.group("second")

    async def begin(self) -> None:
        """Let those connect who are there all the time."""
        size, scene = self._scene.size, self._scene
        idle = scene.keys_of("idle", -(-size.idle // PER_PRINCIPAL))
        await self._connect(self._idle, Gather(size.idle, "chat", idle))
        good = scene.keys_of("good", -(-size.busy // 10))
        await self._connect(self._good, Gather(size.busy, "chat", good))
        await self._connect(self._second, Gather(5, "sick", scene.keys_of("second", 1)))
        await self._good.do(Talk(1.0, 1.0))

    async def _connect(self, group: Group, gather: Gather) -> None:
        told = await group.do(gather)
        if told.clients != gather.clients:
            raise AssertionError(f"{told.clients} of {gather.clients} are connected: {told.closed}")

    async def greedy(self) -> Trial:
        """One principal that sends and connects at ten times its limits."""
        size, scene = self._scene.size, self._scene
        trial = Trial("one principal at ten times its limits, on the same route")
        others = scene.group("greedy", 10)
        clients = min(PER_PRINCIPAL, size.noisy)
        await others.do(Gather(clients, "chat", scene.keys_of("greedy", 1)))
        every = clients / (10 * MESSAGES_PER_SECOND)
        newcomers = 9 * clients
        for _ in range(size.rounds):
            trial.quiet.append(await self._measured())
            _, told = await asyncio.gather(
                self._loaded(trial), others.do(Talk(size.seconds, every, newcomers))
            )
            trial.others += told.turns
            trial.closed.update(told.closed)
        await others.do(Part())
        return trial

    async def _measured(self) -> list[Turn]:
        return (await self._good.do(Talk(self._scene.size.seconds, 1.0))).turns

    async def _loaded(self, trial: Trial) -> None:
        trial.loaded.append(await self._measured())

    async def ill(self, how: str) -> Trial:
        """Others whose endpoint falls ill, and is well again."""
        size, scene, behaviour = self._scene.size, self._scene, ILL[how]
        trial = Trial(f"an endpoint that is {how} for a while, on another route")
        others = scene.group(how, 10)
        await others.do(Gather(size.noisy, "sick", scene.keys_of("noisy", 40)))
        for _ in range(size.rounds):
            trial.quiet.append(await self._measured())
            _, told, second, well = await asyncio.gather(
                self._loaded(trial),
                others.do(Talk(size.seconds, 1.0, size.newcomers)),
                self._second.do(Talk(2 * size.seconds, 0.5)),
                self._fall_ill(behaviour),
            )
            trial.others += told.turns
            trial.closed.update(told.closed)
            trial.second += second.turns
            while not (after := _answered(second.turns, well)):
                if asyncio.get_running_loop().time() > well + RECOVERY_SECONDS:
                    break
                second = await self._second.do(Talk(size.seconds, 0.5))
            trial.recovered += after[:1]
        await others.do(Part())
        return trial

    async def _fall_ill(self, how: Behaviour) -> float:
        """Let the endpoint be ill for most of a round; returns when it was well again."""
        seconds = self._scene.size.seconds
        await asyncio.sleep(seconds * 0.1)
        await self._scene.behave("sick-20", how)
        await asyncio.sleep(seconds * 0.7)
        await self._scene.behave("sick-20", Behaviour.WELL)
        return asyncio.get_running_loop().time()

    async def shares(self) -> tuple[list[Turn], list[Turn]]:
        """Turns of one principal with many sessions, and of one with a single session."""
        size, scene = self._scene.size, self._scene
        many, one = scene.group("many", 10), scene.group("one")
        await self._connect(
            many, Gather(size.greedy_sessions, "narrow", scene.keys_of("thousand", 1))
        )
        await self._connect(one, Gather(1, "narrow", scene.keys_of("one", 1)))
        seconds = 2 * size.seconds
        theirs, its = await asyncio.gather(
            many.do(Talk(seconds, seconds / 4)), one.do(Talk(seconds, 0.1))
        )
        await many.do(Part())
        await one.do(Part())
        return theirs.turns, its.turns

    async def end(self) -> None:
        """Let everybody go."""
        await asyncio.gather(
            *(group.do(Part()) for group in (self._idle, self._good, self._second))
        )


def _answered(turns: list[Turn], since: float) -> list[float]:
    """How long after that each was answered that was."""
    ends = [turn.sent + turn.seconds for turn in turns if turn.code is None and turn.seconds]
    return sorted(end - since for end in ends if end > since)


@dataclass(frozen=True)
class Footprint:
    """What a gateway takes.

    Attributes:
        memory: Resident set, in bytes.
        sockets: Open files.
        held: What it says itself.
    """

    memory: int
    sockets: int
    held: Held


def footprint(gateway: Gateway) -> Footprint:
    """What it takes now."""
    held = gateway.held()
    return Footprint(gateway.memory(), gateway.sockets(), held)


def left(before: Footprint, after: Footprint, *, memory: bool = False) -> list[str]:
    """What is left of those who have gone.

    Args:
        before: When as many were there as are now.
        after: Now.
        memory: Whether that is to be judged too, since there have been as many clients before.
    """
    names = Held.__struct_fields__
    grown = [
        f"{name}: {now}, {then} before"
        for name in names
        if (now := getattr(after.held, name)) > (then := getattr(before.held, name))
    ]
    if after.sockets > before.sockets:
        grown.append(f"sockets: {after.sockets}, {before.sockets} before")
    if memory and after.memory - before.memory > GROWTH_BYTES:
        grown.append(f"{(after.memory - before.memory) / 1e6:.0f} MB")
    return grown


async def settled(gateway: Gateway, before: Footprint) -> Footprint:
    """What is left once nothing changes any more; what is idle is closed by then."""
    deadline = asyncio.get_running_loop().time() + SETTLE_SECONDS
    after = footprint(gateway)
    while left(before, after) and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(1)
        after = footprint(gateway)
    return after


def as_text(counts: Counter[str]) -> str:
    """What there was, and how often."""
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


def logged_errors(folder: Path) -> list[str]:
    """What the gateway has logged that it should not."""
    lines = (folder / "gateway.log").read_text(errors="replace").splitlines()
    return [line for line in lines if "error  " in line or "Traceback" in line][:10]
