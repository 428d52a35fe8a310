"""What may be said of the proxy in front."""

import pytest
from pydantic import ValidationError

from gateway.config import RouteSettings, ServerSettings


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://chat.example.com", "https://chat.example.com"),
        ("https://chat.example.com/gw", "https://chat.example.com"),
        ("https://Chat.Example.com:443/", "https://chat.example.com"),
        ("https://chat.example.com:8443/gw/", "https://chat.example.com:8443"),
        ("http://chat.example.com:80", "http://chat.example.com"),
        ("http://[::1]:8081", "http://[::1]:8081"),
        ("HTTP://[2001:DB8::1]:80", "http://[2001:db8::1]"),
        ("https://chat.example.com:80", "https://chat.example.com:80"),
        ("https://chat.example.com:0443", "https://chat.example.com"),
    ],
)
def test_the_origin_is_what_a_browser_sends(url: str, origin: str) -> None:
    assert ServerSettings(public_url=url).public_origin == origin
    page = url.removesuffix("/").removesuffix("/gw")
    assert RouteSettings(endpoint_name="e", allowed_origins=frozenset({page})).allowed_origins == {
        origin
    }


@pytest.mark.parametrize(
    ("origin", "problem"),
    [
        ("https://chat.example.com/", "without a path"),
        ("https://chat.example.com?", "without a path"),
        ("https://chat.example.com#x", "without a path"),
        ("https://bücher.example", "as xn--"),
        ("https://a b", "without spaces"),
        ("https://*.example.com", "`[*]` does not stand for several"),
        ("https://*", "`[*]` does not stand for several"),
        ("*", "expected an address such as https://host"),
        ("null", "expected an address such as https://host"),
        ("https://[::1", "expected an address such as https://host"),
    ],
)
def test_what_is_no_origin(origin: str, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        RouteSettings(endpoint_name="e", allowed_origins=frozenset({origin}))


def test_there_need_not_be_one() -> None:
    assert ServerSettings().public_origin is None


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("chat.example.com", "expected an address such as https://host"),
        ("wss://chat.example.com", "expected an address such as https://host"),
        ("https://", "expected an address such as https://host"),
        ("https://ada:pw@chat.example.com", "must not hold a user or a password"),
        ("https://chat.example.com?x", "without `[?]` and `#`"),
        ("https://chat.example.com/gw#x", "without `[?]` and `#`"),
        ("https://chat.example.com/a b", "without spaces"),
        ("https://bücher.example", "as xn--"),
        ("https://*.example.com/gw", "`[*]` does not stand for several"),
    ],
)
def test_what_is_no_public_address(url: str, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        ServerSettings(public_url=url)


def test_ranges_and_single_addresses_are_trusted() -> None:
    given = frozenset({"10.1.2.3/8", "127.0.0.1", "fd00::/8"})
    assert ServerSettings(trusted_proxies=given).trusted_proxies == {
        "10.0.0.0/8",
        "127.0.0.1/32",
        "fd00::/8",
    }


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("localhost", "expected an address or a range"),
        ("10.0.0.0/33", "expected an address or a range"),
        ("0.0.0.0/0", "must not be all addresses"),
        ("::/0", "must not be all addresses"),
    ],
)
def test_what_is_no_range(value: str, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        ServerSettings(trusted_proxies=frozenset({value}))
