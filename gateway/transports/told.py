"""Parses the earlier conversation that a new session continues into turns. Does no I/O."""

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec
from msgspec import field

from gateway.admission import Refused
from gateway.errors import ErrorCode
from gateway.protocol.codecs import BAD_INPUT, explain
from gateway.protocol.discretion import Discreet
from gateway.session.events import Words
from gateway.session.history import History
from gateway.session.policy import Policy

EMPTY_BYTES = 256
"""Maximum size of a request without history: an empty object, or one with an empty history."""

Role = Literal["user", "assistant"]


class PastMessage(Discreet, frozen=True, forbid_unknown_fields=True):
    """A message of an earlier conversation.

    Attributes:
        role: ``user``, or ``assistant`` for the model.
        content: The text.
    """

    role: Role
    content: str


class NewSession(Discreet, frozen=True, forbid_unknown_fields=True):
    """How a session is to start.

    Attributes:
        history: An earlier conversation, oldest message first; the last message is the model's.
    """

    history: list[PastMessage] = field(default_factory=list)


def most_bytes(policy: Policy) -> int:
    """Maximum size of a request that opens a session on this route.

    Escaped as JSON, a character takes up to three times its bytes in UTF-8, apart from control
    characters, which don't occur in conversations; the JSON around the texts is added.
    """
    if policy.telling is None:
        return EMPTY_BYTES
    return 3 * policy.transcript_bytes + 256 * policy.transcript_turns


def cannot_be_told() -> Refused:
    """Return the refusal of a history that the route can't use."""
    text = "This route can't start from an earlier conversation: leave `history` out."
    return Refused(ErrorCode.VALIDATION_ERROR, text)


def told_of(body: bytes, policy: Policy) -> tuple[Words, ...]:
    """Parse the conversation that a session starts from, the oldest turn first.

    Args:
        body: The request's body; may be empty.
        policy: The route's rules.

    Raises:
        Refused: The body is not valid, or the route can't use a history, or not all of it.
    """
    if not body:
        return ()
    try:
        history = msgspec.json.decode(body, type=NewSession).history
    except BAD_INPUT as error:
        raise Refused(ErrorCode.BAD_MESSAGE, f"{explain(error)}.") from None
    if not history:
        return ()
    if history[-1].role != "assistant":
        text = "`history` must end with the role `assistant`: send what follows as a message."
        raise Refused(ErrorCode.BAD_MESSAGE, text)
    if policy.telling is None:
        raise cannot_be_told()
    told = in_turns((each.role, each.content) for each in history)
    if not _is_kept(told, policy):
        text = (
            f"`history` is too long: this route keeps {policy.transcript_turns} turns, and "
            f"{policy.transcript_bytes} bytes. Leave its oldest messages out."
        )
        raise Refused(ErrorCode.TOO_LARGE, text)
    return told


def _is_kept(told: Sequence[Words], policy: Policy) -> bool:
    """Return whether a route can keep all of it; too many turns aren't even converted."""
    if len(told) > policy.transcript_turns:
        return False
    trial = History(policy)
    trial.begin(told)
    return trial.transcript.whole


def in_turns(lines: Iterable[tuple[Role, str]]) -> tuple[Words, ...]:
    """Group lines into turns.

    Lines of the user without an answer become part of the next turn.
    """
    turns, said, answered = list[Words](), list[str](), list[str]()
    for role, words in lines:
        if role == "assistant":
            answered.append(words)
            continue
        if answered:
            turns.append(Words("\n\n".join(said), "\n\n".join(answered)))
            said, answered = [], []
        said.append(words)
    if said or answered:
        turns.append(Words("\n\n".join(said), "\n\n".join(answered)))
    return tuple(turns)
