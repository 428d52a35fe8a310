"""Conversations over connections that break, made from a seed, and what must be true of each.

The built-in model remembers what it is told, once for each time it is told: a message that reached
it twice, or that is said to have ended otherwise than it did, shows in what it knows at the end.
"""

import random
import re
from contextlib import AsyncExitStack
from typing import Any

from msgspec import Struct

from tests.support.client import client, in_time
from tests.support.comeback import Comeback
from tests.support.processes import Process
from tests.support.proxy import Fault, Proxy, proxy_to

FACT = re.compile(r"You told me that (\S+)\.")


class Schedule(Struct, frozen=True):
    """What happens in one conversation.

    Attributes:
        texts: The messages, by id.
        cancel: Ids of those that the client stops once they have begun to be answered.
        client_faults: What happens to the connections between client and gateway, in turn.
        platform_faults: The same between gateway and platform.
    """

    texts: dict[str, str]
    cancel: tuple[str, ...]
    client_faults: tuple[Fault, ...]
    platform_faults: tuple[Fault, ...]


def schedule(seed: int) -> Schedule:
    """The schedule of a seed."""
    pick = random.Random(seed)
    texts = {f"m{number}": f"Remember that f{number}." for number in range(pick.randint(1, 4))}
    return Schedule(
        texts,
        tuple(message_id for message_id in texts if pick.random() < 0.15),
        tuple(_fault(pick, 2500) for _ in range(pick.randint(0, 4))),
        tuple(_fault(pick, 1500) for _ in range(pick.choice([0, 0, 1, 2]))),
    )


def _fault(pick: random.Random, most: int) -> Fault:
    return Fault(
        way=pick.choice(["up", "down"]),
        after=pick.randint(0, most),
        how=pick.choice(["cut", "cut", "reset", "stall"]),
        delay=pick.choice([0.0, 0.0, 0.0, 0.005]),
    )


class Result(Struct):
    """What a conversation came to."""

    connections: int
    outcomes: list[str]
    closed: int | None


async def play(plan: Schedule, gateway: Process, platform: Proxy | None, route: str) -> Result:
    """Play a schedule and check what came of it.

    Args:
        plan: The schedule.
        gateway: The gateway.
        platform: Between it and the platform; None where nothing breaks there.
        route: Of the built-in model.
    """
    async with AsyncExitStack() as stack:
        way_in = await stack.enter_async_context(proxy_to(gateway.websocket))
        way_in.faults.extend(plan.client_faults)
        if platform is not None:
            platform.cut_all()
            platform.faults.clear()
            platform.faults.extend(plan.platform_faults)
        talk = Comeback(f"{way_in.url}/ws/{route}", plan.texts, dict.fromkeys(plan.cancel, 0))
        await in_time(talk.run())
        if platform is not None:
            platform.faults.clear()
        result = Result(
            talk.connections, [talk.outcome(message_id) for message_id in talk.done], talk.closed
        )
        if talk.closed is not None:
            assert talk.closed == 4410, "nothing but the loss of the session ends it"
            return result
        await _check(talk, gateway, route)
        return result


async def _check(talk: Comeback, gateway: Process, route: str) -> None:
    """What the model knows is what the client was told of its messages."""
    async with client(gateway.websocket, route=route) as again:
        await again.send(
            "session.open", session_id=talk.session_id, resume_key=talk.key, last_event=talk.last
        )
        resumed = await again.until("session.resumed")
        assert resumed["last_event"] == talk.last, "nothing comes after the last end"
        await again.send("message.send", id="check", text="What do you know?", stream=False)
        done: dict[str, Any] = await again.until("message.done", id="check")
        assert done["status"] == "completed", done
        known = FACT.findall(done["text"])
        assert len(known) == len(set(known)), f"a turn ran twice: {known}"
        for message_id in talk.done:
            fact, outcome = f"f{message_id[1:]}", talk.outcome(message_id)
            if outcome in {"completed", "invoked"}:
                assert fact in known, (message_id, outcome, known)
            elif outcome == "not_invoked":
                assert fact not in known, (message_id, outcome, known)
        await again.send("session.close")
        await again.closed()
