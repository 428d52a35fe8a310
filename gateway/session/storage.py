"""Where sessions are kept so that another process can go on with them: the port, in bytes.

A process that keeps sessions there is a replica. One replica at a time owns a session: who takes it
over gets a greater token, and nobody writes with a smaller one. What a store is told replaces
nothing by accident: writes are numbered.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from gateway.protocol.discretion import Discreet

BEATS = 3
"""How many times within its time a lease is renewed."""

NOBODY = ""
"""The owner of a session that waits for one."""


class StoreUnavailable(Exception):
    """The store does not answer; whether it has done what it was asked is not known."""


class Fenced(Exception):
    """Another replica owns the session, or it is over."""


class Outdated(Exception):
    """The store has not got what was written before: send all of it."""


class Unreadable(Exception):
    """What is kept can't be read here: with another key, of a newer gateway, or damaged."""


OVER_SECONDS = 600.0
"""How long it is remembered that a session is over."""


class Title(NamedTuple):
    """Who owns a session.

    Attributes:
        owner: The name of a replica, or `NOBODY`.
        token: Greater than that of every owner before.
    """

    owner: str
    token: int


class Change(Discreet, frozen=True, kw_only=True, gc=False):
    """What has changed of a session since it was written before, or all of it.

    Attributes:
        whole: It replaces what is there.
        head: The session but for what follows; see `gateway.session.recorder`.
        turns: Those that were accepted, by message id.
        gone: The ids of turns that have ended.
        ended: What is remembered of turns that have ended, the newest last.
        max_ended: How many of these are kept.
        said: Exchanges of the transcript, the newest last.
        max_said: How many of these are kept.
        events: Of the log, in one piece; None where there are none.
        last: The number of the newest event there is.
        first: The oldest that is kept.
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
    """A session as it is kept; see `Change`.

    Attributes:
        title: Who owns it.
        number: Of the newest write.
        events: Pieces, the oldest first.
    """

    title: Title
    number: int
    head: bytes
    turns: Mapping[str, bytes]
    ended: Sequence[bytes]
    said: Sequence[bytes]
    events: Sequence[bytes]


class Glimpse(Discreet, frozen=True, gc=False):
    """What can be known of a session without owning it; see `Saved`."""

    title: Title
    head: bytes


class Beats(NamedTuple):
    """What is known of all replicas, by the store's clock.

    Attributes:
        now: The time, in seconds since the epoch.
        ages: How many seconds ago each has said that it is alive.
        breaks: How often the connection to the store has broken: another may be there since, which
            lacks what this one was told last.
    """

    now: float
    ages: Mapping[str, float]
    breaks: int = 0


class Pending(Protocol):
    """Something that is asked of the store, as `asyncio.Future` has it."""

    def __await__(self) -> Generator[Any, None, Any]: ...
    def add_done_callback(self, call: "Callable[[Pending], object]", /) -> None: ...
    def exception(self) -> BaseException | None: ...
    def result(self) -> Any: ...


class SessionStore(Protocol):
    """Keeps sessions. Everything here can raise `StoreUnavailable`."""

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
        """Write a session. Nothing has to be waited for until that is done.

        Args:
            session_id: The gateway's own id.
            title: The writer's.
            number: Of this write: one more than that of the write before, by whomever.
            change: What to write.
            seconds: How long it is kept when nothing more is heard of it.
            release: It has no owner then, and waits for one.

        Raises:
            Fenced: The title is no longer good; nothing is written.
            Outdated: The write before is missing; nothing is written. All of it has to be, with
                a greater number.
        """
        ...

    async def glimpse(self, session_id: str) -> Glimpse | None:
        """What is known of a session; None where it is not there, or over.

        Raises:
            Unreadable: It can't be known here.
        """
        ...

    async def claim(self, session_id: str, before: Title, replica: str) -> Saved | None:
        """Become the owner of a session.

        Args:
            session_id: The gateway's own id.
            before: Whose it was when that was looked at.
            replica: Whose it is to be.

        Returns:
            All of it, under its new title; None where it was not `before`'s any more.

        Raises:
            Unreadable: It is the new owner's, and of no use.
        """
        ...

    async def delete(self, session_id: str, title: Title) -> None:
        """A session is over: nobody can claim it, or write it with this token or a smaller one.

        Nothing happens where it has an owner with a greater one.
        """
        ...

    async def owned(self, replica: str, count: int) -> Sequence[str]:
        """Some sessions, at random, that the replica owns, or may have owned until a moment ago.

        Args:
            replica: Whose.
            count: How many at most.
        """
        ...

    async def disown(self, replica: str, session_ids: Sequence[str]) -> None:
        """These are not that replica's any more."""
        ...


