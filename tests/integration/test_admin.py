"""What operators see and do: of two gateways that share a real Valkey, or of one that is alone."""

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import Settings, create_app
from gateway.local.valkey import LocalValkey
from gateway.transports.openapi import document
from tests.integration.conftest import Start
from tests.support.client import Client, client
from tests.support.processes import Process
from tests.support.secrets import found
from tests.support.timing import UNIT
from tests.support.tokens import add_key

SHARED = """
[server]
drain_seconds = 20
log_level = "INFO"
[store]
kind = "valkey"
url = "{valkey.url}"
password = "{valkey.password}"
lease_seconds = {lease}
"""
ROUTES = """
[auth.keys]
file = "{keys}"
[routes.chat]
endpoint_name = "my-endpoint"
content_type = "text/plain"
[routes.other]
endpoint_name = "my-endpoint"
content_type = "text/plain"
"""
ALONE = """
[server]
local_operator = true
log_level = "INFO"
[routes.chat]
endpoint_name = "my-endpoint"
allowed_origins = ["https://app.example.com"]
"""

Json = dict[str, Any]
DOCUMENT = (Path(__file__).parents[2] / "docs" / "operator.md").read_text()
WORDS = "It-is-said-in-confidence-and-nobody-else-may-know"
PATHS = ("sessions", "sessions/none", "replicas", "routes", "events")


