"""What stands in front of an endpoint: how much it is asked, in whose turn, and whether at all."""

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from gateway.errors import ErrorCode, Failure, Outcome
from gateway.guard.fair_queue import FairQueue
from gateway.guard.model import BEGUN, QUEUED, GuardedModel
from gateway.guard.overload import FAILURES, MAX_OPEN_SECONDS, OPEN_SECONDS, AdaptiveLimit, Breaker
from gateway.session.ports import (
    Call,
    ModelError,
    ModelReply,
    ModelRequest,
    ModelSession,
    OnEnd,
    OnParts,
)

REQUEST = ModelRequest(body=b"x", content_type="text/plain")
REPLY = ModelReply(body=b"y")
THROTTLED = Failure(code=ErrorCode.THROTTLED, message="")
SICK = Failure(code=ErrorCode.UNAVAILABLE, message="")
INVALID = Failure(code=ErrorCode.VALIDATION_ERROR, message="")


class Pending:
    """A call at the model."""

    def __init__(self, principal: str, on_end: OnEnd) -> None:
        self.principal = principal
        self.on_end = on_end
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Model:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.pending: list[Pending] = []
        self.served: Counter[str] = Counter()
        self.closed: list[ModelSession] = []
        self.well = asyncio.Event()
        self.well.set()
        self.failure: Failure | None = None
        self.called = 0

    async def open(self) -> ModelSession:
        self.called += 1
        await self.well.wait()
        if self.failure is not None:
            raise ModelError(self.failure)
        return ModelSession("m")

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
        assert (request, session, affinity) == (REQUEST, None, "s")
        on_parts(["a part"])
        self.pending.append(Pending(principal, on_end))
        self.served[principal] += 1
        return self.pending[-1]

    async def close(self, session: ModelSession) -> None:
        await self.well.wait()
        self.closed.append(session)

    def answer(self, result: ModelReply | Failure = REPLY) -> None:
        self.pending.pop(0).on_end(result)


async def turns(count: int) -> None:
    """Let the loop go on."""
    for _ in range(count):
        await asyncio.sleep(0)


class Fixture:
    def __init__(self, most: int) -> None:
        self.model = Model()
        self.guard = GuardedModel(self.model, most)
        self.ended: list[tuple[str, ModelReply | Failure]] = []

    def ask(self, principal: str = "a") -> Call:
        return self.guard.invoke(
            REQUEST,
            None,
            affinity="s",
            principal=principal,
            on_parts=lambda _parts: None,
            on_end=lambda result: self.ended.append((principal, result)),
        )


async def test_what_is_over_the_limit_waits_and_is_sent_in_its_turn() -> None:
    f = Fixture(2)
    for _ in range(4):
        f.ask()
    assert len(f.model.pending) == 2
    f.model.answer()
    assert len(f.model.pending) == 2
    assert len(f.ended) == 1
    for _ in range(3):
        f.model.answer()
    assert f.ended == [("a", REPLY)] * 4


async def test_one_with_a_thousand_turns_takes_no_more_than_one_with_a_few() -> None:
    f = Fixture(10)
    for _ in range(80):
        f.ask("greedy")
    for _ in range(10):
        f.ask("modest")
    for _ in range(30):
        f.model.answer()
    # The greedy one's first ten were sent before the other came; since then it was every other.
    assert f.model.served == {"greedy": 30, "modest": 10}


async def test_what_waits_too_long_is_refused_of_who_has_most() -> None:
    f = Fixture(1)
    for _ in range(QUEUED):
        f.ask("greedy")
    f.ask("modest")
    f.ask("modest")
    await asyncio.sleep(0)
    ((who, failure),) = f.ended
    assert who == "greedy"
    assert isinstance(failure, Failure)
    assert (failure.code, failure.outcome) == (ErrorCode.THROTTLED, Outcome.NOT_INVOKED)
    assert failure.retry_after


async def test_one_that_waits_may_be_cancelled() -> None:
    f = Fixture(1)
    first, second = f.ask(), f.ask()
    assert second.cancel() is Outcome.NOT_INVOKED
    assert second.cancel() is None
    (sent,) = f.model.pending
    assert first.cancel() is not Outcome.NOT_INVOKED
    assert sent.cancelled
    third = f.ask()
    assert len(f.model.pending) == 2, "there is room again"
    f.model.answer()
    f.model.answer()
    assert f.ended == [("a", REPLY)]
    assert third.cancel() is None


async def test_an_endpoint_that_fails_is_asked_by_probes_alone() -> None:
    f = Fixture(10)
    for _ in range(FAILURES):
        f.ask()
        f.model.answer(SICK)
    f.ask()
    assert not f.model.pending
    assert len(f.ended) == FAILURES, "nothing is heard before the call has returned"
    await asyncio.sleep(0)
    _, failure = f.ended[-1]
    assert isinstance(failure, Failure)
    assert (failure.code, failure.outcome) == (ErrorCode.UNAVAILABLE, Outcome.NOT_INVOKED)
    assert 0 < (failure.retry_after or 0) <= OPEN_SECONDS
    refused = f.ask()
    assert refused.cancel() is Outcome.NOT_INVOKED
    await asyncio.sleep(0)
    assert len(f.ended) == FAILURES + 1


async def test_a_mistake_of_the_clients_does_not_count() -> None:
    f = Fixture(10)
    for _ in range(2 * FAILURES):
        f.ask()
        f.model.answer(INVALID)
    f.ask()
    assert f.model.pending


