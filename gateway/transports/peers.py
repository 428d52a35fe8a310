"""Limits the connections of each address, of every kind."""

from collections import Counter
from collections.abc import Callable
from functools import partial

import structlog

from gateway.addresses import is_loopback, network_of
from gateway.logs import LogLimit

LINES_A_MINUTE = 20
"""Log lines a minute about refused connections."""

log = structlog.stdlib.get_logger("gateway.connections")


class Peers:
    """Counts open connections by the peer's address.

    Addresses of this machine and of trusted proxies, which connect for many clients, aren't
    limited.

    Args:
        most: Maximum connections of one address.
        trusts: Returns whether an address is a trusted proxy's.
    """

    def __init__(self, most: int, trusts: Callable[[str], bool]) -> None:
        self._most = most
        self._trusts = trusts
        self._there: Counter[str] = Counter()
        self._logged = LogLimit(LINES_A_MINUTE)

    def enter(self, address: str) -> Callable[[], None] | None:
        """Count another connection.

        Returns:
            The function to call when it has closed; None if the limit is reached.
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
