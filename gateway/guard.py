"""What stands between sessions and their endpoint: how many turns are at the model, in whose turn,
and whether to ask at all. So neither a sick endpoint nor a greedy principal is felt more than it
must.

- A limit on turns at the model that adapts (`AdaptiveLimit`): an endpoint that throttles or slows
  down is asked less, and what waits does so here, where it costs nothing.
- A queue with a line for each principal (`FairQueue`), served in turns: one with a thousand
  sessions waits as long for its next turn as one with a single session.
- A circuit breaker (`Breaker`): while an endpoint fails, it is asked by probes alone, and clients
  are told at once when to come back.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Generic, TypeVar

from gateway.errors import ErrorCode, Failure, Outcome
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

T = TypeVar("T")

BACKOFF = 0.9
"""What is left of the limit when the endpoint has been asked too much."""

SLOW = 2.0
"""A reply that takes this much longer than replies did before says the same."""

SHORT, LONG = 1 / 10, 1 / 600
"""How much one reply changes what is known of the last few, and of replies in the long run."""

QUEUED = 10
"""How many turns may wait for each that may be at the model. Those beyond would wait too long."""

BEGUN = 2
"""How many sessions are opened or closed in one turn of the event loop: hundreds may want to be at
once, and whoever waits for an answer would wait for all of them."""

FAILURES = 5
"""So many calls that fail one after the other open the breaker."""

OPEN_SECONDS, MAX_OPEN_SECONDS = 1.0, 30.0
"""How long it is open: doubled each time that a probe fails."""

_OVERLOADED = frozenset({ErrorCode.THROTTLED, ErrorCode.MODEL_NOT_READY, ErrorCode.TIMEOUT})
_SICK = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.MODEL_NOT_READY, ErrorCode.TIMEOUT})


class AdaptiveLimit:
    """How many turns may be at the model: additive increase, multiplicative decrease.

    The rule is that of Chiu and Jain, "Analysis of the increase and decrease algorithms for
    congestion avoidance in computer networks" (1989), with replies for acknowledgements; that a
    reply which takes much longer than others counts as a loss is from Netflix's concurrency-limits.

    Args:
        most: The limit to begin with, and never to exceed.

    Attributes:
        limit: How many there may be now.
    """

    def __init__(self, most: int) -> None:
        self.limit = most
        self._most = float(most)
        self._exact = float(most)
        self._short = self._long = 0.0
        self._decreased = 0.0

    def replied(self, seconds: float, now: float, in_flight: int) -> None:
        """A turn was answered.

        Args:
            seconds: How long it took.
            now: The time in seconds of a clock that is never set.
            in_flight: How many there were.
        """
        if not self._long:
            self._short = self._long = seconds
        self._short += (seconds - self._short) * SHORT
        self._long += (seconds - self._long) * LONG
        if in_flight * 2 < self._exact:
            return  # it has not been tried
        if self._short > SLOW * self._long:
            self.overloaded(now)
        else:
            self._set(min(self._most, self._exact + 1 / self._exact))

    def overloaded(self, now: float) -> None:
        """The endpoint was asked too much; what it says of one moment counts once."""
        if now - self._decreased >= max(self._short, 0.1):
            self._decreased = now
            self._set(max(1.0, self._exact * BACKOFF))

    def _set(self, limit: float) -> None:
        self._exact = limit
        self.limit = int(limit)


class FairQueue(Generic[T]):
    """What waits, with a line for each principal, and each line served in its turn.

    Attributes:
        size: How many wait.
    """

    def __init__(self) -> None:
        self.size = 0
        self._lines: OrderedDict[str, deque[T]] = OrderedDict()

    def add(self, principal: str, item: T) -> None:
        """Let it wait."""
        self._lines.setdefault(principal, deque()).append(item)
        self.size += 1

    def pop(self) -> T:
        """The first of the line whose turn it is."""
        principal, line = next(iter(self._lines.items()))
        item = line.popleft()
        self.size -= 1
        if line:
            self._lines.move_to_end(principal)
        else:
            del self._lines[principal]
        return item

    def remove(self, principal: str, item: T) -> None:
        """It waits no longer."""
        line = self._lines[principal]
        line.remove(item)
        self.size -= 1
        if not line:
            del self._lines[principal]

    def longest(self) -> str:
        """The principal with the longest line."""
        return max(self._lines, key=lambda principal: len(self._lines[principal]))

    def drop(self, principal: str) -> T:
        """The newest of a line, which waits no longer."""
        item = self._lines[principal][-1]
        self.remove(principal, item)
        return item


class Breaker:
    """Says whether an endpoint is asked at all.

    Args:
        clock: Seconds of a clock that is never set.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures = 0
        self._until = 0.0
        self._seconds = OPEN_SECONDS
        self._probing = False

    def wait(self) -> float:
        """The seconds until it may be asked; 0 where it may. Then a probe is under way, if too many
        calls have failed.
        """
        if self._failures < FAILURES:
            return 0.0
        left = self._until - self._clock()
        if left > 0:
            return left
        if self._probing:
            return self._seconds
        self._probing = True
        return 0.0

    def succeeded(self) -> None:
        """The endpoint has answered."""
        self._failures = 0
        self._seconds = OPEN_SECONDS
        self._probing = False

    def failed(self) -> None:
        """It has not, and not because of what it was asked."""
        self._failures += 1
        if self._failures >= FAILURES:
            if self._probing:
                self._seconds = min(MAX_OPEN_SECONDS, self._seconds * 2)
            self._probing = False
            self._until = self._clock() + self._seconds

    def unknown(self) -> None:
        """Nobody has waited for an answer."""
        self._probing = False


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
