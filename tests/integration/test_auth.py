"""Who comes in, by every way there is, and who does not."""

import asyncio
import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from tests.hostile.field import Field
from tests.integration.conftest import Start
from tests.support import valkey
from tests.support.client import client, in_time, raw
from tests.support.processes import Process
from tests.support.secrets import register
from tests.support.timing import UNIT
from tests.support.tokens import AUDIENCE, ISSUER, Signer, add_key, write_key_set

SIGNER = Signer("one")
CONFIG = """
[server]
trusted_proxies = ["127.0.0.1/32"]
{server}
[auth.keys]
file = "{path}/keys.toml"
[auth.jwt]
issuer = "{issuer}"
audience = "{audience}"
jwks_file = "{path}/jwks.json"
leeway_seconds = 0
[routes.chat]
endpoint_name = "my-endpoint"
content_type = "text/plain"
allowed_origins = ["https://app.example.com"]
[routes.games]
endpoint_name = "my-endpoint"
content_type = "text/plain"
"""
JSON = "v1.json.session-gateway"


class Guarded:
    """A gateway that asks who comes."""

    def __init__(
        self, path: Path, start: Start, platform: Process, more: str = "", *, server: str = ""
    ) -> None:
        self.path = path
        self.ada = add_key(path / "keys.toml", "ada", ["chat"])
        self.bob = add_key(path / "keys.toml", "bob")
        write_key_set(path / "jwks.json", SIGNER)
        config = CONFIG.format(path=path, issuer=ISSUER, audience=AUDIENCE, server=server) + more
        self.process = start(platform.url, config)
        self.url = self.process.websocket

    async def ticket(self, token: str | None, **headers: str) -> httpx.Response:
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        async with httpx.AsyncClient(verify=False) as http:
            answer = await http.post(f"{self.process.url}/v1/tickets", headers=headers)
        if answer.status_code == 201:
            register(answer.json()["ticket"], "a ticket")
        return answer


@pytest.fixture
def guarded(tmp_path: Path, start_local: Start, start_gateway: Start) -> Guarded:
    return Guarded(tmp_path, start_gateway, start_local())


def bearer(token: str) -> dict[str, Any]:
    return {"additional_headers": {"Authorization": f"Bearer {token}"}}


def encoded(token: str) -> str:
    return base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode()


async def test_every_way_in(guarded: Guarded) -> None:
    token = SIGNER.token()
    ticket = (await guarded.ticket(token)).json()["ticket"]
    ways: list[tuple[list[str], dict[str, Any]]] = [
        ([], bearer(guarded.ada)),
        ([], bearer(token)),
        ([f"bearer.{encoded(guarded.ada)}"], {}),
        ([f"ticket.{ticket}"], {}),
    ]
    for offered, options in ways:
        async with client(guarded.url, JSON, *offered, route="chat", **options) as chat:
            assert chat.socket.subprotocol == JSON
            await chat.open()
            assert (await chat.ask("hi", "1"))["status"] == "completed"
    async with client(guarded.url, route="chat") as chat:
        await chat.send("session.open", token=token)
        assert (await chat.receive())["type"] == "session.opened"
    async with raw(guarded.url, route="chat", **bearer(guarded.ada)) as socket:
        await socket.send("hi")
        assert await socket.recv()


async def test_the_first_of_them_counts(guarded: Guarded) -> None:
    good, bad = f"bearer.{encoded(guarded.ada)}", bearer("sgk_no")
    async with client(guarded.url, JSON, good, route="chat", **bad) as chat:
        assert (await chat.closed())[0] == 4401
    async with client(guarded.url, route="chat", **bearer(guarded.ada)) as chat:
        await chat.send("session.open", token="no")
        assert (await chat.receive())["type"] == "session.opened"


@pytest.mark.parametrize("subprotocol", [None, "bearer.", "bearer.x", "ticket.", "ticket.x"])
async def test_nobody(guarded: Guarded, subprotocol: str | None) -> None:
    offered = [JSON] if subprotocol is None else [JSON, subprotocol]
    async with client(guarded.url, *offered, route="chat") as chat:
        if subprotocol is None:  # else it is refused at once
            await chat.send("session.open")
        error = await chat.receive()
        assert (error["code"], error["retryable"]) == ("unauthenticated", False)
        assert await chat.closed() == (4401, "unauthenticated")
    async with raw(guarded.url, route="chat") as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4401, "unauthenticated")


@pytest.mark.parametrize("kind", ["Bearer.", "BEARER.", "Ticket."])
async def test_a_credential_in_another_case_is_none_and_not_echoed(
    guarded: Guarded, kind: str
) -> None:
    shown = kind + encoded(guarded.ada)
    for offered, picked in (([shown, "unknown"], "unknown"), ([shown], None)):
        async with client(guarded.url, *offered, route="chat") as chat:
            assert chat.socket.subprotocol == picked
            assert (await chat.closed())[0] == 4406
    async with client(guarded.url, shown, JSON, route="chat") as chat:
        assert chat.socket.subprotocol == JSON
        await chat.send("session.open")
        assert (await chat.receive())["code"] == "unauthenticated"


