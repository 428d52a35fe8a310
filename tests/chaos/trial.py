"""Two hundred clients beside faults, and what has come of it."""

import asyncio
import json
import random
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct

from tests.chaos.faults import Faults
from tests.chaos.fleet import DRAIN_SECONDS, RESUME_SECONDS, Fleet, fleet
from tests.chaos.habits import THINK_SECONDS, Habits
from tests.chaos.own import Own
from tests.chaos.plain import Plain
from tests.chaos.verdict import Verdict, judge
from tests.chaos.witness import Witness
from tests.support.timing import UNIT

ARTIFACTS = Path("artifacts/chaos")

PROGRESS_SECONDS = 10.0

SETTLE_SECONDS = 60 * UNIT
"""How long it may take until all clients have ended, when nothing is broken any more."""

DEFECTS = (
    "Traceback",
    "a session failed",
    "a background task failed",
    "the store failed",
    "an adapter failed",
    "a message from another replica could not be handled",
    "unhandled error",
    "a connection failed",
)
"""What the gateways' logs must not have."""

Say = Callable[[str], None]


class Plan(Struct, frozen=True, kw_only=True):
    """What to do.

    Attributes:
        seed: Of clients and faults.
        seconds: How long things break.
        clients: How many there are, of two kinds.
        kinds: Of faults.
        think: See `tests.chaos.habits.Habits`.
        steady: See there.
    """

    seed: int
    seconds: float
    clients: int
    kinds: tuple[str, ...]
    think: float = THINK_SECONDS
    steady: bool = False


class Crowd:
    """Clients of both kinds, and their witnesses.

    Args:
        fleet: Where they connect.
        plan: How many, and how they talk.
    """

    def __init__(self, fleet: Fleet, plan: Plan) -> None:
        folder = fleet.folder / "clients"
        folder.mkdir()
        self.witnesses: list[Witness] = []
        self.clients: list[Own | Plain] = []
        for number in range(plan.clients):
            own = number % 2 == 0
            name = f"{'own' if own else 'plain'}-{number}"
            chance = random.Random(f"{plan.seed} {name}")
            habits = Habits(name, chance, plan.think, plan.steady)
            witness = Witness(name, folder / f"{name}.log")
            where = fleet.balancer.where
            self.witnesses.append(witness)
            if own:
                msgpack = number % 4 == 0
                self.clients.append(Own(fleet.url, habits, witness, where, msgpack=msgpack))
            else:
                self.clients.append(Plain(fleet.url, habits, witness, where))
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Let them come, one after the other."""
        for client in self.clients:
            self._tasks.append(asyncio.create_task(client.run()))
            await asyncio.sleep(0.01)

    async def end(self) -> list[str]:
        """Let them end; returns who has not, and what went wrong with others."""
        for client in self.clients:
            client.stop()
        _, waiting = await asyncio.wait(self._tasks, timeout=SETTLE_SECONDS)
        wrong = [
            f"{witness.name} waits for ever"
            for witness, task in zip(self.witnesses, self._tasks, strict=True)
            if task in waiting
        ]
        for task in waiting:
            task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        wrong += [
            f"{witness.name}: {error!r}"
            for witness, error in zip(self.witnesses, ended, strict=True)
            if isinstance(error, Exception)
        ]
        for witness in self.witnesses:
            witness.close()
        return wrong

    def places(self) -> list[str]:
        """Where the connections are that clients have now."""
        return [witness.place for witness in self.witnesses if witness.place]

    def total(self) -> Counter[str]:
        """What all have seen."""
        total: Counter[str] = Counter()
        for witness in self.witnesses:
            total.update(witness.counts)
        total["reconnects"] = sum(len(each.reconnects) for each in self.witnesses)
        total["lost"] = sum(last - first + 1 for w in self.witnesses for first, last in w.lost)
        return total

    @property
    def broken(self) -> int:
        """How many promises were seen not to be kept so far."""
        return sum(len(witness.broken) for witness in self.witnesses)


class Result(Struct):
    """What has come of it.

    Attributes:
        verdict: What was judged.
        total: What clients have seen.
        codes: With which codes connections have ended.
        faults: How many of each kind there were.
        takeovers: How many sessions have gone from one process to another, by how.
        model: What the model has counted.
    """

    verdict: Verdict
    total: Counter[str]
    codes: Counter[str]
    faults: Counter[str]
    takeovers: Counter[str]
    model: Counter[str]


def empty(folder: Path) -> None:
    """Make it, with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


@asynccontextmanager
async def scene(folder: Path, replicas: int = 3) -> AsyncIterator[Fleet]:
    """Everything, in a folder that has nothing in it before."""
    empty(folder)
    async with fleet(folder, replicas) as there:
        yield there


async def progress(crowd: Crowd, began: float, say: Say, faults: Counter[str]) -> None:
    """Say how it goes, again and again."""
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        total = crowd.total()
        say(
            f"{time.monotonic() - began:5.0f} s: {total['turns']} turns, {total['deltas']} deltas, "
            f"{total['reconnects']} reconnects, {sum(faults.values())} faults, "
            f"{crowd.broken} broken"
        )


