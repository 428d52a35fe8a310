"""A model behind an adaptive limit, a fair queue and a circuit breaker; see `gateway.guard`."""

import asyncio

import structlog
from msgspec import Struct

from gateway.errors import WAIT_SECONDS, ErrorCode, Failure, Health, Outcome, internal
from gateway.guard.fair_queue import FairQueue
from gateway.guard.overload import AdaptiveLimit, Breaker
from gateway.guard.places import Full, Places
from gateway.logs import LogLimit
from gateway.measures import TURNS, Histogram
from gateway.session.ports import (
    Call,
    Model,
    ModelError,
    ModelReply,
    ModelRequest,
    ModelSession,
    OnEnd,
    OnParts,
    Receipt,
)

QUEUED = 10
"""Turns that may queue for each one that may be at the model. More would wait for too long."""

CLOSINGS = 10_000
"""Sessions that may wait to be closed. The rest are left to expire."""

EVERYBODY = ""
"""The principal that calls are queued under if they compete with no principal's."""

MOST_WAIT_SECONDS = 30.0
"""Upper bound of the `retry_after` of refused turns, which is the time that others have waited."""

LINES_A_MINUTE = 10
"""Log lines a minute about sessions that are left to expire."""

_OVERLOADED = frozenset({ErrorCode.MODEL_NOT_READY, ErrorCode.MODEL_ERROR, ErrorCode.TIMEOUT})
"""Failures of an overloaded endpoint, apart from explicit throttling."""

log = structlog.stdlib.get_logger("gateway.guard")


