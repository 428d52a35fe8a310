"""How many connections each address has, of every kind."""

from collections import Counter
from collections.abc import Callable
from functools import partial

import structlog

from gateway.addresses import is_loopback, network_of
from gateway.logs import LogLimit

LINES_A_MINUTE = 20
"""How many lines are logged of those that are refused."""

log = structlog.stdlib.get_logger("gateway.connections")


class Peers:
    """Counts connections by the address of their other side, as long as there is a socket.

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

    def enter(self, address: str) -> Callable[[], None] | None:
        """Count one more.

        Returns:
            What is to be called when it is gone; None where there is no room for it.
        """
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
            return None
        self._there[network] += 1
        return partial(self._leave, network)

    def _leave(self, network: str) -> None:
        self._there[network] -= 1
        if not self._there[network]:
            del self._there[network]
