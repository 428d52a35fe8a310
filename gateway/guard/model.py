"""A model that is asked no more than is good for it: see `gateway.guard`."""

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial

import structlog

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
        self._held: Counter[str] = Counter()
        self._sending = False
        # Those that open and close sessions: else an endpoint that stalls would have as many calls
        # as there are sessions, and with them the connections of all other routes.
        self._openings = Places(most, QUEUED * most)
        self._closings = Places(most, None)

    async def open(self, principal: str) -> ModelSession:
        """See `Model.open`."""
        self._refuse_while_open()
        try:
            async with self._openings.place(principal):
                self._refuse_while_open()
                return await self._open(principal)
        except Full:
            raise ModelError(_busy()) from None

    def _refuse_while_open(self) -> None:
        if wait := self._breaker.wait():
            raise ModelError(_sick(wait))

    async def _open(self, principal: str) -> ModelSession:
        call = self._breaker.begin()
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
        send = partial(
            self._model.invoke,
            request,
            session,
            affinity=affinity,
            principal=principal,
            until=until,
        )
        turn = _Turn(self, send, on_parts, on_end, principal=principal, until=until)
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
        if self._in_flight >= limit:
            return False
        reserved = max(1, limit // RESERVED) if self._shared and limit > 1 else 0
        return self._held[principal] < limit - reserved

    def _send(self, turn: "_Turn") -> None:
        now = self._loop.time()
        if turn.until is not None and now >= turn.until:
            turn.refuse(EXPIRED)
        elif wait := self._breaker.wait():
            turn.refuse(_sick(wait))
        else:
            self._in_flight += 1
            self._held[turn.principal] += 1
            turn.send(now, self._breaker.begin())

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
        """The first of a turn's reply has come."""
        now = self._loop.time()
        self._breaker.succeeded(turn.number)
        self._limit.replied(now - turn.sent, now, self._in_flight)

    def failed(self, turn: "_Turn", failure: Failure) -> None:
        """A turn has not been answered, or not to the end."""
        self._judge(failure, turn.number)

    def cancelled(self, turn: "_Turn") -> None:
        """Nobody waits for a turn's reply any more."""
        self._breaker.unknown(turn.number)

    def left(self, turn: "_Turn") -> None:
        """A turn is no longer at the model."""
        self._in_flight -= 1
        self._held[turn.principal] -= 1
        if not self._held[turn.principal]:
            del self._held[turn.principal]
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


class _Turn:
    """A turn that waits, or is at the model."""

    __slots__ = (
        "_begun",
        "_call",
        "_guard",
        "_is_there",
        "_on_end",
        "_on_parts",
        "_over",
        "_send",
        "number",
        "principal",
        "sent",
        "until",
    )

    def __init__(
        self,
        guard: GuardedModel,
        send: Callable[..., Call],
        on_parts: OnParts,
        on_end: OnEnd,
        *,
        principal: str,
        until: float | None,
    ) -> None:
        self.principal = principal
        self.until = until
        self.sent = 0.0
        """When, by the loop's clock."""
        self.number = -1
        """The breaker's, once it is sent."""
        self._guard = guard
        self._send = send
        self._on_parts = on_parts
        self._on_end = on_end
        self._call: Call | None = None
        self._begun = self._is_there = self._over = False

    def send(self, now: float, number: int) -> None:
        """Let it go to the model."""
        self.sent, self.number, self._is_there = now, number, True
        try:
            self._call = self._send(on_parts=self._parts, on_end=self._ended)
        except Exception:
            log.exception("an adapter failed")
            self._call = asyncio.get_running_loop().call_soon(self._ended, _BROKEN)

    def refuse(self, failure: Failure) -> None:
        """End it; nothing is heard before `Model.invoke` has returned."""
        self._call = asyncio.get_running_loop().call_soon(self._end, failure)

    def _parts(self, parts: list[str | bytes]) -> None:
        if not self._begun:
            self._begun = True
            self._guard.begun(self)
        self._on_parts(parts)

    def _ended(self, result: ModelReply | Failure) -> None:
        if self._over:
            return
        if isinstance(result, Failure):
            self._guard.failed(self, result)
        elif not self._begun:
            self._guard.begun(self)
        self._guard.left(self)
        self._end(result)

    def _end(self, result: ModelReply | Failure) -> None:
        on_end = self._on_end
        self._forget()
        on_end(result)

    def _forget(self) -> None:
        """Leave no cycle that would hold a session until it is collected."""
        self._over = True
        self._call = None
        del self._send, self._on_parts, self._on_end

    def cancel(self) -> object:
        """See `Call.cancel`."""
        if self._over:
            return None
        if self._call is None:
            self._guard.unqueue(self)
        else:
            self._call.cancel()
        self._forget()
        if not self._is_there:
            return Outcome.NOT_INVOKED
        self._guard.cancelled(self)
        self._guard.left(self)
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
