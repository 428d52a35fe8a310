"""A model that is asked no more than is good for it: see `gateway.guard`."""

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
"""How many turns may wait for each that may be at the model. Those beyond would wait too long."""

CLOSINGS = 10_000
"""How many sessions may wait to be closed. Those beyond are left to expire by themselves."""

EVERYBODY = ""
"""Whose calls are those that no principal is to wait for."""

MOST_WAIT_SECONDS = 30.0
"""What whoever is turned away is told to wait at the most: it is as long as others have waited."""

LINES_A_MINUTE = 10
"""How many lines are logged of sessions that are left to expire."""

_OVERLOADED = frozenset({ErrorCode.MODEL_NOT_READY, ErrorCode.MODEL_ERROR, ErrorCode.TIMEOUT})
"""What an endpoint that is asked too much fails with, beside saying so."""

log = structlog.stdlib.get_logger("gateway.guard")


class GuardedModel:
    """A model, asked no more than is good for it, and by everybody in turns.

    Args:
        model: The model.
        most: How many turns may be there.
        breaker: The endpoint's; others may be in front of the same.
        shared: Whether principals can be told apart, so that none may have all places.
        patience: How many seconds one may wait for its place.

    Attributes:
        waited: How long those turns have waited for their place that had to.
        turned_away: How many turns and openings had no place, nor one to wait in for long enough.
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
        # Those that open and close sessions: else an endpoint that stalls would have as many calls
        # as there are sessions, and with them the connections of all other routes.
        self._openings = Places(most, QUEUED * most, patience)
        self._closings = Places(most, CLOSINGS, patience)
        self._left = LogLimit(LINES_A_MINUTE)
        self.waited = Histogram(TURNS)
        self.turned_away = 0

    @property
    def waiting(self) -> int:
        """How many turns wait for a place."""
        return self._queue.size

    @property
    def in_flight(self) -> int:
        """How many turns are at the model."""
        return self._in_flight

    @property
    def limit(self) -> int:
        """How many may be there now."""
        return self._limit.limit

    @property
    def refuses(self) -> bool:
        """Whether the breaker keeps turns from the endpoint now; what comes next may be a probe."""
        return self._breaker.wait() > 0

    async def open(self, principal: str) -> ModelSession:
        """See `Model.open`."""
        if wait := self._breaker.wait():  # for which it need not wait
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
        """See `Model.close`. It is tried at a sick endpoint too: what is open there costs it."""
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
        # As `_has_place_for` begins, for each turn: a call would take 0.2 % of its instructions.
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
        """See `Model.wait`. The turn has been sent, and has no place at the model any more."""
        return self._model.wait(receipt, affinity=affinity, on_end=on_end)

    def _has_place_for(self, principal: str) -> bool:
        limit, held = self._limit, self._held.get(principal, 0)
        if self._in_flight < limit.limit:
            return held < limit.share
        # The limit has gone down, and a few have all of what it was. Nobody else waits for them.
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
        """Send what waits, as far as there are places.

        Not at once: sessions that end together cancel their turns one after the other, and what
        waits of them is not to be sent in between.
        """
        if not self._sending:
            self._sending = True
            self._loop.call_soon(self._send_more)

    def _send_more(self) -> None:
        self._sending = False
        while (principal := self._queue.next_up(self._held)) is not None:
            if not self._has_place_for(principal):
                break  # nor has it for who has more
            attempt = self._queue.pop(principal)
            attempt.wait_no_longer()
            now = self._loop.time()
            if attempt.until is not None and now >= attempt.until:
                attempt.refuse(EXPIRED)
            else:
                self._send(attempt, now)

    def _give_up(self, attempt: "_Attempt") -> None:
        """It has waited for long enough."""
        self.unqueue(attempt)
        attempt.refuse(self._busy(self._patience))

    def begun(self, attempt: "_Attempt") -> None:
        """The first of a turn's reply has come, or all of it."""
        now = self._loop.time()
        self._breaker.succeeded(attempt.generation)
        self._limit.replied(now - attempt.since, now, self._in_flight)

    def over(self, attempt: "_Attempt", result: ModelReply | Failure | Receipt | None) -> None:
        """A turn is no longer at the model.

        Args:
            attempt: The turn.
            result: What has become of it; None where nobody waits for that.
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
        """A turn waits no longer, if it did."""
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
        """What a call that has failed says of the endpoint."""
        overloaded = failure.health is Health.BUSY
        if failure.health is Health.SICK:
            # Some turns that are never answered say nothing, where others are; nor do probes.
            counts = self._breaker.failed(generation) and not self._breaker.is_open
            overloaded = counts and failure.code in _OVERLOADED
        elif failure.health is not None:
            self._breaker.succeeded(generation)
        else:
            self._breaker.unknown(generation)
        if overloaded:
            self._limit.overloaded(self._loop.time())


class _Attempt(Struct, eq=False, weakref=False):
    """A turn that waits, or is at the model.

    Attributes:
        guard: Counts it.
        request: See `Model.invoke`; so the others down to `until`.
        on_parts: Hears of its reply's parts.
        on_end: Hears of its end; None once it is over.
        since: From when on it waits, or is at the model, by the loop's clock.
        given_up: What ends its waiting.
        generation: See `Breaker`; negative until it is sent.
        call: What cancels it, once it is sent or refused; None once it is over, so that there is
            no cycle, which would hold a session until it is collected.
        has_begun: Whether its reply has.
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
        """No text."""
        return f"<Attempt {self.generation}>"

    def wait_no_longer(self) -> None:
        """It is sent, or is not going to be."""
        if self.given_up is not None:
            self.given_up.cancel()
            self.given_up = None
            self.guard.waited.observe(asyncio.get_running_loop().time() - self.since)

    def refuse(self, failure: Failure) -> None:
        """End it; nothing is heard before `Model.invoke` has returned."""
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
"""What becomes of a turn that has waited for longer than its session; another may take it."""


def _sick(wait: float) -> Failure:
    return Failure(
        code=ErrorCode.UNAVAILABLE,
        message="The model's endpoint is failing; send it again later.",
        retry_after=round(wait, 3),
    )
