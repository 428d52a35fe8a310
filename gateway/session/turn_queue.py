"""The turns of a session: those that wait, the one at the model, the ids of those that ended."""

from collections.abc import Iterable
from hashlib import sha256
from typing import Literal, NamedTuple

from msgspec import Struct

from gateway.errors import Outcome
from gateway.protocol.messages import Status
from gateway.session.ports import ModelRequest, Receipt
from gateway.session.sizes import utf8_size

REMEMBERED_BYTES = 200
"""About how much memory it takes to remember a turn that has ended."""

_KEPT_BYTES = 14  # with one for the status, as much as Python puts into 48 bytes of memory
_STATUSES: tuple[Status, ...] = ("completed", "cancelled", "failed")
_MARKS = {status: bytes((number,)) for number, status in enumerate(_STATUSES)}


def digest(body: bytes) -> bytes:
    """What tells two bodies apart without keeping either."""
    return sha256(body).digest()


class Turn(Struct, gc=False, omit_defaults=True):
    """An accepted message on its way to exactly one end.

    Attributes:
        number: Counts the session's turns from 1; completions name it, so that one which comes
            after its turn has ended is recognised.
        id: The client's message id.
        digest: Of its body as the client sent it, see `digest`.
        said: The user's words; None where they are no text, or nobody needs them again.
        status: How far it has come.
        request: What to send; where a template makes its body of `said`, that is in it from when
            it is first sent. Without its body once there is a receipt.
        started: When it was first sent, in seconds of the session's clock.
        retries: How often it has been sent again, since the model never saw it.
        renewed: Whether a session has been renewed for it.
        deltas: How many parts of its reply have come.
        cancelling: Whether the client has asked to stop it while it was at the model.
        stopping: Whether `CancelInvoke` has been asked for it, by whatever.
        receipt: What the model has given for it, where that answers later.
        dropped: How many of the oldest turns were missing in the history that it was sent with.
        heard: The parts of its reply's text so far, where that is kept to be sent again.
        heard_size: How many characters these are.
        size: How many bytes its request and the user's words have.
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
        """What is known where its request is closed: a part of its reply proves that it arrived."""
        return Outcome.INVOKED if self.deltas else Outcome.UNKNOWN

    @property
    def is_awaited(self) -> bool:
        """Whether nothing but its reply is missing, which any process can wait for."""
        return self.receipt is not None and not self.stopping

    def hear(self, text: str, limit: int) -> None:
        """Keep a part of the reply, unless it is past the limit: too long to be kept at all."""
        if self.heard_size <= limit:
            self.heard_size += len(text)
            if self.heard is None:
                self.heard = []
            self.heard.append(text)


class EndedTurn(NamedTuple):
    """What is remembered of a turn that has ended; see `Turn`."""

    id: str
    digest: bytes
    status: Status


class TurnQueue:
    """All turns of a session, in the order accepted.

    Args:
        remembered: How many are kept by id after they have ended; the oldest is forgotten first.
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
        """How many that have ended are kept by id."""
        self.ended_count = 0
        """How many have been kept in all."""
        self._live: dict[str, Turn] = {}
        # By id, a digest and the number of a status: a long conversation has many of them, so they
        # are kept small, and of types that the collector of cyclic garbage does not look at.
        self._ended: dict[str, bytes] = {}
        self._order: list[str] = []  # their ids; once full, the oldest is at `_oldest`
        self._oldest = 0
        self.bytes = 0
        """How many the messages have that have not ended, with what is remembered of the others."""
        self.count = 0
        """How many calls have had a number."""
        self.waiting: list[Turn] = []
        """Those that wait, the next one first."""
        self.running: Turn | None = None
        """The one at the model."""

    @property
    def next_up(self) -> Turn | None:
        """The one that has waited longest."""
        return self.waiting[0] if self.waiting else None

    @property
    def pending(self) -> int:
        """How many have not ended."""
        return len(self.waiting) + (self.running is not None)

    def find(self, message_id: str) -> Turn | EndedTurn | None:
        """The turn of that id, also one that has ended and is remembered."""
        live = self._live.get(message_id)
        if live is not None:
            return live
        ended = self._ended.get(message_id)
        if ended is None:
            return None
        return EndedTurn(message_id, ended[:-1], _STATUSES[ended[-1]])

    def number(self) -> int:
        """A number for one more call in the session."""
        self.count += 1
        return self.count

    def add(
        self, message_id: str, said: str | None, body_digest: bytes, request: ModelRequest
    ) -> None:
        """Let a new turn wait."""
        size = _size(request, said)
        turn = Turn(self.number(), message_id, body_digest, said, request, size=size)
        self.bytes += size
        self._live[message_id] = turn
        self.waiting.append(turn)

    def begin(self, now: float) -> Turn:
        """Take the turn that has waited longest as the running one."""
        turn = self.running = self.waiting.pop(0)
        turn.status = "running"
        if turn.started is None:
            turn.started = now
        return turn

    def resize(self, turn: Turn) -> None:
        """Count anew what a turn holds: its request has been made of its words, or dropped."""
        size = _size(turn.request, turn.said)
        self.bytes += size - turn.size
        turn.size = size

    def put_back(self, turn: Turn) -> None:
        """Let the running turn wait again, ahead of the others; its next call has a new number."""
        self.running = None
        turn.number = self.number()
        turn.status = "queued"
        self.waiting.insert(0, turn)

    def end(self, turn: Turn, status: Status) -> None:
        """Drop a turn that waits or runs, and remember how it ended."""
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
        """What is remembered of turns that have ended, the oldest first: ids, and what tells them
        and their ends apart.
        """
        return self.newest_ended(len(self._order))

    def newest_ended(self, count: int) -> list[tuple[str, bytes]]:
        """The newest of `ended`, as many as there are."""
        if not count:
            return []
        order, newest = self._order, self._oldest - 1
        places = range(newest - min(count, len(order)) + 1, newest + 1)
        ids = [order[place] for place in places]  # a place before the first counts from the end
        return [(message_id, self._ended[message_id]) for message_id in ids]

    def latest(self, count: int) -> list[tuple[str, Status]]:
        """The same with how each has ended."""
        return [(message_id, _STATUSES[kept[-1]]) for message_id, kept in self.newest_ended(count)]

    def restore(
        self,
        *,
        count: int,
        waiting: Iterable[Turn],
        running: Turn | None,
        ended: Iterable[tuple[str, bytes]],
    ) -> None:
        """Set up turns that were taken down; see the attributes of these names."""
        self.count, self.waiting, self.running = count, list(waiting), running
        live = self.waiting if running is None else [running, *self.waiting]
        self._live = {turn.id: turn for turn in live}
        self.bytes = sum(turn.size for turn in live)
        for message_id, kept in ended:
            self._remember(message_id, kept)


def _size(request: ModelRequest, said: str | None) -> int:
    return len(request.body) + (0 if said is None else utf8_size(said))
