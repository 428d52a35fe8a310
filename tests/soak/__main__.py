"""Conversations that come and go for as long as it takes: ``python -m tests.soak [--minutes N]``.

What is judged is whether the gateway grows: the slope of a line through its memory, fitted by least
squares to all that was measured after the first quarter, when every kind has come and gone.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from gateway.security.keys import add
from tests.load.trial import Gateway, as_text, footprint, left, logged_errors, settled
from tests.soak.conversations import KINDS, World, converse, failed
from tests.support.processes import local
from tests.support.tokens import AUDIENCE, ISSUER, Signer, write_key_set

AT_ONCE = 40
"""Conversations."""

EVERY_SECONDS = 2.0
"""How often the memory is measured."""

RELOAD_SECONDS = 20.0
"""How often the files of keys are read again."""

WARM = 0.25
"""How much of the time is not judged."""

GROWTH_KIB, LEAST_KIB = 3_000.0, 100.0
"""How much the memory may grow in all that is judged, and in a minute of a long time. What comes
and goes by chance is some megabytes, which a line through a short time can't tell from growth."""

CONFIG = """
[server]
heartbeat_seconds = 20
[auth.keys]
file = "{folder}/keys.toml"
[auth.jwt]
issuer = "{issuer}"
audience = "{audience}"
jwks_file = "{folder}/jwks.json"
leeway_seconds = 0
[limits]
messages_per_second = 1000
sessions_per_principal = 1000
[aws]
region = "us-east-1"
endpoint_url = "{url}"
[routes.chat]
endpoint_name = "my-endpoint"
content_type = "text/plain"
resume_seconds = 5
on_expiry = "renew"
expiry_margin_seconds = {margin}
[routes.streamed]
endpoint_name = "my-endpoint"
content_type = "text/plain"
resume_seconds = 5
stream = "raw"
on_expiry = "renew"
expiry_margin_seconds = {margin}
[routes.renewed]
endpoint_name = "my-endpoint"
content_type = "text/plain"
resume_seconds = 5
on_expiry = "replay"
expiry_margin_seconds = {margin}
"""
SESSION_SECONDS, MARGIN_SECONDS = 34, 30
"""How long the model keeps a session, and how much earlier the gateway takes it for expired: no
turn comes too late on a machine that is busy."""


def slope(points: list[tuple[float, float]]) -> float:
    """Of the line through them, by least squares."""
    count = len(points)
    mean_x, mean_y = (sum(values) / count for values in zip(*points, strict=True))
    spread: float = sum((x - mean_x) ** 2 for x, _ in points)
    both: float = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return both / spread


def bound(minutes: float) -> float:
    """How much the memory may grow, in KiB a minute, over so many that are judged."""
    return max(LEAST_KIB, GROWTH_KIB / minutes)


async def talk(world: World, end: float, outcomes: Counter[str]) -> None:
    """One conversation after the other."""
    while time.monotonic() < end:
        kind = world.chance.choice([*KINDS])
        outcomes[f"{kind} {await converse(world, kind)}"] += 1


async def watch(gateway: Gateway, end: float) -> list[tuple[float, float]]:
    """Its memory in KiB, by the minute."""
    points = []
    began = reloaded = time.monotonic()
    while (now := time.monotonic()) < end:
        points.append(((now - began) / 60, gateway.memory() / 1024))
        if now - reloaded > RELOAD_SECONDS:
            reloaded = now
            os.kill(gateway.pid, signal.SIGHUP)
        await asyncio.sleep(EVERY_SECONDS)
    return points


async def main(minutes: float, seed: int) -> int:
    """Soak it, and say what is left; returns how much is wrong."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, cores = Path(name), os.sched_getaffinity(0)
        url = stack.enter_context(local("--session-seconds", str(SESSION_SECONDS))).url
        signer, key = Signer("one"), add(folder / "keys.toml", "ada", None)
        write_key_set(folder / "jwks.json", signer)
        config = folder / "gateway.toml"
        given = {"folder": folder, "issuer": ISSUER, "audience": AUDIENCE, "url": url}
        config.write_text(CONFIG.format(**given, margin=MARGIN_SECONDS))
        command = ("tests.load.gateway", "serve", "--port", "0", "--config", str(config))
        process = Gateway(command, cores=cores, log=folder / "gateway.log")
        gateway = stack.enter_context(process)
        world = World(gateway.url().replace("http", "ws", 1), key, signer, seed)
        before = footprint(gateway)
        outcomes: Counter[str] = Counter()
        end = time.monotonic() + minutes * 60
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(watch(gateway, end))
            for _ in range(AT_ONCE):
                tasks.create_task(talk(world, end, outcomes))
        points = watching.result()
        await world.http.aclose()
        after = await settled(gateway, before)
        logged = logged_errors(folder)
    judged = points[int(len(points) * WARM) :]
    rise, most = slope(judged), bound(judged[-1][0] - judged[0][0])
    print(f"{sum(outcomes.values())} conversations: {as_text(outcomes)}")  # noqa: T201
    print(f"memory: {points[0][1]:.0f} KiB at first, {judged[0][1]:.0f} warm, {judged[-1][1]:.0f}")  # noqa: T201
    print(f"slope: {rise:+.0f} KiB a minute, {most:.0f} at most")  # noqa: T201
    print(f"before: {before}\nafter:  {after}")  # noqa: T201
    wrong = [*failed(outcomes), *left(before, after), *logged]
    if rise > most:
        wrong.append("it grows")
    for what in wrong:
        print(f"- {what}")  # noqa: T201
    return len(wrong)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    chosen = parser.parse_args()
    sys.exit(min(asyncio.run(main(chosen.minutes, chosen.seed)), 1))
