"""WebSocket handshakes, byte for byte."""


def handshake(subprotocol: str | None, *more: str, path: str = "/ws/chat") -> bytes:
    """A client's request.

    Args:
        subprotocol: The only one that is offered; None for none.
        more: Further lines of the head, whose characters are bytes.
        path: Where to.
    """
    offered = [] if subprotocol is None else [f"Sec-WebSocket-Protocol: {subprotocol}"]
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        *offered,
        *more,
    ]
    return "\r\n".join((*lines, "", "")).encode("latin-1")
