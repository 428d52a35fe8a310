"""Sends and receives letters, through inboxes in the store."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from gateway.health import Health
from gateway.replicas import letters
from gateway.session.storage import ReplicaStore, StoreUnavailable

COLLECT_SECONDS = 1.0
"""How long one request to the store waits for letters."""

AGAIN_SECONDS = 0.2
"""The pause before an unavailable store is asked for letters again."""

MAX_INBOX = 100_000
"""A replica with more letters than this is taken not to read them."""

log = structlog.stdlib.get_logger("gateway.replicas")


class Mail:
    """Sends and receives a replica's letters.

    Args:
        name: The replica's name.
        store: The store with the inboxes.
        health: The store's health.
        spawn: Runs work in the background.
        take: Called with each letter received.
        unheard: Called with a replica that doesn't receive; with None if this one can't receive.
    """

    def __init__(
        self,
        name: str,
        store: ReplicaStore,
        health: Health,
        spawn: Callable[[Coroutine[Any, Any, object]], object],
        *,
        take: Callable[[letters.Letter], None],
        unheard: Callable[[str | None], None],
    ) -> None:
        self._name = name
        self._store = store
        self._health = health
        self._spawn = spawn
        self._take = take
        self._unheard = unheard
        self._out: dict[str, list[bytes]] = {}
        self._is_over = False

    def stop(self) -> None:
        """Stop sending."""
        self._is_over = True

    def post(self, replica: str, letter: letters.Letter) -> None:
        """Send a letter, in order."""
        if self._is_over:
            return
        if replica not in self._out:
            self._out[replica] = []
            self._spawn(self._send(replica))
        self._out[replica].append(letters.encode(letter))

    async def _send(self, replica: str) -> None:
        waiting = 0
        try:
            while waiting <= MAX_INBOX and (batch := self._out[replica]):
                self._out[replica] = []
                with self._health.call():
                    waiting = await self._store.post(replica, batch)
        except StoreUnavailable:
            waiting = MAX_INBOX + 1  # it is unknown whether they were posted
        finally:
            del self._out[replica]
        if waiting > MAX_INBOX:
            self._unheard(replica)

    async def collect(self) -> None:
        """Receive letters until this is cancelled."""
        while True:
            try:
                batch = await self._store.collect(self._name, COLLECT_SECONDS)
            except StoreUnavailable as error:
                self._health.failed(error)
                self._unheard(None)
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            for each in batch:
                try:
                    self._take(letters.decode(each))
                except Exception:
                    log.exception("a message from another replica could not be handled")
