"""The turns of a session: those waiting, the one at the model, and the ids of ended ones."""

from collections.abc import Iterable
from hashlib import sha256
from typing import Literal, NamedTuple

from msgspec import Struct

from gateway.errors import Outcome
from gateway.protocol.messages import Status
from gateway.session.ports import ModelRequest, Receipt
from gateway.session.sizes import utf8_size

REMEMBERED_BYTES = 200
"""About how much memory it takes to remember an ended turn."""

_KEPT_BYTES = 14  # with one for the status, as many as fit into a Python object of 48 bytes
_STATUSES: tuple[Status, ...] = ("completed", "cancelled", "failed")
_MARKS = {status: bytes((number,)) for number, status in enumerate(_STATUSES)}


def digest(body: bytes) -> bytes:
    """Return a body's digest, to compare bodies without keeping them."""
    return sha256(body).digest()


class Turn(Struct, gc=False, omit_defaults=True):
    """An accepted message, which ends exactly once.

    Attributes:
        number: Counts the session's calls from 1. Completions carry it, so that one that arrives
            after its turn has ended is recognised.
        id: The client's message id.
        digest: The digest of its body as the client sent it; see `digest`.
        said: The user's text; None if the body is not text, or it isn't needed again.
        status: Its status.
        request: The request. If a template makes its body of `said`, it has the body once it is
            first sent. Without a body once there is a receipt.
        started: When it was first sent, in seconds of the session's clock.
        retries: How often it was retried, since the model never saw it.
        renewed: Whether a model session was renewed for it.
        deltas: How many parts of its reply have arrived.
        cancelling: Whether the client has cancelled it while it was at the model.
        stopping: Whether `CancelInvoke` was requested for it, for any reason.
        receipt: The model's receipt, if it replies asynchronously.
        dropped: How many of the oldest turns were left out of the history sent with it.
        heard: The parts of its reply's text so far, if they are kept to be sent again.
        heard_size: How many characters these have.
        size: The size of its request and the user's text in bytes.
    """

    number: int
    id: str
    digest: bytes
    said: str | None
    request: ModelRequest
    status: Literal["queued", "running"] = "queued"
    started: float | None = None
    retries: int = 0
    renewed: bool = False
    deltas: int = 0
    cancelling: bool = False
    stopping: bool = False
    receipt: Receipt | None = None
    dropped: int = 0
    heard: list[str] | None = None
    heard_size: int = 0
    size: int = 0

    def __repr__(self) -> str:
        return f"<Turn {self.number} {self.id!r} {self.status}>"

    @property
    def outcome_if_cut(self) -> Outcome:
        """Its outcome if its request is cancelled: a part of its reply proves that it arrived."""
        return Outcome.INVOKED if self.deltas else Outcome.UNKNOWN

    @property
    def is_awaited(self) -> bool:
        """Whether only its asynchronous reply is missing, which any process can await."""
        return self.receipt is not None and not self.stopping

    def hear(self, text: str, limit: int) -> None:
        """Keep a part of the reply, unless the limit was exceeded: then none of it will be kept."""
        if self.heard_size <= limit:
            self.heard_size += len(text)
            if self.heard is None:
                self.heard = []
            self.heard.append(text)


class EndedTurn(NamedTuple):
    """What is remembered of an ended turn; see `Turn`."""

    id: str
    digest: bytes
    status: Status


