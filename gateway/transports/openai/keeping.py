"""Records of responses and conversations, so that clients can retrieve them from any replica.

The name of a record is a digest of an id that only its clients know; the record contains the
principal that it belongs to.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Literal, NamedTuple, TypeVar

import msgspec
from msgspec import structs

from gateway.admission import Refused
from gateway.errors import WAIT_SECONDS, ErrorCode, Outcome
from gateway.protocol.discretion import Discreet
from gateway.session.storage import RecordStore, StoreUnavailable
from gateway.transports.openai.errors import Invalid
from gateway.transports.openai.items import Item
from gateway.transports.openai.resource import Response

_AT_ONCE = 16
"""Number of a conversation's entries that are read at once. Entries past the first missing one are
read as well, so that a gap is detected."""

_SAID_AT_ONCE = 64
"""Number of records of a history that are read at once."""


class Kept(Discreet, frozen=True, kw_only=True, tag="response"):
    """The record of a response.

    Attributes:
        owner: Principal that it belongs to.
        response: The response, as accepted or as ended.
        input: Items of the request.
        before: Names of the records with its history, oldest first.
        message_id: Id of its turn's message in the session; empty if it has no turn.
        after: Number of the session's event before its turn's first.
        count: Number of its events, once it has ended.
        outcome: Whether the model has seen it, if it has failed.
        chat: Whether the session's log contains the model's own JSON, rather than text.
    """

    owner: str
    response: Response
    input: list[Item]
    before: tuple[str, ...] = ()
    message_id: str
    after: int
    count: int = 0
    outcome: Outcome | None = None
    chat: bool = False

    @property
    def items(self) -> list[Item]:
        """Items of the request and of the response."""
        return [*self.input, *self.response.output]


class Entry(Discreet, frozen=True, kw_only=True, tag="entry"):
    """The record of a part of a conversation: items that a client added, or a response.

    Attributes:
        owner: Principal that it belongs to.
        items: The items that were added, or those of the response and its request.
        response_id: Id of the response.
        is_open: Whether the response has not ended, as far as the record says.
        since: When the response started, in seconds since the epoch, while it is open.
    """

    owner: str
    items: list[Item]
    response_id: str | None = None
    is_open: bool = False
    since: float = 0.0

    def __repr__(self) -> str:
        """Omit the response's id, which is a secret."""
        return f"<Entry of {len(self.items)}>"


class Thread(Discreet, frozen=True, kw_only=True, tag="conversation"):
    """The record of a conversation; its items are in entries, numbered from 0."""

    owner: str
    created_at: int
    metadata: dict[str, str]


class Asked(Discreet, frozen=True, kw_only=True, tag="asked"):
    """The record of a request, by which retries find the response; the id is empty until then."""

    owner: str
    response_id: str

    def __repr__(self) -> str:
        """Omit the response's id, which is a secret."""
        return "<Asked>"


RESENT_SECONDS = 900.0
"""Maximum age of a request that can be retried: OpenAI's clients wait for ten minutes for a reply.
A later retry is of another request with the same body, which never arrived."""

Record = Kept | Entry | Thread | Asked
R = TypeVar("R", Kept, Entry, Thread, Asked)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


def record_name(kind: Literal["response", "conversation", "asked"], what: str | bytes) -> str:
    """Return the name of a record.

    Args:
        kind: Kind of the record.
        what: An id, or everything that identifies a request.
    """
    data = what.encode(errors="surrogatepass") if isinstance(what, str) else what
    return f"{kind}:{sha256(data).hexdigest()}"


@contextlib.contextmanager
def _asking() -> Iterator[None]:
    """Refuse requests while the store is unavailable."""
    try:
        yield
    except StoreUnavailable:
        text = "Stored responses are unavailable at the moment."
        raise Refused(ErrorCode.UNAVAILABLE, text, WAIT_SECONDS) from None


class Bounds(NamedTuple):
    """Maximum length of a history.

    Attributes:
        turns: Number of responses, and of additions to a conversation.
        bytes: Total size of their records.
    """

    turns: int
    bytes: int

    def check(self, turns: int, size: int, param: str) -> None:
        """Check that a history may grow by a turn.

        Args:
            turns: Its current number of turns.
            size: Its current number of bytes.
            param: The request's parameter that refers to it.

        Raises:
            Invalid: It has reached the maximum.
        """
        if turns < self.turns and size <= self.bytes:
            return
        text = (
            f"A conversation has at most {self.turns} turns, and {self.bytes} bytes: start another "
            "one, with as much of this one as it needs."
        )
        raise Invalid(text, param, code="conversation_too_long")


DEFAULT_BOUNDS = Bounds(turns=1000, bytes=16_777_216)


