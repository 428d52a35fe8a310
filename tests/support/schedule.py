"""Conversations in which much goes wrong, made from a seed, and what must be true of each.

The built-in model remembers what it is told, once for each time it is told: a message that reached
it twice, or that is said to have ended otherwise than it did, shows in what it knows at the end.
"""

import asyncio
import random
import re
from contextlib import AsyncExitStack, suppress
from typing import Literal

from msgspec import Struct
from websockets.exceptions import ConnectionClosed

from tests.support.client import Client, Message, client, in_time
from tests.support.comeback import Comeback
from tests.support.processes import Process, admin
from tests.support.proxy import Fault, Proxy, proxy_to

FACT = re.compile(r"You told me that (\S+)\.")
STATELESS = "Stateless"
"""How the model's answer begins to a turn whose session it has forgotten by its own clock."""

ROUTES = """
[routes.chat]
endpoint_name = "my-endpoint"
content_type = "text/plain; charset=utf-8"
stream = "raw"
retry_seconds = 0.02

[routes.replay]
endpoint_name = "my-endpoint"
content_type = "text/plain; charset=utf-8"
stream = "raw"
retry_seconds = 0.02
on_expiry = "replay"
on_lost = "replay"

[routes.brief]
endpoint_name = "my-endpoint"
content_type = "text/plain; charset=utf-8"
stream = "raw"
retry_seconds = 0.02
on_expiry = "replay"
on_lost = "replay"
session_seconds = 0.2
expiry_margin_seconds = 0.1
"""
"""The routes of schedules; for a platform that says nothing of when sessions expire."""

What = Literal["lose i-1", "lose i-2", "restore", "expire"]


class Trouble(Struct, frozen=True):
    """Something that happens to the model's sessions when so many events have come."""

    at: int
    what: What


class Schedule(Struct, frozen=True):
    """What happens in one conversation.

    Attributes:
        route: Of `ROUTES`.
        texts: The messages, by id.
        cancel: Ids of those that the client stops, and when; see `Comeback`.
        twice_at: When it comes back over two connections at once, if it does.
        troubles: What happens to the model's sessions.
        client_faults: What happens to the connections between client and gateway, in turn.
        platform_faults: The same between gateway and platform.
    """

    route: str
    texts: dict[str, str]
    cancel: dict[str, int]
    twice_at: int | None
    troubles: tuple[Trouble, ...]
    client_faults: tuple[Fault, ...]
    platform_faults: tuple[Fault, ...]


