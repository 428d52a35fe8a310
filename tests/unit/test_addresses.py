"""Where a gateway's WebSocket is, from the address that people know."""

import pytest

from gateway.addresses import websocket_url, without_password


@pytest.mark.parametrize(
    ("address", "route", "url"),
    [
        ("http://127.0.0.1:8080", None, "ws://127.0.0.1:8080/ws"),
        ("http://127.0.0.1:8080/", None, "ws://127.0.0.1:8080/ws"),
        ("HTTP://[::1]:8080", "chat", "ws://[::1]:8080/ws/chat"),
        ("https://example.com/gw", None, "wss://example.com/gw/ws"),
        ("https://example.com/gw/", "chat", "wss://example.com/gw/ws/chat"),
        ("https://example.com/gw/ws", "chat", "wss://example.com/gw/ws/chat"),
        ("http://example.com/ws/chat", None, "ws://example.com/ws/chat"),
        ("http://example.com/ws/chat/", "chat", "ws://example.com/ws/chat"),
        ("https://me:secret@example.com?a=b", "a/b", "wss://me:secret@example.com/ws/a%2Fb?a=b"),
        ("ws://127.0.0.1:8080", None, "ws://127.0.0.1:8080/ws"),
        ("ws://127.0.0.1:8080/ws", "chat", "ws://127.0.0.1:8080/ws/chat"),
        ("wss://example.com/elsewhere", None, "wss://example.com/elsewhere"),
        ("wss://example.com/elsewhere", "chat", "wss://example.com/elsewhere/chat"),
    ],
)
def test_where_the_websocket_is(address: str, route: str | None, url: str) -> None:
    assert websocket_url(address, route) == url


@pytest.mark.parametrize(
    ("address", "route", "words"),
    [
        ("localhost:8080", None, "such as http://localhost:8080$"),
        ("gateway.example.com", None, "such as http://gateway.example.com$"),
        ("ftp://example.com", None, "begins with http:// or https://$"),
        ("http:///ws", None, "begins with http:// or https://$"),
        ("", None, "begins with"),
        ("http://127.0.0.1:8080/ws/one", "two", "the route one, and not two"),
    ],
)
def test_what_is_no_address(address: str, route: str | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        websocket_url(address, route)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://127.0.0.1:8080/ws", "http://127.0.0.1:8080/ws"),
        ("wss://me:secret@example.com/ws", "wss://***@example.com/ws"),
        ("HTTPS://secret@[::1]:8080", "HTTPS://***@[::1]:8080"),
        ("me:secret@example.com", "***@example.com"),
        ("http://me:se/c@r?e#t@example.com", "http://***@example.com"),
    ],
)
def test_no_password_is_shown(address: str, shown: str) -> None:
    assert without_password(address) == shown


@pytest.mark.parametrize(
    ("address", "route"),
    [
        ("me:secret@example.com", None),
        ("ftp://me:secret@example.com", None),
        ("http://me:secret@example.com/ws/one", "two"),
        ("http://me:secret@example.com:99999", None),
        ("http://me:secret/@example.com", None),
        ("http://me:secret\u2100@example.com", None),
    ],
)
def test_no_error_repeats_a_password(address: str, route: str | None) -> None:
    with pytest.raises(ValueError, match=r"^\S+: ") as caught:
        websocket_url(address, route)
    assert "secret" not in str(caught.value)
