"""A route's settings for its sessions: the part of the configuration that the core reads."""

from enum import Enum
from typing import Any, Literal

from gateway.protocol.discretion import Discreet
from gateway.session.ports import LogBounds


class Opening(Enum):
    """How a model session is opened."""

    NONE = "none"
    """The model has no sessions."""
    CALL = "call"
    """By a separate call, before the first turn."""
    TURN = "turn"
    """By the first turn itself."""


class Recovery(Enum):
    """What happens to a conversation whose model session is gone."""

    NONE = "none"
    """It ends."""
    RENEW = "renew"
    """It continues in a new session, without context."""
    REPLAY = "replay"
    """It continues in a new session, to which it is replayed."""


Telling = Literal["sent", "replayed"]
"""How a session is given an imported conversation: as the texts of both sides, or by sending the
user's messages again, to which the model may reply differently."""


class Policy(Discreet, frozen=True, kw_only=True):
    """A route's rules and limits. Times are in seconds, sizes in bytes.

    Attributes:
        route: The route's name.
        opening: How a model session is opened.
        open_on_connect: Open it as soon as a client connects, not at its first message; only
            if `opening` is `Opening.CALL`.
        streams: Ask the model to stream replies, unless the client declines.
        template: JSON with the placeholders ``$text``, ``$messages``, ``$transcript`` and
            ``$stream``, which is the body for a message with ``text``; None if the text itself is
            the body.
        sends_history: The model keeps no history: ``$messages`` and ``$transcript`` are the whole
            conversation, as far as it is kept, not only the newest message.
        system: The system prompt, sent before that history; None for none.
        content_type: The content type of bodies whose message sets none.
        chat: Whether the model speaks OpenAI's chat completions: `template` is such a request,
            and has the defaults for what a client leaves out.
        json_only: Refuse ``text`` without a content type: it would be sent as JSON, and there is
            no template to make JSON of it.
        json_replies: Send replies to clients as JSON if they parse.
        client_fields: The restricted ``message.send`` options that this route lets clients set.
        message_bytes: The largest message.
        queued_messages: How many turns may wait behind the one at the model.
        remembered_messages: How many finished message ids are kept to recognise duplicates.
        retries: How often a call that the model certainly never saw is retried.
        retry_seconds: The longest backoff before the first retry; it doubles with each.
        retry_max_seconds: The longest backoff; if the model asks for more, there is no retry.
        on_expiry: What happens to the conversation when its session expires.
        on_lost: What happens to it when the model has lost the session.
        seed: The one message that replays a conversation, a template with ``$transcript`` or
            ``$messages``; None if the client's turns are sent again.
        transcript_turns: How many turns are kept to be sent again, as history or as a replay.
        transcript_bytes: Their largest total size.
        body_bytes: The largest body with history; if it would be larger, the oldest turns are
            left out. None for no limit.
        idle_seconds: A session without a turn for this long is closed at the model.
        session_seconds: How long a session lasts if the model doesn't say.
        expiry_margin_seconds: A session counts as expired this long before it is, to allow for
            clock skew.
        expiring_notice_seconds: How long before that a client is warned.
        resume_seconds: How long a session without a connection is kept.
        close_seconds: How long to wait for the model to close a session.
        log_events: How many events are kept for a client that has not acknowledged them.
        log_bytes: The same in bytes.
        log_seconds: How long they are kept.
        heartbeat_seconds: Announced to clients; a connection without a frame for twice as long is
            closed.
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
        """How a new session is given an imported conversation; None if it can't be."""
        if self.sends_history:
            return "sent"
        if self.opening is Opening.NONE:
            return None  # the model would not remember it
        if self.seed is not None:
            return "sent"
        return "replayed" if self.replays else None

    @property
    def log_bounds(self) -> LogBounds:
        """The limits of a session's log."""
        return LogBounds(
            max_events=self.log_events, max_bytes=self.log_bytes, max_age=self.log_seconds
        )
