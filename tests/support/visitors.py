"""Visitors, for tests of what comes behind the door."""

from gateway.admission import Visitor
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
