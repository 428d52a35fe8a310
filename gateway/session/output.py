"""What a session says and asks for while it handles one event."""

from msgspec import UNSET

from gateway.errors import ErrorCode, Failure
from gateway.protocol import messages as wire
from gateway.session import effects as do
from gateway.session.events import Timer
from gateway.session.log import EventLog


class Output:
    """Collects effects, and keeps what they change: the log, and which alarms are set.

    Args:
        log: The session's.
    """

    __slots__ = ("_effects", "_now", "_timers", "log")

    _effects: list[do.Effect]

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self._timers: tuple[Timer, ...] = ()
        self._now = 0.0

    def begin(self, now: float) -> None:
        """Collect anew, at this time."""
        self._effects = []
        self._now = now

    def take(self) -> list[do.Effect]:
        """What was collected; it is kept here no longer, for it may hold large bodies."""
        effects = self._effects
        del self._effects
        return effects

    def do(self, effect: do.Effect) -> None:
        """Ask for something."""
        self._effects.append(effect)

    @property
    def next_event(self) -> int:
        """The number that the next event has to have."""
        return self.log.last + 1

    def emit(self, *events: wire.Event) -> None:
        """Say something that the client must not miss."""
        for event in events:
            self.log.append(event, self._now)
        self._effects.append(do.Emit(events[-1]))

    def refuse(self, code: ErrorCode, text: str, message_id: str | None = None) -> None:
        """Tell the present connection that its message has changed nothing."""
        self.tell_failure(Failure(code=code, message=text), message_id)

    def tell_failure(self, failure: Failure, message_id: str | None = None) -> None:
        """Tell the present connection what went wrong."""
        self.do(
            do.Tell(
                wire.ErrorMessage(
                    code=failure.code,
                    message=failure.message,
                    id=UNSET if message_id is None else message_id,
                    retryable=failure.may_retry,
                    retry_after=UNSET if failure.retry_after is None else failure.retry_after,
                )
            )
        )

    def set_timer(self, timer: Timer, at: float, spread: float = 0.0) -> None:
        """Set an alarm, or move it; see `SetTimer`."""
        if timer not in self._timers:
            self._timers += (timer,)
        self.do(do.SetTimer(timer, at, spread))

    def clear_timer(self, timer: Timer) -> None:
        """Clear an alarm, if it is set."""
        if timer in self._timers:
            self.fired(timer)
            self.do(do.SetTimer(timer, None))

    def clear_timers(self) -> None:
        """Clear all alarms."""
        for timer in sorted(self._timers, key=lambda timer: timer.value):
            self.clear_timer(timer)

    def fired(self, timer: Timer) -> None:
        """An alarm's time has come: it is no longer set."""
        self._timers = tuple(other for other in self._timers if other is not timer)
