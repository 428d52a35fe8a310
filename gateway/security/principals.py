"""Authenticated principals."""

import msgspec


class PrincipalLimits(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Limits of a principal.

    Attributes:
        connections: Maximum of concurrent connections.
        sessions: Maximum of concurrent sessions.
        messages_per_second: With a burst of twice as many.
        bytes_per_second: Of messages; with a burst of twice as many.
    """

    connections: int
    sessions: int
    messages_per_second: float
    bytes_per_second: float


class Principal(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An authenticated principal.

    Attributes:
        name: Prefixed by how it was authenticated, as in ``key:ada``, so that names of different
            kinds can't be confused.
        routes: Routes it may use; None for all.
        expires_at: When the authentication expires, in seconds since the epoch; None for never.
        limits: Its own limits; None for the default ones.
        key: Digest of its API key; None without one.
        operator: Whether it may see and end everybody's sessions, and drain replicas.
    """

    name: str
    routes: frozenset[str] | None = None
    expires_at: float | None = None
    limits: PrincipalLimits | None = None
    key: str | None = None
    operator: bool = False

    def may_use(self, route: str) -> bool:
        """Whether it may use a route."""
        return self.routes is None or route in self.routes
