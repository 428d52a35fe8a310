"""The effects that a session produces while it handles one event."""

from msgspec import UNSET

from gateway.errors import ErrorCode, Failure
from gateway.protocol import messages as wire
from gateway.session import effects as do
from gateway.session.events import ClientId, Timer


class Output:
    """Collects effects, and tracks what they change: the newest event number and the timers.

    Attributes:
        now: The time of the current event, in seconds of a monotonic clock.
        wall: The same in seconds since the epoch, for what is shown or stored.
        last: The newest event's number; 0 if there is none.
        timers: When each timer that is set fires.
    """

    __slots__ = ("_client", "_effects", "last", "now", "timers", "wall")

    now: float
    wall: float
    _effects: list[do.Effect]
    _client: ClientId | None

    def __init__(self) -> None:
        self.last = 0
        self.timers: dict[Timer, float] = {}

    def begin(self, now: float, wall: float, client: ClientId | None) -> None:
        """Start collecting, at this time; refusals go to this client."""
        self._effects = []
        self.now = now
        self.wall = wall
        self._client = client

    def take(self) -> list[do.Effect]:
        """Return what was collected, and drop it here, since it may hold large bodies."""
        effects = self._effects
        del self._effects
        return effects

    def do(self, effect: do.Effect) -> None:
        """Add an effect."""
        self._effects.append(effect)

    def emit(self, *events: wire.Event) -> None:
        """Append events to the log."""
        self.last = events[-1].event
        self._effects.append(do.Append(events))

    def renumber(self, after: int, by: int) -> None:
        """Increase the numbers of the events after `after`, which no client has received."""
        self.last += by
        self._effects.append(do.Renumber(after, by))

    def tell(self, notice: wire.Notice) -> None:
        """Send a notice only to the client whose message is being handled."""
        if self._client is not None:
            self._effects.append(do.Tell(self._client, notice))

    def refuse(self, code: ErrorCode, text: str, message_id: str | None = None) -> None:
        """Answer the client's message with an error; it has changed nothing."""
        self.tell(error_message(Failure(code=code, message=text), message_id))

    def set_timer(self, timer: Timer, at: float, spread: float = 0.0) -> None:
        """Set a timer, or move it; see `SetTimer`."""
        self.timers[timer] = at
        self.do(do.SetTimer(timer, at, spread))

    def clear_timer(self, timer: Timer) -> None:
        """Clear a timer, if it is set."""
        if timer in self.timers:
            del self.timers[timer]
            self.do(do.SetTimer(timer, None))

    def clear_timers(self) -> None:
        """Clear all timers."""
        for timer in sorted(self.timers, key=lambda timer: timer.value):
            self.clear_timer(timer)


def error_message(failure: Failure, message_id: str | None = None) -> wire.ErrorMessage:
    """Convert a failure to an ``error`` message for one client."""
    return wire.ErrorMessage(
        code=failure.code,
        message=failure.message,
        id=UNSET if message_id is None else message_id,
        retryable=failure.may_retry,
        retry_after=failure.wait,
    )
