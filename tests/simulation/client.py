"""A client that knows the protocol alone, and does not believe everything."""

import asyncio
import secrets
from typing import Any

from gateway.admission import Refused
from gateway.conversation import Conversation, Resuming
from gateway.errors import CloseCode
from gateway.protocol import messages as wire
from gateway.session.events import ClientId, Confirmed
from gateway.session.keys import digest
from gateway.session.reader import LogReader
from gateway.sessions import ClientGone, PastNewest, TooManySessions
from tests.simulation.gateways import Cluster, Gateway
from tests.simulation.world import World

_COME_BACK = {
    CloseCode.RESTARTING,
    CloseCode.UNAVAILABLE,
    CloseCode.TOO_SLOW,
    CloseCode.TOO_MANY,
}


class Broken(AssertionError):
    """A promise that was not kept."""


class Connection:
    """A client's connection, at the gateway's end; see `gateway.conversation.Traveller`."""

    def __init__(self, client: "Client", gateway: Gateway) -> None:
        self.reader = LogReader(secrets.token_urlsafe())
        self.client = client
        self.gateway = gateway
        self.conversation: Conversation | None = None
        self.number: ClientId | None = None
        self.confirmed = False
        self.closed = False
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
        while not self.closed and (message := self.reader.take()) is not None:
            self.client.sent(self, message)
        if self._closing is not None and not self.closed:
            self._end(*self._closing)

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


