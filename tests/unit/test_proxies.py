"""Whose word counts, where proxies are in front."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from gateway.transports.proxies import MOST, Client, Proxies

PROXIES = Proxies(["127.0.0.0/8", "10.0.0.0/8", "fd00::/8"])
CLIENT = "192.0.2.43"


def client(*headers: tuple[str, str], peer: str | None = "127.0.0.1") -> Client:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    return PROXIES.client_of(peer, Headers(raw=raw))


def forwarded(*values: str, peer: str = "127.0.0.1") -> Client:
    return client(*(("Forwarded", value) for value in values), peer=peer)


def older(addresses: str, scheme: str = "", host: str = "") -> Client:
    return client(
        ("X-Forwarded-For", addresses), ("X-Forwarded-Proto", scheme), ("X-Forwarded-Host", host)
    )


def test_nobody_is_trusted_unless_told() -> None:
    headers = Headers({"forwarded": "for=192.0.2.43;host=x", "x-forwarded-for": CLIENT})
    assert Proxies().client_of("127.0.0.1", headers) == Client("127.0.0.1", "http")
    secure = Proxies().client_of("127.0.0.1", headers, "wss")
    assert secure == Client("127.0.0.1", "https")


@pytest.mark.parametrize("peer", ["192.0.2.1", "11.0.0.1", "::1", "", "fe80::1%eth0", "/socket"])
def test_what_comes_from_elsewhere_is_not_believed(peer: str) -> None:
    assert forwarded("for=192.0.2.43;host=x", peer=peer) == Client(peer, "http")


def test_a_connection_without_an_address() -> None:
    assert client(("Forwarded", "for=192.0.2.43"), peer=None) == Client("", "http")


def test_a_proxy_that_says_nothing_is_taken_for_the_client() -> None:
    assert client() == Client("127.0.0.1")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        # RFC 7239, section 4
        ('For="[2001:db8:cafe::17]:4711"', Client("2001:db8:cafe::17")),
        ("for=192.0.2.43, for=10.51.100.17", Client(CLIENT)),
        (
            'for=192.0.2.60;proto=http;by=203.0.113.43;host="x:81"',
            Client("192.0.2.60", "http", "x:81"),
        ),
        ("for=unknown", Client("127.0.0.1")),
        ('for="_gazonk"', Client("127.0.0.1")),
        # Its own leniencies: empty pairs, and what others do not quote
        ("for=192.0.2.43:47011; Proto=HTTPS ;; host=x:1", Client(CLIENT, "https", "x:1")),
        ("\tfor=192.0.2.43", Client(CLIENT)),
        (r'for="192\.0.2.43"', Client(CLIENT)),
        # The one who was asked first, of those that are trusted
        (
            "for=192.0.2.43;host=a;proto=https,for=10.0.0.1;host=b;proto=http",
            Client(CLIENT, "https", "a"),
        ),
        ("for=192.0.2.43, for=10.0.0.1;host=b", Client(CLIENT, None, "b")),
        ("for=10.0.0.2, for=10.0.0.1", Client("10.0.0.2")),
        ('for="[::ffff:10.0.0.1]"', Client("10.0.0.1")),
        # What a client has invented
        ("for=198.51.100.1;host=evil, for=192.0.2.43;host=a", Client(CLIENT, None, "a")),
        ('for="x, for=192.0.2.43', Client(CLIENT)),
        ('host="\\", for=192.0.2.43', Client(CLIENT)),
        # What is no address, no host and no scheme
        ('for=192.0.2.43;proto=gopher;host="a/b"', Client(CLIENT)),
        ("for=192.0.2.430", Client("127.0.0.1")),
        ('for="[fe80::1%25x]"', Client("127.0.0.1")),
        ('for="[192.0.2.43"', Client("127.0.0.1")),
        # What is malformed
        ("for=192.0.2.43;for=192.0.2.44", Client("127.0.0.1")),
        ("for=192.0.2.43 host=x", Client("127.0.0.1")),
        ("192.0.2.43", Client("127.0.0.1")),
        ("for = 192.0.2.43", Client("127.0.0.1")),
        ("for=", Client("127.0.0.1")),
        ("for=192.0.2.43,", Client("127.0.0.1")),
        ("for=\xe9", Client("127.0.0.1")),
    ],
)
def test_forwarded(value: str, found: Client) -> None:
    assert forwarded(value) == found


def test_headers_of_one_name_are_one() -> None:
    assert forwarded("for=192.0.2.43", "for=10.0.0.1") == Client(CLIENT)


@pytest.mark.parametrize(
    ("addresses", "scheme", "host", "found"),
    [
        ("192.0.2.43", "https", "chat.example.com", Client(CLIENT, "https", "chat.example.com")),
        ("192.0.2.43", "wss", "", Client(CLIENT, "https")),
        ("192.0.2.43:1", "", "", Client(CLIENT)),
        ("2001:db8::1", "", "", Client("2001:db8::1")),
        ("198.51.100.1, 192.0.2.43, 10.0.0.1", "", "", Client(CLIENT)),
        ("192.0.2.43, 10.0.0.1", "https, http", "a, b", Client(CLIENT, "https", "a")),
        ("192.0.2.43, 10.0.0.1", "https", "b", Client(CLIENT, "https", "b")),
        ("192.0.2.43", "https, http", "evil, a", Client(CLIENT, "http", "a")),
        ("", "https", "a", Client("127.0.0.1", "https", "a")),
        ("unknown", "", "", Client("127.0.0.1")),
        ("198.51.100.1, nonsense, 10.0.0.1", "", "", Client("10.0.0.1")),
    ],
)
def test_the_older_headers(addresses: str, scheme: str, host: str, found: Client) -> None:
    assert older(addresses, scheme, host) == found


def test_where_both_say_the_same() -> None:
    both = client(("X-Forwarded-For", CLIENT), ("Forwarded", "for=192.0.2.43;host=a"))
    assert both == Client(CLIENT, None, "a")


@pytest.mark.parametrize(
    "headers",
    [
        (("X-Forwarded-For", CLIENT), ("Forwarded", "for=198.51.100.1;host=evil")),
        (("X-Forwarded-For", f"198.51.100.1, {CLIENT}"), ("Forwarded", "for=198.51.100.1")),
        (("X-Forwarded-For", "198.51.100.1"), ("Forwarded", f"for={CLIENT}")),
    ],
)
def test_where_they_differ_a_client_has_written_one(headers: tuple[tuple[str, str], ...]) -> None:
    assert client(*headers) == Client("127.0.0.1")


def test_no_more_is_read_than_there_can_be() -> None:
    assert forwarded(";" * 60_000 + ",for=192.0.2.43") == Client(CLIENT)
    assert older("x," * 60_000 + CLIENT) == Client(CLIENT)
    trusted = ",".join(["10.0.0.1"] * MOST)
    assert older(f"{CLIENT},{trusted}").address != CLIENT


@given(st.text(st.characters(max_codepoint=0xFF), max_size=80))
def test_whatever_a_client_writes_what_the_proxy_adds_counts(text: str) -> None:
    assert forwarded(f"{text},for=192.0.2.43;host=a") == Client(CLIENT, None, "a")
    assert forwarded(text, "for=192.0.2.43") == Client(CLIENT)
    assert older(f"{text},{CLIENT}") == Client(CLIENT)
    forwarded(text), older(text, text, text)  # nothing raises
