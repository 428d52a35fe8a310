"""Those who read a session's log."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Protocol

from gateway.errors import CloseCode
from gateway.protocol.messages import Notice
from gateway.session.events import ClientId
from gateway.session.ports import Log
from gateway.session.reader import LogReader


class Subscriber(Protocol):
    """What a session asks of a client's connection, be it a WebSocket or a request."""

    @property
    def reader(self) -> LogReader:
        """The client's place in the session's log."""
        ...

    def wake(self, *, soon: bool) -> None:
        """The log has news.

        Args:
            soon: Whether somebody waits for it.
        """
        ...

    def flush(self) -> None:
        """Send what there is, as far as the client takes it."""
        ...

    def tell(self, notice: Notice) -> None:
        """Send this after the events that are in the log now."""
        ...

    def close(self, code: CloseCode, reason: str) -> None:
        """Send what is in the log now, then close."""
        ...

    def abort(self, code: CloseCode, reason: str) -> None:
        """Close without sending anything more."""
        ...


class Subscribers:
    """The subscribers of one session, by number.

    Args:
        log: What they read.
        first: The number of the first.
    """

    __slots__ = ("_leaving", "_log", "_numbers", "_there")

    def __init__(self, log: Log, first: ClientId) -> None:
        self._log = log
        self._numbers = itertools.count(first)
        # Replaced and never changed: it is gone through while some of them leave.
        self._there: Mapping[ClientId, Subscriber] = {}
        # Those that have been told to close, and read what is in the log before they do.
        self._leaving: dict[ClientId, Subscriber] = {}

    def __len__(self) -> int:
        """How many there are that have not been told to close."""
        return len(self._there)

    @property
    def are_leaving(self) -> bool:
        """Whether some that have been told to close still read."""
        return bool(self._leaving)

    def add(self, subscriber: Subscriber) -> ClientId:
        """Let one more read; returns its number."""
        client = next(self._numbers)
        self._there = {**self._there, client: subscriber}
        return client

    def put(self, client: ClientId, subscriber: Subscriber) -> None:
        """Let one read who has a number already."""
        self._there = {**self._there, client: subscriber}

    def get(self, client: ClientId) -> Subscriber | None:
        """The one of that number, if it is there and has not been told to close."""
        return self._there.get(client)

    def remove(self, client: ClientId) -> Subscriber | None:
        """Tell it nothing more; returns it as `get` does."""
        others = dict(self._there)
        subscriber = others.pop(client, None)
        self._there = others
        return subscriber

    def has_left(self, client: ClientId) -> bool:
        """Take note that it is closed; whether it had been told to."""
        return self._leaving.pop(client, None) is not None

    def wake(self, *, soon: bool) -> list[ClientId]:
        """Tell all of news in the log; see `Subscriber.wake`.

        Returns:
            Those that have been closed because they were too slow for it.
        """
        late = self._log.told - 1  # who has all before the newest event does not lag
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
        """Have all send what there is: who has only waited for company is not behind."""
        for subscriber in [*self._there.values(), *self._leaving.values()]:
            subscriber.flush()

    def close(self, client: ClientId | None, code: CloseCode, reason: str) -> None:
        """Have one, or all, close when they have read what is in the log now."""
        for each, subscriber in self._removed(client):
            self._leaving[each] = subscriber
            subscriber.close(code, reason)

    def abort(self, client: ClientId | None, code: CloseCode, reason: str) -> None:
        """Close one, or all, at once."""
        for _, subscriber in self._removed(client):
            subscriber.abort(code, reason)

    def _removed(self, client: ClientId | None) -> Iterator[tuple[ClientId, Subscriber]]:
        for each in self._there if client is None else [client]:
            subscriber = self.remove(each)
            if subscriber is not None:
                yield each, subscriber

    def drop_laggards(self) -> list[ClientId]:
        """Close those who are too slow: what they have not read is not kept any longer.

        Returns:
            Those of them that had not been told to close before.
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
