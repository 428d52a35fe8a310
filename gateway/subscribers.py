"""Subscribers, which read a session's log."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Protocol

from gateway.errors import CloseCode
from gateway.protocol.messages import Notice
from gateway.session.events import ClientId
from gateway.session.ports import Log
from gateway.session.reader import LogReader


class Subscriber(Protocol):
    """A client's connection as its session sees it: a WebSocket or a request."""

    @property
    def reader(self) -> LogReader:
        """The client's position in the session's log."""
        ...

    def wake(self, *, soon: bool) -> None:
        """Announce new events in the log.

        Args:
            soon: Whether a client is waiting for them.
        """
        ...

    def flush(self) -> None:
        """Send pending events, as far as the client accepts them."""
        ...

    def tell(self, notice: Notice) -> None:
        """Send a notice after the events that are in the log now."""
        ...

    def close(self, code: CloseCode, reason: str) -> None:
        """Send the events that are in the log now, then close."""
        ...

    def abort(self, code: CloseCode, reason: str) -> None:
        """Close without sending anything more."""
        ...


class Subscribers:
    """The subscribers of one session, by number.

    Args:
        log: The log that they read.
        first: Number of the first subscriber.
    """

    __slots__ = ("_leaving", "_log", "_numbers", "_there")

    def __init__(self, log: Log, first: ClientId) -> None:
        self._log = log
        self._numbers = itertools.count(first)
        # Copied on write: subscribers may leave while it is iterated.
        self._there: Mapping[ClientId, Subscriber] = {}
        # Subscribers that were told to close, and first read what is in the log.
        self._leaving: dict[ClientId, Subscriber] = {}

    def __len__(self) -> int:
        """Return the number of subscribers, without those that were told to close."""
        return len(self._there)

    @property
    def are_leaving(self) -> bool:
        """Whether subscribers that were told to close are still reading."""
        return bool(self._leaving)

    def add(self, subscriber: Subscriber) -> ClientId:
        """Add a subscriber; returns its number."""
        client = next(self._numbers)
        self._there = {**self._there, client: subscriber}
        return client

    def put(self, client: ClientId, subscriber: Subscriber) -> None:
        """Add a subscriber that has a number already."""
        self._there = {**self._there, client: subscriber}

    def get(self, client: ClientId) -> Subscriber | None:
        """Return a subscriber, unless it is unknown or was told to close."""
        return self._there.get(client)

    def remove(self, client: ClientId) -> Subscriber | None:
        """Remove a subscriber; returns it as `get` does."""
        others = dict(self._there)
        subscriber = others.pop(client, None)
        self._there = others
        return subscriber

    def has_left(self, client: ClientId) -> bool:
        """Record that a subscriber has closed; returns whether it was told to."""
        return self._leaving.pop(client, None) is not None

    def wake(self, *, soon: bool) -> list[ClientId]:
        """Announce new events in the log to all; see `Subscriber.wake`.

        Returns:
            Subscribers that were too slow, and have been closed.
        """
        late = self._log.told - 1  # those that lack only the newest event don't lag
        laggards = []
        for client, subscriber in self._there.items():
            subscriber.wake(soon=soon)
            reader = subscriber.reader
            if reader.position < late and reader.lags:
                laggards.append(client)
        if laggards:
            self._drop(laggards)
        return laggards

    def flush(self) -> None:
        """Make all send pending events, so that those merely batching them don't count as slow."""
        for subscriber in [*self._there.values(), *self._leaving.values()]:
            subscriber.flush()

    def close(self, client: ClientId | None, code: CloseCode, reason: str) -> None:
        """Close one subscriber, or all, after they have read what is in the log now."""
        for each, subscriber in self._removed(client):
            self._leaving[each] = subscriber
            subscriber.close(code, reason)

    def abort(self, client: ClientId | None, code: CloseCode, reason: str) -> None:
        """Close one subscriber, or all, immediately."""
        for _, subscriber in self._removed(client):
            subscriber.abort(code, reason)

    def _removed(self, client: ClientId | None) -> Iterator[tuple[ClientId, Subscriber]]:
        for each in self._there if client is None else [client]:
            subscriber = self.remove(each)
            if subscriber is not None:
                yield each, subscriber

    def drop_laggards(self) -> list[ClientId]:
        """Close subscribers that are too slow; events that they have not read are no longer kept.

        Returns:
            Those of them that were not told to close before.
        """
        for client, subscriber in [*self._leaving.items()]:
            if subscriber.reader.lags:
                del self._leaving[client]
                subscriber.abort(CloseCode.TOO_SLOW, "too slow")
        laggards = [client for client, one in self._there.items() if one.reader.lags]
        self._drop(laggards)
        return laggards

    def _drop(self, laggards: list[ClientId]) -> None:
        for client in laggards:
            self.abort(client, CloseCode.TOO_SLOW, "too slow")
