"""Conversations of all kinds, each of which ends as it is to end, or raises."""

import asyncio
import base64
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any

import httpx
from websockets.exceptions import ConnectionClosed

from tests.support.client import JSON, MSGPACK, Client, client, in_time, raw
from tests.support.tokens import Signer

TOKEN_SECONDS = 2
"""How long a token is good that is to expire while its connection is there."""


class World:
    """What conversations need.

    Args:
        url: The gateway's, for WebSockets.
        key: Good for everything.
        signer: Makes tokens that are good too.
        seed: Of what is left to chance.
    """

    def __init__(self, url: str, key: str, signer: Signer, seed: int) -> None:
        self.url = url
        self.key = key
        self.signer = signer
        self.chance = random.Random(seed)
        # A connection that has been idle for as long as the gateway keeps it may be gone.
        self.http = httpx.AsyncClient(verify=False, limits=httpx.Limits(keepalive_expiry=1))

    def token(self, seconds: float = 600) -> str:
        """A token that is good for so long."""
        who = f"user-{self.chance.randrange(200)}"
        return self.signer.token(exp=int(time.time() + seconds), sub=who)

    async def ticket(self) -> str:
        """A ticket."""
        address = self.url.replace("ws", "http", 1) + "/v1/tickets"
        response = await self.http.post(address, headers=bearer(self.key))
        response.raise_for_status()
        ticket: str = response.json()["ticket"]
        return ticket

    @asynccontextmanager
    async def known(self, route: str = "chat") -> AsyncIterator[Client]:
        """A connection of somebody who has said who it is, in any way; its session is open."""
        token = self.chance.choice([self.key, self.token()])
        way = self.chance.choice(["header", "bearer", "ticket", "message"])
        offered = [self.chance.choice([JSON, MSGPACK])]
        options: dict[str, Any] = {}
        said: dict[str, str] = {}
        if way == "header":
            options["additional_headers"] = bearer(token)
        elif way == "bearer":
            spelt = base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode()
            offered.append(f"bearer.{spelt}")
        elif way == "ticket":
            offered.append(f"ticket.{await self.ticket()}")
        else:
            said = {"token": token}
        async with client(self.url, *offered, route=route, **options) as chat:
            await chat.send("session.open", **said)
            await chat.until("session.opened")
            yield chat


def bearer(token: str) -> dict[str, str]:
    """The header that shows it."""
    return {"Authorization": f"Bearer {token}"}


def expect(what: object, wanted: object) -> None:
    """Or raise."""
    if what != wanted:
        raise AssertionError(f"{what!r}, and not {wanted!r}")


async def done(chat: Client, text: str, wanted: str = "completed") -> None:
    """One turn."""
    expect((await chat.ask(text))["status"], wanted)


async def turns(world: World) -> None:
    """a few turns, and the end in any of three ways"""
    async with world.known() as chat:
        for number in range(world.chance.randrange(1, 5)):
            await done(chat, f"turn {number}")
        how = world.chance.choice(["closed", "left", "cut"])
        if how == "closed":
            await chat.send("session.close")
            expect((await chat.closed())[0], 1000)
        elif how == "cut":
            chat.socket.transport.abort()


async def raw_frames(world: World) -> None:
    """raw frames"""
    async with raw(world.url, "chat", additional_headers=bearer(world.key)) as socket:
        for number in range(3):
            await socket.send(f"frame {number}")
            await in_time(socket.recv())


async def streams(world: World) -> None:
    """a streamed reply, acknowledged"""
    async with world.known("streamed") as chat:
        await chat.send("message.send", id="1", text="/count 30 1")
        end = await chat.until("message.done", id="1")
        expect(end["status"], "completed")
        await chat.send("event.ack", event=end["event"])
        await done(chat, "hi")


