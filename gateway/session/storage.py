"""The interface of session stores, which keep sessions so that another process can continue them.

A process that uses a store is a replica. A session is owned by one replica at a time: taking it
over yields a greater fencing token, and writes with a smaller token are rejected. Writes are
numbered, so that none is lost or applied twice.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from gateway.protocol.discretion import Discreet

BEATS = 3
"""How many times a lease is renewed within its duration."""

NOBODY = ""
"""The owner of a session that has been released."""


class StoreUnavailable(Exception):
    """The store is unavailable; it is unknown whether it has executed the request."""


class Fenced(Exception):
    """Another replica owns the session, or the session is over."""


class Outdated(Exception):
    """The store lacks the previous write: send everything."""


class Unreadable(Exception):
    """Stored data can't be read: another key, a newer gateway's format, or damage."""


OVER_SECONDS = 600.0
"""Seconds for which the store remembers that a session is over."""


class Title(NamedTuple):
    """The ownership of a session.

    Attributes:
        owner: The name of a replica, or `NOBODY`.
        token: The fencing token; greater than that of every previous owner.
    """

    owner: str
    token: int


class Change(Discreet, frozen=True, kw_only=True, gc=False):
    """What has changed in a session since the previous write, or the whole session.

    Attributes:
        whole: Whether it replaces what is stored.
        head: The session without the parts below; see `gateway.session.recorder`.
        turns: Newly accepted turns, by message id.
        gone: The ids of turns that have ended.
        ended: What is remembered of ended turns, the newest last.
        max_ended: How many of these are kept.
        said: Exchanges of the transcript, the newest last.
        max_said: How many of these are kept.
        events: New events of the log, encoded together; None if there are none.
        last: The number of the newest event.
        first: The number of the oldest event that is kept.
    """

    whole: bool
    head: bytes
    turns: Mapping[str, bytes]
    gone: Sequence[str]
    ended: Sequence[bytes]
    max_ended: int
    said: Sequence[bytes]
    max_said: int
    events: bytes | None
    last: int
    first: int


class Saved(Discreet, frozen=True, kw_only=True, gc=False):
    """A stored session; see `Change`.

    Attributes:
        title: Its ownership.
        number: The number of the newest write.
        events: The events of each write, the oldest first.
    """

    title: Title
    number: int
    head: bytes
    turns: Mapping[str, bytes]
    ended: Sequence[bytes]
    said: Sequence[bytes]
    events: Sequence[bytes]


class Glimpse(Discreet, frozen=True, gc=False):
    """What can be read of a session without owning it; see `Saved`."""

    title: Title
    head: bytes


class Beats(NamedTuple):
    """The heartbeats of all replicas, by the store's clock.

    Attributes:
        now: The time, in seconds since the epoch.
        ages: Seconds since each replica's last heartbeat, by name.
        breaks: How many connections to the store were lost: after a failover, the new primary may
            lack the last writes.
    """

    now: float
    ages: Mapping[str, float]
    breaks: int = 0


class Pending(Protocol):
    """A request to the store in progress; like `asyncio.Future`."""

    def __await__(self) -> Generator[Any, None, Any]: ...
    def add_done_callback(self, call: "Callable[[Pending], object]", /) -> None: ...
    def exception(self) -> BaseException | None: ...
    def result(self) -> Any: ...


class SessionStore(Protocol):
    """Stores sessions. All methods can raise `StoreUnavailable`."""

    def save(
        self,
        session_id: str,
        title: Title,
        number: int,
        change: Change,
        *,
        seconds: float,
        release: bool = False,
    ) -> Pending:
        """Write a session. Writes can be pipelined: it is sent even if the result is not awaited.

        Args:
            session_id: The gateway's id of the session.
            title: The writer's ownership.
            number: The number of this write: one more than the previous one's, by any replica.
            change: What to write.
            seconds: How long to keep it without another write.
            release: Whether to release the session, so that it has no owner.

        Raises:
            Fenced: The ownership has ended; nothing is written.
            Outdated: The previous write is missing; nothing is written. Write the whole session,
                with a greater number.
        """
        ...

    async def glimpse(self, session_id: str) -> Glimpse | None:
        """Return what can be read without owning it; None if the session doesn't exist or is over.

        Raises:
            Unreadable: It can't be decoded.
        """
        ...

    async def claim(self, session_id: str, before: Title, replica: str) -> Saved | None:
        """Become the owner of a session.

        Args:
            session_id: The gateway's id of the session.
            before: The expected current ownership.
            replica: The new owner.

        Returns:
            The whole session, with its new ownership; None if `before` was out of date.

        Raises:
            Unreadable: It is claimed, but can't be decoded.
        """
        ...

    async def delete(self, session_id: str, title: Title) -> None:
        """Delete a session: it can't be claimed, or written with this token or a smaller one.

        Does nothing if its owner has a greater token.
        """
        ...

    async def owned(self, replica: str, count: int) -> Sequence[str]:
        """Return some random sessions that the replica owns, or owned a moment ago.

        Args:
            replica: The owner.
            count: How many at most.
        """
        ...

    async def disown(self, replica: str, session_ids: Sequence[str]) -> None:
        """Remove sessions from those that `owned` returns."""
        ...


class ReplicaStore(Protocol):
    """Lets replicas discover and message each other. All methods can raise `StoreUnavailable`."""

    async def beat(self, replica: str) -> Beats:
        """Send a heartbeat for the replica."""
        ...

    async def resign(self, replica: str) -> None:
        """Announce that the replica is shutting down: its last heartbeat counts as very old."""
        ...

    async def bury(self, replica: str) -> None:
        """Remove a replica that owns nothing any more from what `beat` returns."""
        ...

    async def post(self, replica: str, letters: Sequence[bytes]) -> int:
        """Put messages into a replica's inbox.

        Returns:
            How many are in the inbox now.
        """
        ...

    async def collect(self, replica: str, seconds: float) -> Sequence[bytes]:
        """Take the messages of an inbox, in the order posted, or wait if it is empty. Unreadable
        messages are skipped.

        Args:
            replica: The owner of the inbox.
            seconds: How long to wait at most.
        """
        ...


class TicketStore(Protocol):
    """Stores tickets until they are used, by their digests only."""

    async def add_ticket(self, digest: str, holder: bytes, expires_at: float) -> None:
        """Store a ticket.

        Args:
            digest: The ticket's digest.
            holder: Whom the ticket authenticates.
            expires_at: When it expires, in seconds since the epoch.
        """
        ...

    async def take_ticket(self, digest: str) -> bytes | None:
        """Use a ticket, and return its holder; None if unknown, used, expired or unreadable."""
        ...


class Count(NamedTuple):
    """How many of a limited resource a replica uses.

    Attributes:
        what: The name of the resource.
        here: How many the replica uses.
        wanted: How many more it requests.
        most: The limit for all replicas together.
    """

    what: str
    here: int
    wanted: int
    most: int


class Use(NamedTuple):
    """How much was used of a rate limit.

    Attributes:
        rate: How much is replenished per second.
        amount: How much was used.
    """

    rate: float
    amount: float


class CountStore(Protocol):
    """Limits shared by all replicas. All methods can raise `StoreUnavailable`."""

    async def count(
        self, replica: str, counts: Sequence[Count], *, whole: bool, seconds: float
    ) -> Sequence[int]:
        """Report how much a replica uses, and request more.

        Args:
            replica: The replica.
            counts: The counts that have changed, or all of them.
            whole: Whether these are all of its counts.
            seconds: How long its counts are valid without another report.

        Returns:
            How many more of each are granted, as far as the limits allow.

        Raises:
            Outdated: Its earlier counts have expired; nothing is counted. Report all of them.
        """
        ...

    def use(self, name: str, uses: Sequence[Use]) -> Pending:
        """Report how much was used of some rate limits since the last report.

        Args:
            name: The name of these limits.
            uses: The use of each, always in the same order.

        Returns:
            In how many seconds each is fully replenished, if nothing more is used.
        """
        ...


class RecordStore(Protocol):
    """Stores named records for a time, beside sessions. All methods can raise `StoreUnavailable`.

    Records contain users' texts. Names are not secret: use the digest of a secret.
    """

    async def put_record(self, name: str, record: bytes, seconds: float) -> None:
        """Store a record, replacing one of that name.

        Args:
            name: Unique among all records.
            record: The record. The store in memory evicts the least recently read ones for it.
            seconds: How long to keep it.
        """
        ...

    async def add_record(self, name: str, record: bytes, seconds: float) -> bool:
        """Store a record if there is none of that name; return whether it did. Atomic."""
        ...

    async def replace_record(self, name: str, record: bytes, seconds: float) -> bool:
        """Store a record if there is one of that name; return whether it did."""
        ...

    async def get_record(self, name: str, seconds: float | None = None) -> bytes | None:
        """Return the record of that name; None if it doesn't exist, has expired or is unreadable.

        Args:
            name: Its name.
            seconds: How long to keep it from now on; None to not change that.
        """
        ...

    async def take_record(self, name: str) -> bytes | None:
        """Return and delete a record, atomically."""
        ...

    async def delete_record(self, name: str) -> bool:
        """Delete a record; return whether there was one."""
        ...


class Store(SessionStore, ReplicaStore, TicketStore, CountStore, RecordStore, Protocol):
    """All that replicas share."""