class GuardedModel:
    """A model whose turns are limited in number, and are shared fairly among principals.

    Args:
        model: The model.
        most: Maximum number of concurrent turns.
        breaker: The endpoint's circuit breaker; other models of the endpoint may share it.
        shared: Whether principals are told apart, so that no one of them may have all places.
        patience: Seconds that a turn may wait for a place.

    Attributes:
        waited: Histogram of the seconds that queued turns have waited.
        turned_away: Number of turns and openings refused because the queue was full, or because
            they had waited for too long.
    """

    def __init__(
        self, model: Model, most: int, breaker: Breaker, *, shared: bool, patience: float
    ) -> None:
        self._model = model
        self._shared = shared
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._most = most
        self._limit = AdaptiveLimit(most)
        self._breaker = breaker
        self._queue: FairQueue[_Attempt] = FairQueue()
        self._in_flight = 0
        self._held: dict[str, int] = {}
        self._sending = False
        # Places of their own for calls that open and close sessions: otherwise a stalled endpoint
        # would get a call for each session, and these would use up all routes' connections.
        self._openings = Places(most, QUEUED * most, patience)
        self._closings = Places(most, CLOSINGS, patience)
        self._left = LogLimit(LINES_A_MINUTE)
        self.waited = Histogram(TURNS)
        self.turned_away = 0

    @property
    def waiting(self) -> int:
        """Number of turns in the queue."""
        return self._queue.size

    @property
    def in_flight(self) -> int:
        """Number of turns at the model."""
        return self._in_flight

    @property
    def limit(self) -> int:
        """Current maximum of turns at the model."""
        return self._limit.limit

    @property
    def refuses(self) -> bool:
        """Whether the breaker is open and not due for a probe."""
        return self._breaker.wait() > 0

    async def open(self, principal: str) -> ModelSession:
        """See `Model.open`."""
        if wait := self._breaker.wait():  # don't queue for a place first
            raise ModelError(_sick(wait))
        try:
            async with self._openings.place(principal):
                return await self._open(principal)
        except Full as error:
            raise ModelError(self._busy(error.waited)) from None

    async def _open(self, principal: str) -> ModelSession:
        generation = self._breaker.ask()
        if generation is None:
            raise ModelError(_sick(self._breaker.wait()))
        try:
            session = await self._model.open(principal)
        except ModelError as error:
            self._judge(error.failure, generation)
            raise
        except BaseException:
            self._breaker.unknown(generation)
            raise
        self._breaker.succeeded(generation)
        return session

    async def close(self, session: ModelSession) -> None:
        """See `Model.close`. Called at a failing endpoint too: open sessions use its resources."""
        try:
            async with self._closings.place(EVERYBODY):
                await self._model.close(session)
        except Full:
            suppressed = self._left.suppressed("")
            if suppressed is not None:
                log.warning("a session is left to expire", suppressed=suppressed)

    def invoke(
        self,
        request: ModelRequest,
        session: ModelSession | None,
        *,
        affinity: str,
        principal: str,
        until: float | None,
        on_parts: OnParts,
        on_end: OnEnd,
    ) -> Call:
        """See `Model.invoke`."""
        attempt = _Attempt(self, request, session, affinity, principal, until, on_parts, on_end)
        # The start of `_has_place_for`, inlined: a call would add 0.2 % to a turn's instructions.
        limit, held = self._limit, self._held.get(principal, 0)
        if not self._queue.size and self._in_flight < limit.limit and held < limit.share:
            self._send(attempt, self._loop.time())
            return attempt
        self._queue.add(principal, attempt)
        attempt.since = self._loop.time()
        attempt.given_up = self._loop.call_later(self._patience, self._give_up, attempt)
        while self._queue.size > QUEUED * self._limit.limit:
            longest = self._queue.longest()
            waited = self._loop.time() - self._queue.first(longest).since
            dropped = self._queue.drop(longest)
            dropped.wait_no_longer()
            dropped.refuse(self._busy(waited))
        self._send_soon()
        return attempt

    def wait(self, receipt: Receipt, *, affinity: str, on_end: OnEnd) -> Call:
        """See `Model.wait`. The turn was submitted, and no longer has a place."""
        return self._model.wait(receipt, affinity=affinity, on_end=on_end)

    def _has_place_for(self, principal: str) -> bool:
        limit, held = self._limit, self._held.get(principal, 0)
        if self._in_flight < limit.limit:
            return held < limit.share
        # The limit has decreased below what a few principals hold. Don't make others wait for them.
        few = self._shared and len(self._held) <= limit.reserved
        return few and not held and self._in_flight < self._most

    def _send(self, attempt: "_Attempt", now: float) -> None:
        generation = self._breaker.ask()
        if generation is None:
            attempt.refuse(_sick(self._breaker.wait()))
            return
        self._in_flight += 1
        if self._shared:
            self._held[attempt.principal] = self._held.get(attempt.principal, 0) + 1
        attempt.since, attempt.generation = now, generation
        try:
            attempt.call = self._model.invoke(
                attempt.request,
                attempt.session,
                affinity=attempt.affinity,
                principal=attempt.principal,
                until=attempt.until,
                on_parts=attempt.parts,
                on_end=attempt.ended,
            )
        except Exception:
            log.exception("an adapter failed")
            attempt.refuse(internal(Outcome.UNKNOWN))

    def _send_soon(self) -> None:
        """Schedule sending queued turns, as far as there are places.

        Deferred: sessions that end together cancel their turns one after the other, and their
        queued turns must not be sent in between.
        """
        if not self._sending:
            self._sending = True
            self._loop.call_soon(self._send_more)

    def _send_more(self) -> None:
        self._sending = False
        while (principal := self._queue.next_up(self._held)) is not None:
            if not self._has_place_for(principal):
                break  # principals that hold more places get none either
            attempt = self._queue.pop(principal)
            attempt.wait_no_longer()
            now = self._loop.time()
            if attempt.until is not None and now >= attempt.until:
                attempt.refuse(EXPIRED)
            else:
                self._send(attempt, now)

    def _give_up(self, attempt: "_Attempt") -> None:
        """Refuse a turn that has waited for too long."""
        self.unqueue(attempt)
        attempt.refuse(self._busy(self._patience))

    def begun(self, attempt: "_Attempt") -> None:
        """Record that a reply has started, or has arrived as a whole."""
        now = self._loop.time()
        self._breaker.succeeded(attempt.generation)
        self._limit.replied(now - attempt.since, now, self._in_flight)

    def over(self, attempt: "_Attempt", result: ModelReply | Failure | Receipt | None) -> None:
        """Record that a turn has left the model.

        Args:
            attempt: The turn.
            result: Its result; None if it was cancelled.
        """
        if isinstance(result, Failure):
            self._judge(result, attempt.generation)
        elif result is None:
            self._breaker.unknown(attempt.generation)
        elif not attempt.has_begun:
            self.begun(attempt)
        self._in_flight -= 1
        if self._shared:
            held = self._held.pop(attempt.principal) - 1
            if held:
                self._held[attempt.principal] = held
        if self._queue.size:
            self._send_soon()

    def unqueue(self, attempt: "_Attempt") -> None:
        """Remove a turn from the queue, if it is there."""
        self._queue.remove(attempt.principal, attempt)
        attempt.wait_no_longer()

    def _busy(self, waited: float) -> Failure:
        self.turned_away += 1
        wait = min(max(waited, WAIT_SECONDS), MOST_WAIT_SECONDS)
        return Failure(
            code=ErrorCode.THROTTLED,
            message="Too many turns are waiting for the model; send it again later.",
            retry_after=round(wait, 3),
        )

    def _judge(self, failure: Failure, generation: int) -> None:
        """Update the breaker and the limit with a failed call."""
        overloaded = failure.health is Health.BUSY
        if failure.health is Health.SICK:
            # Single turns that time out mean nothing while others are answered; nor do probes.
            counts = self._breaker.failed(generation) and not self._breaker.is_open
            overloaded = counts and failure.code in _OVERLOADED
        elif failure.health is not None:
            self._breaker.succeeded(generation)
        else:
            self._breaker.unknown(generation)
        if overloaded:
            self._limit.overloaded(self._loop.time())