async def test_sessions_are_opened_and_closed_as_ever() -> None:
    f = Fixture(1)
    session = await f.guard.open()
    await f.guard.close(session)
    assert f.model.closed == [session]


async def test_an_endpoint_that_stalls_opens_and_closes_so_many_sessions_at_once() -> None:
    f = Fixture(3)
    f.model.well.clear()
    session = ModelSession("m")
    async with asyncio.TaskGroup() as tasks:
        closing = [tasks.create_task(f.guard.close(session)) for _ in range(2)]
        opening = [tasks.create_task(f.guard.open()) for _ in range(3 * (1 + QUEUED))]
        await turns(10)
        assert f.model.called == 1
        with pytest.raises(ModelError) as refused:
            await f.guard.open()
        assert refused.value.failure.code is ErrorCode.THROTTLED
        assert refused.value.failure.outcome is Outcome.NOT_INVOKED
        f.ask()
        assert f.model.pending, "turns have places of their own"
        f.model.well.set()
    assert all(task.result() == session for task in opening)
    assert f.model.closed == [session] * len(closing)
    assert f.model.called == len(opening)


async def test_no_crowd_is_opened_in_one_turn_of_the_loop() -> None:
    f = Fixture(100)
    async with asyncio.TaskGroup() as tasks:
        opening = [tasks.create_task(f.guard.open()) for _ in range(10 * BEGUN)]
        called = []
        while not all(task.done() for task in opening):
            before = f.model.called
            await asyncio.sleep(0)
            called.append(f.model.called - before)
    assert sum(called) == len(opening)
    assert max(called) == BEGUN


async def test_sessions_that_can_not_be_opened_show_that_an_endpoint_fails() -> None:
    f = Fixture(10)
    f.model.failure = SICK
    for _ in range(FAILURES + 1):
        with pytest.raises(ModelError):
            await f.guard.open()
    assert f.model.called == FAILURES
    f.ask()
    assert not f.model.pending


async def test_an_opening_that_is_given_up_leaves_its_place_and_its_probe_to_another() -> None:
    f = Fixture(1)
    for _ in range(FAILURES):
        f.ask()
        f.model.answer(SICK)
    f.guard._breaker._until = 0.0  # it may be asked again
    f.model.well.clear()
    for number in range(1, 3):
        opening = asyncio.create_task(f.guard.open())
        await turns(3)
        assert f.model.called == number
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_breaker_opens_and_closes() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    for _ in range(FAILURES - 1):
        breaker.failed()
    breaker.succeeded()
    for _ in range(FAILURES):
        assert breaker.wait() == 0
        breaker.failed()
    waits = [breaker.wait()]
    clock.now += waits[0]
    assert breaker.wait() == 0, "a probe"
    assert breaker.wait() > 0, "and only one"
    breaker.failed()
    waits.append(breaker.wait())
    assert waits == [OPEN_SECONDS, 2 * OPEN_SECONDS]
    for _ in range(10):
        clock.now += breaker.wait()
        assert breaker.wait() == 0
        breaker.failed()
    assert breaker.wait() == MAX_OPEN_SECONDS
    clock.now += MAX_OPEN_SECONDS
    assert breaker.wait() == 0
    breaker.unknown()
    assert breaker.wait() == 0, "another probe, since nobody has waited for that"
    breaker.succeeded()
    assert [breaker.wait() for _ in range(3)] == [0, 0, 0]


def settled(limit: AdaptiveLimit, seconds: Callable[[int], float], count: int) -> int:
    """The limit after so many replies, each of which takes as long as the limit makes it."""
    now = 0.0
    for _ in range(count):
        now += 1.0
        limit.replied(seconds(limit.limit), now, limit.limit)
    return limit.limit


def test_the_limit_stays_where_all_is_well() -> None:
    assert settled(AdaptiveLimit(50), lambda _limit: 1.0, 1000) == 50


def test_the_limit_goes_down_where_replies_become_slow_and_comes_back() -> None:
    limit = AdaptiveLimit(50)
    settled(limit, lambda _limit: 1.0, 100)
    low = settled(limit, lambda limit: 1.0 if limit <= 20 else 10.0, 300)
    assert low <= 25
    assert settled(limit, lambda _limit: 1.0, 20_000) == 50


def test_throttling_counts_once_in_a_moment() -> None:
    limit = AdaptiveLimit(100)
    for _ in range(50):
        limit.overloaded(1.0)
    assert limit.limit == 90
    for second in range(2, 100):
        limit.overloaded(float(second))
    assert limit.limit == 1


def test_a_limit_that_is_not_tried_does_not_grow() -> None:
    limit = AdaptiveLimit(100)
    limit.overloaded(1.0)
    for _ in range(1000):
        limit.replied(0.1, 2.0, 1)
    assert limit.limit == 90


@pytest.mark.parametrize("who", ["a", "b"])
def test_lines(who: str) -> None:
    queue: FairQueue[int] = FairQueue()
    for number in range(4):
        queue.add("a", number)
    queue.add("b", 10)
    queue.add("b", 11)
    assert (queue.size, queue.longest()) == (6, "a")
    queue.remove(who, {"a": 1, "b": 10}[who])
    expected = {"a": [0, 10, 2, 11, 3], "b": [0, 11, 1, 2, 3]}[who]
    assert [queue.pop() for _ in range(5)] == expected
    queue.add("c", 1)
    assert queue.drop("c") == 1
    assert queue.size == 0