class ReplicaStore(Protocol):
    """How replicas know of each other. Everything here can raise `StoreUnavailable`."""

    async def beat(self, replica: str) -> Beats:
        """Say that the replica is alive."""
        ...

    async def resign(self, replica: str) -> None:
        """The replica ends: its last beat counts as very long ago."""
        ...

    async def bury(self, replica: str) -> None:
        """Nothing is left of that replica: `beat` does not tell of it any more."""
        ...

    async def post(self, replica: str, letters: Sequence[bytes]) -> int:
        """Put letters into a replica's inbox.

        Returns:
            How many are in it now.
        """
        ...

    async def collect(self, replica: str, seconds: float) -> Sequence[bytes]:
        """Take what has come, in the order posted; where there is nothing, wait for it. What can't
        be read is passed over.

        Args:
            replica: Whose inbox.
            seconds: How long to wait at most.
        """
        ...


class TicketStore(Protocol):
    """Where tickets are until they are used. What is kept recognises a ticket, and is none."""

    async def add_ticket(self, digest: str, holder: bytes, expires_at: float) -> None:
        """Keep whose ticket it is.

        Args:
            digest: Of the ticket.
            holder: What is given to whoever shows it.
            expires_at: When it is void, in seconds since the epoch.
        """
        ...

    async def take_ticket(self, digest: str) -> bytes | None:
        """Whose ticket it is, once; None where there is none, or it is used, void or unreadable."""
        ...


class Count(NamedTuple):
    """How many of something a replica has.

    Attributes:
        what: Of what.
        here: So many.
        wanted: How many more it asks for.
        most: How many all replicas may have together.
    """

    what: str
    here: int
    wanted: int
    most: int


class Use(NamedTuple):
    """How much was used of something that comes back.

    Attributes:
        rate: How much comes back in a second.
        amount: How much was used.
    """

    rate: float
    amount: float


class CountStore(Protocol):
    """What is limited over all replicas. Everything here can raise `StoreUnavailable`."""

    async def count(
        self, replica: str, counts: Sequence[Count], *, whole: bool, seconds: float
    ) -> Sequence[int]:
        """Say how many of some things a replica has, and ask for more.

        Args:
            replica: Which.
            counts: Those that have changed, or all.
            whole: It has nothing else.
            seconds: How long what it has counts when nothing more is heard of it.

        Returns:
            How many more it has of each from now on: as many as there is room for.

        Raises:
            Outdated: What it had does not count any more; nothing is counted. All has to be said.
        """
        ...

    def use(self, name: str, uses: Sequence[Use]) -> Pending:
        """Say how much was used since that was said before, of some things in the same order.

        Args:
            name: Of those things.
            uses: Of each.

        Returns:
            In how many seconds each has come back, if nobody uses more.
        """
        ...


class RecordStore(Protocol):
    """What is kept for a time by name, beside sessions. Everything here can raise
    `StoreUnavailable`.

    A record is somebody's words: names are no secrets, or digests of what is one.
    """

    async def put_record(self, name: str, record: bytes, seconds: float) -> None:
        """Keep a record, in place of what has that name.

        Args:
            name: Unique among all records.
            record: What to keep. In the memory of one process, those that were not read for longest
                make room for it.
            seconds: How long.
        """
        ...

    async def add_record(self, name: str, record: bytes, seconds: float) -> bool:
        """The same where nothing has that name; whether that is so. Of two at once, one adds."""
        ...

    async def replace_record(self, name: str, record: bytes, seconds: float) -> bool:
        """The same where something has that name; whether that is so."""
        ...

    async def get_record(self, name: str, seconds: float | None = None) -> bytes | None:
        """The record of that name; None where there is none any more, or it is unreadable.

        Args:
            name: Its name.
            seconds: How long to keep it from now on; None for as long as it was to be kept.
        """
        ...

    async def take_record(self, name: str) -> bytes | None:
        """The same, and nobody gets it after this: of two who ask at once, one does."""
        ...

    async def delete_record(self, name: str) -> bool:
        """Keep a record no longer; whether there was one."""
        ...


class Store(SessionStore, ReplicaStore, TicketStore, CountStore, RecordStore, Protocol):
    """All that replicas share."""
