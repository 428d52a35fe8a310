"""Counts and logs open WebSockets of every kind."""

import asyncio
from collections import Counter
from collections.abc import Callable

import structlog

from gateway.errors import CloseCode

KNOWN_CODES = frozenset({*map(int, CloseCode), 1001, 1002, 1005, 1006, 1007})
"""Close codes that are counted separately: clients may send any from 3000 to 4999."""

OTHER_CODE = 0
"""Counts all other codes."""

OnEnd = Callable[[int, str | None], None]
"""Called with the close code and the gateway's id of the session when a WebSocket has closed."""

log = structlog.stdlib.get_logger("gateway.connections")


class Connections:
    """Counts WebSockets, and logs when they open and close.

    Args:
        most: Maximum number at once.

    Attributes:
        connections: Number of open connections, by route and subprotocol, "raw" for none.
        closed: Number of closed connections, by route and close code.
        turned_away: Number of connections refused because of the maximum.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._all = 0
        self._loop = asyncio.get_running_loop()
        self.connections: Counter[tuple[str, str]] = Counter()
        self.closed: Counter[tuple[str, int]] = Counter()
        self.turned_away = 0

    def has_room(self) -> bool:
        """Return whether another connection is allowed; otherwise count a refused one."""
        if self._all < self._most:
            return True
        self.turned_away += 1
        return False

    def opened(self, route: str | None, subprotocol: str, client: str) -> OnEnd:
        """Count an opened connection.

        Args:
            route: Name of its route; None if each message names one.
            subprotocol: Its subprotocol.
            client: The client's address.

        Returns:
            The function to call when it has closed.
        """
        self._all += 1
        counted, since = route or "", self._loop.time()
        self.connections[counted, subprotocol] += 1
        about = {"route": route, "subprotocol": subprotocol, "client": client}
        log.info("connection opened", **about, connections=self._all)

        def ended(code: int, session: str | None) -> None:
            self._all -= 1
            self.connections[counted, subprotocol] -= 1
            self.closed[counted, code if code in KNOWN_CODES else OTHER_CODE] += 1
            log.info(
                "connection closed",
                **about,
                session=session,
                code=code,
                seconds=round(self._loop.time() - since, 3),
                connections=self._all,
            )

        return ended