async def test_routes(guarded: Guarded) -> None:
    async with client(guarded.url, route="games", **bearer(guarded.ada)) as chat:
        assert (await chat.receive())["code"] == "forbidden"
        assert await chat.closed() == (4403, "forbidden")
    async with client(guarded.url, route="games", **bearer(guarded.bob)) as chat:
        await chat.open()
    async with client(guarded.url, route="chat", **bearer(SIGNER.token(routes=[]))) as chat:
        assert (await chat.closed())[0] == 4403


async def test_a_session_is_its_owners(guarded: Guarded) -> None:
    async with client(guarded.url, route="chat", **bearer(guarded.ada)) as chat:
        opened = await chat.open()
    shown = {
        "session_id": opened["session_id"],
        "resume_key": opened["resume_key"],
        "last_event": 1,
    }
    absent = shown | {"session_id": "0" * 32}
    for token, what in ((guarded.bob, shown), (guarded.bob, absent), (guarded.ada, absent)):
        async with client(guarded.url, route="chat", **bearer(token)) as chat:
            await chat.send("session.open", **what)
            assert await chat.closed() == (4410, "session_lost")
    async with client(guarded.url, route="chat", **bearer(guarded.ada)) as chat:
        await chat.send("session.open", **shown)
        assert (await chat.receive())["type"] == "session.resumed"


async def test_a_token_that_expires_ends_the_connection_and_not_the_session(
    guarded: Guarded,
) -> None:
    token = SIGNER.token(exp=int(time.time() + 2 * UNIT) + 1)
    async with client(guarded.url, route="chat", **bearer(token)) as chat:
        opened = await chat.open()
        assert (await chat.until("error"))["code"] == "unauthenticated"
        assert await chat.closed() == (4401, "unauthenticated")
    async with client(guarded.url, route="chat", **bearer(SIGNER.token())) as chat:
        await chat.send(
            "session.open",
            session_id=opened["session_id"],
            resume_key=opened["resume_key"],
            last_event=1,
        )
        assert (await chat.receive())["type"] == "session.resumed"


async def test_a_token_may_be_followed_by_another(guarded: Guarded) -> None:
    end = int(time.time() + 2 * UNIT) + 1
    async with client(guarded.url, route="chat", **bearer(SIGNER.token(exp=end))) as chat:
        await chat.open()
        await chat.send("auth.refresh", token=SIGNER.token(sub="bob"))
        assert (await chat.until("error"))["code"] == "forbidden"
        await chat.send("auth.refresh", token="x.y.z")
        assert (await chat.until("error"))["code"] == "unauthenticated"
        for token in (SIGNER.token(exp=end), SIGNER.token()):  # one while the other is checked
            await chat.send("auth.refresh", token=token)
        await asyncio.sleep(end + 0.5 - time.time())
        assert (await chat.ask("hi", "1"))["status"] == "completed"


async def test_tickets(guarded: Guarded) -> None:
    answer = await guarded.ticket(guarded.ada)
    assert answer.status_code == 201
    assert set(answer.json()) == {"ticket", "expires_at"}
    assert answer.headers["cache-control"] == "no-store"
    ticket = f"ticket.{answer.json()['ticket']}"
    async with client(guarded.url, JSON, ticket, route="chat") as chat:
        await chat.open()
    async with client(guarded.url, JSON, ticket, route="chat") as chat:
        assert (await chat.closed())[0] == 4401, "once"
    for token in (None, "sgk_no", answer.json()["ticket"]):
        refused = await guarded.ticket(token)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["code"] == "unauthenticated"


async def test_tickets_for_pages_of_other_origins(guarded: Guarded) -> None:
    good, bad = "https://app.example.com", "https://evil.example.com"
    answer = await guarded.ticket(guarded.ada, Origin=good)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (201, good)
    refused = await guarded.ticket(guarded.ada, Origin=bad)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert "access-control-allow-origin" not in refused.headers
    async with httpx.AsyncClient(verify=False) as http:
        asked = await http.options(f"{guarded.process.url}/v1/tickets", headers={"Origin": good})
    assert asked.status_code == 204
    assert "Authorization" in asked.headers["access-control-allow-headers"].split(", ")


STORE = """
[store]
kind = "valkey"
url = "{url}"
"""


@pytest.fixture
def store() -> Iterator[valkey.Server]:
    with valkey.server() as server:
        yield server


