"""A model that is asked no more than is good for it: see `gateway.guard`."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from gateway.errors import ErrorCode, Failure, Outcome
from gateway.guard.fair_queue import FairQueue
from gateway.guard.overload import AdaptiveLimit, Breaker
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
from gateway.turnstile import Turnstile

QUEUED = 10
"""How many turns may wait for each that may be at the model. Those beyond would wait too long."""

BEGUN = 2
"""How many sessions are opened or closed in one turn of the event loop: hundreds may want to be at
once, and whoever waits for an answer would wait for all of them."""

_OVERLOADED = frozenset({ErrorCode.THROTTLED, ErrorCode.MODEL_NOT_READY, ErrorCode.TIMEOUT})
_SICK = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.MODEL_NOT_READY, ErrorCode.TIMEOUT})


class GuardedModel:
    """A model, asked no more than is good for it, and by everybody in turns.

    Args:
        model: The model.
        most: How many turns may be there.
    """

    def __init__(self, model: Model, most: int) -> None:
        self._model = model
        self._loop = asyncio.get_running_loop()
        self._limit = AdaptiveLimit(most)
        self._breaker = Breaker(self._loop.time)
        self._queue: FairQueue[_Turn] = FairQueue()
        self._in_flight = 0
        # Those that open and close sessions: else an endpoint that stalls would have as many calls
        # as there are sessions, and with them the connections of all other routes.
        self._places = asyncio.Semaphore(most)
        self._turnstile = Turnstile(BEGUN)
        self._opening = 0
        self._most_opening = (1 + QUEUED) * most

    async def open(self) -> ModelSession:
        """See `Model.open`."""
        if self._opening >= self._most_opening:
            raise ModelError(_busy())
        self._opening += 1
        try:
            async with self._place():
                return await self._open()
        finally:
            self._opening -= 1

    async def _open(self) -> ModelSession:
        if wait := self._breaker.wait():
            raise ModelError(_sick(wait))
        try:
            session = await self._model.open()
        except ModelError as error:
            self._judge(error.failure)
            raise
        except BaseException:
            self._breaker.unknown()
            raise
        self._breaker.succeeded()
        return session

    async def close(self, session: ModelSession) -> None:
        """See `Model.close`."""
        async with self._place():
            await self._model.close(session)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """A place among the calls that open and close sessions, when its turn has come."""
        async with self._places:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._turnstile.enter(partial(_let_in, waiter))
            await waiter
            yield

    def invoke(
        self,
        request: ModelRequest,
        session: ModelSession | None,
        *,
        affinity: str,
        principal: str,
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
            on_parts=on_parts,
        )
        turn = _Turn(self, principal, send, on_end)
        if self._in_flight < self._limit.limit and not self._queue.size:
            self._send(turn)
        else:
            self._queue.add(principal, turn)
            if self._queue.size > QUEUED * self._limit.limit:
                self._queue.drop(self._queue.longest()).refuse(_busy())
        return turn

    def _send(self, turn: "_Turn") -> None:
        wait = self._breaker.wait()
        if wait:
            turn.refuse(_sick(wait))
        else:
            self._in_flight += 1
            turn.send(self._loop.time())

    def ended(self, turn: "_Turn", result: ModelReply | Failure) -> None:
        """A turn is no longer at the model."""
        now, in_flight = self._loop.time(), self._in_flight
        self._in_flight -= 1
        if isinstance(result, Failure):
            self._judge(result)
        else:
            self._breaker.succeeded()
            self._limit.replied(now - turn.begun, now, in_flight)
        if self._queue.size:
            self._send_more()

    def cancelled(self, turn: "_Turn") -> object:
        """Nobody waits for a turn any more."""
        if turn.call is None:
            self._queue.remove(turn.principal, turn)
            return Outcome.NOT_INVOKED
        turn.call.cancel()
        if turn.is_refused:
            return Outcome.NOT_INVOKED
        self._in_flight -= 1
        self._breaker.unknown()
        self._send_more()
        return None

    def _judge(self, failure: Failure) -> None:
        """What a call that has failed says of the endpoint."""
        if failure.code in _SICK:
            self._breaker.failed()
        else:
            self._breaker.succeeded()
        if failure.code in _OVERLOADED:
            self._limit.overloaded(self._loop.time())

    def _send_more(self) -> None:
        while self._queue.size and self._in_flight < self._limit.limit:
            self._send(self._queue.pop())


class _Turn:
    """A turn that waits, or is at the model."""

    __slots__ = ("_guard", "_on_end", "_over", "_send", "begun", "call", "is_refused", "principal")

    def __init__(
        self,
        guard: GuardedModel,
        principal: str,
        send: Callable[..., Call],
        on_end: OnEnd,
    ) -> None:
        self.principal = principal
        self.call: Call | None = None
        self.begun = 0.0
        self.is_refused = False
        self._guard = guard
        self._send = send
        self._on_end = on_end
        self._over = False

    def send(self, now: float) -> None:
        """Let it go to the model."""
        self.begun = now
        self.call = self._send(on_end=self._ended)

    def refuse(self, failure: Failure) -> None:
        """End it; nothing is heard before `Model.invoke` has returned."""
        self.is_refused = True
        self.call = asyncio.get_running_loop().call_soon(self._end, failure)

    def _ended(self, result: ModelReply | Failure) -> None:
        if not self._over:
            self._guard.ended(self, result)
            self._end(result)

    def _end(self, result: ModelReply | Failure) -> None:
        self._over = True
        on_end = self._on_end
        self._forget()
        on_end(result)

    def _forget(self) -> None:
        """Leave no cycle that would hold a session until it is collected."""
        self.call = None
        del self._send, self._on_end

    def cancel(self) -> object:
        """See `Call.cancel`."""
        if self._over:
            return None
        self._over = True
        outcome = self._guard.cancelled(self)
        self._forget()
        return outcome


def _let_in(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():  # else it was given up meanwhile
        waiter.set_result(None)


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
