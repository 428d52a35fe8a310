"""What a session asks to be done. Whoever runs it obeys in the order given."""

from msgspec import Struct

from gateway.errors import CloseCode
from gateway.protocol.messages import Event, Notice, SessionResumed
from gateway.session.events import Timer
from gateway.session.ports import ModelRequest, ModelSession, SessionRecord


class Emit(Struct, frozen=True, gc=False):
    """There is something new in the log, for whoever reads it; this is the newest."""

    event: Event


class Tell(Struct, frozen=True, gc=False):
    """Say this to the present connection alone; without one it is lost, and may be."""

    notice: Notice


class Attach(Struct, frozen=True, gc=False):
    """Make the connection that asks for it the present one, closing the one before it.

    Attributes:
        resumed: What to say to it first.
        after: The event that it is to read the log from, exclusive.
    """

    resumed: SessionResumed
    after: int


class OpenSession(Struct, frozen=True, gc=False):
    """Open a session at the model; answered by `Opened` or `OpenFailed`."""


class Invoke(Struct, frozen=True, gc=False):
    """Send a turn, once; answered by `ReplyEnded`, `InvokeFailed` or `InvokeCancelled`, and before
    that by any number of `ReplyParts`.
    """

    turn: int
    request: ModelRequest
    model: ModelSession | None


class CancelInvoke(Struct, frozen=True, gc=False):
    """Close a turn's request now; answered by `InvokeCancelled`."""

    turn: int


class CloseSession(Struct, frozen=True, gc=False):
    """Close a session at the model; answered by `CloseEnded`."""

    model: ModelSession


class Persist(Struct, frozen=True, gc=False):
    """Keep this record in the store."""

    record: SessionRecord


class Forget(Struct, frozen=True, gc=False):
    """Drop the session from the store; nothing but closing at the model comes after it."""


class SetTimer(Struct, frozen=True, gc=False):
    """Set, move or clear an alarm.

    Attributes:
        timer: Which.
        at: When, in seconds since the epoch; None clears it.
        spread: Seconds; a random part of it is to be added, so that many do not act at once.
    """

    timer: Timer
    at: float | None
    spread: float = 0.0


class CloseSocket(Struct, frozen=True, gc=False):
    """Close the present connection once it has been sent all events."""

    code: CloseCode
    reason: str


Effect = (
    Emit
    | Tell
    | Attach
    | OpenSession
    | Invoke
    | CancelInvoke
    | CloseSession
    | Persist
    | Forget
    | SetTimer
    | CloseSocket
)
