"""What becomes of a route's turns and sessions, counted, and how long each part of a turn takes."""

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
"""How many turns are counted together."""


_DEFECT = ErrorObject(code=ErrorCode.INTERNAL, message="", retryable=False, outcome=Outcome.UNKNOWN)


class TurnTimes(Struct, gc=False):
    """How far a turn has come, and how long each part of that took.

    Times are of `time.monotonic`; 0 where it has not come so far. The loop's own is that of when it
    woke up last, in milliseconds: the gateway's work would take none by it.

    Attributes:
        since: When its message was accepted, by the loop's clock.
        accepted: When what has led to that came in.
        sent: When it was first given to the model's adapter, after what has to be stored before.
        first: When the first part of its reply came.
        told: When its end could be read.
        queued: How many seconds it has waited for other turns, and for a session at the model.
        upstream: How many the model has had it, waiting for a place there and further tries
            included.
        model: The model's session that it was sent in last.
        last: When the newest part of its reply came; of a turn that is traced.
        trace: What its tracer keeps of it.
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
        """How long the gateway itself has taken, and its store: the rest."""
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
    """What has become of a route's turns and sessions, since the gateway has started.

    Turns are noted when they end, and counted a hundred at once: that takes a third of the time. So
    call `count` before you read what is counted of them.

    Attributes:
        turns: How many have ended, by `Key`.
        deltas: How many parts of replies were passed on.
        duration: From a turn's acceptance to when its end was told.
        first_delta: From there to the first part of a reply, where it came in parts.
        queued: See `TurnTimes`; so the next two.
        upstream: Likewise.
        own: Likewise.
        opened: How many sessions were opened.
        renewed: Sessions that others have taken the place of, by reason and context.
        ended: Sessions that have ended, by reason.
        failures: Calls that have failed, by call and error code.
        refused: Messages that were not accepted, by error code.
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
        """A turn has ended.

        Args:
            done: Its end.
            times: How far it had come when; None where it was accepted in another process.
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
    """Traces a route's turns. It raises nothing."""

    def accepted(self) -> Any:
        """A message is accepted; returns what is kept of it as `TurnTimes.trace`."""
        ...

    def sent(self, times: TurnTimes, session_id: str, turn: Turn) -> ModelRequest:
        """A turn is sent, perhaps not for the first time; returns what is to be sent."""
        ...

    def ended(self, times: TurnTimes, session_id: str, done: MessageDone | None) -> None:
        """A turn has ended; or it goes on elsewhere, where there is no end."""
        ...


class Tally:
    """Takes the times of one session's turns, and counts what becomes of them.

    Args:
        session_id: The gateway's own.
        measures: Its route's.
        tracer: Likewise; None where turns are not traced.
    """

    __slots__ = ("_measures", "_session_id", "_times", "_tracer")

    def __init__(
        self, session_id: str, measures: RouteMeasures, tracer: Tracer | None = None
    ) -> None:
        self._session_id = session_id
        self._measures = measures
        self._tracer = tracer
        self._times: dict[str, TurnTimes] = {}  # of turns that were accepted here

    def said(self, events: Sequence[Event], now: float, at: float) -> None:
        """The session has said this, which nobody may have read yet.

        Args:
            events: Of one kind: only parts of a reply come several together.
            now: When what has led to it came in, by the loop's clock.
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
        """A turn is given to the model, perhaps not for the first time; returns what is to be done
        for that.
        """
        times = self._times.get(turn.id)
        if times is None:
            return invoke
        times.model = invoke.model
        if not times.sent:
            times.sent = monotonic()
            if turn.started is not None and (waited := turn.started - times.since):
                # Of milliseconds, which may be one too many.
                times.queued = min(waited, times.sent - times.accepted)
        if self._tracer is None:
            return invoke
        request = self._tracer.sent(times, self._session_id, turn)
        return invoke if request is invoke.request else structs.replace(invoke, request=request)

    def told(self, event: Event) -> TurnTimes | None:
        """One of `COUNTED` may be read; returns the times of a turn that has ended by it."""
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
        """See `TurnTimes.accepted`, of a turn that has not ended; None where that was not here."""
        times = self._times.get(message_id)
        return None if times is None else times.accepted

    def crashed(self, turns: Iterable[str]) -> None:
        """The session has failed: nobody is told how its turns have ended, but they are counted.

        Args:
            turns: Ids of those that it had, which may have been accepted elsewhere.
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
        """The session is over here; whoever has it now counts the turns that it still has."""
        left, self._times = self._times, {}
        if self._tracer is not None:
            for times in left.values():
                times.told = monotonic()
                _stop(times, times.told)
                self._tracer.ended(times, self._session_id, None)


def _stop(times: TurnTimes, at: float) -> None:
    """It is not at the model any more, nor going to be."""
    if times.sent:
        times.upstream = at - times.sent
    else:
        times.queued = at - times.accepted
