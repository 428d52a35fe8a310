"""What can happen to a session. Client messages are events too, as they stand in the protocol."""

from enum import Enum

from msgspec import Struct

from gateway.errors import Failure
from gateway.protocol.messages import EventAck, MessageCancel, MessageSend, SessionClose
from gateway.session.ports import ModelReply, ModelSession


class Timer(Enum):
    """The alarms that a session can have set, one of a kind at a time."""

    EXPIRING = "expiring"
    """Time to tell the client that the session runs out."""
    EXPIRY = "expiry"
    """The session is no longer to be used."""
    IDLE = "idle"
    """The session may have been unused for too long."""
    DETACHED = "detached"
    """No client has come back for too long."""
    RETRY = "retry"
    """Time to make a call again that the model turned away."""
    CLOSING = "closing"
    """The model takes too long to close."""


class Start(Struct, frozen=True, gc=False):
    """A client has connected and asks for the session.

    Attributes:
        resume_key: What the client has to show when it comes back.
    """

    resume_key: str


class Attached(Struct, frozen=True, gc=False):
    """The client has come back over a new connection, with a key that is good.

    Attributes:
        resume_key: The key that it has shown.
        new_key: What it has to show the next time.
        last_event: The newest event that it has; no greater than the log's.
    """

    resume_key: str
    new_key: str
    last_event: int


class Confirmed(Struct, frozen=True, gc=False):
    """The client has said something over its connection, so it has got the newest key."""


class Detached(Struct, frozen=True, gc=False):
    """The session's connection is gone."""


class Opened(Struct, frozen=True, gc=False):
    """The model has opened a session."""

    model: ModelSession


class OpenFailed(Struct, frozen=True, gc=False):
    """The model has opened none."""

    failure: Failure


class ReplyParts(Struct, frozen=True, gc=False):
    """Parts of a streamed reply have come, together."""

    turn: int
    parts: list[str | bytes]


class ReplyEnded(Struct, frozen=True, gc=False):
    """The model has answered a turn, whole."""

    turn: int
    reply: ModelReply


class InvokeFailed(Struct, frozen=True, gc=False):
    """The model has not answered a turn, and will not."""

    turn: int
    failure: Failure


class InvokeCancelled(Struct, frozen=True, gc=False):
    """A turn's request has been closed because `CancelInvoke` asked for it."""

    turn: int


class CloseEnded(Struct, frozen=True, gc=False):
    """Closing a session at the model is over, well or badly."""

    model: ModelSession


class TimerFired(Struct, frozen=True, gc=False):
    """An alarm's time has come."""

    timer: Timer


class Evicted(Struct, frozen=True, gc=False):
    """The store has dropped the session, because it had expired."""


class Drain(Struct, frozen=True, gc=False):
    """The gateway shuts down.

    Attributes:
        force: Its time is up: do not wait for the turn at the model.
    """

    force: bool = False


SessionEvent = (
    Start
    | Attached
    | Confirmed
    | Detached
    | MessageSend
    | MessageCancel
    | EventAck
    | SessionClose
    | Opened
    | OpenFailed
    | ReplyParts
    | ReplyEnded
    | InvokeFailed
    | InvokeCancelled
    | CloseEnded
    | TimerFired
    | Evicted
    | Drain
)
