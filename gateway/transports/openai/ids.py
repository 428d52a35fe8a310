"""Ids that lead to a session, wherever it is, and let in whoever has one.

OpenAI's clients keep nothing of a session but the id of a response. So that has in it what another
client shows beside the session's id: it is a secret as long as what it leads to, and never logged.
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
    """A turn of a session, and what lets one in there.

    Attributes:
        session_id: The gateway's own id.
        key: What its client shows.
        turn: Counts the session's responses from 1; 0 for none of them.
        attempt: How many attempts at this turn have failed that another may take the place of.
    """

    session_id: str
    key: str
    turn: int
    attempt: int = 0

    def __repr__(self) -> str:
        return f"<Handle {self.session_id} {self.message_id}>"

    @property
    def message_id(self) -> str:
        """The id of the turn's message: who sends it first goes on with the session."""
        return f"r{self.turn}.{self.attempt}" if self.attempt else f"r{self.turn}"

    def asker(self, visitor: Visitor) -> Asker:
        """Whoever shows this."""
        return Asker(self.session_id, digest(self.key), visitor)

    def written(self, prefix: str) -> str:
        """As an id that begins so, such as ``resp_``."""
        attempt = f"x{self.attempt}" if self.attempt else ""
        return f"{prefix}{self.session_id}{self.key}{self.turn}{attempt}"


def new_key() -> str:
    """What a session is to be opened with."""
    return secrets.token_hex(16)


def handle_of(text: str, prefix: str) -> Handle | None:
    """What is written in an id; None where it is none of these."""
    found = _HANDLE.fullmatch(text, len(prefix)) if text.startswith(prefix) else None
    if found is None:
        return None
    session_id, key, turn, attempt = found.groups()
    return Handle(session_id, key, int(turn), int(attempt or 0))