class Client:
    """Talks, stops answers, loses its connection and comes back, until it has said enough.

    Attributes:
        accepted: The ids of the messages that were.
        done: How each has ended.
    """

    def __init__(
        self, world: World, cluster: Cluster, name: str, messages: int, leaves: float
    ) -> None:
        self.world = world
        self.cluster = cluster
        self.name = name
        self.left_to_say = messages
        self.leaves = leaves
        self.session_id: str | None = None
        self.key = ""
        self.last_event = 0
        self.accepted: set[str] = set()
        self.done: dict[str, str] = {}
        self.asked: dict[str, wire.MessageSend] = {}
        self.deltas: dict[str, int] = {}
        self.lost: list[tuple[int, int]] = []
        self.finished = self.gone = self.left = False
        self.reconnects = 0
        self.notes: list[str] = []
        self._connection: Connection | None = None
        self._inbound: float = 0.0
        self._outbound: float = 0.0
        self._count = 0
        self._closing = self._waiting = False
        world.after(world.between(0, 2), self.connect)

    def note(self, text: object) -> None:
        self.notes.append(f"{self.world.now:.3f} {text}")

    # Connections

    def connect(self) -> None:
        """Connect to whichever gateway the balancer chooses."""
        if self.finished or self.gone:
            return
        gateway = self.cluster.pick()
        if gateway is None:
            self.world.after(0.5, self.connect)
            return
        connection = self._connection = Connection(self, gateway)
        self.note(f"connects to {gateway.name} after {self.last_event}")
        resuming = None
        if self.session_id is not None:
            resuming = Resuming(
                connection,
                self.session_id,
                digest(self.key),
                digest(connection.reader.resume_key),
                self.last_event,
                gateway.route,
                "anonymous",
            )
        gateway.soon(lambda: gateway.spawn(self._open(connection, gateway, resuming)))
        self.world.after(12.0, self._see_whether, connection)

    def _see_whether(self, connection: Connection) -> None:
        """A gateway that says nothing for so long is dead, or paused."""
        if self._connection is connection and self._silent_since(connection) > 10:
            self.note("hears nothing")
            self._cut(connection)
        elif self._connection is connection:
            self.world.after(3.0, self._see_whether, connection)

    def _silent_since(self, connection: Connection) -> float:
        gateway = connection.gateway
        if gateway.alive and not gateway.paused and connection.conversation is not None:
            return 0.0
        return self.world.now - self._inbound

    async def _open(
        self, connection: Connection, gateway: Gateway, resuming: Resuming | None
    ) -> None:
        sessions = gateway.sessions
        try:
            if sessions.draining:
                connection.abort(CloseCode.RESTARTING, "")
            elif connection.closed:
                return
            elif resuming is None:
                runner = await sessions.open(gateway.route, "anonymous")
                connection.conversation = runner
                connection.confirmed = True
                connection.number = runner.start(digest(connection.reader.resume_key), connection)
            else:
                found = await sessions.resume(resuming)
                if found is None:
                    connection.abort(CloseCode.GONE, "")
                else:
                    connection.conversation, connection.number = found
        except ClientGone:
            return
        except (Refused, TooManySessions):
            connection.abort(CloseCode.UNAVAILABLE, "")
        except PastNewest as error:
            raise Broken(f"{self.name} has {self.last_event}, not {error.newest}") from None
        if connection.closed:
            connection.left()

    def _cut(self, connection: Connection) -> None:
        """Lose the connection."""
        if self._connection is connection:
            self._connection = None
            self.reconnects += 1
            connection.gateway.soon(connection.left)
            if self.world.chance(self.leaves):
                self.left = True
            else:
                self.world.after(self.world.between(0.05, 1.0), self.connect)

    def cut(self) -> None:
        """Lose the connection that there is."""
        if self._connection is not None:
            self.note("is cut off")
            self._cut(self._connection)

    # In

    def sent(self, connection: Connection, message: Any) -> None:
        """The gateway has sent something; it comes after what it has sent before."""
        self._inbound = max(self.world.now + self.world.between(0, 0.01), self._inbound)
        self.world.at(self._inbound, self._take, connection, message)

    def _take(self, connection: Connection, message: Any) -> None:
        if self._connection is not connection:
            return
        if isinstance(message, CloseCode):
            self.note(f"closed {message.name}")
            self._connection = None
            self.reconnects += 1
            if message is CloseCode.NORMAL:
                self.finished = True
            elif message is CloseCode.GONE:
                self.gone = True
            elif message in _COME_BACK or (
                # An attempt that was given up can be served late; the client can't tell.
                message is CloseCode.TAKEN_OVER and self.cluster.server.was_late
            ):
                self.world.after(self.world.between(0.01, 0.5), self.connect)
            else:
                raise Broken(f"{self.name} was closed with {message!r}")
            return
        self.note(message)
        match message:
            case wire.SessionResumed():
                self.key = message.resume_key
                if message.lost is not None:
                    first, last = message.lost
                    if first != self.last_event + 1:
                        raise Broken(f"{self.name}: lost {message.lost} after {self.last_event}")
                    self.lost.append(message.lost)
                    self.last_event = last
                self._go_on()
            case wire.ErrorMessage():
                if message.code == "unavailable" and not self._waiting:
                    self._waiting = True
                    self.world.after(1.0, self._try_again)
            case wire.MessageDuplicate() | wire.Pong():
                pass
            case _:
                self._event(message)

    def _event(self, event: Any) -> None:
        if event.event != self.last_event + 1:
            raise Broken(f"{self.name}: {event.event} after {self.last_event}")
        self.last_event = event.event
        if self.world.chance(0.1):
            self._say(wire.EventAck(event=event.event))
        match event:
            case wire.SessionOpened():
                self.session_id, self.key = event.session_id, event.resume_key
                self._go_on()
            case wire.MessageAccepted():
                if event.id in self.accepted:
                    raise Broken(f"{event.id} was accepted twice")
                self.accepted.add(event.id)
            case wire.MessageDelta():
                if event.id in self.done:
                    raise Broken(f"{event.id} goes on after its end")
                missed = event.index - self.deltas.get(event.id, 0)
                if missed < 0 or (missed and not self.lost):
                    raise Broken(f"{event.id}: part {event.index} after {missed} that are missing")
                self.deltas[event.id] = event.index + 1
            case wire.MessageDone():
                if event.id in self.done:
                    raise Broken(f"{event.id} has ended twice")
                if not self.cluster.server.has_ended(self.session_id, event.id):
                    raise Broken(f"{event.id} has ended before that is written")
                parts = self.deltas.get(event.id, 0)
                if event.status == "completed" and event.deltas != parts and not self.lost:
                    raise Broken(f"{event.id} had {event.deltas} parts, of which {parts} came")
                self.done[event.id] = event.status
                self.world.after(self.world.between(0, 1.0), self._go_on)
            case wire.SessionClosed():
                self.finished = True

    # Out

    def _say(self, message: Any) -> None:
        connection = self._connection
        if connection is None:
            return
        self.note(f"says {message}")
        self._outbound = max(self.world.now + self.world.between(0, 0.01), self._outbound)
        self.world.at(self._outbound, connection.gateway.soon, connection.take, message)

    def _try_again(self) -> None:
        self._waiting = False
        self._go_on()

    def _go_on(self) -> None:
        """Say what there is to say."""
        if self._connection is None or self.session_id is None:
            return
        for message in self.asked.values():
            if message.id not in self.accepted:
                self._say(message)
        waiting = [each for each in self.asked if each not in self.done]
        while self.left_to_say and len(waiting) < self.world.random.choice([1, 1, 3]):
            self.left_to_say -= 1
            self._count += 1
            message_id = f"{self.name}-{self._count}"
            message = wire.MessageSend(
                id=message_id, text=message_id, stream=self.world.chance(0.6)
            )
            self.asked[message_id] = message
            waiting.append(message_id)
            self._say(message)
            if self.world.chance(0.1):
                victim = self.world.random.choice(waiting)
                self.world.after(self.world.between(0, 1), self._cancel, victim)
        if not self.left_to_say and not waiting:
            self._closing = True
            self._say(wire.SessionClose())

    def _cancel(self, message_id: str) -> None:
        if message_id in self.accepted and message_id not in self.done:
            self._say(wire.MessageCancel(id=message_id))

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to come."""
        return self.finished or self.gone or self.left


__all__ = ["Broken", "Client", "asyncio"]