class Operator:
    """Somebody who asks gateways, and finds no secret in what they answer."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def get(self, process: Process, path: str, status: int = 200, **options: Any) -> Any:
        return await self.ask("GET", process, path, status, **options)

    async def ask(
        self, method: str, process: Process, path: str, status: int, **options: Any
    ) -> Any:
        response = await self.http.request(method, f"{process.url}/v1/admin/{path}", **options)
        assert response.status_code == status, response.text
        assert WORDS not in response.text
        assert found(response.text) == set()
        if status >= 400:
            assert response.headers["content-type"] == "application/problem+json"
            assert response.json()["status"] == status
        return response.json() if response.content else None

    async def until(self, is_so: Callable[[Any], object], process: Process, path: str) -> Any:
        """Ask until what is answered is as it is to be."""
        async with asyncio.timeout(30 * UNIT):
            while not is_so(answer := await self.get(process, path)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return answer

    @asynccontextmanager
    async def watching(self, process: Process) -> AsyncIterator[AsyncIterator[Json]]:
        """What goes on, as it comes."""
        url = f"{process.url}/v1/admin/events"
        async with self.http.stream("GET", url) as response, asyncio.timeout(60 * UNIT):
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/event-stream")
            yield _events(response)


async def _events(response: httpx.Response) -> AsyncIterator[Json]:
    async for line in response.aiter_lines():
        if line:
            yield json.loads(line.removeprefix("data: "))


@asynccontextmanager
async def operator(key: str | None = None) -> AsyncIterator[Operator]:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(headers=headers, timeout=30 * UNIT) as http:
        yield Operator(http)


class Two:
    """Two gateways, and who may use them."""

    def __init__(self, path: Path, start: Callable[..., Process], lease: float) -> None:
        self.keys = path / "keys.toml"
        self.ada, self.bob = add_key(self.keys, "ada"), add_key(self.keys, "bob")
        self.olga = add_key(self.keys, "olga", operator=True)
        self.one, self.other = start(self.keys, lease), start(self.keys, lease)

    async def opened(self, stack: AsyncExitStack, at: Process, key: str, route: str) -> Client:
        headers = {"Authorization": f"Bearer {key}"}
        chat = client(at.websocket, route=route, additional_headers=headers)
        return await stack.enter_async_context(chat)


Begin = Callable[..., Two]


@pytest.fixture
def begin(tmp_path: Path, valkey: LocalValkey, start_gateway: Start, platform: Process) -> Begin:
    def start(keys: Path, lease: float) -> Process:
        config = SHARED.format(valkey=valkey, lease=lease) + ROUTES.format(keys=keys)
        return start_gateway(platform.url, config)

    return lambda lease=60.0: Two(tmp_path, start, lease)


async def test_two_gateways(begin: Begin) -> None:
    two = begin()
    async with AsyncExitStack() as stack:
        nobody = await stack.enter_async_context(operator())
        ada = await stack.enter_async_context(operator(two.ada))
        olga = await stack.enter_async_context(operator(two.olga))
        for path in PATHS:
            await nobody.get(two.one, path, 401)
            assert (await ada.get(two.one, path, 403))["code"] == "forbidden"
        await nobody.ask("DELETE", two.one, "sessions/x", 401)
        await ada.ask("DELETE", two.one, "sessions/x", 403)
        await ada.ask("POST", two.one, "replicas/x/drain", 403)

        here = await two.opened(stack, two.one, two.ada, "chat")
        there = await two.opened(stack, two.other, two.bob, "other")
        gone = await two.opened(stack, two.other, two.bob, "chat")
        ids = [(await chat.open())["session_id"] for chat in (here, there, gone)]
        await gone.socket.close()
        assert (await there.ask(WORDS))["status"] == "completed"
        await there.send("message.send", id="slow", text=f"/sleep {3600 * UNIT}")
        await there.send("message.send", id="next", text=WORDS)
        await there.until("message.accepted", id="next")

        replicas = (await olga.get(two.one, "replicas"))["replicas"]
        own, another = sorted(replicas, key=lambda each: not each["here"])
        assert (own["here"], another["here"]) == (True, False)
        assert (own["answers"], another["answers"]) == (True, True)
        assert (own["sessions"], another["sessions"]) == (1, 2)
        assert another["draining"] is False
        assert own["memory_bytes"] > 0

        await check_document(two)
        await check_sessions(two, olga, ids, own["name"], another["name"])
        await check_routes(two, olga)
        await check_closing(two, olga, there, ids[1])
        assert (await olga.get(two.one, f"sessions/{ids[1]}"))["state"] == "ended"
        await olga.ask("DELETE", two.one, f"sessions/{ids[1]}", 404)
        await olga.get(two.one, f"sessions/{'0' * 32}", 404)
        await olga.ask("DELETE", two.one, f"sessions/{'0' * 32}", 404)
        answer = await olga.ask("POST", two.one, "replicas/nobody/drain", 404)
        assert answer["code"] == "unknown_replica"
        await check_watching_and_draining(two, olga, here, own["name"], another["name"])
    assert two.other.wait() == 0
    log = two.one.output
    assert log.count("an operator closes a session") == 1
    assert "operator=key:olga" in log
    assert f"session={ids[1]}" in log
    assert f"drains={another['name']}" in log


async def check_document(two: Two) -> None:
    """What is shown there is what comes of it."""
    (code,) = re.findall(r"```sh\n(curl.*?)```", DOCUMENT, re.DOTALL)
    program = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "OPERATOR_KEY": two.olga},
    )
    code = code.replace("http://127.0.0.1:8080", two.one.url).replace("curl", "curl -sSf")
    said, _ = await program.communicate(code.encode())
    assert program.returncode == 0
    sessions, replicas = said.decode().replace("}{", "}\n{").splitlines()
    assert [each["state"] for each in json.loads(sessions)["sessions"]] == ["running"]
    assert len(json.loads(replicas)["replicas"]) == 2


def test_the_document_names_all_there_is() -> None:
    said = set(re.findall(r"^\| `([A-Z]+ /v1/admin\S*)` \|", DOCUMENT, re.MULTILINE))
    paths = document(["chat"], authenticated=True)["paths"].items()
    there = {(method, path) for path, each in paths for method in each if "/admin" in path}
    assert said == {f"{method.upper()} {path}" for method, path in there if method != "parameters"}


async def check_sessions(two: Two, olga: Operator, ids: list[str], own: str, another: str) -> None:
    """All are found, wherever it is asked."""
    page: Json = {}
    for process in (two.one, two.other):
        page = await olga.get(process, "sessions")
        assert [each["session_id"] for each in page["sessions"]] == sorted(ids)
        assert (page["next"], page["missing"]) == (None, [])
    by_id = {each["session_id"]: each for each in page["sessions"]}
    first, second = by_id[ids[0]], by_id[ids[1]]
    assert (first["principal"], first["route"], first["replica"]) == ("key:ada", "chat", own)
    assert (second["principal"], second["route"], second["replica"]) == (
        "key:bob",
        "other",
        another,
    )
    assert (second["state"], second["running"], second["queued"]) == ("running", True, 1)
    await olga.until(lambda each: not each["attached"], two.one, f"sessions/{ids[2]}")

    for asked, wanted in (
        ({"route": "other"}, [ids[1]]),
        ({"principal": "bob"}, sorted(ids[1:])),
        ({"principal": "bob", "route": "chat"}, [ids[2]]),
        ({"state": "running"}, [ids[1]]),
        ({"prefix": ids[0][:9]}, [ids[0]]),
        ({"state": "closing"}, []),
    ):
        page = await olga.get(two.one, "sessions", params=asked)
        assert [each["session_id"] for each in page["sessions"]] == wanted, asked
    seen = list[str]()
    after: str | None = ""
    for _ in ids:
        page = await olga.get(two.one, "sessions", params={"limit": 1, "after": after})
        seen += [each["session_id"] for each in page["sessions"]]
        after = page["next"]
    assert (seen, after) == (sorted(ids), None)
    for wrong in (
        {"limit": 0},
        {"limit": 101},
        {"limit": "x"},
        {"state": "x"},
        {"route": "x"},
        {"x": 1},
    ):
        assert (await olga.get(two.one, "sessions", 422, params=wrong))["code"] == "bad_message"

    detail = await olga.get(two.one, f"sessions/{ids[1]}")
    assert {name: detail[name] for name in second} == second
    assert detail["sagemaker_session"]
    assert (detail["readers"], detail["ended"]) == (1, 1)
    assert detail["latest"][0]["status"] == "completed"
    slow, waits = detail["turns"]
    assert (slow["id"], slow["status"], waits["id"], waits["status"]) == (
        "slow",
        "running",
        "next",
        "queued",
    )
    assert slow["age_seconds"] >= waits["age_seconds"] >= 0


async def check_routes(two: Two, olga: Operator) -> None:
    """Of both together."""
    # Metrics are not read again at once.
    answer = await olga.until(lambda each: each["routes"][0]["attached"] == 1, two.one, "routes")
    assert answer["missing"] == []
    chat, other = answer["routes"]
    assert (chat["route"], chat["endpoint"], chat["breaker"]) == ("chat", "my-endpoint", "closed")
    assert (chat["sessions"], chat["attached"]) == ({"ready": 2}, 1)
    assert (other["turns_in_flight"], other["turns_queued"]) == (1, 1)
    assert other["turns_in_flight_limit"] > 1
    assert other["turns"] == {"completed": 1, "cancelled": 0, "failed": 0}
    assert other["whole"]["count"] == sum(other["whole"]["counts"]) == 1
    assert 0 < other["whole"]["p50"] <= other["whole"]["p95"]


async def check_closing(two: Two, olga: Operator, there: Client, session_id: str) -> None:
    """Of a session that is not where it is asked."""
    await olga.ask("DELETE", two.one, f"sessions/{session_id}", 204)
    done = [await there.until("message.done") for _ in range(2)]
    assert {each["id"]: each["error"]["outcome"] for each in done} == {
        "next": "not_invoked",
        "slow": "unknown",
    }
    assert all(each["error"]["code"] == "session_lost" for each in done)
    assert (await there.until("session.closed"))["reason"] == "operator"
    assert (await there.closed())[0] == 4410


async def check_watching_and_draining(
    two: Two, olga: Operator, here: Client, own: str, another: str
) -> None:
    """Of both, at one of them, until one is alone."""
    async with olga.watching(two.one) as events, olga.watching(two.one) as same:
        first = await anext(events)
        assert [each["name"] for each in first["replicas"]] == sorted([own, another])
        assert all(each["answers"] for each in first["replicas"])
        assert len(first["bounds"]) + 1 == len(first["total"]["whole"]["counts"])
        for _ in range(3):
            assert (await here.ask("hi"))["status"] == "completed"
        async for each in events:
            if each["total"]["turns"]["completed"] >= 4 and each["total"]["whole"]["count"] >= 3:
                break
        assert each["total"]["sessions"]
        assert each["routes"][0]["whole"]["p95"] > 0

        two.other.popen.send_signal(signal.SIGSTOP)
        silent: Json = {}
        async for each in events:
            silent = {state["name"]: state for state in each["replicas"]}[another]
            if not silent["answers"]:
                break
        assert silent["sessions"] is None
        page = await olga.get(two.one, "sessions")
        assert page["missing"] == [another]
        two.other.popen.send_signal(signal.SIGCONT)
        async for each in events:
            if all(state["answers"] for state in each["replicas"]):
                break

        await olga.ask("POST", two.one, f"replicas/{another}/drain", 202)
        async for each in events:
            if [state["name"] for state in each["replicas"]] == [own]:
                break
        assert (await anext(same))["replicas"], "who is slow goes on with what is new"
        # Whose key is withdrawn watches no longer.
        text = two.keys.read_text()
        two.keys.write_text(text.replace("operator = true\n", ""))
        await two.one.hang_up("files reloaded")
        async for _ in events:
            pass  # until it ends
    await olga.get(two.one, "replicas", 403)


async def test_alone_on_this_machine(start_gateway: Start, platform: Process) -> None:
    process = start_gateway(platform.url, ALONE)
    async with operator() as olga, client(process.websocket) as chat:
        session_id = (await chat.open())["session_id"]
        (entry,) = (await olga.get(process, "sessions"))["sessions"]
        (replica,) = (await olga.get(process, "replicas"))["replicas"]
        assert (entry["session_id"], entry["replica"]) == (session_id, replica["name"])
        path = f"sessions/{session_id}"
        own = {"Origin": process.url}
        await olga.get(process, path, headers=own)
        foreign = {"Origin": "https://app.example.com"}  # of a route, which is not this
        for headers in (
            foreign,
            {"Origin": "null"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},  # another port of this machine
            {"X-Forwarded-For": "192.0.2.1"},
            {"X-Forwarded-Proto": "https"},
        ):
            for method, each in (("GET", path), ("DELETE", path)):
                refused = await olga.ask(method, process, each, 403, headers=headers)
                assert refused["code"] == "forbidden"
            await olga.ask(
                "POST", process, f"replicas/{replica['name']}/drain", 403, headers=headers
            )
        assert b"403 Forbidden" in await as_nginx(process, f"DELETE /v1/admin/{path}")
        for host in ("app.example.com", "rebound.example"):
            response = await olga.http.get(
                f"{process.url}/v1/admin/sessions", headers={"Host": host}
            )
            assert response.status_code == 421
        await olga.ask("DELETE", process, path, 204, headers=own)
        assert (await chat.closed())[0] == 4410
        async with olga.watching(process) as events, client(process.websocket) as busy:
            await busy.open()
            await busy.send("message.send", id="1", text="/sleep 60")
            await busy.until("message.accepted")
            drain = f"replicas/{replica['name']}/drain"
            await olga.ask("POST", process, drain, 202, headers=own)
            async for seen in events:
                if seen["replicas"][0]["draining"]:
                    break
            await olga.ask("POST", process, drain, 202, headers=own)
            # The first signal, which has nothing to cut short; the second one does that.
            process.popen.send_signal(signal.SIGTERM)
            for _ in range(2):
                assert (await anext(events))["total"]["turns_in_flight"] == 1
            process.popen.send_signal(signal.SIGTERM)
            await busy.closed()
            async for _ in events:
                pass  # it ends with what it watches
    assert process.wait() == 0


async def as_nginx(process: Process, request: str) -> bytes:
    """What is answered first to a request as nginx passes it on that is told nothing else."""
    host = process.url.removeprefix("http://")
    reader, writer = await asyncio.open_connection(*host.split(":"))
    writer.write(f"{request} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(30 * UNIT):
        answer = await reader.readline()
    writer.close()
    return answer


async def test_behind_a_proxy_nobody_is_an_operator(
    start_gateway: Start, platform: Process
) -> None:
    config = ALONE.replace("[server]", '[server]\ntrusted_proxies = ["127.0.0.1"]')
    process = start_gateway(platform.url, config)
    async with operator() as olga:
        assert "--operator" in (await olga.get(process, "sessions", 403))["detail"]


async def test_where_nothing_is_said_nobody_is_an_operator(
    start_gateway: Start, platform: Process
) -> None:
    process = start_gateway(platform.url, ALONE.replace("local_operator = true\n", ""))
    async with operator() as olga:
        assert "local_operator" in (await olga.get(process, "sessions", 403))["detail"]


@pytest.mark.parametrize("with_keys", [False, True])
async def test_in_another_application(tmp_path: Path, *, with_keys: bool) -> None:
    keys = tmp_path / "keys.toml"
    key = add_key(keys, "olga", operator=True)
    settings: Json = {
        "aws": {"region": "us-east-1", "endpoint_url": "http://127.0.0.1:9"},
        "routes": {"chat": {"endpoint_name": "my-endpoint"}},
        **({"auth": {"keys": {"file": keys}}} if with_keys else {}),
    }
    gateway = create_app(Settings.model_validate(settings))
    headers = {"Authorization": f"Bearer {key}"}
    transport = httpx.ASGITransport(gateway, client=("127.0.0.1", 1))
    async with (
        gateway.lifespan(),
        httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1", headers=headers
        ) as http,
    ):
        response = await http.get("/v1/admin/replicas")
        assert response.status_code == (200 if with_keys else 403)
        if with_keys:
            (replica,) = response.json()["replicas"]
            response = await http.post(f"/v1/admin/replicas/{replica['name']}/drain")
            assert response.status_code == 422
