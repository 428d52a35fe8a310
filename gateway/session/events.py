"""What can happen to a session. Client messages are events too, as they stand in the protocol."""

from enum import Enum

from msgspec import Struct

from gateway.errors import Failure, Outcome
from gateway.protocol.discretion import Discreet
from gateway.protocol.messages import EventAck, MessageCancel, MessageSend, SessionClose
from gateway.session.ports import ModelReply, ModelSession, Receipt

ClientId = int
"""A client that reads a session's log or speaks to it, as whoever runs the session numbers them."""


class Timer(Enum):
    """The timers that a session can have set, one of a kind at a time."""

    __hash__ = object.__hash__  # each is what it is; an Enum's own is much slower

    EXPIRING = "expiring"
    """Time to tell the client that the session runs out."""
    EXPIRY = "expiry"
    """The session is no longer to be used."""
    IDLE = "idle"
    """The session may have been unused for too long."""
    DETACHED = "detached"
    """No client has come back for too long."""
    RETRY_OPEN = "retry open"
    """Time to ask again for a session, which the model refused."""
    RETRY_REPLAY = "retry replay"
    """Time to send a step of a replay again, which the model turned away."""
    RETRY_TURN = "retry turn"
    """Time to send a turn again that the model turned away."""
    CLOSING = "closing"
    """The model takes too long to close."""


class Words(Discreet, frozen=True, gc=False):
    """A turn of a conversation that was held elsewhere.

    Attributes:
        said: The user's words.
        answered: The model's.
    """

    said: str
    answered: str


class Start(Discreet, frozen=True, gc=False):
    """Somebody asks for the session.

    Attributes:
        key: The digest of what a client has to show when it comes back.
        client: The connection that it was asked for over; None where there is none, as for an HTTP
            request.
        told: What was said before, the oldest first: the session goes on with a conversation that
            was held elsewhere. Only where there is a `Policy.telling`.
    """

    key: bytes
    client: ClientId | None
    told: tuple[Words, ...] = ()


class Attached(Discreet, frozen=True, gc=False):
    """The client has come back over a new connection, which takes the session over.

    Attributes:
        client: The connection.
        shown: The digest of the key that it has shown, which is good.
        new: That of the key that it has to show the next time.
        last_event: The newest event that it has; no greater than the newest there is.
    """

    client: ClientId
    shown: bytes
    new: bytes
    last_event: int


class Subscribed(Struct, frozen=True, gc=False):
    """A client reads along, and takes nothing over.

    Attributes:
        client: It has shown a key that is good.
        last_event: The newest event that it has; no greater than the newest there is. None where
            it wants those alone that are still to come.
    """

    client: ClientId
    last_event: int | None


class Confirmed(Struct, frozen=True, gc=False):
    """The client has said something over its connection, so it has got the newest key."""


class Written(Struct, frozen=True, gc=False):
    """The events up to and including this one have been written to the client."""

    event: int


class Detached(Struct, frozen=True, gc=False):
    """A client is gone."""

    client: ClientId


class Opened(Struct, frozen=True, gc=False):
    """The model has opened a session."""

    model: ModelSession


class OpenFailed(Struct, frozen=True, gc=False):
    """The model has opened none."""

    failure: Failure


class ReplyParts(Discreet, frozen=True, gc=False):
    """Parts of a streamed reply have come, together."""

    turn: int
    parts: list[str | bytes]


class Submitted(Discreet, frozen=True, gc=False):
    """The model has taken a turn, and answers it later."""

    turn: int
    receipt: Receipt


class ReplyEnded(Struct, frozen=True, gc=False):
    """The model has answered a turn, whole."""

    turn: int
    reply: ModelReply


class InvokeFailed(Struct, frozen=True, gc=False):
    """The model has not answered a turn, and will not."""

    turn: int
    failure: Failure


class InvokeCancelled(Struct, frozen=True, gc=False):
    """A turn's request has been closed because `CancelInvoke` asked for it.

    Attributes:
        turn: Its number.
        outcome: `NOT_INVOKED` where it was never sent; None where only its reply tells.
    """

    turn: int
    outcome: Outcome | None = None


class CloseEnded(Struct, frozen=True, gc=False):
    """Closing a session at the model is over, well or badly."""

    model: ModelSession


class TimerFired(Struct, frozen=True, gc=False):
    """A timer's time has come."""

    timer: Timer


class Adopted(Struct, frozen=True, gc=False):
    """The session has been set up in this process: nothing that it waits for will come.

    Attributes:
        clients: Those that are still there.
        crashed: Whether the process before has died, so that a turn at the model may have been
            answered, and a client may have got what was not stored.
    """

    clients: tuple[ClientId, ...]
    crashed: bool


class Hold(Struct, frozen=True, gc=False):
    """Another process is to have the session.

    Attributes:
        on: Begin nothing more at the model; False to go on here after all.
    """

    on: bool


class Forgotten(Struct, frozen=True, gc=False):
    """What a client has been told is not in the store from which the session was set up."""


class Evict(Struct, frozen=True, gc=False):
    """An operator ends the session, while the gateway goes on."""


class Drain(Struct, frozen=True, gc=False):
    """The gateway shuts down.

    Attributes:
        force: Its time is up: do not wait for the turn at the model.
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
