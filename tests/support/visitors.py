"""Visitors, for tests of what comes behind the door."""

from collections.abc import Callable

from gateway.admission import Allowance, Credentials, Refused, Ticket, Visitor
from gateway.errors import ErrorCode
from gateway.security.door import Door
from gateway.security.limits import LocalAccounts
from gateway.security.principals import PrincipalLimits
from gateway.stores.memory import MemoryStore

LIMITS = PrincipalLimits(connections=1, sessions=1, messages_per_second=1, bytes_per_second=1)


def anybody() -> Visitor:
    """Somebody, where nobody has to say who they are."""
    door = Door(
        keys=None,
        tokens=None,
        tickets=MemoryStore(),
        accounts=LocalAccounts(LIMITS),
        connections_per_address=1,
        handshakes_per_second=1,
    )
    return door.arrive("127.0.0.1")


class Anybody:
    """A visitor who is whoever a test says, and lets himself in; see `gateway.admission`.

    Attributes:
        waits: How long it is to wait with its next message.
        refunds: How often its arrival was to count no longer.
        taken: How many messages were counted.
        allowed: What it may still send.
        routes: Those that it may use; None for all.
        is_operator: See there.
    """

    def __init__(self) -> None:
        self.principal: str | None = "anonymous"
        self.expires_at: float | None = None
        self.on_withdrawn: Callable[[], None] | None = None
        self.waits = 0.0
        self.allowed: Allowance | None = None
        self.routes: frozenset[str] | None = None
        self.is_operator = False
        self.there = 0
        self.refunds = 0
        self.taken = 0

    @property
    def required(self) -> bool:
        return self.routes is not None

    def arrive(self, address: str) -> "Anybody":
        assert address == "127.0.0.1"
        self.there += 1
        return self

    async def identify(self, credentials: Credentials, *, route: str | None) -> None:
        assert not credentials
        if route is not None:
            self.check_route(route)

    def check_route(self, route: str) -> None:
        if self.routes is not None and route not in self.routes:
            raise Refused(ErrorCode.FORBIDDEN, "You may not use this route.")

    async def refresh(self, token: str) -> None:
        raise NotImplementedError

    async def ticket(self) -> Ticket:
        raise NotImplementedError

    def take(self, size: int) -> float:
        assert size >= 0
        self.taken += 1
        return self.waits

    def refund(self) -> None:
        self.refunds += 1

    def allowance(self) -> Allowance | None:
        return self.allowed

    def release(self) -> None:
        self.there -= 1