class _Attempt(Struct, eq=False, weakref=False):
    """A turn in the queue or at the model.

    Attributes:
        guard: The model that accounts for it.
        request: See `Model.invoke`; as the fields down to `until`.
        on_parts: Called with the reply's parts.
        on_end: Called with its result; None once it is over.
        since: When it was queued or sent, in seconds of the loop's clock.
        given_up: Timer of the maximum wait.
        generation: See `Breaker`; negative until it is sent.
        call: Cancels it, once it is sent or refused; None once it is over, which breaks a reference
            cycle that would keep the session alive until garbage collection.
        has_begun: Whether its reply has started.
    """

    guard: GuardedModel
    request: ModelRequest
    session: ModelSession | None
    affinity: str
    principal: str
    until: float | None
    on_parts: OnParts
    on_end: OnEnd | None
    since: float = 0.0
    given_up: asyncio.TimerHandle | None = None
    generation: int = -1
    call: Call | None = None
    has_begun: bool = False

    def __repr__(self) -> str:
        """Leave out the message's text."""
        return f"<Attempt {self.generation}>"

    def wait_no_longer(self) -> None:
        """Stop the timer of the maximum wait, and record how long the turn was queued."""
        if self.given_up is not None:
            self.given_up.cancel()
            self.given_up = None
            self.guard.waited.observe(asyncio.get_running_loop().time() - self.since)

    def refuse(self, failure: Failure) -> None:
        """End it with a failure; callbacks run only after `Model.invoke` has returned."""
        self.call = asyncio.get_running_loop().call_soon(self.ended, failure)

    def parts(self, parts: list[str | bytes]) -> None:
        """See `OnParts`."""
        if self.on_end is None:
            return
        if not self.has_begun:
            self.has_begun = True
            self.guard.begun(self)
        self.on_parts(parts)

    def ended(self, result: ModelReply | Failure | Receipt) -> None:
        """See `OnEnd`."""
        on_end = self.on_end
        if on_end is None:
            return
        if self.generation >= 0:
            self.guard.over(self, result)
        self.call = self.on_end = None
        on_end(result)

    def cancel(self) -> object:
        """See `Call.cancel`."""
        if self.on_end is None:
            return None
        call = self.call
        self.call = self.on_end = None
        known = None if call is None else call.cancel()
        if self.generation < 0:
            self.guard.unqueue(self)
            return Outcome.NOT_INVOKED
        self.guard.over(self, None)
        return known


EXPIRED = Failure(
    code=ErrorCode.UNAVAILABLE, message="The session expired before the message was sent."
)
"""Failure of a turn that was queued past its session's end; another session may accept it."""


def _sick(wait: float) -> Failure:
    return Failure(
        code=ErrorCode.UNAVAILABLE,
        message="The model's endpoint is failing; send it again later.",
        retry_after=round(wait, 3),
    )
