"""The port for authentication and limits: who a client is, what it may use, and for how long.

It is all that transports know of them: a visitor arrives, identifies itself, and leaves.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from gateway.errors import ErrorCode

ANONYMOUS = "anonymous"
"""The principal of all sessions if no credentials are required."""


class Credentials(NamedTuple):
    """The credentials of a visitor: one of the two, or none yet.

    Attributes:
        token: An API key or a JSON Web Token.
        ticket: A single-use ticket, see `Visitor.ticket`.
    """

    token: str | None = None
    ticket: str | None = None

    def __repr__(self) -> str:
        shown = [name for name in self._fields if getattr(self, name) is not None]
        return f"<Credentials {' '.join(shown) or 'none'}>"

    def __bool__(self) -> bool:
        return self.token is not None or self.ticket is not None


class Refused(Exception):
    """A visitor is refused, or disconnected.

    Attributes:
        code: Error code for the client.
        text: Message for people. It repeats nothing of the credentials.
        retry_after: Seconds to wait before a retry, if that can help.
    """

    def __init__(self, code: ErrorCode, text: str, retry_after: float | None = None) -> None:
        super().__init__(code.value, text)
        self.code = code
        self.text = text
        self.retry_after = retry_after


class Ticket(NamedTuple):
    """A single-use credential for the principal that has requested it.

    Attributes:
        value: The secret.
        expires_at: When it expires, in seconds since the epoch.
    """

    value: str
    expires_at: float

    def __repr__(self) -> str:
        return f"<Ticket until {self.expires_at:.0f}>"


class Allowance(NamedTuple):
    """A principal's rate limit of messages.

    Attributes:
        messages: Maximum burst.
        left: How many are allowed now.
        seconds: Seconds until the maximum burst is available again.
    """

    messages: int
    left: int
    seconds: float


class Visitor(Protocol):
    """A client: a connection, or a request while it is handled.

    Attributes:
        principal: Name of its principal; None before it is identified.
        is_operator: Whether it may see and end everybody's sessions.
        expires_at: When it must present a new token, in seconds since the epoch; None if its
            credentials do not expire.
        on_withdrawn: Called when its credentials are revoked before they expire.
    """

    on_withdrawn: Callable[[], None] | None

    @property
    def principal(self) -> str | None: ...
    @property
    def is_operator(self) -> bool: ...
    @property
    def expires_at(self) -> float | None: ...

    async def identify(self, credentials: Credentials, *, route: str | None) -> None:
        """Authenticate it, and count it towards its principal's limits.

        Args:
            credentials: Its credentials; if they are empty, it stays unidentified.
            route: Name of the route that it wants to use; None for none in particular.

        Raises:
            Refused: A limit is exceeded (`RATE_LIMITED`), the credentials are not valid
                (`UNAUTHENTICATED`), or the route is not allowed (`FORBIDDEN`).
        """
        ...

    def check_route(self, route: str) -> None:
        """Check that it may use a route that it was not identified for.

        Raises:
            Refused: It may not (`FORBIDDEN`).
        """
        ...

    async def refresh(self, token: str) -> None:
        """Replace its token by another one of the same principal.

        Raises:
            Refused: The token is not valid (`UNAUTHENTICATED`), or of another principal
                (`FORBIDDEN`).
        """
        ...

    async def ticket(self) -> Ticket:
        """Issue a ticket for its principal, with which a browser can connect.

        Raises:
            Refused: It is not identified, or has sent too many messages.
        """
        ...

    def take(self, size: int) -> float:
        """Count a message; returns 0, or the seconds to wait if the rate limit is exceeded.

        Args:
            size: Approximate size in bytes.
        """
        ...

    def refund(self) -> None:
        """Return its share of the handshake limits: it is identified, and one of many requests."""
        ...

    def allowance(self) -> Allowance | None:
        """Return what it may still send; None if there is no limit."""
        ...

    def release(self) -> None:
        """Record that it has left. Idempotent."""
        ...


class SessionQuota(Protocol):
    """Limits the number of sessions of each principal."""

    async def open_session(self, name: str) -> bool:
        """Count a new session; returns False if the principal is at its limit."""
        ...

    def adopt_session(self, name: str) -> None:
        """Count a session that has moved here from another replica, regardless of the limit."""
        ...

    def end_session(self, name: str) -> None:
        """Count the end of a session."""
        ...


class Admission(Protocol):
    """Admits visitors."""

    def arrive(self, address: str) -> Visitor:
        """Register a new connection or request; `Visitor.identify` decides whether it is admitted.

        Args:
            address: Address of the client.
        """
        ...
