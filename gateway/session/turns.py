"""The turns of a session: those that wait, the one at the model, the ids of those that ended."""

from collections import OrderedDict, deque
from hashlib import blake2b

from gateway.protocol.messages import Progress
from gateway.session.ports import ModelRequest


def digest(body: bytes) -> bytes:
    """What tells two bodies apart without keeping either."""
    return blake2b(body, digest_size=16).digest()


class Turn:
    """An accepted message on its way to exactly one end.

    Attributes:
        number: Counts the session's turns from 1; completions name it, so that one which comes
            after its turn has ended is recognised.
        id: The client's message id.
        digest: Of its body.
        status: How far it has come.
        request: What to send; None once the turn has ended.
        started: When it was sent, in seconds since the epoch.
    """

    __slots__ = ("digest", "id", "number", "request", "started", "status")

    def __init__(self, number: int, message_id: str, request: ModelRequest) -> None:
        self.number = number
        self.id = message_id
        self.digest = digest(request.body)
        self.status: Progress = "queued"
        self.request: ModelRequest | None = request
        self.started: float | None = None


class Turns:
    """All turns of a session, in the order accepted.

    Args:
        remembered: How many are kept by id after they have ended; the oldest is forgotten first.
    """

    def __init__(self, *, remembered: int) -> None:
        self._remembered = remembered
        self._live: dict[str, Turn] = {}
        self._ended: OrderedDict[str, Turn] = OrderedDict()
        self._count = 0
        self.queue: deque[Turn] = deque()
        """Those that wait, the next one first."""
        self.running: Turn | None = None
        """The one at the model."""

    @property
    def pending(self) -> int:
        """How many have not ended."""
        return len(self.queue) + (self.running is not None)

    def find(self, message_id: str) -> Turn | None:
        """The turn of that id, also one that has ended and is remembered."""
        return self._live.get(message_id) or self._ended.get(message_id)

    def add(self, message_id: str, request: ModelRequest) -> None:
        """Let a new turn wait."""
        self._count += 1
        turn = Turn(self._count, message_id, request)
        self._live[message_id] = turn
        self.queue.append(turn)

    def begin(self, now: float) -> Turn:
        """Take the turn that has waited longest as the running one."""
        turn = self.running = self.queue.popleft()
        turn.status = "running"
        turn.started = now
        return turn

    def end(self, turn: Turn, status: Progress) -> None:
        """Record the end of a turn that waits or runs."""
        if turn is self.running:
            self.running = None
        else:
            self.queue.remove(turn)
        turn.status = status
        turn.request = None
        self._ended[turn.id] = self._live.pop(turn.id)
        if len(self._ended) > self._remembered:
            self._ended.popitem(last=False)