class Keeper:
    """Stores records until they have not been read for some time.

    All methods raise `Refused` if the store is unavailable.

    Args:
        store: The store.
        seconds: Seconds until a record that is not read is deleted.
        bounds: Maximum length of histories.

    Attributes:
        bounds: The argument.
    """

    def __init__(self, store: RecordStore, seconds: float, bounds: Bounds = DEFAULT_BOUNDS) -> None:
        self._store = store
        self._seconds = seconds
        self.bounds = bounds

    async def put(self, name: str, record: Record) -> None:
        """Store a record."""
        with _asking():
            await self._store.put_record(name, _encode(record), self._time_of(type(record)))

    async def add(self, name: str, record: Record) -> bool:
        """Store a record if there is none of its name; return whether it was stored."""
        with _asking():
            seconds = self._time_of(type(record))
            return await self._store.add_record(name, _encode(record), seconds)

    async def replace(self, name: str, record: Record) -> None:
        """Replace a record, unless it has been deleted."""
        with _asking():
            await self._store.replace_record(name, _encode(record), self._seconds)

    async def get(self, name: str, owner: str, kind: type[R]) -> R | None:
        """Read a record; None if there is none of this kind and owner."""
        record = await self._read(name, owner, self._time_of(kind))
        return record if isinstance(record, kind) else None

    async def asked(self, name: str, owner: str) -> Asked | None:
        """Read the record of a request; None if there is none of this name and owner.

        This does not extend the lifetime of a record without a response: if the replica that runs
        the request has crashed, a client that polls must not wait for it forever.
        """
        record = _record_of(await self._data(name, None), owner)
        if isinstance(record, Asked) and record.response_id:
            return await self.get(name, owner, Asked)
        return record if isinstance(record, Asked) else None

    def _time_of(self, kind: type[Record]) -> float:
        return min(self._seconds, RESENT_SECONDS) if kind is Asked else self._seconds

    async def _read(self, name: str, owner: str, seconds: float) -> Record | None:
        return _record_of(await self._data(name, seconds), owner)

    async def _data(self, name: str, seconds: float | None) -> bytes | None:
        with _asking():
            return await self._store.get_record(name, seconds)

    async def response(self, response_id: str, owner: str) -> Kept | None:
        """Read a response; None if there is none of this id and owner."""
        return await self.get(record_name("response", response_id), owner, Kept)

    async def delete(self, name: str) -> None:
        """Delete a record."""
        with _asking():
            await self._store.delete_record(name)

    async def said(self, names: Sequence[str], owner: str, param: str) -> list[Item] | None:
        """Read all items of a history; None if one of its records has expired.

        Args:
            names: Names of the records, oldest first.
            owner: Principal that they belong to.
            param: The request's parameter that refers to the history.

        Raises:
            Invalid: The history exceeds the maximum length.
        """
        items, size = list[Item](), 0
        for begin in range(0, len(names), _SAID_AT_ONCE):
            self.bounds.check(begin, size, param)
            for data in await self._all(names[begin : begin + _SAID_AT_ONCE]):
                record = _record_of(data, owner)
                if data is None or not isinstance(record, Kept | Entry):
                    return None
                size += len(data)
                items += record.items
        self.bounds.check(len(names), size, param)
        return items

    async def _all(self, names: Sequence[str]) -> list[bytes | None]:
        return await asyncio.gather(*[self._data(name, self._seconds) for name in names])

    async def entries(self, thread: str, owner: str) -> tuple[list[Entry], int] | None:
        """Read all entries of a conversation, and their total size in bytes; None if one of them
        has expired.

        Args:
            thread: Name of the conversation's record.
            owner: Principal that it belongs to.
        """
        found = list[Entry | None]()
        size = 0
        while None not in found[-_AT_ONCE:]:
            names = [entry_name(thread, len(found) + index) for index in range(_AT_ONCE)]
            for data in await self._all(names):
                record = _record_of(data, owner)
                found.append(record if isinstance(record, Entry) else None)
                size += len(data or b"")
        count = found.index(None)
        entries = [entry for entry in found if entry is not None]
        return (entries, size) if len(entries) == count else None


def entry_name(thread: str, number: int) -> str:
    """Return the name of an entry of a conversation.

    Args:
        thread: Name of the conversation's record.
        number: Number of the entry.
    """
    return f"{thread}:{number}"


def _record_of(data: bytes | None, owner: str) -> Record | None:
    """Decode a record; None if it isn't this owner's."""
    if data is None:
        return None
    try:
        record: Record = _decode(data)
    except msgspec.DecodeError:  # of a newer gateway
        return None
    return record if record.owner == owner else None


def begun(response: Response) -> Response:
    """Return a response as it was when it was accepted."""
    return structs.replace(
        response,
        status="in_progress",
        completed_at=None,
        incomplete_details=None,
        output=[],
        error=None,
        usage=None,
    )


def items_in(entries: Iterable[Entry]) -> list[Item]:
    """Return the items of entries."""
    return [item for entry in entries for item in entry.items]
