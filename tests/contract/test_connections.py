"""Connections, by what the server sees of them; on both transports unless it says otherwise."""

import asyncio
import contextlib
import re
import socket
import ssl
import stat
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from structlog.testing import capture_logs

from gateway.errors import ErrorCode, Outcome
from gateway.sagemaker import pool
from gateway.sagemaker.aio import AioTransport, HttpSession
from gateway.sagemaker.errors import failure_of
from gateway.sagemaker.lean import LeanTransport
from gateway.sagemaker.profiles import PROFILES
from gateway.sagemaker.runtime import NotConfigured
from gateway.sagemaker.transport import Transport, result_of
from gateway.session.ports import ModelError
from tests.support import transports
from tests.support.listener import listening
from tests.support.timing import UNIT

ONLY_LEAN = pytest.mark.parametrize("transport", ["lean"], indirect=True)
CERTIFICATE = Path(__file__).with_name("localhost.pem")
NOW = datetime(2026, 11, 21, 8, 30, 15, tzinfo=UTC)
GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


class Server:
    """Answers each request as `handle` does, and keeps what it has seen.

    Attributes:
        heads: The heads of the requests that came.
        connections: How many were made.
        ended: Those that the client has closed, in order, by their number.
        used: Which has brought each request.
    """

    def __init__(self, handle: "Handler") -> None:
        self._handle = handle
        self.heads: list[str] = []
        self.connections = 0
        self.ended: list[int] = []
        self.used: list[int] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = re.search(r"(?i)\r\ncontent-length: (\d+)", head)
                assert length is not None
                await reader.readexactly(int(length[1]))
                self.heads.append(head)
                self.used.append(number)
                await self._handle(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.ended.append(number)


Handler = Callable[[asyncio.StreamWriter], Coroutine[Any, Any, None]]


async def answers(writer: asyncio.StreamWriter) -> None:
    writer.write(GOOD)


def runtime(url: str | None, **options: Any) -> AbstractAsyncContextManager[Transport]:
    """A client that makes two calls at once."""
    return transports.client(url, **{"connections": 2, **options})


@asynccontextmanager
async def serving(
    handle: Handler = answers, *, tls: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[tuple[Server, Transport]]:
    server = Server(handle)
    async with listening(server.serve, tls) as port:
        url = f"https://localhost:{port}" if tls else f"http://127.0.0.1:{port}"
        async with runtime(url, **options) as client:
            assert isinstance(client, LeanTransport) is (transports.chosen == "lean")
            yield server, client


async def call(client: Transport, body: bytes = b"{}") -> bytes:
    parameters = {"EndpointName": "e", "Body": body}
    try:
        reply = await result_of(partial(client.invoke_endpoint, parameters))
    except Exception as error:  # noqa: BLE001 - all of them mean something
        failure = failure_of(error, PROFILES["stateless"], in_session=False)
        raise ModelError(failure) from None
    whole: bytes = reply["Body"]
    return whole


async def failure(client: Transport) -> tuple[ErrorCode, Outcome]:
    with pytest.raises(ModelError) as caught:
        await call(client)
    return caught.value.failure.code, caught.value.failure.outcome


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20 * UNIT):
        while not condition():  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.001 * UNIT)


async def test_a_connection_is_kept() -> None:
    async with serving() as (server, client):
        for _ in range(5):
            assert await call(client) == b"{}"
        assert server.connections == 1
    await until(lambda: len(server.ended) == 1)


async def test_calls_wait_their_turn() -> None:
    goes_on = asyncio.Event()

    async def waits(writer: asyncio.StreamWriter) -> None:
        await goes_on.wait()
        writer.write(GOOD)

    done: list[int] = []

    async def numbered(client: Transport, number: int) -> None:
        await call(client)
        done.append(number)

    async with serving(waits) as (server, client):
        calls = [asyncio.create_task(numbered(client, number)) for number in range(8)]
        await until(lambda: len(server.heads) == 2)
        calls[3].cancel()
        await asyncio.sleep(0.02 * UNIT)
        calls[5].cancel()
        goes_on.set()
        await asyncio.wait(calls)
        assert sorted(done) == [0, 1, 2, 4, 6, 7]
        assert done.index(2) < done.index(6)
        assert done.index(4) < done.index(7)
        assert (server.connections, len(server.heads)) == (2, 6)


