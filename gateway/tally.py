"""Counts a route's turns and sessions, and measures the phases of each turn."""

from collections import Counter
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import Any, Protocol

from msgspec import UNSET, Struct, structs

from gateway.errors import ErrorCode, Outcome
from gateway.measures import MOMENTS, TURNS, Histogram
from gateway.protocol.messages import (
    ErrorObject,
    Event,
    MessageAccepted,
    MessageDelta,
    MessageDone,
    SessionClosed,
    SessionOpened,
    SessionRenewed,
)
from gateway.session.effects import Invoke
from gateway.session.ports import ModelRequest, ModelSession
from gateway.session.turn_queue import Turn

COUNTED = frozenset({MessageDone, SessionOpened, SessionRenewed, SessionClosed})
"""The events that `Tally.told` counts."""

COUNTED_AT_ONCE = 100
"""Number of turns that are counted together."""


_DEFECT = ErrorObject(code=ErrorCode.INTERNAL, message="", retryable=False, outcome=Outcome.UNKNOWN)


class TurnTimes(Struct, gc=False):
    """The times of a turn, and how long its phases took.

    Times are of `time.monotonic`; 0 for a phase not reached. The loop's clock has millisecond
    resolution and stands still during an iteration, so it can't measure the gateway's own work.

    Attributes:
        since: When its message was accepted, by the loop's clock.
        accepted: When the event that led to its acceptance was received.
        sent: When it was first passed to the model's adapter, after what must be stored before.
        first: When the first part of its reply arrived.
        told: When its end became readable.
        queued: Seconds that it waited for other turns, and for a session at the model.
        upstream: Seconds at the model, including waits for a place and retries.
        model: The model's session that it was last sent in.
        last: When the latest part of its reply arrived; only of a traced turn.
        trace: State of its tracer.
    """

    since: float
    accepted: float
    sent: float = 0.0
    first: float = 0.0
    told: float = 0.0
    queued: float = 0.0
    upstream: float = 0.0
    model: ModelSession | None = None
    last: float = 0.0
    trace: Any = None

    def __repr__(self) -> str:
        return f"<TurnTimes from {self.accepted}>"

    @property
    def own(self) -> float:
        """Seconds spent in the gateway itself and its store: the remainder."""
        return self.told - self.accepted - self.queued - self.upstream


Key = tuple[str, str, str]
"""A turn's status, error code and outcome; the latter two may be ""."""

_COMPLETED: Key = ("completed", "", "")


def _key(done: MessageDone) -> Key:
    error, outcome = done.error, done.outcome
    if error is not UNSET:
        return done.status, error.code.value, error.outcome.value
    return done.status, "", "" if outcome is UNSET else outcome.value


class RouteMeasures:
    """Measures of a route's turns and sessions since the gateway started.

    Ended turns are noted, and counted a hundred at a time, which takes a third of the time. So call
    `count` before reading their measures.

    Attributes:
        turns: Number of ended turns, by `Key`.
        deltas: Number of parts of replies that were sent on.
        duration: From a turn's acceptance to its end.
        first_delta: From a turn's acceptance to the first part of its reply, if streamed.
        queued: See `TurnTimes`.
        upstream: See `TurnTimes`.
        own: See `TurnTimes`.
        opened: Number of opened sessions.
        renewed: Number of renewed sessions, by reason and context.
        ended: Number of ended sessions, by reason.
        failures: Number of failed calls, by call and error code.
        refused: Number of refused messages, by error code.
    """

    __slots__ = (
        "_keys",
        "_times",
        "deltas",
        "duration",
        "ended",
        "failures",
        "first_delta",
        "opened",
        "own",
        "queued",
        "refused",
        "renewed",
        "turns",
        "upstream",
    )

    def __init__(self) -> None:
        self._keys: list[Key] = []
        self._times: list[TurnTimes] = []
        self.turns: Counter[Key] = Counter()
        self.deltas = 0
        self.duration, self.first_delta = Histogram(TURNS), Histogram(TURNS)
        self.queued, self.upstream = Histogram(TURNS), Histogram(TURNS)
        self.own = Histogram(MOMENTS)
        self.opened = 0
        self.renewed: Counter[tuple[str, str]] = Counter()
        self.ended: Counter[str] = Counter()
        self.failures: Counter[tuple[str, str]] = Counter()
        self.refused: Counter[str] = Counter()

    def note(self, done: MessageDone, times: TurnTimes | None) -> None:
        """Record the end of a turn.

        Args:
            done: Its ``message.done``.
            times: Its times; None if it was accepted in another process.
        """
        if done.deltas:
            self.deltas += done.deltas
        if times is not None:
            self._times.append(times)
        keys = self._keys
        keys.append(_COMPLETED if done.status == "completed" else _key(done))
        if len(keys) >= COUNTED_AT_ONCE:
            self.count()

    def count(self) -> None:
        """Count the turns that were noted."""
        times, self._times = self._times, []
        keys, self._keys = self._keys, []
        self.turns.update(keys)
        self.duration.observe_all([each.told - each.accepted for each in times])
        self.queued.observe_all([each.queued for each in times])
        self.own.observe_all([each.own for each in times])
        self.upstream.observe_all([each.upstream for each in times if each.sent])
        first = [each.first - each.accepted for each in times if each.first]
        if first:
            self.first_delta.observe_all(first)


