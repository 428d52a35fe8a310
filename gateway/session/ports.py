"""What the core needs of the outside world, declared beside the core and implemented by adapters.

``gateway.sagemaker`` implements `Model`, which speaks in the values defined here, and raises no
exceptions but those defined here. What ``gateway.stores`` implements is in ``storage.py``.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from gateway.errors import Failure
from gateway.protocol.discretion import Discreet
from gateway.protocol.messages import Event
from gateway.protocol.options import CallOptions


class ModelSession(Discreet, frozen=True, gc=False):
    """A session that is open at the model.

    Attributes:
        id: The platform's session id. It is a secret of the gateway: no client ever sees it.
        expires_at: When the model drops it, in seconds since the epoch; None where the model
            did not say.
    """

    id: str
    expires_at: float | None = None

    def __repr__(self) -> str:
        return "<ModelSession>"


class ModelRequest(CallOptions, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One turn as the model is to receive it: a body, and the options of its call.

    Attributes:
        sha256: The body's digest, where it is known, so that signing needs no other look at it.
        stream: Ask for the reply in parts as it is made; a call that has to open its session can't,
            and gets it in one piece.
        verbatim: Hand the reply over as the model gives it, each record of a stream a part, also
            where the route takes its text from it.
    """

    body: bytes
    content_type: str
    sha256: bytes | None = None
    stream: bool = False
    verbatim: bool = False


class ModelReply(Discreet, frozen=True, kw_only=True, gc=False):
    """What the model answered to one turn.

    Attributes:
        body: The reply's body as it came, or its text alone where the route takes that from it and
            the request does not want it verbatim; None where it was handed over in parts.
        content_type: Its content type; None where the model gave none.
        variant: ``InvokedProductionVariant``.
        custom_attributes: ``CustomAttributes`` of the reply.
        new_session: The session that this reply opened or replaced (``NewSessionId``).
        session_closed: Whether the model said that it closed the session (``ClosedSessionId``):
            the turn's, or `new_session` where there is one.
    """

    body: bytes | None
    content_type: str | None = None
    variant: str | None = None
    custom_attributes: str | None = None
    new_session: ModelSession | None = None
    session_closed: bool = False


class Receipt(Discreet, frozen=True, kw_only=True, gc=False):
    """What a model gives for a turn that it answers later: any process can wait for the reply.

    Attributes:
        id: What the platform calls the turn.
        reply_at: Where its reply will be.
        failure_at: Where it will be said why there is none; None where that is said nowhere.
        until: When neither comes any more, in seconds since the epoch.
    """

    id: str
    reply_at: str
    failure_at: str | None
    until: float


class ModelError(Exception):
    """A call to the model failed; `failure` says how, and whether the model saw it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.code.value, failure.message)
        self.failure = failure


OnParts = Callable[[list[str | bytes]], None]
"""Takes parts of a streamed reply that have come together: one at least."""

OnEnd = Callable[[ModelReply | Failure | Receipt], None]
"""Takes what has become of a turn: its reply, why there is none, or where it will be.

A receipt comes without any part of a reply, and of models without sessions alone.
"""


class Call(Protocol):
    """A call that is under way."""

    def cancel(self) -> object:
        """Close its request. Nothing more is heard of it.

        Returns:
            `Outcome.NOT_INVOKED` where the model has certainly seen nothing; else anything.
        """
        ...


class Model(Protocol):
    """One route's way to its model. `open` and `close` raise `ModelError` and nothing else."""

    async def open(self, principal: str) -> ModelSession:
        """Open a session with a call of its own.

        Args:
            principal: Whose it is to be.
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
        """Send one turn, once. Nothing is heard of it before this has returned.

        Args:
            request: The turn.
            session: The session to send it in; None where the route's model has none, or opens
                it with the first turn.
            affinity: A name for the conversation, at most 64 characters, for models that have no
                sessions but route by prefix.
            principal: Whose turn it is.
            until: When it may no longer be sent, by the loop's clock: its session has expired
                then. None where it may be at any time.
            on_parts: Called with the parts of a streamed reply as they come, in order: text, or
                bytes where the reply is no text.
            on_end: Called once, last.
        """
        ...

    def wait(self, receipt: Receipt, *, affinity: str, on_end: OnEnd) -> Call:
        """Wait for the reply to a turn that was sent, by this process or by another. Nothing is
        heard of it before this has returned.

        Args:
            receipt: The turn's.
            affinity: See `invoke`.
            on_end: Called once, with the reply or why there is none.
        """
        ...

    async def close(self, session: ModelSession) -> None:
        """Close a session. A session that is gone already counts as closed."""
        ...


class LogBounds(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How much of what a session says is kept for a client that has not acknowledged it.

    Attributes:
        max_events: How many events.
        max_bytes: How much they may hold together. The newest is kept whatever its size.
        max_age: How long one is kept, in seconds; looked at whenever another one is added.
    """

    max_events: int
    max_bytes: int
    max_age: float


class Log(Protocol):
    """What a session has said, numbered from 1 without gaps, until it may be forgotten.

    It is read without waiting. A log that lives elsewhere is one whose events are fetched ahead of
    its readers.

    Attributes:
        bounds: How much is kept; the oldest events go first.
        first: The oldest number that can still be had; one past `last` where there is none.
        last: The newest number; 0 where there is none.
        told: The newest number that may be read: `last`, unless events are held back.
        holding: Whether those that are added are.
        trimmed: The newest number that nobody needs any more.
        held: How many bytes the kept events have.
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
            event: It has its number.
            now: The time, in seconds of a clock that is never set.
        """
        ...

    def renumber(self, after: int, by: int) -> None:
        """Drop everything up to and including `after`, and add to the numbers of what follows."""
        ...

    def trim(self, through: int) -> None:
        """Drop everything up to and including this number."""
        ...

    def shrink(self, max_bytes: int) -> None:
        """Drop the oldest events until the kept ones hold no more, but never the newest."""
        ...

    def get(self, number: int) -> Event | None:
        """The event of that number; None where it has been dropped, or may not be read yet."""
        ...

    def since(self, number: int) -> Sequence[Event]:
        """The kept events whose numbers are greater, also those that may not be read yet."""
        ...

    def bytes_after(self, position: int) -> int:
        """How much the kept events hold whose numbers are greater."""
        ...
