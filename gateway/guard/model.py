"""A model that is asked no more than is good for it: see `gateway.guard`."""

import asyncio

import structlog
from msgspec import Struct

from gateway.errors import ErrorCode, Failure, Health, Outcome
from gateway.guard.fair_queue import FairQueue
from gateway.guard.overload import AdaptiveLimit, Breaker
from gateway.guard.places import Full, Places
from gateway.session.ports import (
    Call,
    Model,
    ModelError,
    ModelReply,
    ModelRequest,
    ModelSession,
    OnEnd,
    OnParts,
)

QUEUED = 10
"""How many turns may wait for each that may be at the model. Those beyond would wait too long."""

RESERVED = 10
"""One in so many places is for those who do not have all of the others."""

EVERYBODY = ""
"""Whose calls are those that no principal is to wait for."""

_OVERLOADED = frozenset({ErrorCode.MODEL_NOT_READY, ErrorCode.TIMEOUT})

log = structlog.stdlib.get_logger("gateway.guard")


class GuardedModel:
    """A model, asked no more than is good for it, and by everybody in turns.

    Args:
        model: The model.
        most: How many turns may be there.
        shared: Whether principals can be told apart, so that none may have all places.
    """

    def __init__(self, model: Model, most: int, *, shared: bool) -> None:
        self._model = model
        self._shared = shared
        self._loop = asyncio.get_running_loop()
        self._limit = AdaptiveLimit(most)
        self._breaker = Breaker(self._loop.time)
        self._queue: FairQueue[_Turn] = FairQueue()
        self._in_flight = 0
        self._held: dict[str, int] = {}
        self._sending = False
        # Those that open and close sessions: else an endpoint that stalls would have as many calls
        # as there are sessions, and with them the connections of all other routes.
        self._openings = Places(most, QUEUED * most)
        self._closings = Places(most, None)

    async def open(self, principal: str) -> ModelSession:
        """See `Model.open`."""
        if wait := self._breaker.wait():  # for which it need not wait
            raise ModelError(_sick(wait))
        try:
            async with self._openings.place(principal):
                return await self._open(principal)
        except Full:
            raise ModelError(_busy()) from None

    async def _open(self, principal: str) -> ModelSession:
        call = self._breaker.ask()
        if call is None:
            raise ModelError(_sick(self._breaker.wait()))
        try:
            session = await self._model.open(principal)
        except ModelError as error:
            self._judge(error.failure, call)
            raise
        except BaseException:
            self._breaker.unknown(call)
            raise
        self._breaker.succeeded(call)
        return session

    async def close(self, session: ModelSession) -> None:
        """See `Model.close`."""
        async with self._closings.place(EVERYBODY):
            await self._model.close(session)

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
        turn = _Turn(self, request, session, affinity, principal, until, on_parts, on_end)
        if not self._queue.size and self._has_place_for(principal):
            self._send(turn)
            return turn
        self._queue.add(principal, turn)
        if self._queue.size > QUEUED * self._limit.limit:
            self._queue.drop(self._queue.longest()).refuse(_busy())
        self._send_soon()
        return turn

    def _has_place_for(self, principal: str) -> bool:
        limit = self._limit.limit
        if not self._shared or limit == 1:
            return self._in_flight < limit
        most = limit - max(1, limit // RESERVED)
        return self._in_flight < limit and self._held.get(principal, 0) < most

    def _send(self, turn: "_Turn") -> None:
        now = self._loop.time()
        if turn.until is not None and now >= turn.until:
            turn.refuse(EXPIRED)
            return
        number = self._breaker.ask()
        if number is None:
            turn.refuse(_sick(self._breaker.wait()))
            return
        self._in_flight += 1
        if self._shared:
            self._held[turn.principal] = self._held.get(turn.principal, 0) + 1
        turn.sent, turn.number = now, number
        try:
            turn.call = self._model.invoke(
                turn.request,
                turn.session,
                affinity=turn.affinity,
                principal=turn.principal,
                until=turn.until,
                on_parts=turn.parts,
                on_end=turn.ended,
            )
        except Exception:
            log.exception("an adapter failed")
            turn.refuse(_BROKEN)

    def _send_soon(self) -> None:
        """Send what waits, as far as there are places.

        Not at once: sessions that end together cancel their turns one after the other, and what
        waits of them is not to be sent in between.
        """
        if not self._sending and self._queue.size:
            self._sending = True
            self._loop.call_soon(self._send_more)

    def _send_more(self) -> None:
        self._sending = False
        while (principal := self._next_up()) is not None:
            self._send(self._queue.pop(principal))

    def _next_up(self) -> str | None:
        """Who may send now; one may have so many places that it is not, but only one."""
        principal = self._queue.next_up()
        if principal is not None and not self._has_place_for(principal):
            principal = self._queue.next_up(but=principal)
        if principal is not None and not self._has_place_for(principal):
            return None
        return principal

    def begun(self, turn: "_Turn") -> None:
        """The first of a turn's reply has come, or all of it."""
        now = self._loop.time()
        self._breaker.succeeded(turn.number)
        self._limit.replied(now - turn.sent, now, self._in_flight)

    def failed(self, turn: "_Turn", failure: Failure) -> None:
        """A turn has not been answered, or not to the end."""
        self._judge(failure, turn.number)

    def cancelled(self, turn: "_Turn") -> None:
        """Nobody waits for a turn's reply any more."""
        self._breaker.unknown(turn.number)

    def left(self, principal: str) -> None:
        """A turn is no longer at the model."""
        self._in_flight -= 1
        if self._shared:
            held = self._held.pop(principal) - 1
            if held:
                self._held[principal] = held
        if self._queue.size:
            self._send_soon()

    def unqueue(self, turn: "_Turn") -> None:
        """A turn waits no longer."""
        self._queue.remove(turn.principal, turn)

    def _judge(self, failure: Failure, call: int) -> None:
        """What a call that has failed says of the endpoint."""
        sick = failure.health is Health.SICK
        if sick:
            self._breaker.failed(call)
        elif failure.health is Health.WELL:
            self._breaker.succeeded(call)
        else:
            self._breaker.unknown(call)
        if failure.code is ErrorCode.THROTTLED or (sick and failure.code in _OVERLOADED):
            self._limit.overloaded(self._loop.time())


class _Turn(Struct, eq=False, weakref=False):
    """A turn that waits, or is at the model.

    Attributes:
        guard: Counts it.
        request: See `Model.invoke`; so the others down to `until`.
        on_parts: Hears of its reply's parts.
        on_end: Hears of its end; None once it is over.
        sent: When it was sent, by the loop's clock.
        number: The breaker's; negative until it is sent.
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
    sent: float = 0.0
    number: int = -1
    call: Call | None = None
    has_begun: bool = False

    def __repr__(self) -> str:
        """No text."""
        return f"<Turn {self.number}>"

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

    def ended(self, result: ModelReply | Failure) -> None:
        """See `OnEnd`."""
        on_end = self.on_end
        if on_end is None:
            return
        if self.number >= 0:
            if isinstance(result, Failure):
                self.guard.failed(self, result)
            elif not self.has_begun:
                self.guard.begun(self)
            self.guard.left(self.principal)
        self.call = self.on_end = None
        on_end(result)

    def cancel(self) -> object:
        """See `Call.cancel`."""
        if self.on_end is None:
            return None
        call, number = self.call, self.number
        self.call = self.on_end = None
        if call is None:
            self.guard.unqueue(self)
        else:
            call.cancel()
        if number < 0:
            return Outcome.NOT_INVOKED
        self.guard.cancelled(self)
        self.guard.left(self.principal)
        return None


EXPIRED = Failure(
    code=ErrorCode.UNAVAILABLE, message="The session has expired before the message was sent."
)
"""What becomes of a turn that has waited for longer than its session; another may take it."""

_BROKEN = Failure(
    code=ErrorCode.INTERNAL,
    message="The gateway failed; its operator finds the reason in its log.",
    outcome=Outcome.UNKNOWN,
)


def _busy() -> Failure:
    text = "Too many turns wait for the model; send it again a little later."
    return Failure(
        code=ErrorCode.THROTTLED, message=text, outcome=Outcome.NOT_INVOKED, retry_after=1.0
    )


def _sick(wait: float) -> Failure:
    text = "The model's endpoint fails at the moment; send it again later."
    return Failure(
        code=ErrorCode.UNAVAILABLE,
        message=text,
        outcome=Outcome.NOT_INVOKED,
        retry_after=round(wait, 3),
    )
