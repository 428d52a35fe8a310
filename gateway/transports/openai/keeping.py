"""What is kept of responses and conversations, so that any replica can be asked for them.

A record's name is a digest of an id, which its holder alone has; whose it is stands in it.
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
"""How many entries of a conversation are looked for at once: more than there are, so that one that
is missing shows."""

_SAID_AT_ONCE = 64
"""The same of those that are known by their names."""


class Kept(Discreet, frozen=True, kw_only=True, tag="response"):
    """A response.

    Attributes:
        owner: Whose it is.
        response: It, as it was when it was accepted, or as it is over.
        input: The items of its request.
        before: The names of the records that have all that was said before, the oldest first.
        message_id: What its session knows its turn as; empty where it has none there.
        after: The number of the event before its turn's first.
        count: How many events it has, where it is over.
        outcome: Whether the model has seen it, where it has failed.
        chat: Whether its session's log has the model's own records.
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
        """What was said in it."""
        return [*self.input, *self.response.output]


class Entry(Discreet, frozen=True, kw_only=True, tag="entry"):
    """A part of a conversation: items that were put there, or a response.

    Attributes:
        owner: Whose it is.
        items: What was said in it.
        response_id: Of a response.
        is_open: Whether that is not over, as far as this says.
        since: When that began, in seconds since the epoch, while it is open.
    """

    owner: str
    items: list[Item]
    response_id: str | None = None
    is_open: bool = False
    since: float = 0.0

    def __repr__(self) -> str:
        """A response's id lets its holder continue it: it is not printed."""
        return f"<Entry of {len(self.items)}>"


class Thread(Discreet, frozen=True, kw_only=True, tag="conversation"):
    """A conversation, but for what is said in it: that is in entries, numbered from 0."""

    owner: str
    created_at: int
    metadata: dict[str, str]


class Asked(Discreet, frozen=True, kw_only=True, tag="asked"):
    """What a request was answered with, for the client that sends it again."""

    owner: str
    response_id: str

    def __repr__(self) -> str:
        """Its id lets its holder continue it: it is not printed."""
        return "<Asked>"


RESENT_SECONDS = 900.0
"""How long a client may take to send a request again: OpenAI's wait for an answer for ten minutes.
One that says it has sent the same later than that means another, which never came."""

Record = Kept | Entry | Thread | Asked
R = TypeVar("R", Kept, Entry, Thread, Asked)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


def record_name(kind: Literal["response", "conversation", "asked"], what: str | bytes) -> str:
    """The name of a record.

    Args:
        kind: Of what.
        what: An id, or all that makes a request what it is.
    """
    data = what.encode(errors="surrogatepass") if isinstance(what, str) else what
    return f"{kind}:{sha256(data).hexdigest()}"


@contextlib.contextmanager
def _asking() -> Iterator[None]:
    """Refuse what can't be done without the store."""
    try:
        yield
    except StoreUnavailable:
        text = "Stored responses are unavailable at the moment."
        raise Refused(ErrorCode.UNAVAILABLE, text, WAIT_SECONDS) from None


class Bounds(NamedTuple):
    """How much is said before a response, at most.

    Attributes:
        turns: How many responses, and additions to a conversation.
        bytes: How many bytes their records have.
    """

    turns: int
    bytes: int

    def check(self, turns: int, size: int, param: str) -> None:
        """See whether there may be one more.

        Args:
            turns: How many there are.
            size: How many bytes they have.
            param: What they are gone on from by.

        Raises:
            Invalid: There may not.
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
    """Keeps records, each for a time that begins anew when it is read.

    All that it does can be `Refused`, where the store does not answer.

    Args:
        store: Where.
        seconds: How long.
        bounds: How long a conversation may be.

    Attributes:
        bounds: As given.
    """

    def __init__(self, store: RecordStore, seconds: float, bounds: Bounds = DEFAULT_BOUNDS) -> None:
        self._store = store
        self._seconds = seconds
        self.bounds = bounds

    async def put(self, name: str, record: Record) -> None:
        """Keep a record."""
        with _asking():
            await self._store.put_record(name, _encode(record), self._time_of(type(record)))

    async def add(self, name: str, record: Record) -> bool:
        """The same where there is none of that name; whether that is so."""
        with _asking():
            seconds = self._time_of(type(record))
            return await self._store.add_record(name, _encode(record), seconds)

    async def replace(self, name: str, record: Record) -> None:
        """Keep a record in place of one, unless that has been deleted."""
        with _asking():
            await self._store.replace_record(name, _encode(record), self._seconds)

    async def get(self, name: str, owner: str, kind: type[R]) -> R | None:
        """A record; None where there is none of this kind that is this owner's."""
        record = await self._read(name, owner, self._time_of(kind))
        return record if isinstance(record, kind) else None

    async def asked(self, name: str, owner: str) -> Asked | None:
        """What a request is answered with; None where there was none of that name.

        One that is on its way is read as often as its client asks, who is to wait no longer than
        for what a gateway does that lives: its time does not begin anew.
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
        """A response."""
        return await self.get(record_name("response", response_id), owner, Kept)

    async def delete(self, name: str) -> None:
        """Keep a record no longer."""
        with _asking():
            await self._store.delete_record(name)

    async def said(self, names: Sequence[str], owner: str, param: str) -> list[Item] | None:
        """All that was said in records; None where one of them is no longer kept.

        Args:
            names: Those of the records, the oldest first.
            owner: Whose they are.
            param: What they are gone on from by.

        Raises:
            Invalid: It is more than may be.
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
        """All parts of a conversation, and how many bytes their records have; None where one of
        them is no longer kept.

        Args:
            thread: The name of its record.
            owner: Whose it is.
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
    """The name of a part of a conversation.

    Args:
        thread: The name of its record.
        number: Of the part.
    """
    return f"{thread}:{number}"


def _record_of(data: bytes | None, owner: str) -> Record | None:
    """A record, where it is this owner's."""
    if data is None:
        return None
    try:
        record: Record = _decode(data)
    except msgspec.DecodeError:  # of a newer gateway
        return None
    return record if record.owner == owner else None


def begun(response: Response) -> Response:
    """A response as it was when it was accepted."""
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
    """What was said in parts of a conversation."""
    return [item for entry in entries for item in entry.items]
