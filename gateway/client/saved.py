"""Saved sessions, which another process can resume."""

import msgspec
from msgspec import Struct

from gateway.protocol.messages import EventNumber, Limits, MessageId


class SavedSession(str):
    """A saved session, to pass to `connect` as ``resume``: a string, to store as you like.

    Whoever has it can resume the session and read its replies, so protect it like a password.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "<SavedSession>"


class Position(Struct, frozen=True, kw_only=True):
    """Where a client has got to in a session, and what ``session.resumed`` does not say again.

    Attributes:
        accepted: The messages whose turns were under way.
        written: Those that were written and not yet accepted.
    """

    session_id: str
    resume_key: str
    last_event: EventNumber
    route: str
    limits: Limits
    heartbeat_seconds: float
    accepted: tuple[MessageId, ...] = ()
    written: tuple[MessageId, ...] = ()

    def __repr__(self) -> str:
        return f"<Position {self.session_id} {self.last_event}>"

    def save(self) -> SavedSession:
        """As text."""
        return SavedSession(msgspec.json.encode(self).decode())

    @classmethod
    def load(cls, saved: str) -> "Position":
        """What was saved.

        Raises:
            ValueError: It is nothing that was.
        """
        try:
            return msgspec.json.decode(saved.encode(), type=cls)
        except (msgspec.DecodeError, UnicodeEncodeError):
            # Its text may hold a key, so that it is not said what is wrong with it.
            text = "resume is not a saved session: pass what SessionClient.save or detach returned"
            raise ValueError(text) from None
