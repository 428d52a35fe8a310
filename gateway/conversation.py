"""What a client's connection has to do with: a session here, or one that is followed."""

from typing import NamedTuple, Protocol

from gateway.protocol.messages import MessageSend
from gateway.route import Route
from gateway.session.events import ClientId, SessionEvent
from gateway.session.ports import Log
from gateway.session.reader import LogReader
from gateway.subscribers import Subscriber


class Conversation(Protocol):
    """A session, to one of its clients."""

    @property
    def id(self) -> str:
        """The gateway's own id of the session."""
        ...

    @property
    def log(self) -> Log: ...
    @property
    def route(self) -> Route: ...

    def receive(self, message: MessageSend, client: ClientId, size: int) -> None:
        """Take a client's turn in, unless there is no room for it.

        Args:
            message: The client's.
            client: Is told what is wrong with it, and nobody else.
            size: About how many bytes it has.
        """
        ...

    def handle(self, event: SessionEvent, client: ClientId | None = None) -> None:
        """Let an event in, and do what follows from it.

        Args:
            event: What has happened.
            client: Who is told what is wrong with it, where it is a client's message.
        """
        ...

    def detach(self, client: ClientId) -> None:
        """A client is gone; one that the session has closed itself changes nothing."""
        ...

    def read_by(self, reader: LogReader) -> None:
        """A client has received all that its reader has taken."""
        ...


class Traveller(Subscriber, Protocol):
    """A connection that can go on with its session when that comes from another replica."""

    @property
    def is_open(self) -> bool:
        """Whether its client is there, as far as that is known."""
        ...

    def go_on(self, conversation: Conversation, client: ClientId) -> None:
        """Read on in its log, and speak to it as that client."""
        ...


class Resuming(NamedTuple):
    """A client that has come back.

    Attributes:
        subscriber: Its connection.
        session_id: The gateway's own id of the session.
        shown: The digest of the key that it has shown.
        new: That of the key that it is told if it may have the session; None where it reads along,
            and takes nothing over.
        last_event: The newest event that it has; None, of one that reads along, where it wants
            those alone that are still to come.
        route: Where it has connected; None where any session of its may be asked for.
        principal: Who it is.
    """

    subscriber: Traveller
    session_id: str
    shown: bytes
    new: bytes | None
    last_event: int | None
    route: Route | None
    principal: str

    def __repr__(self) -> str:
        return f"<Resuming {self.session_id} after {self.last_event}>"