async def test_a_cancelled_call_frees_its_place() -> None:
    async def never(_writer: asyncio.StreamWriter) -> None:
        if len(server.heads) > 2:
            _writer.write(GOOD)

    async with serving(never) as (server, client):
        calls = [asyncio.create_task(call(client)) for _ in range(2)]
        await until(lambda: len(server.heads) == 2)
        for each in calls:
            each.cancel()
        await asyncio.wait(calls)
        await until(lambda: len(server.ended) == 2)
        assert await call(client) == b"{}"


async def test_what_is_cancelled_at_once_is_not_sent() -> None:
    async with serving() as (server, client):
        assert await call(client) == b"{}"
        ends: list[object] = []
        for _ in range(3):
            client.invoke_endpoint({"EndpointName": "e", "Body": b"{}"}, ends.append).cancel()
            await asyncio.sleep(0)
        assert await call(client) == b"{}"
        assert not ends
        assert (server.connections, len(server.heads)) == (1, 2)


async def test_what_the_server_has_closed_is_not_used() -> None:
    async def closes(writer: asyncio.StreamWriter) -> None:
        writer.write(GOOD)
        await writer.drain()
        writer.close()

    async with serving(closes) as (server, client):
        for _ in range(3):
            assert await call(client) == b"{}"
            await asyncio.sleep(0.02 * UNIT)
        assert server.connections == 3


@ONLY_LEAN
@pytest.mark.parametrize("extra", [b"", b"HTTP/1.1 200 OK\r\n\r\n"])
async def test_what_the_loop_has_not_told_of_yet(extra: bytes) -> None:
    """The server closes, or speaks, while the loop is busy with something else."""
    listener = socket.create_server(("127.0.0.1", 0))
    closed = threading.Event()
    requests = 0

    def serve() -> None:
        nonlocal requests
        for turn in range(2):
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                requests += 1
                connection.sendall(GOOD)
                if turn == 0:
                    time.sleep(0.05 * UNIT)  # the reply is read by then
                    connection.sendall(extra)
                    if not extra:
                        connection.shutdown(socket.SHUT_WR)
                    closed.set()
                with contextlib.suppress(ConnectionError):
                    connection.recv(65_536)

    thread = threading.Thread(target=serve)
    thread.start()
    with listener:
        async with runtime(f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
            assert await call(client) == b"{}"
            assert closed.wait(20 * UNIT)
            assert await call(client) == b"{}"
        await asyncio.to_thread(thread.join)
    assert requests == 2


@ONLY_LEAN
async def test_unsolicited_bytes_end_a_connection() -> None:
    async def speaks(writer: asyncio.StreamWriter) -> None:
        writer.write(GOOD)
        await asyncio.sleep(0.01 * UNIT)
        writer.write(GOOD.replace(b"{}", b"[]"))

    async with serving(speaks) as (server, client):
        for _ in range(3):
            assert await call(client) == b"{}"
            await asyncio.sleep(0.05 * UNIT)
        assert server.connections == 3


@ONLY_LEAN
async def test_idle_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "IDLE_SECONDS", 0.2 * UNIT)
    async with serving() as (server, client):
        await asyncio.gather(call(client), call(client))
        await asyncio.sleep(0.1 * UNIT)
        await call(client)
        await until(lambda: len(server.ended) == 2)
        assert server.ended[1] == server.used[2]  # this one has not been idle for as long
        assert await call(client) == b"{}"
        assert server.connections == 3