async def cancels(world: World) -> None:
    """turns that are cancelled, one that runs and one that waits"""
    async with world.known() as chat:
        await chat.send("message.send", id="1", text="/sleep 5")
        await chat.send("message.send", id="2", text="hi")
        await chat.until("message.accepted", id="2")
        await asyncio.sleep(world.chance.random() * 0.1)
        for message in ("2", "1"):
            await chat.send("message.cancel", id=message)
            expect((await chat.until("message.done", id=message))["status"], "cancelled")
        await chat.send("session.close")
        await chat.closed()


async def resumes(world: World) -> None:
    """a session that is resumed where its connection was cut, twice"""
    shown = {"additional_headers": bearer(world.key)}
    async with client(world.url, route="streamed", **shown) as chat:
        opened = await chat.open()
        await chat.send("message.send", id="1", text="/count 30 5")
        last = (await chat.until("message.delta", id="1"))["event"]
        chat.socket.transport.abort()
    for _ in range(2):
        async with client(world.url, route="streamed", **shown) as chat:
            await chat.send(
                "session.open",
                session_id=opened["session_id"],
                resume_key=opened["resume_key"],
                last_event=last,
            )
            opened = await chat.until("session.resumed") | {"event": 0}
            expect((await chat.receive())["event"], last + 1)
            last += 1
            await chat.send("ping")
            await chat.until("pong")
            chat.socket.transport.abort()


async def renews(world: World) -> None:
    """a session that outlives the model's, and is told again what was said"""
    async with world.known("renewed") as chat:
        for number in range(7):
            await done(chat, f"turn {number}")
            await asyncio.sleep(1)
        if not any(message["type"] == "session.renewed" for message in chat.messages):
            raise AssertionError("it was not renewed")
        await chat.send("session.close")
        await chat.closed()


async def leaves_for_good(world: World) -> None:
    """clients that leave in the midst of a turn, and do not come back"""
    async with world.known("streamed") as chat:
        await chat.send("message.send", id="1", text="/count 30 5")
        await chat.until("message.accepted")
        chat.socket.transport.abort()


async def tokens_expire(world: World) -> None:
    """a token that is refreshed, and then expires"""
    token, expired_at = world.token(TOKEN_SECONDS), time.time() + TOKEN_SECONDS - 1
    async with client(world.url, route="chat", additional_headers=bearer(token)) as chat:
        try:
            await chat.open()
            await chat.send("auth.refresh", token=world.signer.token(sub="somebody else"))
            expect((await chat.until("error"))["code"], "forbidden")
            await done(chat, "hi")
        except (AssertionError, ConnectionClosed):
            if time.time() < expired_at:
                raise  # else all that took longer than the token was good
        expect((await chat.closed())[0], 4401)


async def refused(world: World) -> None:
    """nobody, and nonsense"""
    async with client(world.url, route="chat", additional_headers=bearer("sgk_no")) as chat:
        expect((await chat.closed())[0], 4401)
    async with client(world.url, JSON, "ticket.no", route="chat") as chat:
        expect((await chat.closed())[0], 4401)
    async with world.known() as chat:
        for _ in range(20):
            await chat.send("nonsense")
        expect((await chat.closed())[0], 4400)


KINDS: Mapping[str, Callable[[World], Awaitable[None]]] = MappingProxyType(
    {
        kind.__name__: kind
        for kind in (
            turns,
            raw_frames,
            streams,
            cancels,
            resumes,
            renews,
            leaves_for_good,
            tokens_expire,
            refused,
        )
    }
)


async def converse(world: World, kind: str) -> str:
    """Have one; what came of it, in a word or two."""
    try:
        await KINDS[kind](world)
    except ConnectionClosed as error:
        return f"closed: {error.rcvd.code if error.rcvd else 'cut'}"
    except (AssertionError, TimeoutError, OSError, httpx.HTTPError) as error:
        return f"{type(error).__name__}: {error}"
    return "as it is to be"


def failed(outcomes: Mapping[str, Any]) -> list[str]:
    """Those that were not."""
    return [f"{count} {what}" for what, count in outcomes.items() if "as it is to be" not in what]
