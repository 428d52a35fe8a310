"""A client's connection, at the gateway's end."""

import secrets
from typing import Any, Protocol

from gateway.conversation import Conversation
from gateway.errors import CloseCode
from gateway.protocol import messages as wire
from gateway.session.events import ClientId, Confirmed
from gateway.session.reader import LogReader
from tests.simulation.gateways import Gateway


class Speaker(Protocol):
    """Who is at the other end."""

    def sent(self, connection: "Connection", message: Any) -> None:
        """The gateway has sent something; it comes after what it has sent before."""


class Connection:
    """A client's connection, at the gateway's end; see `gateway.conversation.Traveller`."""

    def __init__(self, client: Speaker, gateway: Gateway) -> None:
        self.reader = LogReader(secrets.token_urlsafe())
        self.client = client
        self.gateway = gateway
        self.conversation: Conversation | None = None
        self.number: ClientId | None = None
        self.confirmed = False
        self.closed = self.stalled = False
        self._closing: tuple[CloseCode, str] | None = None
        self._flushing = False

    @property
    def is_open(self) -> bool:
        return not self.closed

    def go_on(self, conversation: Conversation, client: ClientId) -> None:
        self.conversation, self.number = conversation, client
        self.reader.move(conversation.log)

    def wake(self, *, soon: bool) -> None:  # noqa: ARG002
        if not self._flushing and not self.closed:
            self._flushing = True
            self.gateway.loop.call_soon(self.flush)

    def flush(self) -> None:
        self._flushing = False
        if self.stalled:
            return
        while not self.closed and (message := self.reader.take()) is not None:
            self.send(message)
        if self._closing is not None and not self.closed:
            self._end(*self._closing)

    def send(self, message: Any) -> None:
        """Send the client a message."""
        self.client.sent(self, message)

    def go_on_reading(self) -> None:
        """The client reads again."""
        self.stalled = False
        self.gateway.soon(self.flush)

    def tell(self, notice: wire.Notice) -> None:
        self.reader.tell(notice)
        self.wake(soon=True)

    def close(self, code: CloseCode, reason: str) -> None:
        if self._closing is None:
            self._closing = code, reason
            self.wake(soon=True)

    def abort(self, code: CloseCode, reason: str) -> None:
        self._end(code, reason)

    def _end(self, code: CloseCode, _reason: str) -> None:
        if not self.closed:
            self.closed = True
            self.client.sent(self, code)
            self.gateway.loop.call_soon(self.left)

    def left(self) -> None:
        """Its socket is closed."""
        self.closed = True
        if self.conversation is not None and self.number is not None:
            self.conversation.detach(self.number)

    def take(self, message: Any) -> None:
        """A frame has come in."""
        conversation, number = self.conversation, self.number
        if self.closed or self._closing or conversation is None or number is None:
            return
        if not self.confirmed and self.reader.has_begun:
            self.confirmed = True
            conversation.handle(Confirmed())
        if isinstance(message, wire.MessageSend):
            conversation.receive(message, number, 100)
        else:
            conversation.handle(message, number)