class Tracer(Protocol):
    """Traces a route's turns. Its methods must not raise."""

    def accepted(self) -> Any:
        """Start a trace when a message is accepted; returns the value of `TurnTimes.trace`."""
        ...

    def sent(self, times: TurnTimes, session_id: str, turn: Turn) -> ModelRequest:
        """Trace sending a turn, possibly again; returns the request to send."""
        ...

    def ended(self, times: TurnTimes, session_id: str, done: MessageDone | None) -> None:
        """End a turn's trace; `done` is None if the turn continues at another replica."""
        ...


class Tally:
    """Measures one session's turns and counts their results.

    Args:
        session_id: The gateway's own id.
        measures: Measures of its route.
        tracer: Tracer of its route; None if tracing is off.
    """

    __slots__ = ("_measures", "_session_id", "_times", "_tracer")

    def __init__(
        self, session_id: str, measures: RouteMeasures, tracer: Tracer | None = None
    ) -> None:
        self._session_id = session_id
        self._measures = measures
        self._tracer = tracer
        self._times: dict[str, TurnTimes] = {}  # of turns accepted here

    def said(self, events: Sequence[Event], now: float, at: float) -> None:
        """Record events that the session has emitted, which may not be readable yet.

        Args:
            events: Events of one type; only parts of a reply are emitted several at a time.
            now: When the cause of the events was received, by the loop's clock.
            at: The same by `time.monotonic`.
        """
        first = events[0]
        if type(first) is MessageDelta:
            if first.index and self._tracer is None:
                return
            if (times := self._times.get(first.id)) is not None:
                times.first = times.first or at
                times.last = at
        elif type(first) is MessageAccepted:
            self._times[first.id] = times = TurnTimes(now, at)
            if self._tracer is not None:
                times.trace = self._tracer.accepted()
        elif type(first) is MessageDone and (times := self._times.get(first.id)) is not None:
            _stop(times, at)

    def sent(self, turn: Turn, invoke: Invoke) -> Invoke:
        """Record that a turn is sent, possibly again; returns the effect to perform."""
        times = self._times.get(turn.id)
        if times is None:
            return invoke
        times.model = invoke.model
        if not times.sent:
            times.sent = monotonic()
            if turn.started is not None and (waited := turn.started - times.since):
                # At a resolution of milliseconds this may be too long by one.
                times.queued = min(waited, times.sent - times.accepted)
        if self._tracer is None:
            return invoke
        request = self._tracer.sent(times, self._session_id, turn)
        return invoke if request is invoke.request else structs.replace(invoke, request=request)

    def told(self, event: Event) -> TurnTimes | None:
        """Count an event of `COUNTED` that is readable; returns the times of a turn it ends."""
        measures = self._measures
        if type(event) is MessageDone:
            times = self._times.pop(event.id, None)
            if times is not None:
                times.told = monotonic()
                if self._tracer is not None:
                    self._tracer.ended(times, self._session_id, event)
            measures.note(event, times)
            return times
        if type(event) is SessionOpened:
            measures.opened += 1
        elif type(event) is SessionRenewed:
            measures.renewed[event.reason, event.context] += 1
        elif type(event) is SessionClosed:
            measures.ended[event.reason] += 1
        return None

    def accepted_at(self, message_id: str) -> float | None:
        """Return `TurnTimes.accepted` of a pending turn; None if it was accepted elsewhere."""
        times = self._times.get(message_id)
        return None if times is None else times.accepted

    def crashed(self, turns: Iterable[str]) -> None:
        """Count the turns of a session that has crashed: no client is told how they end.

        Args:
            turns: ids of its turns, which may have been accepted elsewhere.
        """
        self._measures.ended["internal"] += 1
        for message_id in {**self._times, **dict.fromkeys(turns)}:
            if (times := self._times.get(message_id)) is not None:
                _stop(times, monotonic())
            self.told(
                MessageDone(
                    event=0, id=message_id, status="failed", deltas=0, duration_ms=0, error=_DEFECT
                )
            )

    def leave(self) -> None:
        """Stop measuring a session that has moved; its new owner counts its pending turns."""
        left, self._times = self._times, {}
        if self._tracer is not None:
            for times in left.values():
                times.told = monotonic()
                _stop(times, times.told)
                self._tracer.ended(times, self._session_id, None)


def _stop(times: TurnTimes, at: float) -> None:
    """Set how long a turn was queued or at the model, when it ends."""
    if times.sent:
        times.upstream = at - times.sent
    else:
        times.queued = at - times.accepted
