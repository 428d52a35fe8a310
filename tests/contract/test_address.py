"""A store's address: it may lead to another server from one moment to the next, but over TLS only
to one that has its name.
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.session.storage import StoreUnavailable
from tests.contract.conftest import until_answered
from tests.support import valkey
from tests.support.certificates import Certificate, certificate
from tests.support.proxy import Proxy, proxy_to
from tests.support.valkey import opened

PASSWORD = "right"


@pytest.fixture(autouse=True)
def transport() -> None:
    """No store calls a model."""


async def test_an_address_that_leads_to_the_new_primary_is_asked_again(
    own_server: valkey.Server,
) -> None:
    """The old one goes on as a replica: nothing ends the connections to it but who has them."""
    with valkey.server() as other:
        other.follow(own_server)
        async with proxy_to(own_server.url) as proxy, opened(proxy.url) as store:
            await store.beat("a")
            await store.post("a", [b"before"])
            assert await store.collect("a", 0) == [b"before"]
            other.lead()
            own_server.follow(other)
            for _ in range(2):
                for call in (store.beat("a"), store.collect("a", 0), store.collect("a", 0.1)):
                    with pytest.raises(StoreUnavailable):
                        await call
            proxy.lead_to(other.url)
            await until_answered(lambda: store.post("a", [b"after"]))
            assert await until_answered(lambda: store.collect("a", 0)) == [b"after"]
            assert {*(await store.beat("a")).ages} == {"a"}


# TLS


@asynccontextmanager
async def encrypted(server: valkey.Server, by: Certificate, folder: Path) -> AsyncIterator[Proxy]:
    """The server, which asks for a password, behind one that has this certificate."""
    server.ask("CONFIG", "SET", "requirepass", PASSWORD)
    by.write(folder)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    url = server.url.replace("valkey:", "valkeys:")
    async with proxy_to(url, tls) as proxy:
        yield proxy


async def test_a_server_of_that_name_is_told_the_password(
    own_server: valkey.Server, tmp_path: Path
) -> None:
    async with (
        encrypted(own_server, certificate(), tmp_path) as proxy,
        opened(proxy.url, password=PASSWORD, ca_file=tmp_path / "cert.pem") as store,
    ):
        await store.post("a", [b"letter"])
        assert await store.collect("a", 0) == [b"letter"]
        assert proxy.connections == 2


@pytest.mark.parametrize("cluster", ["", "?cluster=true"])
@pytest.mark.parametrize("scheme", ["valkeys", "rediss"])
async def test_a_server_of_another_name_is_told_nothing(
    own_server: valkey.Server, tmp_path: Path, scheme: str, cluster: str
) -> None:
    """Its certificate is signed by one that is trusted."""
    another = certificate(host="other.example.com")
    async with encrypted(own_server, another, tmp_path) as proxy:
        url = proxy.url.replace("valkeys", scheme) + cluster
        async with opened(url, password=PASSWORD, ca_file=tmp_path / "cert.pem") as store:
            for call in (store.beat("a"), store.collect("a", 0)):
                with pytest.raises(StoreUnavailable):
                    await call
        assert proxy.connections == 0, "no handshake has come to its end"


async def test_a_server_whose_certificate_nobody_has_signed_is_told_nothing(
    own_server: valkey.Server, tmp_path: Path
) -> None:
    async with (
        encrypted(own_server, certificate(), tmp_path) as proxy,
        opened(proxy.url, password=PASSWORD) as store,
    ):
        for call in (store.beat("a"), store.collect("a", 0)):
            with pytest.raises(StoreUnavailable):
                await call
        assert proxy.connections == 0
