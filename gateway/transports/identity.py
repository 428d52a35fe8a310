"""A connection's identity, for as long as its credential is valid."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from gateway.admission import Credentials, Refused, Visitor
from gateway.errors import ErrorCode

OnRefused = Callable[[Refused], None]


class Identity:
    """A connection's visitor, whose token expires unless the client refreshes it.

    Args:
        visitor: The client; released with this.
        route: Name of its route.
        on_refused: Called if another token is refused; the previous one stays valid.
        on_lost: Called when the credential expires or is withdrawn.

    Attributes:
        visitor: The client.
    """

    __slots__ = (
        "_checking",
        "_expiry",
        "_on_lost",
        "_on_refused",
        "_released",
        "_route",
        "_shown",
        "visitor",
    )

    def __init__(
        self, visitor: Visitor, route: str, *, on_refused: OnRefused, on_lost: OnRefused
    ) -> None:
        self.visitor = visitor
        self._route = route
        self._on_refused: OnRefused | None = on_refused
        self._on_lost: OnRefused | None = on_lost
        self._expiry: asyncio.TimerHandle | None = None
        self._checking = False
        self._shown: str | None = None
        self._released = False

    @property
    def is_known(self) -> bool:
        """Whether the client is authenticated, or need not be."""
        return self.visitor.principal is not None

    def principal(self) -> str:
        """Return the principal that owns the session.

        Raises:
            Refused: The client isn't authenticated.
        """
        if self.visitor.principal is None:
            raise Refused(ErrorCode.UNAUTHENTICATED, "This requires a key, a token or a ticket.")
        return self.visitor.principal

    async def show(self, credentials: Credentials) -> None:
        """See `Visitor.identify`."""
        self.visitor.on_withdrawn = partial(self._lose, "Your key has been withdrawn.")
        await self.visitor.identify(credentials, route=self._route)
        self._expire()

    def refresh(self, token: str, spawn: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        """Check another token, after the check of a previous one if that is running.

        Args:
            token: The token; replaces one that waits to be checked.
            spawn: Runs a coroutine in the background.
        """
        self._shown = token
        if not self._checking:
            self._checking = True
            spawn(self._check())

    def release(self) -> None:
        """Release the visitor."""
        self._released = True
        self._on_refused = self._on_lost = None  # they refer to the connection
        self.visitor.release()
        self._stop_timer()

    async def _check(self) -> None:
        try:
            while (token := self._shown) is not None and not self._released:
                self._shown = None
                try:
                    await self.visitor.refresh(token)
                except Refused as error:
                    if self._on_refused is not None:
                        self._on_refused(error)
                else:
                    self._expire()
        finally:
            self._checking = False

    def _expire(self) -> None:
        """Schedule the loss of the identity for when its credential expires."""
        self._stop_timer()
        expires_at = self.visitor.expires_at
        if expires_at is not None and not self._released:
            left = max(0.0, expires_at - time.time())
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_later(left, self._lose, "Your token has expired.")

    def _stop_timer(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    def _lose(self, text: str) -> None:
        if self._on_lost is not None:
            self._on_lost(Refused(ErrorCode.UNAUTHENTICATED, text))