async def closed(fleet: Fleet) -> None:
    """Wait until nothing is open at the model, or for as long as anything may be."""
    until = time.monotonic() + RESUME_SECONDS + DRAIN_SECONDS + 10 * UNIT
    while time.monotonic() < until:
        await asyncio.sleep(1)
        sessions = (await fleet.counts())["sessions"].values()
        if all(session["closed"] for session in sessions):
            return


async def chaos(plan: Plan, folder: Path, say: Say) -> Result:
    """Do it, and judge it."""
    async with scene(folder) as fleet:
        crowd = Crowd(fleet, plan)
        faults = Faults(fleet, plan.seed, plan.kinds)
        began = time.monotonic()
        telling = asyncio.create_task(progress(crowd, began, say, faults.counts))
        await crowd.start()
        breaking = asyncio.create_task(faults.run())
        await asyncio.wait([breaking], timeout=plan.seconds)
        breaking.cancel()
        ended = await asyncio.gather(breaking, return_exceptions=True)
        say(f"{time.monotonic() - began:5.0f} s: nothing is broken from here on")
        for gateway in fleet.gateways:
            await gateway.ready()
        wrong = await crowd.end()
        wrong += [f"faults: {error!r}" for error in ended if isinstance(error, Exception)]
        say(f"{time.monotonic() - began:5.0f} s: all clients have ended")
        await closed(fleet)
        telling.cancel()
        counted = await fleet.counts()
        return result(fleet, crowd, faults.counts, counted, wrong)


def result(
    fleet: Fleet, crowd: Crowd, faults: Counter[str], counted: dict[str, object], wrong: list[str]
) -> Result:
    """Judge what has come of it."""
    fleet.tell_troubles()
    verdict = judge(crowd.witnesses, counted, fleet.troubles)
    verdict.broken += wrong
    lines = fleet.logs()
    verdict.broken += [line for line in lines if any(defect in line for defect in DEFECTS)][:20]
    for gateway in fleet.gateways:
        strange = [code for code in gateway.codes if code not in {0, -9}]
        if strange:
            verdict.broken.append(f"gw-{gateway.number} has ended with {strange}")
    codes: Counter[str] = Counter()
    for witness in crowd.witnesses:
        codes.update(witness.codes)
    taken = [
        json.loads(line)["sessions"]
        for line in lines
        if "sessions of a dead replica taken over" in line
    ]
    sessions = counted["sessions"]
    turns = counted["turns"]
    assert isinstance(sessions, dict)
    assert isinstance(turns, dict)
    model = Counter(
        sessions=len(sessions),
        closed=sum(bool(each["closed"]) for each in sessions.values()),
        turns=sum(map(len, turns.values())),
    )
    if not crowd.total()["turns"]:
        verdict.broken.append("nothing was said")
    takeovers = Counter({"of the dead": sum(taken)})
    fenced = sum("another replica has taken over a session" in line for line in lines)
    if fenced:
        takeovers["found out late"] = fenced
    return Result(verdict, crowd.total(), codes, faults, takeovers, model)


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


def table(found: Result) -> list[str]:
    """What has come of it, as lines."""
    total, verdict = found.total, found.verdict
    outcomes = Counter({k[6:]: v for k, v in total.items() if k.startswith("turns ")})
    refused = Counter({k[9:]: v for k, v in total.items() if k.startswith("refused: ")})
    others = ("away for too long", "taken over by its own earlier attempt")
    rows = [
        ("sessions", str(total["sessions"])),
        ("turns", f"{total['turns']}: {_counts(outcomes)}"),
        ("deltas", str(total["deltas"])),
        ("refused", _counts(refused)),
        ("answered as duplicates", str(total["duplicates"])),
        ("sessions resumed", str(total["reconnects"])),
        ("connections closed", _counts(found.codes)),
        ("faults", _counts(found.faults)),
        ("sessions taken over", _counts(found.takeovers)),
        ("events lost, as announced", str(total["lost"])),
        ("turns doubled at the model", str(verdict.doubled)),
        ("at the model", _counts(found.model)),
        ("left open there, as may be", _counts(verdict.left_open)),
        ("gone with the store and its owner", _counts(verdict.inherent)),
        *[(other, str(total[other])) for other in others if total[other]],
        ("broken", str(len(verdict.broken))),
    ]
    return [f"| {name:34} | {value} |" for name, value in rows]


def tidy(folder: Path, broken: Sequence[str]) -> list[str]:
    """Keep the histories of those clients only that something is wrong with; who they are."""
    names = {line.partition(",")[0].partition(":")[0] for line in broken}
    kept = []
    for path in sorted((folder / "clients").iterdir()):
        if path.stem in names or any(_mentions(path, line) for line in broken):
            kept.append(path.stem)
        else:
            path.unlink()
    return kept


def _mentions(path: Path, line: str) -> bool:
    """Whether a line speaks of one of a client's turns."""
    return f"'{path.stem}." in line or f" {path.stem}." in line
