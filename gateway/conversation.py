"""The session that a connection belongs to: in this process, or at another replica."""

from typing import NamedTuple, Protocol

from gateway.protocol.messages import MessageSend
from gateway.route import Route
from gateway.session.events import ClientId, SessionEvent
from gateway.session.ports import Log
from gateway.session.reader import LogReader
from gateway.subscribers import Subscriber


class Conversation(Protocol):
    """A session, as seen by one of its clients."""

    @property
    def id(self) -> str:
        """The gateway's own id of the session."""
        ...

    @property
    def log(self) -> Log: ...
    @property
    def route(self) -> Route: ...

    def receive(self, message: MessageSend, client: ClientId, size: int) -> None:
        """Handle a client's ``message.send``, unless there is no room for it.

        Args:
            message: The message.
            client: The only client that is told of errors in it.
            size: Approximate size in bytes.
        """
        ...

    def handle(self, event: SessionEvent, client: ClientId | None = None) -> None:
        """Handle an event, and run its effects.

        Args:
            event: The event.
            client: The client that is told of errors, if the event is its message.
        """
        ...

    def detach(self, client: ClientId) -> None:
        """Remove a disconnected client; has no effect if the session has closed it itself."""
        ...

    def read_by(self, reader: LogReader) -> None:
        """Record that a client has received everything that its reader has taken."""
        ...


class Traveller(Subscriber, Protocol):
    """A connection whose session may move here from another replica while it is open."""

    @property
    def is_open(self) -> bool:
        """Whether the client is connected, as far as is known."""
        ...

    def go_on(self, conversation: Conversation, client: ClientId) -> None:
        """Continue in this session's log, as this client."""
        ...


class Resuming(NamedTuple):
    """A client that resumes a session.

    Attributes:
        subscriber: Its connection.
        session_id: The gateway's own id of the session.
        shown: Digest of the resume key that it has presented.
        new: Digest of the resume key that it gets if it may have the session; None for a client
            that only subscribes, and takes nothing over.
        last_event: The newest event that it has; None, for one that only subscribes, if it wants
            future events only.
        route: The route of its connection; None if any of its sessions may be requested.
        principal: Its principal.
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
