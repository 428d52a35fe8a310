"""What replicas say to each other: a client's connection is at one, its session at another.

A link is one such connection. Its letters are numbered in each direction: one that comes again is
passed over, and where one is missing the link is cut. They are JSON, since a message's JSON is kept
as it is. A question of one replica to another has a link too, and one letter in each direction.
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
    """Belongs to a link.

    Attributes:
        link: Its name, unique among all replicas.
    """

    link: str


class Join(_Letter, frozen=True, kw_only=True, tag="join"):
    """To a session's owner: a client has come back for it, here.

    Attributes:
        replica: Where the client is.
        session_id: The session.
        route: Where it has connected; None where a session of any will do.
        principal: Who it is.
        shown: The digest of the key that it has shown.
        new: That of the key that it is told there; None where it reads along.
        last_event: The newest event that it has; see `gateway.conversation.Resuming`.
        sent_at: When this was sent, by the store's clock: it is void when nobody waits for the
            answer, who may have come back by another way.
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
    """To a session's owner: the client has said something.

    Attributes:
        number: Counts what it says, from 1.
        message: What; None where it is something about which only its connection knows more: it
            has got the key that it was given.
        size: About how many bytes it has.
    """

    number: int
    message: MessageSend | MessageCancel | EventAck | SessionClose | None = None
    size: int = 0


class Left(_Letter, frozen=True, kw_only=True, tag="left"):
    """To a session's owner: the client is gone."""


class Told(_Letter, frozen=True, kw_only=True, tag="told"):
    """From a session's owner: messages for the client.

    Attributes:
        number: Counts what is told, from 1.
        messages: In their order, without the client's key.
        heard: The number of the newest of what the client has said that was taken in.
        begun: After which event one reads along that has just begun; with no messages.
    """

    number: int
    messages: list[ServerMessage]
    heard: int
    begun: int | None = None


class Shut(_Letter, frozen=True, kw_only=True, tag="shut"):
    """From a session's owner: there is nothing more to tell.

    Attributes:
        number: As in `Told`.
        code: What to close the client's connection with, unless its session can be had now.
        reason: The same in words.
        heard: As in `Told`.
        client: What the session knows the client as; None where it does not.
        last: Whether what was told before is to reach the client.
        newest: Where it says that it has events which it can't have, the newest that it can.
    """

    number: int
    code: int
    reason: str
    heard: int = 0
    client: ClientId | None = None
    last: bool = True
    newest: int | None = None


class Ask(_Letter, frozen=True, kw_only=True, tag="ask"):
    """A question, which belongs to no client: its link is its own.

    Attributes:
        replica: Who asks.
        question: As JSON, for whoever answers it there.
        until: When nobody waits for the answer any more, by the store's clock: then it is void.
    """

    replica: str
    question: msgspec.Raw
    until: float


class Answer(_Letter, frozen=True, kw_only=True, tag="answer"):
    """What is answered.

    Attributes:
        answer: As JSON.
    """

    answer: msgspec.Raw


Letter = Join | Said | Left | Told | Shut | Ask | Answer

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Letter).decode