def schedule(seed: int) -> Schedule:
    """The schedule of a seed."""
    pick = random.Random(seed)
    texts = {f"m{number}": f"Remember that f{number}." for number in range(pick.randint(1, 4))}
    events = 14 * len(texts)
    kinds: tuple[What, ...] = ("lose i-1", "lose i-2", "restore", "expire")
    return Schedule(
        route=pick.choice(["chat", "chat", "replay", "replay", "brief"]),
        texts=texts,
        cancel={
            message_id: pick.choice([0, pick.randint(1, events)])
            for message_id in texts
            if pick.random() < 0.2
        },
        twice_at=pick.randint(1, events) if pick.random() < 0.25 else None,
        troubles=tuple(
            Trouble(pick.randint(1, events), pick.choice(kinds))
            for _ in range(pick.choice([0, 0, 1, 2, 3]))
        ),
        client_faults=tuple(_fault(pick, 2500) for _ in range(pick.randint(0, 4))),
        platform_faults=tuple(_fault(pick, 1500) for _ in range(pick.choice([0, 0, 1, 2]))),
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
    ended: str | None
    renewals: int


class Stage(Struct, frozen=True):
    """Where schedules are played, one at a time.

    Attributes:
        gateway: With `ROUTES`.
        sagemaker: Behind it.
        between: The two.
    """

    gateway: Process
    sagemaker: Process
    between: Proxy

    async def happen(self, what: What) -> None:
        """Let trouble begin; what is lost is replaced, sooner or later."""
        match what:
            case "expire":
                await asyncio.to_thread(admin, self.sagemaker, "/expire")
            case "restore":
                state = await asyncio.to_thread(admin, self.sagemaker)
                for instance in state["instances"]:
                    if instance["lost"]:
                        path = f"/instances/{instance['name']}/restore"
                        await asyncio.to_thread(admin, self.sagemaker, path)
            case _:
                path = f"/instances/{what.removeprefix('lose ')}/lose"
                await asyncio.to_thread(admin, self.sagemaker, path)


class Talk(Comeback):
    """The schedule's client."""

    def __init__(self, plan: Schedule, stage: Stage, url: str) -> None:
        super().__init__(f"{url}/ws/{plan.route}", plan.texts, plan.cancel, twice_at=plan.twice_at)
        self._stage = stage
        self._troubles = sorted(plan.troubles, key=lambda trouble: trouble.at)

    async def told(self) -> None:
        """See `Comeback.told`."""
        while self._troubles and self.last >= self._troubles[0].at:
            await self._stage.happen(self._troubles.pop(0).what)


async def play(plan: Schedule, stage: Stage) -> Result:
    """Play a schedule and check what came of it."""
    async with AsyncExitStack() as stack:
        way_in = await stack.enter_async_context(proxy_to(stage.gateway.websocket))
        way_in.faults.extend(plan.client_faults)
        stage.between.cut_all()
        stage.between.faults.clear()
        stage.between.faults.extend(plan.platform_faults)
        talk = Talk(plan, stage, way_in.url)
        await in_time(talk.run())
        stage.between.faults.clear()
        stage.between.cut_all()  # some of those that are kept for the next call have faults too
        await stage.happen("restore")
        if talk.closed is None:
            await _check(talk, plan, stage.gateway)
        if talk.closed is not None:
            assert talk.closed == 4410, "nothing but the loss of the session ends it"
            assert talk.ended in {"lost", "expired"}, f"it was not told why: {talk.heard[-2:]}"
            assert plan.troubles or plan.route == "brief", "there was nothing that it was lost to"
        renewals = sum(event["type"] == "session.renewed" for event in talk.events)
        outcomes = [talk.outcome(message_id) for message_id in talk.done]
        return Result(talk.connections, outcomes, talk.ended, renewals)


async def _check(talk: Talk, plan: Schedule, gateway: Process) -> None:
    """What the model knows is what the client was told of its messages."""
    async with AsyncExitStack() as stack:
        again, resumed = await _come_back(stack, talk, gateway, plan.route)
        done: Message = {}
        if resumed["last_event"] == talk.last:
            with suppress(ConnectionClosed):  # a renewal was under way, and has failed
                done = await _know(again)
        if not done or done["status"] != "completed":
            # Nothing comes after the last message's end but the session's own.
            talk.closed, _ = await again.closed()
            (talk.ended,) = (
                message["reason"]
                for message in again.messages
                if message["type"] == "session.closed"
            )
            return
        talk.events += [message for message in again.messages if "event" in message]
        known = FACT.findall(done["text"])
        assert len(known) == len(set(known)), f"a turn ran twice: {known}"
        for message_id in plan.texts:
            expected = _remembered(talk, plan, message_id)
            if expected is not None:
                said = (talk.done[message_id], talk.outcome(message_id), known)
                assert (f"f{message_id[1:]}" in known) is expected, said
        await again.send("session.close")
        await again.closed()


async def _come_back(
    stack: AsyncExitStack, talk: Talk, gateway: Process, route: str
) -> tuple[Client, Message]:
    """Resume with the key that is good: of two that both had all, the later one's."""
    for key in (*talk.spare_keys, talk.key):
        again = await stack.enter_async_context(client(gateway.websocket, route=route))
        fields = {"session_id": talk.session_id, "resume_key": key, "last_event": talk.last}
        await again.send("session.open", **fields)
        with suppress(ConnectionClosed):
            return again, await again.until("session.resumed")
    raise AssertionError("no key is good")


async def _know(again: Client) -> Message:
    """Ask the model what it knows: again where it has forgotten the session, or is late."""
    for number in range(5):
        message_id = f"check{number}"
        await again.send("message.send", id=message_id, text="What do you know?", stream=False)
        done = await again.until("message.done", id=message_id)
        if done["status"] == "failed" and done["error"]["code"] != "session_lost":
            continue
        if not done.get("text", "").startswith(STATELESS):
            return done
    raise AssertionError("the model does not say what it knows")


def _remembered(talk: Talk, plan: Schedule, message_id: str) -> bool | None:
    """Whether the model must know of a message in the end, or must not; None where either is right.

    What has been completed is told to each new session; nothing else is.
    """
    ended = talk.done[message_id]["event"]
    renewed = any(
        event["type"] == "session.renewed" and event["event"] > ended for event in talk.events
    )
    forgotten = talk.text(message_id).startswith(STATELESS)
    match talk.outcome(message_id):
        case "completed":
            return renewed or not forgotten
        case "not_invoked":
            return False
        case _ if renewed or forgotten:
            return False
        case "invoked" if talk.parts.get(message_id) or not plan.troubles:
            return True
        case _:
            return None
