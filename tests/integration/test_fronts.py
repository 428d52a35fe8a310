"""A gateway behind nginx and behind Caddy, with the configurations that ``deploy`` has for them."""

import ssl
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.headers import build_authorization_basic

from tests.integration.conftest import AWS
from tests.support import fronts
from tests.support.client import Client, client
from tests.support.fronts import HOST, PASSWORD, USER, Front
from tests.support.processes import Process, gateway, local
from tests.support.timing import UNIT

CONFIG = """
[server]
{server}

[routes.chat]
endpoint_name = "my-endpoint"
format = "plain"
"""
CLIENT = "127.0.0.2"
"""Where the tests come from: another of this machine's addresses than the proxy's."""

AUTHORIZATION = {"Authorization": build_authorization_basic(USER, PASSWORD)}
INSECURE = ssl.create_default_context()
INSECURE.check_hostname = False
INSECURE.verify_mode = ssl.CERT_NONE


class Behind:
    """A gateway and the proxy in front of it."""

    def __init__(self, front: Front, gateway: Process) -> None:
        self.front = front
        self.gateway = gateway

    def client(self, **options: Any) -> AbstractAsyncContextManager[Client]:
        """A client that comes as a browser with the page does."""
        given: dict[str, Any] = {
            "origin": self.front.origin,
            "additional_headers": AUTHORIZATION,
            "host": "127.0.0.1",
            "port": self.front.port,
            "local_addr": (CLIENT, 0),
            "ssl": INSECURE if self.front.scheme == "https" else None,
        }
        return client(self.front.origin.replace("http", "ws", 1), **given | options)

    def http(self) -> httpx.AsyncClient:
        """A client for plain requests."""
        return httpx.AsyncClient(
            base_url=f"{self.front.scheme}://127.0.0.1:{self.front.port}",
            headers={"Host": f"{HOST}:{self.front.port}"},
            verify=INSECURE,
            timeout=20 * UNIT,
        )


Start = Callable[..., Behind]


@pytest.fixture(params=["nginx", "caddy"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    """Start a proxy and, with these lines in its ``[server]``, a gateway behind it."""
    stack = request.getfixturevalue("stack")
    assert isinstance(stack, ExitStack)
    platform = stack.enter_context(local())

    def start(server: str) -> Behind:
        port = fronts.free_port()
        scheme = "https" if request.param == "nginx" else "http"
        file = tmp_path / "gateway.toml"
        server = server.replace("PUBLIC", f"{scheme}://{HOST}:{port}")
        aws = AWS.format(url=platform.url, transport="lean")
        file.write_text(aws + CONFIG.format(server=server))
        process = stack.enter_context(gateway(file))
        run = getattr(fronts, request.param)
        at = process.url.removeprefix("http://")
        return Behind(stack.enter_context(run(tmp_path, at, port)), process)

    return start


async def test_a_conversation(start: Start) -> None:
    behind = start('public_url = "PUBLIC"\ntrusted_proxies = ["127.0.0.1"]')
    async with behind.http() as http:
        assert (await http.get("/")).status_code == 401, "the proxy authenticates"
        page = await http.get("/", headers=AUTHORIZATION)
        assert "<title>session-gateway</title>" in page.text
        assert (await http.get("/static/client.js", headers=AUTHORIZATION)).status_code == 200
        for path in ("/healthz", "/readyz"):
            assert (await http.get(path)).text == "ok\n", "probes have no password"
    async with behind.client() as chat:
        opened = await chat.open()
        await chat.ask("My name is Ada.")
        # A part comes while the model is a minute away from the next.
        await chat.send("message.send", id="count", text="/count 2 60000")
        delta = await chat.until("message.delta", id="count")
        assert delta["text"].strip() == "1"
        chat.socket.transport.abort()
    async with behind.client() as chat:
        await chat.send(
            "session.open",
            session_id=opened["session_id"],
            resume_key=opened["resume_key"],
            last_event=delta["event"],
        )
        assert (await chat.until("session.resumed"))["lost"] is None
        await chat.send("message.cancel", id="count")
        assert (await chat.until("message.done", id="count"))["status"] == "cancelled"
        assert (await chat.ask("What is my name?"))["status"] == "completed"
        assert "Ada" in "".join(m["text"] for m in chat.messages if m["type"] == "message.delta")
        await chat.send("session.close")
        assert await chat.closed() == (1000, "")
    async with behind.client(route="nowhere") as chat:
        assert await chat.closed() == (4404, "unknown_route")
    with pytest.raises(InvalidStatus) as refused:
        async with behind.client(origin="https://evil.example.com"):
            pass
    assert refused.value.response.status_code == 403
    behind.gateway.stop()
    opened_lines = [line for line in behind.gateway.lines if "connection opened" in line]
    assert len(opened_lines) == 2
    assert all(f"client={CLIENT} " in line for line in opened_lines)
    assert PASSWORD not in behind.gateway.output


async def test_the_proxys_word_for_the_page(start: Start) -> None:
    """Without a public address, the page is at what the proxy was asked for."""
    behind = start('trusted_proxies = ["127.0.0.0/8"]')
    async with behind.client() as chat:
        await chat.open()
    with pytest.raises(InvalidStatus):
        async with behind.client(origin=f"{behind.front.scheme}://{HOST}"):
            pass


async def test_a_gateway_that_knows_of_no_proxy(start: Start) -> None:
    """What the log then says to put where is what works."""
    behind = start("")
    forged = AUTHORIZATION | {"X-Forwarded-For": "192.0.2.1", "Forwarded": "for=192.0.2.1"}
    with pytest.raises(InvalidStatus):
        async with behind.client(additional_headers=forged):
            pass
    behind.gateway.stop()
    (line,) = [line for line in behind.gateway.lines if "origin refused" in line]
    assert f'set public_url = "{behind.front.origin}" in [server]' in line
    assert "client=127.0.0.1 " in line


async def test_what_a_client_says_of_itself_is_not_believed(start: Start) -> None:
    behind = start('trusted_proxies = ["127.0.0.1"]')
    forged = AUTHORIZATION | {"X-Forwarded-For": "192.0.2.1", "Forwarded": "for=192.0.2.1"}
    async with behind.client(additional_headers=forged) as chat:
        await chat.open()
    behind.gateway.stop()
    (line,) = [line for line in behind.gateway.lines if "connection opened" in line]
    assert f"client={CLIENT} " in line