class TurnQueue:
    """All turns of a session, in the order accepted.

    Args:
        remembered: How many ended turns are remembered by id; the oldest is forgotten first.
    """

    __slots__ = (
        "_ended",
        "_live",
        "_oldest",
        "_order",
        "bytes",
        "count",
        "ended_count",
        "remembered",
        "running",
        "waiting",
    )

    def __init__(self, *, remembered: int) -> None:
        self.remembered = remembered
        """How many ended turns are remembered by id."""
        self.ended_count = 0
        """How many turns have ended."""
        self._live: dict[str, Turn] = {}
        # By id, a digest and the number of a status: a long conversation has many of them, so they
        # are kept small, and of types that the cyclic garbage collector doesn't track.
        self._ended: dict[str, bytes] = {}
        self._order: list[str] = []  # their ids; once full, the oldest is at `_oldest`
        self._oldest = 0
        self.bytes = 0
        """Memory of the pending turns, and of what is remembered of ended ones."""
        self.count = 0
        """How many call numbers were assigned."""
        self.waiting: list[Turn] = []
        """The turns that wait, the next one first."""
        self.running: Turn | None = None
        """The turn at the model."""

    @property
    def next_up(self) -> Turn | None:
        """The turn that has waited longest."""
        return self.waiting[0] if self.waiting else None

    @property
    def pending(self) -> int:
        """How many turns have not ended."""
        return len(self.waiting) + (self.running is not None)

    def find(self, message_id: str) -> Turn | EndedTurn | None:
        """Return the turn of that id, even if it has ended and is remembered."""
        live = self._live.get(message_id)
        if live is not None:
            return live
        ended = self._ended.get(message_id)
        if ended is None:
            return None
        return EndedTurn(message_id, ended[:-1], _STATUSES[ended[-1]])

    def number(self) -> int:
        """Assign the number of the session's next call."""
        self.count += 1
        return self.count

    def add(
        self, message_id: str, said: str | None, body_digest: bytes, request: ModelRequest
    ) -> None:
        """Add a new turn to those that wait."""
        size = _size(request, said)
        turn = Turn(self.number(), message_id, body_digest, said, request, size=size)
        self.bytes += size
        self._live[message_id] = turn
        self.waiting.append(turn)

    def begin(self, now: float) -> Turn:
        """Make the turn that has waited longest the running one, and return it."""
        turn = self.running = self.waiting.pop(0)
        turn.status = "running"
        if turn.started is None:
            turn.started = now
        return turn

    def resize(self, turn: Turn) -> None:
        """Update the size of a turn whose request's body was made or dropped."""
        size = _size(turn.request, turn.said)
        self.bytes += size - turn.size
        turn.size = size

    def put_back(self, turn: Turn) -> None:
        """Move the running turn to the head of the queue; its next call has a new number."""
        self.running = None
        turn.number = self.number()
        turn.status = "queued"
        self.waiting.insert(0, turn)

    def end(self, turn: Turn, status: Status) -> None:
        """Remove a pending turn, and remember how it ended."""
        if turn is self.running:
            self.running = None
        else:
            self.waiting.remove(turn)
        del self._live[turn.id]
        self.bytes -= turn.size
        self._remember(turn.id, turn.digest[:_KEPT_BYTES] + _MARKS[status])

    def _remember(self, message_id: str, kept: bytes) -> None:
        if len(self._order) < self.remembered:
            self._order.append(message_id)
            self.bytes += REMEMBERED_BYTES
        elif self.remembered:
            del self._ended[self._order[self._oldest]]
            self._order[self._oldest] = message_id
            self._oldest = (self._oldest + 1) % self.remembered
        else:
            return
        self.ended_count += 1
        self._ended[message_id] = kept

    @property
    def ended(self) -> list[tuple[str, bytes]]:
        """What is remembered of ended turns, the oldest first: ids, each with a digest and a status
        as bytes.
        """
        return self.newest_ended(len(self._order))

    def newest_ended(self, count: int) -> list[tuple[str, bytes]]:
        """Return the newest of `ended`, at most `count`."""
        if not count:
            return []
        order, newest = self._order, self._oldest - 1
        places = range(newest - min(count, len(order)) + 1, newest + 1)
        ids = [order[place] for place in places]  # a place before the first counts from the end
        return [(message_id, self._ended[message_id]) for message_id in ids]

    def latest(self, count: int) -> list[tuple[str, Status]]:
        """Return the ids and statuses of the newest ended turns, at most `count`."""
        return [(message_id, _STATUSES[kept[-1]]) for message_id, kept in self.newest_ended(count)]

    def restore(
        self,
        *,
        count: int,
        waiting: Iterable[Turn],
        running: Turn | None,
        ended: Iterable[tuple[str, bytes]],
    ) -> None:
        """Restore the turns of a snapshot; see the attributes of these names."""
        self.count, self.waiting, self.running = count, list(waiting), running
        live = self.waiting if running is None else [running, *self.waiting]
        self._live = {turn.id: turn for turn in live}
        self.bytes = sum(turn.size for turn in live)
        for message_id, kept in ended:
            self._remember(message_id, kept)


def _size(request: ModelRequest, said: str | None) -> int:
    return len(request.body) + (0 if said is None else utf8_size(said))
