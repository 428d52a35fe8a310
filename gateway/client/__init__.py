"""The Python client: a session with a model that survives lost connections.

::

    from gateway.client import connect

    async with connect("ws://127.0.0.1:8080/ws") as session:
        async for part in session.send("My name is Ada."):
            print(part, end="")
        reply = await session.send("What is my name?")
        print(reply.text)

`gateway.client.sync` is the same client for programs that do not use asyncio.
"""

from gateway.client.closing import backoff
from gateway.client.errors import (
    ConnectionFailed,
    MessageFailed,
    ReplyTooLarge,
    SessionClosed,
    SessionError,
)
from gateway.client.notices import (
    Disconnected,
    Expiring,
    Notice,
    Opened,
    Refused,
    Renewed,
    Resumed,
    Updated,
)
from gateway.client.saved import SavedSession
from gateway.client.session import SessionClient, connect
from gateway.client.turns import Reply, Turn

__all__ = [
    "ConnectionFailed",
    "Disconnected",
    "Expiring",
    "MessageFailed",
    "Notice",
    "Opened",
    "Refused",
    "Renewed",
    "Reply",
    "ReplyTooLarge",
    "Resumed",
    "SavedSession",
    "SessionClient",
    "SessionClosed",
    "SessionError",
    "Turn",
    "Updated",
    "backoff",
    "connect",
]