async def test_a_large_body() -> None:
    async with serving() as (server, client):
        for size in (65_536, 65_537, 6_291_456):
            assert await call(client, b"x" * size) == b"{}"
        assert server.connections == 1


@ONLY_LEAN
async def test_an_answer_before_the_request_is_written() -> None:
    """It is taken, and the connection is not used again."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(GOOD)
        await answered.wait()
        with contextlib.suppress(ConnectionError):
            while await reader.read(65_536):
                pass
        gone.set()

    answered, gone = asyncio.Event(), asyncio.Event()
    async with listening(serve) as port, runtime(f"http://127.0.0.1:{port}") as client:
        assert await call(client, b"x" * 25_000_000) == b"{}"
        answered.set()
        async with asyncio.timeout(20 * UNIT):
            await gone.wait()


def tls_server() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    return context


async def test_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(CERTIFICATE))
    context = tls_server()
    named: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: named.append(name)
    async with serving(tls=context) as (server, client):
        for size in (2, 1_000_000):
            assert await call(client, b"x" * size) == b"{}"
        assert named == ["localhost"]
        assert re.search(r"\r\nHost: localhost:\d+\r\n", server.heads[0])


async def test_a_server_that_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(tls=tls_server()) as (server, client):
        assert await failure(client) == (ErrorCode.UNAVAILABLE, Outcome.NOT_INVOKED)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(CERTIFICATE))
    anew = listening(server.serve, tls_server())
    async with anew as port, runtime(f"https://127.0.0.1:{port}") as client:
        # The certificate is another host's.
        assert await failure(client) == (ErrorCode.UNAVAILABLE, Outcome.NOT_INVOKED)
    assert server.heads == []


async def test_a_server_that_speaks_no_tls() -> None:
    async def hangs_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad\r\n\r\n")

    async def is_silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    # aiohttp forgets to close what it was still shaking hands on.
    handlers = (hangs_up, is_silent) if transports.chosen == "lean" else (hangs_up,)
    for serve in handlers:
        async with listening(serve) as port:
            url = f"https://127.0.0.1:{port}"
            async with runtime(url, connect_timeout=0.3 * UNIT) as client:
                assert await failure(client) == (ErrorCode.UNAVAILABLE, Outcome.NOT_INVOKED)


async def test_a_host_that_never_answers() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                one = stack.enter_context(socket.socket())
                one.setblocking(False)
                one.connect_ex(address)
            url = f"http://127.0.0.1:{address[1]}"
            async with runtime(url, connect_timeout=0.2 * UNIT) as client:
                assert await failure(client) == (ErrorCode.UNAVAILABLE, Outcome.NOT_INVOKED)
            async with runtime(url, call_timeout=0.2 * UNIT) as client:
                assert await failure(client) == (ErrorCode.TIMEOUT, Outcome.NOT_INVOKED)


async def test_a_name_that_is_none() -> None:
    async with runtime("http://nowhere.invalid") as client:
        assert await failure(client) == (ErrorCode.UNAVAILABLE, Outcome.NOT_INVOKED)


async def test_credentials_are_read_afresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They run out in a minute, and so are replaced before each call."""
    count = tmp_path / "count"
    script = tmp_path / "credentials"
    script.write_text(
        f"""#!{sys.executable}
import json, pathlib, datetime
path = pathlib.Path({str(count)!r})
number = int(path.read_text()) + 1 if path.exists() else 1
path.write_text(str(number))
soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=1)
print(json.dumps(dict(Version=1, AccessKeyId=f"AKID{{number}}", SecretAccessKey="secret",
    SessionToken=f"token/{{number}}==", Expiration=soon.isoformat())))
"""
    )
    script.chmod(stat.S_IRWXU)
    config = tmp_path / "config"
    config.write_text(f"[profile fresh]\nregion = us-east-1\ncredential_process = {script}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    async with serving(profile="fresh", region=None) as (server, client):
        for _ in range(2):
            await call(client)
    first, second = server.heads
    for head, number in ((first, -1), (second, 0)):
        seen = re.search(r"Credential=AKID(\d+)/", head)
        assert seen is not None
        assert f"X-Amz-Security-Token: token/{seen[1]}==\r\n" in head
        assert int(seen[1]) == int(count.read_text()) + number


@ONLY_LEAN
async def test_credentials_are_asked_for_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as (server, client):
        assert isinstance(client, LeanTransport)
        asked = Mock(wraps=client._credentials.get_frozen_credentials)
        monkeypatch.setattr(client._credentials, "get_frozen_credentials", asked)
        monkeypatch.setattr("gateway.sagemaker.lean.KEYS_SECONDS", 1000 * UNIT)
        for _ in range(3):
            await call(client)
        assert asked.call_count == 1
        client._frozen_until = client._loop.time()  # as after a second
        await call(client)
        assert asked.call_count == 2
    assert len(server.heads) == 4


@ONLY_LEAN
@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"AWS_USE_FIPS_ENDPOINT": "true"},
        {"AWS_USE_DUALSTACK_ENDPOINT": "true"},
        {"AWS_REGION": "cn-north-1", "AWS_DEFAULT_REGION": "cn-north-1"},
        {"AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": "https://example.com:443/a"},
        {"AWS_ENDPOINT_URL": "http://[::1]:8443"},
        {"AWS_ENDPOINT_URL": "http://EXAMPLE.com:80/b/"},
    ],
)
async def test_the_endpoint_is_the_one_that_aiobotocore_calls(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    region = variables.get("AWS_REGION", "us-gov-west-1")
    sent: list[Any] = []

    async def send(_self: HttpSession, request: Any) -> None:
        sent.append(request)
        raise LookupError

    monkeypatch.setattr(HttpSession, "send", send)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: NOW)
    parameters = {"EndpointName": "e", "Body": b"{}"}
    async with runtime(None, region=region, transport="aiobotocore") as client:
        with pytest.raises(ModelError):
            await call(client)
    async with runtime(None, region=region, clock=NOW.timestamp) as client:
        lean = client
        assert isinstance(lean, LeanTransport)
        keys = lean._keys_at_hand(0.0)
        sdk = lean._sdk
        head = sdk.whole.head(parameters, None, keys, sdk.signer, lean._clock()).decode()
    (request,) = sent
    url = request.url.removesuffix("/endpoints/e/invocations")
    scheme, _, rest = url.partition("://")
    authority, _, path = rest.partition("/")
    assert head.startswith(f"POST {'/' if path else ''}{path}/endpoints/e/invocations HTTP/1.1\r\n")
    assert (sdk.origin.tls is not None) is (scheme == "https")
    assert f"\r\nAuthorization: {request.headers['Authorization'].decode()}\r\n" in head
    assert sdk.origin.host in authority.lower()


@pytest.mark.parametrize(("variable", "scheme"), [("https_proxy", "https"), ("http_proxy", "http")])
async def test_a_proxy_is_left_to_aiobotocore(
    monkeypatch: pytest.MonkeyPatch, variable: str, scheme: str
) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    lean = transports.chosen == "lean"
    with capture_logs() as logs:
        chosen = "auto" if lean else transports.chosen
        async with runtime(f"{scheme}://sagemaker.invalid", transport=chosen) as client:
            assert isinstance(client, AioTransport)
    assert [entry.get("why") for entry in logs] == (["there is a proxy"] if lean else [])
    if lean:
        with pytest.raises(NotConfigured, match=r"lean.*there is a proxy.*auto"):
            async with runtime(f"{scheme}://sagemaker.invalid"):
                pass
    monkeypatch.setenv("no_proxy", "sagemaker.invalid")
    async with runtime(f"{scheme}://sagemaker.invalid") as client:
        assert isinstance(client, LeanTransport if lean else AioTransport)
