"""Who somebody is, once that is known."""

import msgspec


class PrincipalLimits(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How much a principal may use.

    Attributes:
        connections: How many at once.
        sessions: How many at once.
        messages_per_second: With a burst of twice that.
        bytes_per_second: Of its messages; with a burst of twice that.
    """

    connections: int
    sessions: int
    messages_per_second: float
    bytes_per_second: float


class Principal(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Somebody who is known.

    Attributes:
        name: With how it is known before it, as ``key:ada``, so that one kind of name can't pass
            for another.
        routes: Those it may use; None for all.
        expires_at: Until when this holds, in seconds since the epoch; None for ever.
        limits: Its own; None for those of everybody.
        key: What recognises the key that was shown; None where it was none.
        operator: Whether it may see everybody's sessions, end them, and drain replicas.
    """

    name: str
    routes: frozenset[str] | None = None
    expires_at: float | None = None
    limits: PrincipalLimits | None = None
    key: str | None = None
    operator: bool = False

    def may_use(self, route: str) -> bool:
        """Whether it may use the route of that name."""
        return self.routes is None or route in self.routes
