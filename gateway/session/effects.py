"""What a session asks to be done. Whoever runs it obeys in the order given."""

from msgspec import Struct

from gateway.errors import CloseCode
from gateway.protocol.messages import Event, Notice
from gateway.session.events import ClientId, Timer
from gateway.session.ports import ModelRequest, ModelSession, Receipt


class Append(Struct, frozen=True, gc=False):
    """Add these events to the session's log, and let its readers know."""

    events: tuple[Event, ...]


class Renumber(Struct, frozen=True, gc=False):
    """Add to the numbers of the log's newest events, which no client has got.

    Attributes:
        after: The newest number that stays as it is.
        by: How much is added.
    """

    after: int
    by: int


class Trim(Struct, frozen=True, gc=False):
    """Drop everything up to and including this event from the log: nobody needs it any more."""

    through: int


class Tell(Struct, frozen=True, gc=False):
    """Say this to the client alone whose message it answers; if that is gone, to nobody."""

    client: ClientId
    notice: Notice


class Attach(Struct, frozen=True, gc=False):
    """Let a client read the log.

    Attributes:
        client: Which.
        after: The event that it is to read from, exclusive.
        opens: Whether it has asked for the session, which is its.
        resumes: Whether the session is its again; it is to be told first that it goes on. Who
            neither opens nor resumes it reads along.
        expires_at: What it is then told of the session's expiry.
    """

    client: ClientId
    after: int
    opens: bool = False
    resumes: bool = False
    expires_at: str | None = None


class Displace(Struct, frozen=True, gc=False):
    """Close this client's connection at once: a newer one has taken the session over."""

    client: ClientId


class CloseClient(Struct, frozen=True, gc=False):
    """Close a client's connection once it has been sent all events.

    Attributes:
        client: Whose; None for all of them.
    """

    code: CloseCode
    reason: str
    client: ClientId | None = None


class OpenSession(Struct, frozen=True, gc=False):
    """Open a session at the model; answered by `Opened` or `OpenFailed`."""


class Invoke(Struct, frozen=True, gc=False):
    """Send a turn, once; answered by `Submitted`, or by `ReplyEnded`, `InvokeFailed` or
    `InvokeCancelled`, and before these by any number of `ReplyParts`.

    Attributes:
        turn: Its number.
        request: What to send.
        model: The session to send it in, if there is one.
        until: When that is no longer to be used, in seconds of the session's clock.
    """

    turn: int
    request: ModelRequest
    model: ModelSession | None
    until: float | None = None


class Await(Struct, frozen=True, gc=False):
    """Wait for the reply to a turn that was submitted; answered as `Invoke`, without parts."""

    turn: int
    receipt: Receipt


class CancelInvoke(Struct, frozen=True, gc=False):
    """Close a turn's request, or wait for its reply no longer; answered by `InvokeCancelled`."""

    turn: int


class CloseSession(Struct, frozen=True, gc=False):
    """Close a session at the model; answered by `CloseEnded`."""

    model: ModelSession


class Forget(Struct, frozen=True, gc=False):
    """Keep nothing of the session; nothing but closing at the model comes after it."""


class SetTimer(Struct, frozen=True, gc=False):
    """Set, move or clear a timer.

    Attributes:
        timer: Which.
        at: When, in seconds of the clock that `Session.handle` is given; None clears it.
        spread: Seconds; a random part of it is to be added, so that many do not act at once.
    """

    timer: Timer
    at: float | None
    spread: float = 0.0


Effect = (
    Append
    | Renumber
    | Trim
    | Tell
    | Attach
    | Displace
    | CloseClient
    | OpenSession
    | Invoke
    | Await
    | CancelInvoke
    | CloseSession
    | Forget
    | SetTimer
)
