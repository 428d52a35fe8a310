"""The messages of the wire protocol, declared once for both codecs.

The types of client messages state what section 3 of ``PROTOCOL.md`` requires; codecs check what
types can't express, and also patterns, which would be matched again each time that a frame repeats
a field. ``UNSET`` means that a field is absent, which is not the same as ``null``.

Messages have no reference cycles, so the garbage collector need not track them (``gc=False``):
thousands of them are kept for clients that may resume.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from gateway.errors import ErrorCode, Outcome
from gateway.protocol.discretion import Discreet
from gateway.protocol.options import CallOptions

MessageId = Annotated[str, Meta(min_length=1, max_length=64)]
EventNumber = Annotated[int, Meta(ge=0)]
Status = Literal["completed", "cancelled", "failed"]
Progress = Literal["queued", "running", "completed", "cancelled", "failed"]
ClosedReason = Literal["client", "expired", "lost", "idle", "model", "operator"]
RenewedReason = Literal["expiring", "expired", "lost"]
Context = Literal["lost", "replayed", "partial"]


class _Client(
    Discreet,
    frozen=True,
    kw_only=True,
    gc=False,
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """A message from a client."""


class SessionOpen(_Client, frozen=True, kw_only=True, tag="session.open"):
    """The first message of a connection: opens a session, or resumes one."""

    token: str | UnsetType = UNSET
    session_id: str | UnsetType = UNSET
    resume_key: str | UnsetType = UNSET
    last_event: EventNumber | UnsetType = UNSET


class MessageSend(_Client, CallOptions, frozen=True, kw_only=True, tag="message.send"):
    """One turn for the model, with the options of its call.

    A codec returns it with exactly one of ``text``, ``json`` (JSON in either codec) and ``bytes``,
    to which ``base64`` has been converted. ``verbatim`` is internal, and never set by a client: it
    asks for the model's reply unchanged, with each record of a stream as a part, instead of the
    text that the route extracts. It requires a body in the model's format, not ``text``.
    """

    id: MessageId
    text: str | UnsetType = UNSET
    json: Raw | UnsetType = UNSET
    base64: str | UnsetType = UNSET
    data: bytes | UnsetType = field(default=UNSET, name="bytes")
    stream: bool | UnsetType = UNSET
    verbatim: bool | UnsetType = UNSET


class MessageCancel(_Client, frozen=True, kw_only=True, tag="message.cancel"):
    """Cancels a turn, queued or running."""

    id: MessageId


class EventAck(_Client, frozen=True, kw_only=True, tag="event.ack"):
    """Acknowledges all events up to this one, which may then be forgotten."""

    event: EventNumber


class AuthRefresh(_Client, frozen=True, kw_only=True, tag="auth.refresh"):
    """A new token that replaces an expiring one."""

    token: str


class SessionClose(_Client, frozen=True, kw_only=True, tag="session.close"):
    """Closes the session, at the model too."""


class Ping(_Client, frozen=True, kw_only=True, tag="ping"):
    """Asks for a pong; a heartbeat that browsers can send."""

    data: Annotated[str, Meta(max_length=125)] | UnsetType = UNSET


ClientMessage = (
    SessionOpen | MessageSend | MessageCancel | EventAck | AuthRefresh | SessionClose | Ping
)


class _Server(Discreet, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A message to a client."""


class Limits(Struct, frozen=True, kw_only=True, gc=False):
    """The limits of a client."""

    message_bytes: int
    queued_messages: int
    resume_seconds: float


class ErrorObject(_Server, frozen=True, kw_only=True):
    """Why a turn failed."""

    code: ErrorCode
    message: str
    retryable: bool
    outcome: Outcome
    retry_after: float | UnsetType = UNSET


class SessionOpened(_Server, frozen=True, kw_only=True, tag="session.opened"):
    """The session is open; its id is the gateway's own."""

    event: int
    session_id: str
    resume_key: str
    expires_at: str | None
    route: str
    limits: Limits
    heartbeat_seconds: float


class MessageAccepted(_Server, frozen=True, kw_only=True, tag="message.accepted"):
    """The message was accepted: the turn will end in exactly one ``message.done``."""

    event: int
    id: str
    queued: int


class MessageDelta(_Server, frozen=True, kw_only=True, tag="message.delta"):
    """A part of a streamed reply; ``index`` counts the turn's parts from 0."""

    event: int
    id: str
    index: int
    text: str | UnsetType = UNSET
    base64: bytes | UnsetType = UNSET
    data: bytes | UnsetType = field(default=UNSET, name="bytes")


class MessageDone(_Server, frozen=True, kw_only=True, tag="message.done"):
    """The end of a turn, with the reply's body unless it was streamed.

    A cancelled turn has ``outcome``; a failed one has it in its ``error``. ``dropped_turns`` is
    present if the gateway sends the history and could not send all of it.
    """

    event: int
    id: str
    status: Status
    text: str | UnsetType = UNSET
    json: Raw | UnsetType = UNSET
    base64: bytes | UnsetType = UNSET
    data: bytes | UnsetType = field(default=UNSET, name="bytes")
    content_type: str | UnsetType = UNSET
    invoked_production_variant: str | UnsetType = UNSET
    custom_attributes: str | UnsetType = UNSET
    deltas: int
    duration_ms: int
    dropped_turns: int | UnsetType = UNSET
    outcome: Outcome | UnsetType = UNSET
    error: ErrorObject | UnsetType = UNSET


class SessionRenewed(_Server, frozen=True, kw_only=True, tag="session.renewed"):
    """A new session at the model has replaced a lost or expired one.

    Clients must treat an unknown ``context`` as an extension.
    """

    event: int
    reason: RenewedReason
    context: Context | str
    expires_at: str | None


class SessionUpdated(_Server, frozen=True, kw_only=True, tag="session.updated"):
    """The model has set or changed the session's expiry."""

    event: int
    expires_at: str | None


class SessionExpiring(_Server, frozen=True, kw_only=True, tag="session.expiring"):
    """The session is about to expire."""

    event: int
    expires_at: str


class SessionClosed(_Server, frozen=True, kw_only=True, tag="session.closed"):
    """The session has ended; the socket closes next."""

    event: int
    reason: ClosedReason


class SessionResumed(_Server, frozen=True, kw_only=True, tag="session.resumed"):
    """The session continues on this connection. The events after ``last_event`` of its
    ``session.open`` follow, except for those numbered from ``lost[0]`` to ``lost[1]``.
    """

    session_id: str
    resume_key: str
    expires_at: str | None
    last_event: int
    lost: tuple[int, int] | None


class MessageDuplicate(_Server, frozen=True, kw_only=True, tag="message.duplicate"):
    """This message id was accepted before; the model is not invoked again."""

    id: str
    status: Progress


class ErrorMessage(_Server, frozen=True, kw_only=True, tag="error"):
    """A message was refused, or a session could not be opened."""

    code: ErrorCode
    message: str
    id: str | UnsetType = UNSET
    retryable: bool
    retry_after: float | UnsetType = UNSET


class Pong(_Server, frozen=True, kw_only=True, tag="pong"):
    """Answers a ping."""

    data: str | UnsetType = UNSET


Event = (
    SessionOpened
    | MessageAccepted
    | MessageDelta
    | MessageDone
    | SessionRenewed
    | SessionUpdated
    | SessionExpiring
    | SessionClosed
)
"""A numbered server message."""

Notice = SessionResumed | MessageDuplicate | ErrorMessage | Pong
"""A server message without a number: it belongs to a connection, not to the session."""

ServerMessage = Event | Notice
