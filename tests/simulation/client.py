"""A client that knows the protocol alone, and does not believe everything."""

from typing import Any

from msgspec import UNSET

from gateway.admission import Refused
from gateway.conversation import Resuming
from gateway.errors import CloseCode, ErrorCode
from gateway.protocol import messages as wire
from gateway.route import Route
from gateway.session.events import Words
from gateway.session.keys import digest
from gateway.sessions import ClientGone, PastNewest, TooManySessions
from tests.simulation.connection import Connection
from tests.simulation.gateways import Cluster, Gateway
from tests.simulation.model import LIFETIME, answer_to
from tests.simulation.world import World

_COME_BACK = {
    CloseCode.RESTARTING,
    CloseCode.UNAVAILABLE,
    CloseCode.TOO_SLOW,
    CloseCode.TOO_MANY,
}


class Broken(AssertionError):
    """A promise that was not kept."""


class Client:
    """Talks, stops answers, loses its connection and comes back, until it has said enough.

    Attributes:
        accepted: The ids of the messages that were.
        done: How each has ended, in this order.
        told: What was said before, elsewhere, that its session goes on from.
        heard: What the model has said to each.
        renewals: How many renewals had been told of when each ended.
        missing: How many events have not come that there must have been.
    """

    kind: type[Connection] = Connection

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
        self.told: list[str] = []
        self.asked: dict[str, wire.MessageSend] = {}
        self.deltas: dict[str, int] = {}
        self.heard: dict[str, str] = {}
        self.renewals: dict[str, int] = {}
        self.missing = 0
        self.lost: list[tuple[int, int]] = []
        self.finished = self.gone = self.forsaken = self.left = False
        self.reconnects = 0
        self.notes: list[str] = []
        self._connection: Connection | None = None
        self._inbound: float = 0.0
        self._outbound: float = 0.0
        self._count = self._renewed = 0
        self._unsure: set[str] = set()  # what has become of them may be among what is lost
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
        connection = self._connection = self.kind(self, gateway)
        self.note(f"connects to {gateway.name} after {self.last_event}")
        resuming = None
        if self.session_id is not None:
            resuming = Resuming(
                connection,
                self.session_id,
                digest(self.key),
                digest(connection.reader.resume_key),
                self.last_event,
                self.route_at(gateway),
                "anonymous",
            )
        gateway.soon(lambda: gateway.spawn(self._open(connection, gateway, resuming)))
        self.world.after(12.0, self._see_whether, connection)

    def route_at(self, gateway: Gateway) -> Route:
        """Where it connects at a gateway."""
        return gateway.route

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
                runner = await sessions.open(self.route_at(gateway), "anonymous")
                connection.conversation = runner
                connection.confirmed = True
                key = digest(connection.reader.resume_key)
                words = tuple(Words(each, answer_to(each)) for each in self.told)
                connection.number = runner.start(key, connection, words)
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

    def stall(self, seconds: float) -> None:
        """Read nothing for a while."""
        connection = self._connection
        if connection is not None:
            self.note("does not read")
            connection.stalled = True
            self.world.after(seconds, connection.go_on_reading)

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
                self.gone = not self.finished
                self.forsaken = self.cluster.server.is_forsaken(self.session_id)
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
                if message.last_event < self.last_event:
                    raise Broken(f"{self.name}: {message.last_event} is the newest")
                if message.lost is not None or self.is_harmed:
                    self._unsure = {*self.asked} - {*self.done}
                self._go_on()
            case wire.ErrorMessage():
                if message.code == "unavailable" and not self._waiting:
                    self._waiting = True
                    self.world.after(1.0, self._try_again)
            case wire.MessageDuplicate():
                self._duplicate(message)
            case _:
                self._event(message)

    @property
    def is_harmed(self) -> bool:
        """Whether its session has gone on from what a store had that has lost the rest."""
        return bool(self.cluster.server.harmed.get(self.session_id or ""))

    def _miss(self, events: int) -> None:
        """So many have not come that there must have been."""
        self.missing += events
        lost = sum(last - first + 1 for first, last in self.lost)
        if self.missing > lost and not self.is_harmed:
            raise Broken(f"{self.name}: {self.missing} are missing, and {self.lost} are lost")

    def _duplicate(self, message: wire.MessageDuplicate) -> None:
        self._unsure.discard(message.id)
        if message.id not in self.accepted:
            self.accepted.add(message.id)
            self._miss(1)
        if message.status not in {"queued", "running"} and message.id not in self.done:
            self._end(message.id, message.status)
            self._miss(1)

    def _end(self, message_id: str, status: str) -> None:
        self.done[message_id] = status
        self.renewals[message_id] = self._renewed
        self._unsure.discard(message_id)
        self.world.after(self.world.between(0, 1.0), self._go_on)

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
                if event.id in self.accepted and not self._may_repeat(event.id):
                    raise Broken(f"{event.id} was accepted twice")
                self.accepted.add(event.id)
            case wire.MessageDelta():
                self._part(event)
            case wire.MessageDone():
                self._done(event)
            case wire.SessionRenewed():
                self._renewed += 1
            case wire.SessionClosed():
                self._closed(event.reason)
                self.finished = True

    def _may_repeat(self, message_id: str, code: ErrorCode | None = None) -> bool:
        return self.cluster.server.may_repeat(self.session_id, message_id, code)

    def _part(self, event: wire.MessageDelta) -> None:
        parts = self.deltas.get(event.id, 0)
        again = event.id in self.done or event.index < parts
        if again and not self._may_repeat(event.id):
            raise Broken(f"{event.id}: part {event.index} after {parts} and its end")
        if event.index < parts:
            parts, self.heard[event.id] = 0, ""
        self._miss(event.index - parts)
        self.deltas[event.id] = event.index + 1
        self.heard[event.id] = self.heard.get(event.id, "") + str(event.text)

    def _done(self, event: wire.MessageDone) -> None:
        if event.id in self.done:
            code = None if event.error is UNSET else event.error.code
            if not self._may_repeat(event.id, code):
                raise Broken(f"{event.id} has ended twice")
            return
        lost = event.error is not UNSET and event.error.code is ErrorCode.GATEWAY_LOST
        sure = not self.cluster.server.may_lack(self.session_id)
        if lost and sure and event.id in self.cluster.endpoint.awaited:
            raise Broken(f"{event.id} is given up, and was waited for")
        if not self.cluster.server.has_ended(self.session_id, event.id):
            raise Broken(f"{event.id} has ended before that is written")
        if event.id not in self.accepted:
            self.accepted.add(event.id)
            self._miss(1)
        if event.status == "completed":
            self._miss(event.deltas - self.deltas.get(event.id, 0))
            self.heard[event.id] = self.heard.get(event.id, "") + (event.text or "")
        self._end(event.id, event.status)

    def _closed(self, reason: str) -> None:
        """The session is over; see that it may be."""
        fatal = self.session_id in self.cluster.endpoint.fatal
        if reason == "client" or (reason == "lost" and (fatal or self.is_harmed)):
            return
        if reason == "expired" and self.cluster.endpoint.lifetime < LIFETIME:
            return  # before it could be used
        raise Broken(f"{self.name}: its session ends as {reason}")

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
            if message.id not in self.accepted or message.id in self._unsure:
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
