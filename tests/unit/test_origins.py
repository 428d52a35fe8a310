"""Which pages may connect."""

import pytest
from structlog.testing import capture_logs

from gateway.addresses import is_loopback
from gateway.transports.origins import Origins
from gateway.transports.proxies import Client


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1"])
def test_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "localhost.evil.com", ""])
def test_other_machines(host: str) -> None:
    assert not is_loopback(host)


GOOD = "https://good.example.com"
LOCAL = Client("127.0.0.1", "http")


def origins(public: str | None = None) -> Origins:
    return Origins({"chat": {GOOD}, "other": set()}, public=public)


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        (None, "anything", True),
        ("http://127.0.0.1:8080", "127.0.0.1:8080", True),
        ("https://localhost", "localhost", False),
        ("http://[::1]:1", "[::1]:1", True),
        (GOOD, "127.0.0.1:8080", True),
        ("https://good.example.com:444", "127.0.0.1:8080", False),
        ("http://good.example.com", "127.0.0.1:8080", False),
        ("http://localhost:1", "localhost:2", False),
        ("http://evil.example.com", "evil.example.com", False),
        ("null", "localhost", False),
        ("", "", False),
        ("http://localhost", None, False),
        ("http://[", "[", False),
    ],
)
def test_handshakes(origin: str | None, host: str | None, allowed: bool) -> None:
    assert origins().allow(origin, host, route="chat", client=LOCAL) is allowed


@pytest.mark.parametrize(
    ("scheme", "origin", "allowed"),
    [
        ("http", "http://localhost:1", True),
        ("https", "https://localhost:1", True),
        ("http", "https://localhost:1", False),
        ("https", "http://localhost:1", False),
        (None, "http://localhost:1", True),  # a trusted proxy that does not say
        (None, "https://localhost:1", True),
    ],
)
def test_the_scheme_is_the_pages_too(scheme: str | None, origin: str, allowed: bool) -> None:
    client = Client("127.0.0.1", scheme)
    assert origins().allow(origin, "localhost:1", route="chat", client=client) is allowed


def test_what_one_route_allows_another_does_not() -> None:
    assert not origins().allow(GOOD, "localhost", route="other", client=LOCAL)
    assert not origins().allow(GOOD, "localhost", route="nowhere", client=LOCAL)


@pytest.mark.parametrize("route", ["chat", "other", "nowhere"])
def test_the_public_address_is_the_gateways_own(route: str) -> None:
    page = "https://chat.example.com"
    assert origins(page).allow(page, "127.0.0.1:8080", route=route, client=LOCAL)
    assert not origins(page).allow(f"{page}:8443", "127.0.0.1", route=route, client=LOCAL)
    assert not origins(page).allow("http://chat.example.com", "", route=route, client=LOCAL)


@pytest.mark.parametrize(
    ("scheme", "origin", "allowed"),
    [
        ("https", "https://chat.example.com", True),
        (None, "https://chat.example.com", True),
        (None, "http://chat.example.com", True),
        ("http", "https://chat.example.com", False),
        ("https", "https://chat.example.com:444", False),
        ("https", "http://127.0.0.1:8080", False),
    ],
)
def test_what_a_trusted_proxy_was_asked_for_is_the_gateways_own(
    scheme: str | None, origin: str, allowed: bool
) -> None:
    client = Client("192.0.2.1", scheme, "chat.example.com")
    assert origins().allow(origin, "127.0.0.1:8080", route="chat", client=client) is allowed


def test_where_there_is_a_public_address_the_proxys_word_is_not_needed() -> None:
    """A name that an attacker has pointed at the proxy is what it was asked for, too."""
    evil = "https://evil.example.com"
    client = Client("192.0.2.1", "https", "evil.example.com")
    some = origins("https://chat.example.com")
    assert not some.allow(evil, "evil.example.com", route="chat", client=client)
    local = "http://127.0.0.1:8080"
    assert some.allow(local, "127.0.0.1:8080", route="chat", client=LOCAL), "on this machine"


def refusal(origin: str, *, route: str = "chat", host: str = "127.0.0.1:8080") -> dict[str, object]:
    with capture_logs() as logs:
        assert not origins().allow(origin, host, route=route, client=LOCAL)
    (entry,) = logs
    return dict(entry)


def test_a_refusal_says_what_to_put_where() -> None:
    assert refusal("https://x.example.com") == {
        "event": "origin refused",
        "log_level": "warning",
        "origin": "https://x.example.com",
        "host": "127.0.0.1:8080",
        "client": "127.0.0.1",
        "route": "chat",
        "hint": 'add "https://x.example.com" to allowed_origins of [routes.chat]; or, where it is '
        'the gateway\'s own page behind a proxy, set public_url = "https://x.example.com" in '
        "[server]",
        "unlogged": 0,
    }


@pytest.mark.parametrize("origin", ["null", "https://x/\x1b[2J", "https://" + "x" * 256])
def test_what_can_not_be_allowed_is_said_to_be_so(origin: str) -> None:
    assert str(refusal(origin)["hint"]).startswith("this origin can't be allowed")


def test_a_refusal_at_a_route_that_there_is_none_of() -> None:
    entry = refusal("https://x.example.com", route="\n" + "x" * 1000)
    assert entry["hint"] == "there is no such route"
    assert entry["route"] == "\ufffd" + "x" * 199 + "…"


def test_what_a_page_chooses_is_short_and_harmless_in_the_log() -> None:
    entry = refusal("https://\x1b[31m" + "x" * 10_000, host="\r\n" + "y" * 10_000)
    assert all(len(str(value)) <= 201 and str(value).isprintable() for value in entry.values())


def test_no_page_floods_the_log() -> None:
    some = origins()
    with capture_logs() as logs:
        for number in range(1000):
            some.allow("https://x", "localhost", route="chat", client=LOCAL)
            some.allow(f"https://x{number}", "localhost", route="chat", client=LOCAL)
    assert len(logs) == 10
    assert [entry["unlogged"] for entry in logs][:3] == [0, 0, 1]