async def test_without_the_store_there_are_no_tickets_until_it_is_back(
    store: valkey.Server, tmp_path: Path, start_local: Start, start_gateway: Start
) -> None:
    guarded = Guarded(tmp_path, start_gateway, start_local(), STORE.format(url=store.url))
    ticket = (await guarded.ticket(guarded.ada)).json()["ticket"]
    store.kill()
    refused = await guarded.ticket(guarded.ada)
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert refused.headers["content-type"] == "application/problem+json"
    assert int(refused.headers["retry-after"]) > 0
    async with client(guarded.url, JSON, f"ticket.{ticket}", route="chat") as chat:
        error = await chat.receive()
        assert (error["code"], error["retryable"]) == ("unavailable", True)
        assert error["retry_after"] > 0
        assert await chat.closed() == (4503, "unavailable")
    await guarded.process.says("the store does not answer")
    store.start()
    await guarded.process.says("the store answers again")
    ticket = (await guarded.ticket(guarded.ada)).json()["ticket"]
    async with client(guarded.url, JSON, f"ticket.{ticket}", route="chat") as chat:
        await chat.open()
    assert "Traceback" not in guarded.process.output


LIMITS = """
[limits]
connections_per_principal = 2
connections_per_address = 3
sessions_per_principal = 1
messages_per_second = 2
"""


@pytest.fixture
def limited(tmp_path: Path, start_local: Start, start_gateway: Start) -> Guarded:
    return Guarded(tmp_path, start_gateway, start_local(), LIMITS)


async def test_limits_cost_who_is_over_them(limited: Guarded) -> None:
    ada, bob = bearer(limited.ada), bearer(limited.bob)
    async with client(limited.url, route="chat", **ada) as chat:
        await chat.open()
        async with client(limited.url, route="chat", **ada) as second:
            async with client(limited.url, route="chat", **ada) as third:
                assert (await third.receive())["code"] == "rate_limited"
                assert (await third.closed())[0] == 4429, "a connection too many"
            await second.send("session.open")
            error = await second.receive()
            assert (error["code"], error["retryable"]) == ("rate_limited", True)
            assert error["retry_after"] > 0
            assert (await second.closed())[0] == 4429, "a session too many"
        for number in range(5):
            await chat.send("message.send", id=f"{number}", text="hi")
        error = await chat.until("error")
        assert (error["code"], error["id"]) == ("rate_limited", "4")
        assert error["retry_after"] > 0
        assert (await chat.until("message.done", id="3"))["status"] == "completed"
        async with client(limited.url, route="chat", **bob) as other:
            await other.open()
            assert (await other.ask("hi", "1"))["status"] == "completed"


async def test_an_address_is_limited_also_before_it_says_who_it_is(limited: Guarded) -> None:
    far = {"additional_headers": {"X-Forwarded-For": "203.0.113.9"}}
    async with (
        client(limited.url, route="chat", **far),
        client(limited.url, route="chat", **far),
        client(limited.url, route="chat", **far),
    ):
        async with client(limited.url, route="chat", **far) as fourth:
            assert (await fourth.receive())["code"] == "rate_limited"
            assert (await fourth.closed())[0] == 4429
        async with client(limited.url, route="chat", **bearer(limited.ada)) as near:
            await near.open()


async def test_who_is_nobody_yet_takes_no_room_of_others(
    tmp_path: Path, start_gateway: Start, start_local: Start
) -> None:
    guarded = Guarded(tmp_path, start_gateway, start_local(), server="buffer_bytes = 4_000_000")
    field = Field(guarded.process.url, scale=1, seconds=0)
    part = b"\x81\xff" + (6_000_000).to_bytes(8) + bytes(4 + 600_000)
    peers = [await field.websocket() for _ in range(20)]
    for peer in peers:
        await peer.send(part)
    async with client(guarded.url, route="chat", **bearer(guarded.ada)) as chat:
        await chat.open()
        done = await chat.ask("x" * 1_500_000)
        assert done["status"] == "completed"
    for peer in peers[:-1]:
        await in_time(peer.closed())  # each held more than its share of what strangers may hold
    field.leave()


async def test_keys_are_taken_and_withdrawn_while_it_runs(guarded: Guarded) -> None:
    file = guarded.path / "keys.toml"
    eve = add_key(file, "eve")
    await guarded.process.hang_up("files reloaded")
    async with client(guarded.url, route="chat", **bearer(eve)) as chat:
        await chat.open()
    file.write_text("[")
    await guarded.process.hang_up("files could not be reloaded")
    async with (
        client(guarded.url, route="chat", **bearer(eve)) as chat,
        client(guarded.url, route="chat", **bearer(SIGNER.token())) as other,
    ):
        await chat.open()
        await other.open()
        file.write_text("")
        await guarded.process.hang_up("files reloaded")
        assert (await chat.until("error"))["code"] == "unauthenticated"
        assert (await chat.closed())[0] == 4401, "who is here with it has to go"
        assert (await other.ask("hi", "1"))["status"] == "completed"
    async with client(guarded.url, route="chat", **bearer(eve)) as chat:
        assert (await chat.closed())[0] == 4401
