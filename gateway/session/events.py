"""What can happen to a session. The protocol's client messages are events as well."""

from enum import Enum

from msgspec import Struct

from gateway.errors import Failure, Outcome
from gateway.protocol.discretion import Discreet
from gateway.protocol.messages import EventAck, MessageCancel, MessageSend, SessionClose
from gateway.session.ports import ModelReply, ModelSession, Receipt

ClientId = int
"""A client that reads a session's log or sends it messages; its number is chosen by the runner."""


class Timer(Enum):
    """A session's timers; at most one of each kind is set at a time."""

    __hash__ = object.__hash__  # by identity: Enum's own is much slower

    EXPIRING = "expiring"
    """Time to warn the client that the session expires soon."""
    EXPIRY = "expiry"
    """The session must no longer be used."""
    IDLE = "idle"
    """The session may have been unused for too long."""
    DETACHED = "detached"
    """No client has resumed the session in time."""
    RETRY_OPEN = "retry open"
    """Time to retry opening a session at the model."""
    RETRY_REPLAY = "retry replay"
    """Time to retry a replay step that the model rejected."""
    RETRY_TURN = "retry turn"
    """Time to retry a turn that the model rejected."""
    CLOSING = "closing"
    """Closing the session at the model takes too long."""


class Words(Discreet, frozen=True, gc=False):
    """A turn of an imported conversation.

    Attributes:
        said: The user's text.
        answered: The model's text.
    """

    said: str
    answered: str


class Start(Discreet, frozen=True, gc=False):
    """A client opens the session.

    Attributes:
        key: The digest of the resume key.
        client: The client's connection; None if there is none, as for an HTTP request.
        told: The turns of an imported conversation, the oldest first. Requires `Policy.telling`.
    """

    key: bytes
    client: ClientId | None
    told: tuple[Words, ...] = ()


class Attached(Discreet, frozen=True, gc=False):
    """The client has resumed over a new connection, which takes the session over.

    Attributes:
        client: The connection.
        shown: The digest of the resume key that was presented, which is valid.
        new: The digest of the next resume key.
        last_event: The newest event that the client has; at most the log's newest.
    """

    client: ClientId
    shown: bytes
    new: bytes
    last_event: int


class Subscribed(Struct, frozen=True, gc=False):
    """A client subscribes, without taking the session over.

    Attributes:
        client: The client, which has presented a valid resume key.
        last_event: The newest event that the client has; at most the log's newest. None to read
            future events only.
    """

    client: ClientId
    last_event: int | None


class Confirmed(Struct, frozen=True, gc=False):
    """The client has sent something over its connection, so it has the newest resume key."""


class Written(Struct, frozen=True, gc=False):
    """The events up to and including this one have been written to the client."""

    event: int


class Detached(Struct, frozen=True, gc=False):
    """A client has disconnected."""

    client: ClientId


class Opened(Struct, frozen=True, gc=False):
    """A model session was opened."""

    model: ModelSession


class OpenFailed(Struct, frozen=True, gc=False):
    """Opening a model session failed."""

    failure: Failure


class ReplyParts(Discreet, frozen=True, gc=False):
    """Parts of a streamed reply have arrived together."""

    turn: int
    parts: list[str | bytes]


class Submitted(Discreet, frozen=True, gc=False):
    """The model has accepted a turn, and will reply asynchronously."""

    turn: int
    receipt: Receipt


class ReplyEnded(Struct, frozen=True, gc=False):
    """The model's reply to a turn is complete."""

    turn: int
    reply: ModelReply


class InvokeFailed(Struct, frozen=True, gc=False):
    """A turn failed: there will be no reply, or not all of it."""

    turn: int
    failure: Failure


class InvokeCancelled(Struct, frozen=True, gc=False):
    """A turn's request was cancelled by `CancelInvoke`.

    Attributes:
        turn: The turn's number.
        outcome: `NOT_INVOKED` if it was never sent; None if only its reply can tell.
    """

    turn: int
    outcome: Outcome | None = None


class CloseEnded(Struct, frozen=True, gc=False):
    """Closing a model session has succeeded or failed."""

    model: ModelSession


class TimerFired(Struct, frozen=True, gc=False):
    """A timer has fired."""

    timer: Timer


class Adopted(Struct, frozen=True, gc=False):
    """The session was restored in this process, so the results that it waits for won't arrive.

    Attributes:
        clients: The clients that are still connected.
        crashed: Whether the previous process crashed: a turn at the model may have been answered,
            and a client may have received events that were not stored.
    """

    clients: tuple[ClientId, ...]
    crashed: bool


class Hold(Struct, frozen=True, gc=False):
    """The session is about to move to another process.

    Attributes:
        on: Start no more calls to the model; False to continue here instead.
    """

    on: bool


class Forgotten(Struct, frozen=True, gc=False):
    """The store from which the session was restored lacks events that a client has received."""


class Evict(Struct, frozen=True, gc=False):
    """An operator ends the session; the gateway keeps running."""


class Drain(Struct, frozen=True, gc=False):
    """The gateway shuts down.

    Attributes:
        force: The time to drain is up: don't wait for the turn at the model.
    """

    force: bool = False


SessionEvent = (
    Start
    | Attached
    | Subscribed
    | Confirmed
    | Written
    | Detached
    | MessageSend
    | MessageCancel
    | EventAck
    | SessionClose
    | Opened
    | OpenFailed
    | ReplyParts
    | Submitted
    | ReplyEnded
    | InvokeFailed
    | InvokeCancelled
    | CloseEnded
    | TimerFired
    | Adopted
    | Hold
    | Forgotten
    | Evict
    | Drain
)
