"""Several gateways that share a store: conversations go on at whichever a client reaches."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Self

import httpx
import pytest

from tests.integration.conftest import Start
from tests.support import valkey
from tests.support.client import JSON, Client, Message, client
from tests.support.processes import Process, admin
from tests.support.secrets import found, register
from tests.support.timing import UNIT
from tests.support.tokens import add_key

CONFIG = """
[server]
drain_seconds = 20
[store]
kind = "valkey"
url = "{url}"
lease_seconds = {lease}
[routes.chat]
endpoint_name = "my-endpoint"
content_type = "text/plain"
stream = "raw"
"""


@pytest.fixture
def store() -> Iterator[valkey.Server]:
    with valkey.server() as server:
        yield server


class Replicas:
    """Two gateways in front of one endpoint."""

    def __init__(
        self,
        start_local: Start,
        start_gateway: Start,
        store: valkey.Server,
        *,
        lease: float = 60,
        more: str = "",
    ) -> None:
        self.platform = start_local()
        config = CONFIG.format(url=store.url, lease=lease) + more
        self.one: Process = start_gateway(self.platform.url, config)
        self.other: Process = start_gateway(self.platform.url, config)

    def sessions(self) -> tuple[int, int]:
        """How many sessions were opened at the model, and closed."""
        states = admin(self.platform)["instances"]
        return sum(each["opened"] for each in states), sum(each["closed"] for each in states)


@pytest.fixture
def replicas(store: valkey.Server, start_local: Start, start_gateway: Start) -> Replicas:
    return Replicas(start_local, start_gateway, store)


async def resume(chat: Client, opened: Message, last_event: int) -> Message:
    """Come back to a session."""
    await chat.send(
        "session.open",
        session_id=opened["session_id"],
        resume_key=opened["resume_key"],
        last_event=last_event,
    )
    return await chat.until("session.resumed")


async def ready(process: Process, status: int) -> None:
    """Wait until it says so of itself."""
    async with httpx.AsyncClient(verify=False) as http, asyncio.timeout(20 * UNIT):
        while (await http.get(f"{process.url}/readyz")).status_code != status:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_session_follows_its_client(replicas: Replicas) -> None:
    async with client(replicas.one.websocket) as chat:
        opened = await chat.open()
        await chat.ask("My name is Ada.")
    async with client(replicas.other.websocket) as chat:
        resumed = await resume(chat, opened, 1)
        assert (resumed["lost"], resumed["session_id"]) == (None, opened["session_id"])
        missed = [await chat.receive() for _ in range(resumed["last_event"] - 1)]
        assert [each["event"] for each in missed] == [*range(2, resumed["last_event"] + 1)]
        done = await chat.ask("What is my name?")
        assert done["status"] == "completed"
        await chat.send("session.close")
        assert (await chat.closed())[0] == 1000
    assert replicas.sessions() == (1, 1)


async def test_who_is_still_there_is_told_that_another_has_taken_over(replicas: Replicas) -> None:
    async with client(replicas.one.websocket) as chat, client(replicas.other.websocket) as other:
        opened = await chat.open()
        await resume(other, opened, 1)
        assert (await chat.closed())[0] == 4409


async def test_a_stream_is_followed_and_the_session_comes_when_it_has_ended(
    replicas: Replicas,
) -> None:
    async with client(replicas.one.websocket) as chat:
        opened = await chat.open()
        await chat.send("message.send", id="slow", text=f"/sleep {UNIT}")
        accepted = await chat.until("message.accepted")
    async with client(replicas.other.websocket) as chat:
        await resume(chat, opened, accepted["event"])
        await chat.send("message.send", id="next", text="one more")
        assert (await chat.until("message.accepted"))["queued"] == 1
        assert (await chat.until("message.done", id="slow"))["status"] == "completed"
        assert (await chat.until("message.done", id="next"))["status"] == "completed"
        numbers = [each["event"] for each in chat.messages if "event" in each]
        assert numbers == [*range(accepted["event"] + 1, numbers[-1] + 1)]
        replicas.one.popen.send_signal(signal.SIGKILL)
        assert (await chat.ask("and now?"))["status"] == "completed"


async def test_the_store_is_told_no_key(replicas: Replicas, store: valkey.Server) -> None:
    """Neither the one that is shown nor the one that is new, while a session is followed."""
    with store.overheard() as said:
        async with client(replicas.one.websocket) as chat:
            opened = await chat.open()
            await chat.send("message.send", id="slow", text=f"/sleep {UNIT}")
            await chat.until("message.accepted")
        async with client(replicas.other.websocket) as chat:
            resumed = await resume(chat, opened, 0)
            again = await chat.until("session.opened")
            assert opened["resume_key"] != resumed["resume_key"] == again["resume_key"]
            await chat.until("message.done", id="slow")
    text = "\n".join(said)
    assert '"type":"told"' in text.replace("\\", ""), "it was followed"
    assert not found(text)


async def test_nobody_elses_key_is_good_anywhere(replicas: Replicas) -> None:
    async with client(replicas.one.websocket) as chat:
        opened = await chat.open()
        for known in (opened["session_id"], "0" * 32):
            async with client(replicas.other.websocket) as other:
                await other.send("session.open", session_id=known, resume_key="wrong", last_event=0)
                assert (await other.closed())[0] == 4410
        await chat.ask("still mine")


async def test_what_a_dead_replica_has_left_is_ended_once(
    store: valkey.Server, start_local: Start, start_gateway: Start
) -> None:
    replicas = Replicas(start_local, start_gateway, store, lease=1)
    async with client(replicas.one.websocket) as chat:
        opened = await chat.open()
        await chat.send("message.send", id="lost", text="/sleep 60")
        await chat.send("message.send", id="next", text="hello")
        accepted = await chat.until("message.accepted", id="next")
        replicas.one.popen.send_signal(signal.SIGKILL)
        assert (await chat.closed())[0] == 1006
    async with client(replicas.other.websocket) as chat:
        await resume(chat, opened, accepted["event"])
        done = await chat.until("message.done", id="lost")
        assert done["event"] == accepted["event"] + 1
        assert (done["error"]["code"], done["error"]["outcome"]) == ("gateway_lost", "unknown")
        assert (await chat.until("message.done", id="next"))["status"] == "completed"
        await chat.send("message.send", id="lost", text="/sleep 60")
        assert (await chat.until("message.duplicate"))["status"] == "failed"


async def test_a_dead_replicas_sessions_are_closed_at_the_model(
    store: valkey.Server, start_local: Start, start_gateway: Start
) -> None:
    replicas = Replicas(start_local, start_gateway, store, lease=1)
    async with client(replicas.one.websocket) as chat:
        await chat.open()
    replicas.one.popen.send_signal(signal.SIGKILL)
    await replicas.other.says("sessions of a dead replica taken over")
    replicas.other.stop()
    assert replicas.sessions() == (1, 0), "its client may come back"


async def test_without_the_store_streams_go_on_and_nothing_new_is_begun(
    replicas: Replicas, store: valkey.Server
) -> None:
    async with client(replicas.one.websocket) as chat:
        opened = await chat.open()
        await chat.send("message.send", id="slow", text="/sleep 2")
        await chat.until("message.accepted")
        store.kill()
        await ready(replicas.one, 503)
        await chat.send("message.send", id="new", text="hello")
        refused = await chat.until("error")
        assert (refused["code"], refused["id"], refused["retryable"]) == (
            "unavailable",
            "new",
            True,
        )
        assert refused["retry_after"] > 0
        async with client(replicas.one.websocket) as another:
            await another.send("session.open")
            assert (await another.closed())[0] == 4503
        store.start()
        await ready(replicas.one, 200)
        await ready(replicas.other, 200)
        assert (await chat.until("message.done", id="slow"))["status"] == "completed"
        assert (await chat.ask("hello", "new"))["status"] == "completed"
        last = chat.messages[-1]["event"]
    async with client(replicas.other.websocket) as chat:
        assert (await resume(chat, opened, last))["lost"] is None
        assert (await chat.ask("still here?"))["status"] == "completed"


async def test_a_restart_loses_nothing(replicas: Replicas) -> None:
    async with client(replicas.one.websocket) as busy, client(replicas.one.websocket) as idle:
        opened = {busy: await busy.open(), idle: await idle.open()}
        for number in ("1", "2"):
            await busy.send("message.send", id=number, text=f"/sleep {UNIT}")
            await busy.until("message.accepted", id=number)
        replicas.one.popen.send_signal(signal.SIGTERM)
        assert (await idle.closed())[0] == 1012
        assert (await busy.until("message.done", id="1"))["status"] == "completed"
        assert (await busy.closed())[0] == 1012
    last = max(each.get("event", 0) for each in busy.messages)
    async with client(replicas.other.websocket) as back, client(replicas.other.websocket) as other:
        await resume(back, opened[busy], last)
        assert (await back.until("message.done", id="2"))["status"] == "completed"
        await resume(other, opened[idle], 1)
        assert (await other.ask("hello"))["status"] == "completed"
    assert replicas.one.wait() == 0
    assert replicas.sessions()[1] == 0


async def test_nothing_is_readable_in_the_store(
    store: valkey.Server, start_local: Start, start_gateway: Start, tmp_path: Any
) -> None:
    key = tmp_path / "store.key"
    key.write_text("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n")
    config = CONFIG.format(url=store.url, lease=60).replace(
        "[routes.chat]", f'encryption_key_file = "{key}"\n[routes.chat]'
    )
    process = start_gateway(start_local().url, config)
    async with client(process.websocket) as chat:
        await chat.open()
        await chat.ask("planted words")
        with store.client() as direct:
            kept = json.dumps([str(direct.dump(each)) for each in direct.scan_iter("*")])
        assert "planted" not in kept


async def test_the_password_is_not_in_any_output(
    store: valkey.Server,
    start_local: Start,
    start_gateway: Start,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GATEWAY_STORE__PASSWORD", "a-planted-password")
    store.ask("CONFIG", "SET", "requirepass", "a-planted-password")
    process = start_gateway(start_local().url, CONFIG.format(url=store.url, lease=60))
    await ready(process, 200)
    monkeypatch.setenv("GATEWAY_STORE__PASSWORD", "another-one")
    refused = start_gateway(start_local().url, CONFIG.format(url=store.url, lease=60))
    await ready(refused, 503)
    refused.stop()
    process.stop()
    assert "another-one" not in refused.output
    assert "a-planted-password" not in process.output


async def test_a_ticket_is_good_at_every_replica_and_once(
    store: valkey.Server, start_local: Start, start_gateway: Start, tmp_path: Any
) -> None:
    key = add_key(tmp_path / "keys.toml", "ada")
    auth = f'[auth.keys]\nfile = "{tmp_path}/keys.toml"\n'
    replicas = Replicas(start_local, start_gateway, store, more=auth)
    async with httpx.AsyncClient(verify=False) as http:
        answer = await http.post(
            f"{replicas.one.url}/v1/tickets", headers={"Authorization": f"Bearer {key}"}
        )
    ticket = f"ticket.{answer.json()['ticket']}"
    register(answer.json()["ticket"], "a ticket")
    async with client(replicas.other.websocket, JSON, ticket) as chat:
        assert (await chat.open())["route"] == "chat"
    for process in (replicas.one, replicas.other):
        async with client(process.websocket, JSON, ticket) as chat:
            assert (await chat.closed())[0] == 4401


class Caller:
    """A client that speaks HTTP, with a session. A context."""

    def __init__(self, opened: Message) -> None:
        self._path = f"/v1/sessions/{opened['session_id']}"
        self._headers = {"Session-Key": opened["resume_key"], "Content-Type": "text/plain"}
        self._http = httpx.AsyncClient(timeout=20 * UNIT)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def send(self, at: Process, text: str, key: str | None = None) -> httpx.Response:
        """Send a message to a gateway."""
        headers = self._headers | ({"Idempotency-Key": key} if key else {})
        url = f"{at.url}{self._path}/messages"
        return await self._http.post(url, content=text.encode(), headers=headers)

    async def look(self, at: Process) -> Message:
        """What a gateway says of the session."""
        found: Message = (await self._http.get(at.url + self._path, headers=self._headers)).json()
        return found

    async def until(self, at: Process, state: str) -> None:
        """Wait until the session is in that state."""
        async with asyncio.timeout(20 * UNIT):
            while (await self.look(at))["state"] != state:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def close(self, at: Process) -> int:
        """Close the session."""
        return (await self._http.delete(at.url + self._path, headers=self._headers)).status_code

    async def listen(self, at: Process, last_event: int, until: str) -> list[Message]:
        """What the session says, from one event to another."""
        headers = self._headers | {"Last-Event-ID": str(last_event)}
        url = f"{at.url}{self._path}/events"
        heard: list[Message] = []
        async with self._http.stream("GET", url, headers=headers) as response:
            assert response.status_code == 200, await response.aread()
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    heard.append(json.loads(line.removeprefix("data: ")))
                    if heard[-1]["type"] == until:
                        break
        return heard


@asynccontextmanager
async def calling(at: Process) -> AsyncIterator[Caller]:
    """A client that has opened a session by a request."""
    async with httpx.AsyncClient(timeout=20 * UNIT) as http:
        response = await http.post(f"{at.url}/v1/routes/chat/sessions")
    assert response.status_code == 201, response.text
    async with Caller(response.json()) as caller:
        yield caller


TOLD = """
[routes.replayed]
endpoint_name = "my-endpoint"
content_type = "text/plain"
on_lost = "replay"
[routes.kept]
endpoint_name = "my-endpoint"
format = "openai-chat"
"""


@pytest.mark.parametrize(
    ("route", "context", "flags"), [("replayed", "replayed", ()), ("kept", "sent", ("--forgets",))]
)
async def test_a_session_that_was_told_a_conversation_goes_on_anywhere(
    store: valkey.Server,
    start_local: Start,
    start_gateway: Start,
    route: str,
    context: str,
    flags: tuple[str, ...],
) -> None:
    replicas = Replicas(partial(start_local, *flags), start_gateway, store, more=TOLD)
    said = [("user", "My name is Ada."), ("assistant", "Hello Ada.")]
    body = {"history": [{"role": role, "content": content} for role, content in said]}
    async with httpx.AsyncClient(timeout=20 * UNIT) as http:
        url = f"{replicas.one.url}/v1/routes/{route}/sessions"
        opened = (await http.post(url, json=body)).raise_for_status().json()
    assert opened["context"] == context
    for at in (replicas.one, replicas.other):
        async with client(at.websocket, route=route) as chat:
            opened |= {"resume_key": (await resume(chat, opened, 0))["resume_key"]}
            assert (await chat.receive())["event"] == 1, "session.opened"
            await chat.ask("What is my name?")
            assert "Ada" in "".join(each.get("text", "") for each in chat.messages)


class TestRequests:
    async def test_any_replica_answers_them(self, replicas: Replicas) -> None:
        one, other = replicas.one, replicas.other
        async with calling(one) as caller:
            assert (await caller.send(other, "My name is Ada.")).status_code == 200
            assert "Ada" in (await caller.send(one, "What is my name?", "a")).text
            assert "Ada" in (await caller.send(other, "What is my name?", "a")).text
            assert (await caller.look(one))["last_event"] == 5
            assert [each["event"] for each in await caller.listen(one, 3, "message.done")] == [4, 5]
            assert await caller.close(other) == 204
            assert replicas.sessions() == (1, 1)
            assert (await caller.send(one, "hello")).status_code == 404

    async def test_while_a_turn_is_at_the_model(self, replicas: Replicas) -> None:
        one, other = replicas.one, replicas.other
        async with calling(one) as caller:
            slow = asyncio.create_task(caller.send(one, f"/sleep {UNIT}", "slow"))
            await caller.until(other, "running")
            again = asyncio.create_task(caller.send(other, f"/sleep {UNIT}", "slow"))
            heard = asyncio.create_task(caller.listen(other, 1, "message.done"))
            queued = asyncio.create_task(caller.send(other, "and then?"))
            first, same = await slow, await again
            assert (first.status_code, first.content) == (200, same.content)
            assert (await heard)[0]["event"] == 2
            assert (await queued).status_code == 200
            assert (await caller.send(other, f"/sleep {UNIT}", "slow")).content == first.content
            assert (await caller.look(one))["last_event"] == 5

    async def test_take_no_session_from_a_connection(self, replicas: Replicas) -> None:
        async with (
            client(replicas.one.websocket) as chat,
            Caller(await chat.open()) as caller,
        ):
            response = await caller.send(replicas.other, "My name is Ada.", "a")
            assert response.status_code == 200
            assert (await chat.until("message.done", id="a"))["status"] == "completed"
            await chat.ask("What is my name?")
            assert "Ada" in "".join(each.get("text", "") for each in chat.messages)
            await chat.send("session.close")
            assert (await chat.closed())[0] == 1000

    async def test_a_restart_costs_nothing(self, replicas: Replicas) -> None:
        one, other = replicas.one, replicas.other
        async with calling(one) as caller:
            slow = asyncio.create_task(caller.send(one, f"/sleep {UNIT}"))
            await caller.until(other, "running")
            one.popen.send_signal(signal.SIGTERM)
            assert (await slow).status_code == 200
            assert (await caller.send(other, "hello")).status_code == 200
            assert len(await caller.listen(other, 1, "message.done")) == 2
            assert one.popen.wait(20 * UNIT) == 0
