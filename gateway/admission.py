"""The port in front of every way in: who is asking, what may they use, and when do they have to go.

Transports know this and nothing else of authentication and limits: a visitor arrives, says who it
is, and leaves.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from gateway.errors import ErrorCode

ANONYMOUS = "anonymous"
"""Whose every session is where nobody has to say who they are."""


class Credentials(NamedTuple):
    """What a visitor shows: one of the two, or nothing yet.

    Attributes:
        token: An API key or a JSON Web Token.
        ticket: Of `Admission.ticket`; it can be used once.
    """

    token: str | None = None
    ticket: str | None = None

    def __repr__(self) -> str:
        shown = [name for name in self._fields if getattr(self, name) is not None]
        return f"<Credentials {' '.join(shown) or 'none'}>"

    def __bool__(self) -> bool:
        return self.token is not None or self.ticket is not None


class Refused(Exception):
    """A visitor may not come in, or may not go on.

    Attributes:
        code: What a client is told.
        text: The same for people. It repeats nothing that was shown.
        retry_after: Seconds to wait before it may be tried again, where that can help.
    """

    def __init__(self, code: ErrorCode, text: str, retry_after: float | None = None) -> None:
        super().__init__(code.value, text)
        self.code = code
        self.text = text
        self.retry_after = retry_after


class Ticket(NamedTuple):
    """What lets its holder in once, as whoever has asked for it.

    Attributes:
        value: To be kept secret.
        expires_at: Seconds since the epoch.
    """

    value: str
    expires_at: float

    def __repr__(self) -> str:
        return f"<Ticket until {self.expires_at:.0f}>"


class Allowance(NamedTuple):
    """What somebody may still send.

    Attributes:
        messages: How many messages may come at once where none came before.
        left: How many may come now.
        seconds: After how long without any it is all of them.
    """

    messages: int
    left: int
    seconds: float


class Visitor(Protocol):
    """Somebody who is there: a connection, or a request for as long as it takes.

    Attributes:
        principal: Who it is; None where it has not said.
        is_operator: Whether it may see everybody's sessions, and end them.
        expires_at: When it has to show another token, in seconds since the epoch; None where what
            it has shown does not expire.
        on_withdrawn: Called when what it has shown is not good any more, before it expires.
    """

    on_withdrawn: Callable[[], None] | None

    @property
    def principal(self) -> str | None: ...
    @property
    def is_operator(self) -> bool: ...
    @property
    def expires_at(self) -> float | None: ...

    async def identify(self, credentials: Credentials, *, route: str | None) -> None:
        """Find out who it is; it then counts among that principal's.

        Args:
            credentials: What it shows. Where that is nothing, it is nobody as before.
            route: The name of the route that it wants to use; None for none in particular.

        Raises:
            Refused: It is one too many, or comes too soon (`RATE_LIMITED`); what it shows is
                nobody's (`UNAUTHENTICATED`); it may not use that route (`FORBIDDEN`).
        """
        ...

    def check_route(self, route: str) -> None:
        """See whether it may use a route that it was not identified for.

        Raises:
            Refused: It may not (`FORBIDDEN`).
        """
        ...

    async def refresh(self, token: str) -> None:
        """Show another token, of the same principal.

        Raises:
            Refused: It is nobody's (`UNAUTHENTICATED`), or another's (`FORBIDDEN`).
        """
        ...

    async def ticket(self) -> Ticket:
        """A ticket for whoever this is, for a browser to show when it connects.

        Raises:
            Refused: It has not said who it is.
        """
        ...

    def take(self, size: int) -> float:
        """Count a message; returns 0, or the seconds to wait where there were too many.

        Args:
            size: About how many bytes it has.
        """
        ...

    def refund(self) -> None:
        """Count its arrival no longer: it is known, and one of many requests."""
        ...

    def allowance(self) -> Allowance | None:
        """What it may still send; None where nothing counts it."""
        ...

    def release(self) -> None:
        """It has left. Calling this again does nothing."""
        ...


class SessionQuota(Protocol):
    """How many sessions each principal may have."""

    async def open_session(self, name: str) -> bool:
        """Count a session of that principal; False where it has as many as it may."""
        ...

    def adopt_session(self, name: str) -> None:
        """Count a session that is here because it was elsewhere before, however many there are."""
        ...

    def end_session(self, name: str) -> None:
        """A session is over."""
        ...


class Admission(Protocol):
    """Lets visitors in."""

    def arrive(self, address: str) -> Visitor:
        """Somebody has connected; whether it may, `Visitor.identify` says.

        Args:
            address: From where.
        """
        ...
