"""Connections that are to be encrypted: who gets on, who does not, and who has gone meanwhile."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.security.certificates import Certificate
from gateway.transports import tls
from gateway.transports.http import HttpProtocol
from tests.support.certificates import certificate, trusting
from tests.support.serving import Loner, Peer, on_uvloop, serving
from tests.support.timing import UNIT

OWN = certificate()
GET = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


async def hello(_scope: Any, _receive: Any, send: Any) -> None:
    """An application."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


@pytest.fixture
def http(tmp_path: Path) -> Callable[[Loner], Any]:
    """Makes what is given to uvicorn."""
    OWN.write(tmp_path)
    context = Certificate(tmp_path / "cert.pem", tmp_path / "key.pem").context
    return lambda peers: tls.encrypted(HttpProtocol, context, peers)


class Client:
    """A client that has in its hands what it sends, and when."""

    def __init__(self) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = trusting(OWN)
        self._tls = context.wrap_bio(self._in, self._out, server_hostname="127.0.0.1")

    async def shake_hands(self, peer: Peer) -> None:
        """Do all of it but to send the last bytes."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await peer.send(self._out.read())
                self._in.write(await peer.more())
            else:
                return

    def encrypt(self, data: bytes) -> bytes:
        """What is to be sent, the handshake's last bytes before it."""
        self._tls.write(data)
        return self._out.read()

    async def until(self, peer: Peer, text: bytes) -> None:
        """Read until that has come."""
        got = b""
        while text not in got:
            self._in.write(await peer.more())
            while self._in.pending:
                try:
                    got += self._tls.read(65_536)
                except ssl.SSLWantReadError:
                    break


@on_uvloop
async def test_a_request_may_come_with_the_handshakes_last_bytes(http: Any) -> None:
    peers, client = Loner(), Client()
    async with serving(hello, http=http(peers)) as served:
        async with served.peer() as peer:
            await client.shake_hands(peer)
            await peer.send(client.encrypt(GET))
            await client.until(peer, b"hello")
            assert peers.there == 1
            await peer.send(client.encrypt(GET))
            await client.until(peer, b"hello")
        await served.until_connections(0)
    assert peers.there == 0


@on_uvloop
async def test_who_does_not_get_on_is_cut(http: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "HANDSHAKE_SECONDS", 0.1)
    peers = Loner()
    async with serving(hello, http=http(peers)) as served, served.peer() as peer:
        await peer.cut()
        assert peers.there == 0


@on_uvloop
async def test_those_that_are_at_it_count_for_their_address(http: Any) -> None:
    peers, client = Loner(), Client()
    async with serving(hello, http=http(peers)) as served:
        async with served.peer(), served.peer() as second:
            assert await second.cut() == b""
            assert peers.there == 1
        await none_are_left(peers)
        async with served.peer() as third:
            await client.shake_hands(third)


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n"], ids=["nothing", "no-tls"])
@on_uvloop
async def test_who_gives_up_leaves_nothing(said: bytes, http: Any) -> None:
    peers = Loner()
    async with serving(hello, http=http(peers)) as served:
        async with served.peer() as peer:
            await peer.send(said)
            peer.end()
            await peer.cut()
        await none_are_left(peers)
        assert served.connections == 0


@on_uvloop
async def test_who_leaves_with_the_handshakes_last_bytes_leaves_nothing(http: Any) -> None:
    peers, client = Loner(), Client()
    async with serving(hello, http=http(peers)) as served:
        for _ in range(20):
            client = Client()
            async with served.peer() as peer:
                await client.shake_hands(peer)
                await peer.send(client.encrypt(GET))
            await none_are_left(peers)
        await served.until_connections(0)


async def none_are_left(peers: Loner) -> None:
    """Wait until nobody is there."""
    async with asyncio.timeout(20 * UNIT):
        while peers.there:  # noqa: ASYNC110 - it is but a number
            await asyncio.sleep(0.001)
