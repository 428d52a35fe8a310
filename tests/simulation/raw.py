"""A client without an envelope: a frame is a turn, and the next frame that comes is its reply."""

from typing import Any

from gateway.conversation import Resuming
from gateway.errors import CloseCode
from gateway.protocol import messages as wire
from gateway.route import Route
from gateway.session.events import Written
from gateway.transports.closing import CloseWith
from gateway.transports.raw import RawCodec
from tests.simulation.client import Broken, Client
from tests.simulation.connection import Connection
from tests.simulation.gateways import Gateway
from tests.simulation.model import answer_to

_CLOSES = {
    CloseCode.RESTARTING,
    CloseCode.UNAVAILABLE,
    CloseCode.TOO_SLOW,
    CloseCode.TOO_MANY,
    CloseCode.INTERNAL,
}


class RawConnection(Connection):
    """See `gateway.transports.connection.WebSocketConnection`."""

    def __init__(self, client: "RawClient", gateway: Gateway) -> None:
        super().__init__(client, gateway)
        self._codec = RawCodec()
        self.confirmed = True

    def flush(self) -> None:
        super().flush()
        if self.conversation is not None and not self.closed:
            self.conversation.handle(Written(self.reader.position))

    def send(self, message: Any) -> None:
        try:
            frame = self._codec.encode(message)
        except CloseWith as error:
            self.abort(error.code, error.reason)
        else:
            if frame is not None:
                super().send(frame)

    def take(self, message: str) -> None:
        super().take(self._codec.decode(message))

    def left(self) -> None:
        if self.conversation is not None:
            self.conversation.handle(wire.SessionClose())
        super().left()


class RawClient(Client):
    """Says something, waits for the reply, and says more until it has said enough.

    What it gets no reply to it does not say again, since it can't know whether the model has
    answered; it goes on over a new connection.
    """

    kind = RawConnection

    def route_at(self, gateway: Gateway) -> Route:
        return gateway.raw

    def connect(self) -> None:
        self._awaited: list[str] = []
        if self.left_to_say:
            super().connect()
        else:
            self.finished = True

    async def _open(
        self, connection: Connection, gateway: Gateway, resuming: Resuming | None
    ) -> None:
        await super()._open(connection, gateway, resuming)
        if self._connection is connection:
            self._go_on()

    def _take(self, connection: Connection, message: Any) -> None:
        if self._connection is not connection:
            return
        self.note(message)
        if isinstance(message, CloseCode):
            if message not in _CLOSES and not connection.gateway.disturbed:
                raise Broken(f"{self.name} was closed with {message!r}")
            self._connection = None
            self.reconnects += 1
            self.world.after(self.world.between(0.01, 0.5), self.connect)
            return
        turn = self._awaited.pop(0) if self._awaited else None
        if turn is None or message != answer_to(turn):
            raise Broken(f"{self.name}: {message!r} is the reply to {turn}")
        self.done[turn] = "completed"
        self.world.after(self.world.between(0, 1.0), self._go_on)

    def _go_on(self) -> None:
        connection = self._connection
        if connection is None or connection.conversation is None:
            return
        while self.left_to_say and len(self._awaited) < self.world.random.choice([1, 1, 3]):
            self.left_to_say -= 1
            self._count += 1
            turn = f"{self.name}-{self._count}"
            self._awaited.append(turn)
            self._say(turn)
        if not self.left_to_say and not self._awaited:
            self.finished = True
            self._connection = None
            connection.gateway.soon(connection.left)
