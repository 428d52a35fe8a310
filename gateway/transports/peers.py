"""How many connections each address has that are not, or not yet, WebSockets."""

from collections import Counter
from collections.abc import Callable

import structlog

from gateway.addresses import is_loopback, network_of
from gateway.logs import LogLimit

LINES_A_MINUTE = 20
"""How many lines are logged of those that are refused."""

log = structlog.stdlib.get_logger("gateway.connections")


class Peers:
    """Counts connections by the address of their other side, from when they are made.

    Those of this machine and of trusted proxies, which speak for many, are taken without end.

    Args:
        most: How many one address may have.
        trusts: Whether an address is a trusted proxy's.
    """

    def __init__(self, most: int, trusts: Callable[[str], bool]) -> None:
        self._most = most
        self._trusts = trusts
        self._there: Counter[str] = Counter()
        self._logged = LogLimit(LINES_A_MINUTE)

    def enter(self, address: str) -> bool:
        """Count one more; False where there is no room for it, and it is not counted."""
        network = network_of(address)
        if (
            self._there[network] >= self._most
            and not is_loopback(address)
            and not self._trusts(address)
        ):
            why = "too many connections from one address"
            suppressed = self._logged.suppressed(why)
            if suppressed is not None:
                log.info("connection refused", why=why, client=address, suppressed=suppressed)
            return False
        self._there[network] += 1
        return True

    def leave(self, address: str) -> None:
        """One that was counted is gone, or has become a WebSocket."""
        network = network_of(address)
        self._there[network] -= 1
        if not self._there[network]:
            del self._there[network]
