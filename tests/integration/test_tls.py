"""A gateway that encrypts by itself: what it serves, and what becomes of its certificate."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests.integration.conftest import AWS, Start
from tests.support.certificates import certificate, trusting
from tests.support.client import client, in_time, raw
from tests.support.forks import Fork
from tests.support.processes import Process
from tests.support.timing import UNIT
from tests.support.tokens import add_key

FIRST, SECOND = certificate(), certificate("rsa")
CONFIG = """
[tls]
cert_file = "{path}/cert.pem"
key_file = "{path}/key.pem"
[routes.chat]
endpoint_name = "my-endpoint"
content_type = "text/plain"
"""
READ, NOT_READ = "files reloaded", "files could not be reloaded"
CLIENT = trusting(FIRST, SECOND)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Where the certificate and its key are."""
    FIRST.write(tmp_path)
    return tmp_path


@pytest.fixture
def process(files: Path, start_local: Start, start_gateway: Start) -> Process:
    return start_gateway(start_local().url, CONFIG.format(path=files))


async def shown(process: Process) -> bytes:
    """The certificate that a new connection is shown."""
    parts = urlsplit(process.url)
    _, writer = await in_time(asyncio.open_connection(parts.hostname, parts.port, ssl=CLIENT))
    got: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return got


async def test_websockets_of_every_kind(process: Process) -> None:
    assert process.websocket.startswith("wss://127.0.0.1:")
    text = "All of it." * 100_000
    for subprotocol in ("v1.json.session-gateway", "v1.msgpack.session-gateway"):
        async with client(process.websocket, subprotocol, ssl=CLIENT) as chat:
            await chat.open()
            done = await chat.ask(f"/echo {text}")
            assert done["text"] == text
    async with raw(process.websocket, ssl=CLIENT) as direct:
        await direct.send(f"/echo {text}")
        assert text == await in_time(direct.recv())
        assert direct.transport.get_extra_info("cipher")[1] == "TLSv1.3"


async def test_pages_and_probes(process: Process) -> None:
    async with httpx.AsyncClient(base_url=process.url, verify=CLIENT, timeout=20 * UNIT) as http:
        assert "<title>session-gateway</title>" in (await http.get("/")).text
        for path in ("/static/client.js", "/healthz", "/readyz"):
            assert (await http.get(path)).status_code == 200


async def test_the_pages_own_origin_has_the_same_scheme(process: Process) -> None:
    async with client(process.websocket, ssl=CLIENT, origin=process.url) as chat:
        await chat.open()
    foreign = process.url.replace("https", "http")
    with pytest.raises(InvalidStatus):
        async with client(process.websocket, ssl=CLIENT, origin=foreign):
            pass


async def test_tickets(files: Path, start_local: Start, start_gateway: Start) -> None:
    key = add_key(files / "keys.toml", "ada")
    config = f'[auth.keys]\nfile = "{files}/keys.toml"\n' + CONFIG.format(path=files)
    process = start_gateway(start_local().url, config)
    async with httpx.AsyncClient(verify=CLIENT, timeout=20 * UNIT) as http:
        told = {"Authorization": f"Bearer {key}"}
        answer = await http.post(f"{process.url}/v1/tickets", headers=told)
    ticket = f"ticket.{answer.json()['ticket']}"
    async with client(process.websocket, "v1.json.session-gateway", ticket, ssl=CLIENT) as chat:
        await chat.open()


async def test_what_is_not_encrypted_is_not_answered(process: Process) -> None:
    parts = urlsplit(process.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    try:
        assert b"HTTP" not in await in_time(reader.read())
    except ConnectionResetError:
        pass
    finally:
        writer.close()
    old = trusting(FIRST)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with client(process.websocket, ssl=old) as chat:
        await chat.open()
        assert chat.socket.transport.get_extra_info("cipher")[1] == "TLSv1.2"
    assert process.stop() == 0
    assert "error" not in process.output


async def by_signal(process: Process) -> None:
    await process.hang_up(READ)


async def by_looking(process: Process) -> None:
    await process.says(READ)


@pytest.mark.parametrize("told", [by_signal, by_looking])
async def test_a_new_certificate_is_for_new_connections(
    files: Path, process: Process, told: Callable[[Process], Awaitable[None]]
) -> None:
    async with client(process.websocket, ssl=CLIENT) as chat:
        await chat.open()
        assert await shown(process) == FIRST.der
        SECOND.write(files)
        await told(process)
        assert await shown(process) == SECOND.der
        assert (await chat.ask("hi"))["status"] == "completed"


async def test_what_can_not_be_used_changes_nothing(files: Path, process: Process) -> None:
    async with client(process.websocket, ssl=CLIENT) as chat:
        await chat.open()
        (files / "key.pem").write_bytes(SECOND.key)
        await process.hang_up(NOT_READ)
        assert f"not the key of {files}/cert.pem" in process.output
        assert await shown(process) == FIRST.der
        (files / "cert.pem").unlink()
        await process.hang_up(NOT_READ)
        assert f"{files}/cert.pem: No such file or directory" in process.output
        assert await shown(process) == FIRST.der
        SECOND.write(files)
        await process.hang_up(READ)
        assert await shown(process) == SECOND.der
        assert (await chat.ask("hi"))["status"] == "completed"


BROKEN = "no certificate as PEM, or a broken one"
NO_KEY = "no private key as PEM, or a broken one, or one with a password"


@pytest.mark.parametrize(
    ("cert", "key", "says"),
    [
        (FIRST.certificate, SECOND.key, "key.pem: not the key of {path}/cert.pem"),
        (b"", FIRST.key, f"cert.pem: {BROKEN}"),
        (FIRST.certificate[:200], FIRST.key, f"cert.pem: {BROKEN}"),
        (FIRST.key, FIRST.certificate, f"cert.pem: {BROKEN}"),
        (FIRST.certificate, FIRST.key[:60], f"key.pem: {NO_KEY}"),
        (FIRST.certificate, FIRST.locked_key, f"key.pem: {NO_KEY}"),
        (FIRST.certificate, None, "key.pem: No such file or directory"),
        (None, FIRST.key, "cert.pem: No such file or directory"),
    ],
    ids=["mismatch", "empty", "cut", "swapped", "cut-key", "locked", "no-key", "no-certificate"],
)
def test_what_can_not_be_used_at_the_start(
    tmp_path: Path, cert: bytes | None, key: bytes | None, says: str
) -> None:
    for name, text in (("cert.pem", cert), ("key.pem", key)):
        if text is not None:
            (tmp_path / name).write_bytes(text)
    file = tmp_path / "gateway.toml"
    aws = AWS.format(url="http://127.0.0.1:9", transport="lean")
    file.write_text(aws + CONFIG.format(path=tmp_path))
    process = Fork(["serve", "--config", str(file), "--port", "0"])
    with process.stdout:
        said = process.stdout.read()
    assert process.wait(20 * UNIT) == 2
    assert said == f"{tmp_path}/{says.format(path=tmp_path)}\n"
