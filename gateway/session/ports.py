"""The interfaces that the core needs, implemented by adapters.

``gateway.sagemaker`` implements `Model`, with the values and exceptions defined here. The
interfaces that ``gateway.stores`` implements are in ``storage.py``.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from gateway.errors import Failure
from gateway.protocol.discretion import Discreet
from gateway.protocol.messages import Event
from gateway.protocol.options import CallOptions


class ModelSession(Discreet, frozen=True, gc=False):
    """A model session.

    Attributes:
        id: The platform's session id. It is secret: no client ever sees it.
        expires_at: When the model drops it, in seconds since the epoch; None if unknown.
    """

    id: str
    expires_at: float | None = None

    def __repr__(self) -> str:
        return "<ModelSession>"


class ModelRequest(CallOptions, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A turn's request: a body, and the options of the call.

    Attributes:
        sha256: The body's digest if known, so that signing need not compute it again.
        stream: Stream the reply. A call that opens its session can't, and gets a whole reply.
        verbatim: Pass the reply on unchanged, each record of a stream as a part, even if the route
            extracts its text.
    """

    body: bytes
    content_type: str
    sha256: bytes | None = None
    stream: bool = False
    verbatim: bool = False


class ModelReply(Discreet, frozen=True, kw_only=True, gc=False):
    """The model's reply to a turn.

    Attributes:
        body: The reply's body, or only its text if the route extracts that and the request is not
            verbatim; None if it was streamed in parts.
        content_type: Its content type; None if the model gave none.
        variant: ``InvokedProductionVariant``.
        custom_attributes: ``CustomAttributes`` of the reply.
        new_session: The session that this reply opened or replaced (``NewSessionId``).
        session_closed: Whether the model has closed the session (``ClosedSessionId``): the turn's,
            or `new_session` if there is one.
    """

    body: bytes | None
    content_type: str | None = None
    variant: str | None = None
    custom_attributes: str | None = None
    new_session: ModelSession | None = None
    session_closed: bool = False


class Receipt(Discreet, frozen=True, kw_only=True, gc=False):
    """A submitted turn that is answered asynchronously: any process can await the reply.

    Attributes:
        id: The platform's id of the turn.
        reply_at: Where the reply will be stored.
        failure_at: Where an error will be stored; None if it won't be.
        until: When neither can appear any more, in seconds since the epoch.
    """

    id: str
    reply_at: str
    failure_at: str | None
    until: float


class ModelError(Exception):
    """A call to the model failed; `failure` says why, and whether the model received it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.code.value, failure.message)
        self.failure = failure


OnParts = Callable[[list[str | bytes]], None]
"""Receives parts of a streamed reply that have arrived together: at least one."""

OnEnd = Callable[[ModelReply | Failure | Receipt], None]
"""Receives the result of a turn: its reply, why it failed, or where its reply will be.

A receipt comes without any part of a reply, and only from models without sessions.
"""


class Call(Protocol):
    """A call in progress."""

    def cancel(self) -> object:
        """Cancel the call; no callback runs after this.

        Returns:
            `Outcome.NOT_INVOKED` if the model has certainly not received it; else anything.
        """
        ...


class Model(Protocol):
    """A route's model. `open` and `close` raise only `ModelError`."""

    async def open(self, principal: str) -> ModelSession:
        """Open a session with a separate call.

        Args:
            principal: The session's principal.
        """
        ...

    def invoke(
        self,
        request: ModelRequest,
        session: ModelSession | None,
        *,
        affinity: str,
        principal: str,
        until: float | None,
        on_parts: OnParts,
        on_end: OnEnd,
    ) -> Call:
        """Send a turn once. No callback runs before this returns.

        Args:
            request: The turn's request.
            session: The session to send it in; None if the model has none, or opens one with the
                first turn.
            affinity: A name for the conversation, at most 64 characters, for models without
                sessions that route by prefix.
            principal: The turn's principal.
            until: When its session expires, after which it must not be sent, by the loop's clock;
                None for no limit.
            on_parts: Called with the parts of a streamed reply as they arrive, in order: text, or
                bytes if the reply is not text.
            on_end: Called once, last.
        """
        ...

    def wait(self, receipt: Receipt, *, affinity: str, on_end: OnEnd) -> Call:
        """Await the reply to a turn that this or another process has submitted. No callback runs
        before this returns.

        Args:
            receipt: The turn's receipt.
            affinity: See `invoke`.
            on_end: Called once, with the reply or why it failed.
        """
        ...

    async def close(self, session: ModelSession) -> None:
        """Close a session. One that is already gone counts as closed."""
        ...


class LogBounds(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The limits of a session's log, which keeps events until the client acknowledges them.

    Attributes:
        max_events: How many events are kept.
        max_bytes: Their largest total size. The newest is kept whatever its size.
        max_age: How long one is kept, in seconds; checked whenever another one is added.
    """

    max_events: int
    max_bytes: int
    max_age: float


class Log(Protocol):
    """A session's events, numbered from 1 without gaps, kept until they are trimmed or dropped.

    Reading never blocks: the events of a log in another process are fetched ahead of its readers.

    Attributes:
        bounds: The limits of what is kept; the oldest events are dropped first.
        first: The oldest number that is kept; one past `last` if there is none.
        last: The newest number; 0 if there is none.
        told: The newest number that may be read: `last`, unless events are held back.
        holding: Whether new events are held back.
        trimmed: The newest number that no client needs any more.
        held: The size of the kept events in bytes.
    """

    told: int
    holding: bool

    @property
    def bounds(self) -> LogBounds: ...
    @property
    def first(self) -> int: ...
    @property
    def last(self) -> int: ...
    @property
    def trimmed(self) -> int: ...
    @property
    def held(self) -> int: ...

    def append(self, event: Event, now: float) -> None:
        """Add the event that follows `last`.

        Args:
            event: The event, with its number set.
            now: The time, in seconds of a monotonic clock.
        """
        ...

    def renumber(self, after: int, by: int) -> None:
        """Drop events up to and including `after`, and add `by` to the numbers of the others."""
        ...

    def trim(self, through: int) -> None:
        """Drop everything up to and including this number."""
        ...

    def shrink(self, max_bytes: int) -> None:
        """Drop the oldest events until the others fit, but never the newest."""
        ...

    def get(self, number: int) -> Event | None:
        """Return the event of that number; None if it was dropped, or may not be read yet."""
        ...

    def since(self, number: int) -> Sequence[Event]:
        """Return the kept events with greater numbers, even those that may not be read yet."""
        ...

    def bytes_after(self, position: int) -> int:
        """Return the size of the kept events with greater numbers, in bytes."""
        ...
