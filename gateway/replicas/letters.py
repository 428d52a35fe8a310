"""Letters: the messages between replicas, for clients whose session is on another replica.

There is a link for each such connection. Its letters are numbered in each direction: duplicates are
ignored, and the link is cut if one is missing. They are JSON, since a client message's JSON is kept
unchanged. A question of one replica to another has its own link, with a letter in each direction.
"""

import msgspec

from gateway.protocol.discretion import Discreet
from gateway.protocol.messages import (
    EventAck,
    MessageCancel,
    MessageSend,
    ServerMessage,
    SessionClose,
)
from gateway.session.events import ClientId


class _Letter(Discreet, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A letter of a link.

    Attributes:
        link: The link's name, unique among all replicas.
    """

    link: str


class Join(_Letter, frozen=True, kw_only=True, tag="join"):
    """To a session's owner: a client resumes it on another replica.

    Attributes:
        replica: The client's replica.
        session_id: The session.
        route: The route of its connection; None for any.
        principal: Its principal.
        shown: The digest of the resume key that was presented.
        new: The digest of its next resume key; None if it only subscribes.
        last_event: The newest event that it has; see `gateway.conversation.Resuming`.
        sent_at: When this was sent, by the store's clock. It is ignored once the sender has stopped
            waiting for an answer, since the client may have resumed another way.
    """

    replica: str
    session_id: str
    route: str | None
    principal: str
    shown: bytes
    new: bytes | None
    last_event: int | None
    sent_at: float


class Said(_Letter, frozen=True, kw_only=True, tag="said"):
    """To a session's owner: the client has sent a message.

    Attributes:
        number: Counts the client's messages from 1.
        message: The message; None for one that only matters to its connection, but proves that the
            client has received its resume key.
        size: Its approximate size in bytes.
    """

    number: int
    message: MessageSend | MessageCancel | EventAck | SessionClose | None = None
    size: int = 0


class Left(_Letter, frozen=True, kw_only=True, tag="left"):
    """To a session's owner: the client has disconnected."""


class Told(_Letter, frozen=True, kw_only=True, tag="told"):
    """From a session's owner: messages for the client.

    Attributes:
        number: Counts these letters from 1.
        messages: The messages in order, without the client's resume key.
        heard: The number of the newest client message that was processed.
        begun: In the first letter to a new subscriber, without messages: the event after which it
            reads.
    """

    number: int
    messages: list[ServerMessage]
    heard: int
    begun: int | None = None


class Shut(_Letter, frozen=True, kw_only=True, tag="shut"):
    """From a session's owner: the link has ended.

    Attributes:
        number: As in `Told`.
        code: The close code for the client's connection, unless the session can be taken over now.
        reason: The reason to close it with.
        heard: As in `Told`.
        client: The client's number in the session; None if it has none.
        last: Whether to deliver earlier messages to the client first.
        newest: The newest event that the client can have, if it claims to have newer ones.
    """

    number: int
    code: int
    reason: str
    heard: int = 0
    client: ClientId | None = None
    last: bool = True
    newest: int | None = None


class Ask(_Letter, frozen=True, kw_only=True, tag="ask"):
    """A question to another replica, on a link of its own.

    Attributes:
        replica: The replica that asks.
        question: The question as JSON.
        until: When the answer is no longer awaited, by the store's clock; it is ignored then.
    """

    replica: str
    question: msgspec.Raw
    until: float


class Answer(_Letter, frozen=True, kw_only=True, tag="answer"):
    """The answer to a question.

    Attributes:
        answer: The answer as JSON.
    """

    answer: msgspec.Raw


Letter = Join | Said | Left | Told | Shut | Ask | Answer

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Letter).decode
