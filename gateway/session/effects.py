"""What a session asks its runner to do, in the order given."""

from msgspec import Struct

from gateway.errors import CloseCode
from gateway.protocol.messages import Event, Notice
from gateway.session.events import ClientId, Timer
from gateway.session.ports import ModelRequest, ModelSession, Receipt


class Append(Struct, frozen=True, gc=False):
    """Append these events to the session's log, and notify its readers."""

    events: tuple[Event, ...]


class Renumber(Struct, frozen=True, gc=False):
    """Increase the numbers of the log's newest events, which no client has received.

    Attributes:
        after: The newest number that doesn't change.
        by: The increment.
    """

    after: int
    by: int


class Trim(Struct, frozen=True, gc=False):
    """Drop everything up to and including this event from the log: no client needs it."""

    through: int


class Tell(Struct, frozen=True, gc=False):
    """Send this only to the client whose message it answers; drop it if that client is gone."""

    client: ClientId
    notice: Notice


class Attach(Struct, frozen=True, gc=False):
    """Let a client read the log.

    Attributes:
        client: The client.
        after: The event to read from, exclusive.
        opens: Whether the client opened the session, and owns it.
        resumes: Whether the client resumes the session, and owns it; it receives
            ``session.resumed`` first. A client that neither opens nor resumes is a subscriber.
        expires_at: When the session expires, for ``session.resumed``.
    """

    client: ClientId
    after: int
    opens: bool = False
    resumes: bool = False
    expires_at: str | None = None


class Displace(Struct, frozen=True, gc=False):
    """Close this client's connection immediately: a newer one has taken the session over."""

    client: ClientId


class CloseClient(Struct, frozen=True, gc=False):
    """Close a client's connection once it has been sent all events.

    Attributes:
        client: The client; None for all of them.
    """

    code: CloseCode
    reason: str
    client: ClientId | None = None


class OpenSession(Struct, frozen=True, gc=False):
    """Open a model session; answered by `Opened` or `OpenFailed`."""


class Invoke(Struct, frozen=True, gc=False):
    """Send a turn, once; answered by `Submitted`, or by `ReplyEnded`, `InvokeFailed` or
    `InvokeCancelled`, preceded by any number of `ReplyParts`.

    Attributes:
        turn: The turn's number.
        request: The request.
        model: The model session to send it in, if there is one.
        until: When that must no longer be used, in seconds of the session's clock.
    """

    turn: int
    request: ModelRequest
    model: ModelSession | None
    until: float | None = None


class Await(Struct, frozen=True, gc=False):
    """Await the reply to a submitted turn; answered as `Invoke`, without parts."""

    turn: int
    receipt: Receipt


class CancelInvoke(Struct, frozen=True, gc=False):
    """Cancel a turn's request, or the wait for its reply; answered by `InvokeCancelled`."""

    turn: int


class CloseSession(Struct, frozen=True, gc=False):
    """Close a model session; answered by `CloseEnded`."""

    model: ModelSession


class Forget(Struct, frozen=True, gc=False):
    """Delete the session; only closing its model session can follow."""


class SetTimer(Struct, frozen=True, gc=False):
    """Set, move or clear a timer.

    Attributes:
        timer: The timer.
        at: When it fires, in seconds of the clock that `Session.handle` is given; None clears it.
        spread: Upper bound of a random delay in seconds to add, so that many timers set together
            don't fire together.
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
