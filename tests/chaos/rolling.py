"""A rolling restart under load, told as a table: who came back how often, and what was lost."""

import asyncio
import time
from collections import Counter
from pathlib import Path

from msgspec import structs

from tests.chaos.trial import Crowd, Plan, Result, Say, closed, progress, result, scene, table

BEFORE_SECONDS = 15.0
"""How long all talk before the first replica is restarted, and after the last."""

BETWEEN_SECONDS = 5.0
"""How long after one is there again the next one goes."""

ROW = "| {:7} | {:>11} | {:>12} | {:>8} | {:>10} | {:>11} | {:>5} | {:>6} | {:>4} |"
HEADING = ROW.format(
    "replica",
    "its clients",
    "restarted in",
    "all left",
    "reconnects",
    "most of one",
    "turns",
    "failed",
    "lost",
)


async def restart(plan: Plan, folder: Path, say: Say) -> tuple[Result, list[str], Crowd]:
    """Restart all replicas one after the other; returns what has come of it, and a row of each."""
    rows = []
    async with scene(folder) as fleet:
        crowd = Crowd(fleet, plan)
        telling = asyncio.create_task(progress(crowd, time.monotonic(), say, Counter()))
        await crowd.start()
        await asyncio.sleep(BEFORE_SECONDS)
        for gateway in fleet.gateways:
            before, name, starts = crowd.total(), gateway.name, gateway.starts
            clients = sum(fleet_name == name for fleet_name in crowd.places())
            at, gateway.stays_away = time.monotonic(), 0.0
            gateway.terminate()
            while name in crowd.places():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
            left = time.monotonic() - at
            await gateway.restarted(starts)
            restarted = time.monotonic() - at
            await asyncio.sleep(BETWEEN_SECONDS)
            after = crowd.total()
            most = [sum(start == name for start, _ in w.reconnects) for w in crowd.witnesses]
            rows.append(
                ROW.format(
                    name,
                    clients,
                    f"{restarted:.2f} s",
                    f"{left:.2f} s",
                    sum(most),
                    max(most),
                    after["turns"] - before["turns"],
                    failed(after) - failed(before),
                    after["lost"] - before["lost"],
                )
            )
        await asyncio.sleep(BEFORE_SECONDS)
        telling.cancel()
        wrong = await crowd.end()
        await closed(fleet)
        found = result(fleet, crowd, Counter(rolling=1), await fleet.counts(), wrong)
    return found, rows, crowd


def failed(total: Counter[str]) -> int:
    """How many turns have."""
    return sum(count for what, count in total.items() if what.startswith("turns failed"))


def judged(found: Result, crowd: Crowd) -> list[str]:
    """What is wrong: here nothing may fail, or be lost."""
    broken = [*found.verdict.broken]
    if failed(found.total):
        broken.append(f"{failed(found.total)} turns have failed")
    if found.total["lost"]:
        broken.append(f"{found.total['lost']} events are lost")
    for witness in crowd.witnesses:
        for (start, _), count in Counter((start, "") for start, _ in witness.reconnects).items():
            if count > 1:
                broken.append(f"{witness.name}: {count} reconnects from {start}")
    return broken


async def main(plan: Plan, folder: Path, say: Say) -> list[str]:
    """Do it, and tell of it; returns what is wrong."""
    say(f"seed {plan.seed}: {plan.clients} clients, and a rolling restart of three replicas")
    plan = structs.replace(plan, kinds=(), steady=True)
    found, rows, crowd = await restart(plan, folder, say)
    for line in (HEADING, *rows):
        say(line)
    often = Counter(len(witness.reconnects) for witness in crowd.witnesses)
    told = ", ".join(f"{count} of {clients} clients" for count, clients in sorted(often.items()))
    say(f"reconnects: {told}")
    for line in table(found):
        say(line)
    return judged(found, crowd)
