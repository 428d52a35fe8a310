"""Which pages may connect."""

import pytest

from gateway.addresses import is_loopback
from gateway.transports.origins import is_allowed


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1"])
def test_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "localhost.evil.com", ""])
def test_other_machines(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        (None, "anything", True),
        ("http://127.0.0.1:8080", "127.0.0.1:8080", True),
        ("https://localhost", "localhost", True),
        ("http://[::1]:1", "[::1]:1", True),
        ("https://good.example.com", "127.0.0.1:8080", True),
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
    assert is_allowed(origin, host, {"https://good.example.com"}) is allowed
