"""What a route decides about its sessions: the part of the configuration that the core reads."""

from enum import Enum
from typing import Any, Literal

from gateway.protocol.discretion import Discreet
from gateway.session.ports import LogBounds


class Opening(Enum):
    """How a session comes into being at the model."""

    NONE = "none"
    """The model has no sessions."""
    CALL = "call"
    """By a call of its own, before the first turn."""
    TURN = "turn"
    """By the first turn itself."""


class Recovery(Enum):
    """What becomes of a conversation whose session at the model is gone."""

    NONE = "none"
    """It ends."""
    RENEW = "renew"
    """It goes on in a new session, which knows nothing of it."""
    REPLAY = "replay"
    """It goes on in a new session, which is told again what was said."""


Telling = Literal["sent", "replayed"]
"""How a session learns of a conversation that was held elsewhere: what both have said in it, or the
user's messages once more, which the model answers anew, perhaps in other words."""


class Policy(Discreet, frozen=True, kw_only=True):
    """A route's rules and bounds. Times are in seconds, sizes in bytes.

    Attributes:
        route: The route's name.
        opening: How a session comes into being at the model.
        open_on_connect: Open it as soon as a client connects, not at its first message; only
            where `opening` is `Opening.CALL`.
        streams: Ask the model for replies in parts, unless the client does not want them.
        template: JSON that the model is sent for a message with ``text``, with ``$text``,
            ``$messages``, ``$transcript`` and ``$stream`` in it; None where the text itself is the
            body.
        sends_history: The model keeps no history: ``$messages`` and ``$transcript`` are the whole
            conversation, as far as it is kept, and not the newest message alone.
        system: What the model is told ahead of that history; None for nothing.
        content_type: Sent with a body whose message names none.
        chat: Whether the model takes and gives OpenAI's chat completions: `template` is one, and
            says what is sent where a client says nothing.
        json_only: Refuse ``text`` whose message names no content type: it would be sent as JSON,
            and there is no template to make JSON of it.
        json_replies: Give replies to clients as JSON where they parse.
        client_fields: Names of the optional ``message.send`` fields that this route lets its
            clients set, of those that need leave.
        message_bytes: The largest message.
        queued_messages: How many turns may wait behind the one at the model.
        remembered_messages: How many finished message ids are kept to recognise duplicates.
        retries: How often a call that the model certainly never saw is made again.
        retry_seconds: The longest wait before the first of these; it doubles with each.
        retry_max_seconds: The longest wait before any; a model that asks for more is not waited
            for.
        on_expiry: What becomes of the conversation when its session expires.
        on_lost: The same when the model has lost it.
        seed: The one message that replays a conversation, a template with ``$transcript`` or
            ``$messages`` in it; None where the client's turns are sent again.
        transcript_turns: How many turns are kept to be sent again, as history or as a replay.
        transcript_bytes: How much they may hold together.
        body_bytes: The largest body that may be made of them as history: where they make a larger
            one, the oldest are left out. None for any.
        idle_seconds: A session without a turn for this long is closed at the model.
        session_seconds: How long a session lasts where the model does not say.
        expiry_margin_seconds: A session counts as expired this long before it is, for clocks
            that differ.
        expiring_notice_seconds: How long before that a client is told.
        resume_seconds: How long a session without a connection is kept.
        close_seconds: How long to wait for the model to close a session.
        log_events: How many events are kept for a client that has not acknowledged them.
        log_bytes: The same in bytes.
        log_seconds: How long they are kept.
        heartbeat_seconds: Announced to clients; twice this long without a frame ends a connection.
    """

    route: str
    opening: Opening = Opening.CALL
    open_on_connect: bool = True
    streams: bool = False
    template: Any = None
    sends_history: bool = False
    system: str | None = None
    content_type: str | None = None
    chat: bool = False
    json_only: bool = False
    json_replies: bool = False
    client_fields: frozenset[str] = frozenset()
    message_bytes: int = 6_291_456
    queued_messages: int = 16
    remembered_messages: int = 10_000
    retries: int = 3
    retry_seconds: float = 0.5
    retry_max_seconds: float = 8.0
    on_expiry: Recovery = Recovery.NONE
    on_lost: Recovery = Recovery.NONE
    seed: Any = None
    transcript_turns: int = 100
    transcript_bytes: int = 1_048_576
    body_bytes: int | None = None
    idle_seconds: float = 600.0
    session_seconds: float = 1200.0
    expiry_margin_seconds: float = 5.0
    expiring_notice_seconds: float = 60.0
    resume_seconds: float = 120.0
    close_seconds: float = 10.0
    log_events: int = 4096
    log_bytes: int = 67_108_864
    log_seconds: float = 600.0
    heartbeat_seconds: float = 30.0

    @property
    def replays(self) -> bool:
        """Whether a session that is gone can be replayed."""
        return Recovery.REPLAY in {self.on_expiry, self.on_lost}

    @property
    def telling(self) -> Telling | None:
        """How a new session can learn of a conversation that was held elsewhere; None for not."""
        if self.sends_history:
            return "sent"
        if self.opening is Opening.NONE:
            return None  # nobody would keep what the model is told
        if self.seed is not None:
            return "sent"
        return "replayed" if self.replays else None

    @property
    def log_bounds(self) -> LogBounds:
        """How much of what a session says is kept."""
        return LogBounds(
            max_events=self.log_events, max_bytes=self.log_bytes, max_age=self.log_seconds
        )
