"""Ids of responses and completions, which contain the id and the resume key of a session.

OpenAI's clients know nothing of sessions: they only store the ids of responses. An id is therefore
all that a client needs to resume the session at any replica. It is a secret for as long as what it
gives access to, and is never logged.
"""

import re
import secrets
from typing import NamedTuple

from gateway.admission import Visitor
from gateway.session.keys import digest
from gateway.transports.exchange import Asker

_HEX = "[0-9a-f]{32}"
_HANDLE = re.compile(rf"({_HEX})({_HEX})([1-9][0-9]{{0,8}}|0)(?:x([1-9][0-9]{{0,4}}))?")


class Handle(NamedTuple):
    """A turn of a session, with the session's resume key.

    Attributes:
        session_id: The gateway's id of the session.
        key: The resume key.
        turn: Number of the turn in the session, from 1; 0 if it is none of the session's turns.
        attempt: Number of earlier attempts at this turn, which failed and are replaced by it.
    """

    session_id: str
    key: str
    turn: int
    attempt: int = 0

    def __repr__(self) -> str:
        return f"<Handle {self.session_id} {self.message_id}>"

    @property
    def message_id(self) -> str:
        """The id of the turn's message: the request that sends it first continues the session."""
        return f"r{self.turn}.{self.attempt}" if self.attempt else f"r{self.turn}"

    def asker(self, visitor: Visitor) -> Asker:
        """Return credentials for the session, for a client that has presented this handle."""
        return Asker(self.session_id, digest(self.key), visitor)

    def written(self, prefix: str) -> str:
        """Format it as an id with a prefix, such as ``resp_``."""
        attempt = f"x{self.attempt}" if self.attempt else ""
        return f"{prefix}{self.session_id}{self.key}{self.turn}{attempt}"


def new_key() -> str:
    """Generate the resume key of a new session."""
    return secrets.token_hex(16)


def handle_of(text: str, prefix: str) -> Handle | None:
    """Parse an id with a prefix; None if it is malformed."""
    found = _HANDLE.fullmatch(text, len(prefix)) if text.startswith(prefix) else None
    if found is None:
        return None
    session_id, key, turn, attempt = found.groups()
    return Handle(session_id, key, int(turn), int(attempt or 0))
