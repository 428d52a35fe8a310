"""Where a gateway's WebSocket is, from the address that people know."""

import pytest

from gateway.addresses import websocket_url


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
