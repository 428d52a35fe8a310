"""What stands in front of an endpoint: how much it is asked, in whose turn, and whether at all."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from random import Random

import pytest
from structlog.testing import capture_logs

from gateway.errors import ErrorCode, Failure, Health, Outcome
from gateway.guard.fair_queue import FairQueue
from gateway.guard.model import EXPIRED, LINES_A_MINUTE, QUEUED, GuardedModel, log
from gateway.guard.overload import (
    FAILURES,
    MAX_OPEN_SECONDS,
    OPEN_SECONDS,
    PROBE_SECONDS,
    RESERVED,
    AdaptiveLimit,
    Breaker,
)
from gateway.guard.places import BEGUN, Full, Places
from gateway.session.ports import (
    Call,
    ModelError,
    ModelReply,
    ModelRequest,
    ModelSession,
    OnEnd,
    OnParts,
    Receipt,
)
from tests.support.timing import UNIT

REQUEST = ModelRequest(body=b"x", content_type="text/plain")
SESSION = ModelSession("m")
REPLY = ModelReply(body=b"y")
RECEIPT = Receipt(id="i", reply_at="r", failure_at=None, until=0.0)
SICK = Failure(code=ErrorCode.UNAVAILABLE, message="", health=Health.SICK)
WELL = Failure(code=ErrorCode.MODEL_ERROR, message="", health=Health.WELL)
SILENT = Failure(code=ErrorCode.TIMEOUT, message="", health=Health.SICK)
BUSY = Failure(code=ErrorCode.THROTTLED, message="", health=Health.BUSY)
BROKEN = Failure(code=ErrorCode.MODEL_ERROR, message="", health=Health.SICK)
INVALID = Failure(code=ErrorCode.VALIDATION_ERROR, message="")


def throttled(retry_after: float) -> Failure:
    """What is told whoever finds too many before it."""
    return Failure(
        code=ErrorCode.THROTTLED,
        message="Too many turns are waiting for the model; send it again later.",
        outcome=Outcome.NOT_INVOKED,
        retry_after=retry_after,
    )


def unavailable(retry_after: float) -> Failure:
    """What is told whoever comes while the endpoint is left alone."""
    return Failure(
        code=ErrorCode.UNAVAILABLE,
        message="The model's endpoint is failing; send it again later.",
        outcome=Outcome.NOT_INVOKED,
        retry_after=retry_after,
    )


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The loop's, which stands still until a test moves it."""
    clock = Clock()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", clock)
    return clock


class Pending:
    """A call at the model."""

    def __init__(
        self, principal: str, until: float | None, on_parts: OnParts, on_end: OnEnd
    ) -> None:
        self.principal = principal
        self.until = until
        self.on_parts = on_parts
        self.on_end = on_end
        self.cancelled = False
        self.known: object = None

    def cancel(self) -> object:
        self.cancelled = True
        return self.known


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
        self.opened: list[str] = []
        self.breaks = False

    async def open(self, principal: str) -> ModelSession:
        self.opened.append(principal)
        self.called += 1
        await self.well.wait()
        if self.failure is not None:
            raise ModelError(self.failure)
        return SESSION

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
        assert (request, session, affinity) == (REQUEST, SESSION, "s")
        assert until is None or until > asyncio.get_running_loop().time()
        if self.breaks:
            raise ZeroDivisionError
        self.pending.append(Pending(principal, until, on_parts, on_end))
        self.served[principal] += 1
        return self.pending[-1]

    def wait(self, receipt: Receipt, *, affinity: str, on_end: OnEnd) -> Call:
        assert (receipt, affinity) == (RECEIPT, "s")
        self.pending.append(Pending("", None, lambda _parts: None, on_end))
        return self.pending[-1]

    async def close(self, session: ModelSession) -> None:
        await self.well.wait()
        self.closed.append(session)

    def answer(self, result: ModelReply | Failure | Receipt = REPLY) -> None:
        self.pending.pop(0).on_end(result)

    def at(self, principal: str) -> int:
        """How many turns of one are here."""
        return sum(pending.principal == principal for pending in self.pending)

    def answer_one_of(self, principal: str) -> None:
        found = next(one for one in self.pending if one.principal == principal)
        self.pending.remove(found)
        found.on_end(REPLY)


async def turns(count: int) -> None:
    """Let the loop go on."""
    for _ in range(count):
        await asyncio.sleep(0)


class Fixture:
    def __init__(self, most: int, *, shared: bool = False, patience: float = 20 * UNIT) -> None:
        self.model = Model()
        self.breaker = Breaker(asyncio.get_running_loop().time)
        self.guard = GuardedModel(self.model, most, self.breaker, shared=shared, patience=patience)
        self.parts: list[str | bytes] = []
        self.ended: list[tuple[str, ModelReply | Failure | Receipt]] = []

    def ask(self, principal: str = "a", until: float | None = None) -> Call:
        return self.guard.invoke(
            REQUEST,
            SESSION,
            affinity="s",
            principal=principal,
            until=until,
            on_parts=self.parts.extend,
            on_end=lambda result: self.ended.append((principal, result)),
        )

    def sicken(self, times: int = FAILURES) -> None:
        """Let so many turns fail one after the other."""
        for _ in range(times):
            self.ask()
            self.model.pending.pop().on_end(SICK)

    async def answer(self, result: ModelReply | Failure | Receipt = REPLY) -> None:
        """Answer the oldest, and let the next one be sent."""
        self.model.answer(result)
        await asyncio.sleep(0)

    def failed_with(self) -> Failure:
        _, failure = self.ended[-1]
        assert isinstance(failure, Failure)
        return failure


async def test_what_is_over_the_limit_waits_and_is_sent_in_its_turn() -> None:
    f = Fixture(2)
    for _ in range(4):
        f.ask()
    assert len(f.model.pending) == 2
    await f.answer()
    assert len(f.model.pending) == 2
    assert len(f.ended) == 1
    for _ in range(3):
        await f.answer()
    assert f.ended == [("a", REPLY)] * 4


@pytest.mark.usefixtures("clock")  # a pause would pass for slow replies
async def test_one_with_a_thousand_turns_takes_no_more_than_one_with_a_few() -> None:
    f = Fixture(10)
    for _ in range(80):
        f.ask("greedy")
    for _ in range(10):
        f.ask("modest")
    # The greedy one's first ten were sent before the other came; since then it was every other.
    for _ in range(4):
        await f.answer()
    assert f.model.served == {"greedy": 12, "modest": 2}
    for _ in range(26):
        await f.answer()
    assert f.model.served == {"greedy": 30, "modest": 10}


async def test_what_waits_too_long_is_refused_of_who_has_most() -> None:
    f = Fixture(1)
    for _ in range(10):
        f.ask("greedy")
    f.ask("modest")
    assert not f.ended
    f.ask("modest")
    await asyncio.sleep(0)
    assert f.ended == [("greedy", throttled(1.0))], "ten have room, as it is documented"


@pytest.mark.parametrize("shared", [False, True])
async def test_one_that_waits_may_be_cancelled(shared: bool) -> None:
    f = Fixture(1, shared=shared)
    first, second = f.ask(), f.ask()
    assert second.cancel() is Outcome.NOT_INVOKED
    assert second.cancel() is None
    (sent,) = f.model.pending
    assert first.cancel() is not Outcome.NOT_INVOKED
    assert sent.cancelled
    third = f.ask()
    assert len(f.model.pending) == 2, "there is room again"
    sent.on_parts(["late"])
    await f.answer()
    await f.answer()
    assert f.ended == [("a", REPLY)]
    assert not f.parts, "nobody hears of what was cancelled"
    assert third.cancel() is None


async def test_an_endpoint_that_fails_is_asked_by_probes_alone(clock: Clock) -> None:
    f = Fixture(10)
    f.sicken()
    clock.now += 0.0004
    f.ask()
    assert not f.model.pending
    assert len(f.ended) == FAILURES, "nothing is heard before the call has returned"
    await asyncio.sleep(0)
    assert f.failed_with() == unavailable(1.0), "to the millisecond"
    clock.now += 0.25
    refused = f.ask()
    assert refused.cancel() is Outcome.NOT_INVOKED
    f.ask()
    await asyncio.sleep(0)
    assert len(f.ended) == FAILURES + 2
    assert f.failed_with() == unavailable(0.75)


async def test_a_mistake_of_the_clients_does_not_count() -> None:
    f = Fixture(10)
    for _ in range(2 * FAILURES):
        f.ask()
        f.model.answer(INVALID)
    f.ask()
    assert f.model.pending


async def test_what_is_known_of_a_call_that_is_cancelled_is_said() -> None:
    f = Fixture(1)
    call = f.ask()
    f.model.pending[0].known = Outcome.NOT_INVOKED
    assert call.cancel() is Outcome.NOT_INVOKED


async def test_what_is_cancelled_together_is_not_sent_in_between() -> None:
    f = Fixture(2)
    calls = [f.ask() for _ in range(6)]
    outcomes = [call.cancel() for call in calls]
    assert outcomes == [None, None, *[Outcome.NOT_INVOKED] * 4]
    await turns(3)
    assert len(f.model.pending) == 2
    f.ask()
    assert len(f.model.pending) == 3


async def test_a_crowd_that_waits_is_looked_at_once_in_a_turn_of_the_loop() -> None:
    f = Fixture(1)
    f.ask()
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
    before = len(ready)
    for _ in range(QUEUED):
        f.ask()
    assert len(ready) == before + 1
    await f.answer()
    assert len(f.model.pending) == 1


async def test_what_has_waited_for_longer_than_its_session_is_not_sent(clock: Clock) -> None:
    f = Fixture(1)
    f.ask(until=clock.now + 3600)
    f.ask(until=clock.now)
    f.ask()
    assert [pending.until for pending in f.model.pending] == [clock.now + 3600]
    await f.answer()
    assert [pending.until for pending in f.model.pending] == [None]
    await asyncio.sleep(0)
    assert f.failed_with() == EXPIRED
    assert EXPIRED.message == "The session expired before the message was sent."
    assert EXPIRED.may_retry


async def test_nobody_waits_for_longer_than_that_is_of_use(clock: Clock) -> None:
    f = Fixture(1, patience=7.0)
    f.ask()
    waiting = f.ask()
    given_up = f.ask()
    assert given_up.cancel() is Outcome.NOT_INVOKED
    clock.now += 7.0
    await turns(3)
    assert f.ended == [("a", throttled(7.0))]
    assert waiting.cancel() is None
    await f.answer()
    assert len(f.ended) == 2
    assert not f.model.pending, "who has given up is not sent"
    f.ask()
    f.ask()
    assert len(f.model.pending) == 1, "the place is free, and no other"


async def test_what_is_at_the_model_may_take_longer_than_one_waits_for_that(clock: Clock) -> None:
    f = Fixture(1, patience=7.0)
    f.ask()
    f.ask()
    await f.answer()
    clock.now += 60.0
    await turns(3)
    await f.answer()
    assert f.ended == [("a", REPLY)] * 2


async def test_no_timer_is_left_of_what_waits_no_longer() -> None:
    f = Fixture(1)

    def timers() -> int:
        scheduled = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
        return sum(not timer.cancelled() for timer in scheduled)

    calls = [f.ask() for _ in range(1 + QUEUED)]
    assert timers() == QUEUED
    f.ask()  # which there is no place for to wait in
    assert timers() == QUEUED
    await f.answer()
    assert timers() == QUEUED - 1
    for call in calls:
        call.cancel()
    assert timers() == 0


async def test_what_is_refused_may_be_cancelled_before_it_is_told() -> None:
    f = Fixture(1)
    calls = [f.ask() for _ in range(1 + QUEUED + 1)]
    assert calls.pop().cancel() is Outcome.NOT_INVOKED
    await turns(2)
    assert not f.ended


async def test_a_limit_that_goes_down_takes_places_to_wait_in_with_it() -> None:
    f = Fixture(10)
    for _ in range(10 + 10 * QUEUED):
        f.ask()
    assert not f.ended
    f.guard._limit.overloaded(1.0)
    f.ask()
    await turns(2)
    assert len(f.ended) == 1 + QUEUED
    assert all(
        isinstance(failure, Failure) and failure.code is ErrorCode.THROTTLED
        for _, failure in f.ended
    )


@pytest.mark.parametrize(
    ("waited", "told"),
    [(0.0, 1.0), (0.5, 1.0), (7.0, 7.0), (7.0625, 7.062), (30.0, 30.0), (3600.0, 30.0)],
)
async def test_who_is_turned_away_is_told_to_wait_as_long_as_others_have(
    waited: float, told: float, clock: Clock
) -> None:
    f = Fixture(1, patience=7200.0)
    f.ask()
    f.ask()
    clock.now += waited
    for _ in range(QUEUED):
        f.ask()
    await turns(2)
    assert f.ended == [("a", throttled(told))]


async def test_an_adapter_that_breaks_costs_the_turn_alone() -> None:
    f = Fixture(1)
    f.ask("a")
    f.ask("b")
    cancelled = f.ask("c")
    f.model.breaks = True
    with capture_logs() as logs:
        await f.answer()
        assert f.ended == [("a", REPLY)]
        await turns(2)
    assert f.failed_with().code is ErrorCode.INTERNAL
    assert f.failed_with().outcome is Outcome.UNKNOWN
    assert cancelled.cancel() is None, "nobody knows"
    await turns(2)
    assert [entry["event"] for entry in logs] == 2 * ["an adapter failed"]
    f.model.breaks = False
    f.ask()
    assert f.model.pending, "all places are free"


async def test_none_has_all_places_where_principals_can_be_told_apart() -> None:
    f = Fixture(2 * RESERVED, shared=True)
    for _ in range(3 * RESERVED):
        f.ask("greedy")
    await turns(1)
    assert f.model.served == {"greedy": 2 * RESERVED - 2}
    f.ask("modest")
    f.ask("modest")
    f.ask("modest")
    await asyncio.sleep(0)
    assert f.model.served == {"greedy": 2 * RESERVED - 2, "modest": 2}
    await f.answer()
    await f.answer()
    assert f.model.served == {"greedy": 2 * RESERVED - 1, "modest": 3}, "in turns"


@pytest.mark.usefixtures("clock")  # a pause would pass for slow replies
async def test_short_turns_do_not_wait_for_all_the_long_ones_of_others() -> None:
    f = Fixture(10, shared=True)
    for principal in 20 * ["long"] + 20 * ["longer"] + 20 * ["short"]:
        f.ask(principal)
    for _ in range(3):
        f.model.answer_one_of("long")
        await turns(1)
    there = {principal: f.model.at(principal) for principal in ("long", "longer", "short")}
    assert there == {"long": 6, "longer": 2, "short": 2}
    for _ in range(10):
        f.model.answer_one_of("short")
        await turns(1)
    assert f.model.served["short"] == 12
    assert f.model.at("short") == 2, "each place that it leaves is its own again"


@pytest.mark.usefixtures("clock")  # a pause would pass for slow replies
async def test_nobody_waits_for_those_who_had_all_places_of_a_higher_limit() -> None:
    f = Fixture(20, shared=True)
    f.ask("past")
    f.model.answer()
    for _ in range(40):
        f.ask("greedy")
    assert f.model.at("greedy") == 18
    for moment in range(1, 10):
        f.guard._limit.overloaded(float(moment))
    assert f.guard._limit.limit < 10
    for _ in range(2):
        f.ask("modest")
    f.ask("another")
    await turns(1)
    assert f.model.at("modest") == 1, "one beyond the limit"
    assert f.model.at("another") == 0, "there is none for each"
    while f.model.at("greedy"):
        f.model.answer_one_of("greedy")
    for _ in range(10):
        await turns(1)
    assert f.model.at("another") == 1


async def test_one_place_is_never_two() -> None:
    f = Fixture(1, shared=True)
    f.ask("a")
    f.ask("b")
    await turns(1)
    assert len(f.model.pending) == 1


@pytest.mark.parametrize(("most", "of_one"), [(1, 1), (2, 2), (3, 2), (19, 18), (20, 18), (30, 27)])
async def test_one_leaves_a_tenth_and_at_least_one_of_more_than_two(most: int, of_one: int) -> None:
    f = Fixture(most, shared=True)
    for _ in range(most):
        f.ask()
    assert len(f.model.pending) == f.guard._limit.share == of_one


async def test_a_limit_that_goes_down_holds_for_all_together() -> None:
    f = Fixture(20)
    f.guard._limit.overloaded(1.0)
    for _ in range(20):
        f.ask()
    assert len(f.model.pending) == 18


async def test_one_who_is_alone_lets_the_limit_recover() -> None:
    f = Fixture(50, shared=True)
    for moment in range(1, 100):
        f.guard._limit.overloaded(float(moment))
    assert f.guard._limit.limit == 1
    for _ in range(20_000):
        while f.model.at("a") < f.guard._limit.limit and not f.guard._queue.size:
            f.ask()
        await f.answer()
        if f.guard._limit.limit == 50:
            return
    pytest.fail(f"it is still {f.guard._limit.limit}")


@pytest.mark.parametrize(
    ("begins", "ends", "goes_down"), [(1.0, 0.0, False), (1.0, 60.0, False), (10.0, 0.0, True)]
)
async def test_replies_that_take_longer_to_begin_lower_the_limit(
    begins: float, ends: float, goes_down: bool, clock: Clock
) -> None:
    f = Fixture(2)
    lowest = 2
    for begin, end in [(1.0, 0.0)] * 30 + [(begins, ends)] * 30:
        f.ask()
        (turn,) = f.model.pending
        clock.now += begin
        turn.on_parts(["first"])
        clock.now += end
        turn.on_parts(["last"])
        await f.answer()
        lowest = min(lowest, f.guard._limit.limit)
    assert (lowest < 2) is goes_down


async def test_turns_that_are_never_answered_lower_no_limit_where_others_are() -> None:
    f = Fixture(20)
    silent = [f.ask("silent") for _ in range(10)]
    assert silent
    for _ in range(3):
        f.ask("well")
        f.model.pending.pop().on_end(REPLY)
        await turns(1)
        f.model.answer(SILENT)
        await turns(1)
    assert f.guard._limit.limit == 20
    f.ask("silent")
    f.model.pending.pop().on_end(SILENT)
    assert f.guard._limit.limit == 18, "nothing was answered since"


@pytest.mark.parametrize(("failure", "limit"), [(BUSY, 18), (BROKEN, 18), (SICK, 20), (WELL, 20)])
async def test_what_failures_say_of_the_limit(failure: Failure, limit: int) -> None:
    f = Fixture(20)
    f.ask()
    f.model.answer(failure)
    assert f.guard._limit.limit == limit


async def test_probes_say_nothing_of_the_limit() -> None:
    f = Fixture(20)
    for _ in range(FAILURES):
        f.ask()
        f.model.answer(SILENT)
    limit = f.guard._limit.limit
    for _ in range(10):
        f.breaker._until = 0.0
        f.guard._limit._decreased = 0.0
        f.ask()
        f.model.answer(SILENT)
    assert f.guard._limit.limit == limit == 18


async def test_a_full_queue_of_equals_refuses_the_one_that_is_served_last() -> None:
    f = Fixture(1)
    for number in range(1 + QUEUED + 1):
        f.ask(f"{number}")
    await asyncio.sleep(0)
    assert [who for who, _ in f.ended] == [f"{1 + QUEUED}"]


async def test_the_first_part_of_a_probes_reply_closes_the_breaker() -> None:
    f = Fixture(10)
    f.sicken()
    f.breaker._until = 0.0
    f.ask()
    f.ask()
    (probe,) = f.model.pending
    probe.on_parts(["a part"])
    assert f.parts == ["a part"]
    f.ask()
    assert len(f.model.pending) == 2
    probe.on_parts(["another"])
    probe.on_end(REPLY)
    assert f.parts == ["a part", "another"]


async def test_a_probe_that_is_cancelled_leaves_it_to_another() -> None:
    f = Fixture(10)
    f.sicken()
    f.breaker._until = 0.0
    probe, refused = f.ask(), f.ask()
    assert len(f.model.pending) == 1
    probe.cancel()
    refused.cancel()
    f.ask()
    f.ask()
    assert len(f.model.pending) == 2, "which is alone, as the first was"


async def test_a_breaker_refuses_no_longer_than_until_a_probe_may_be_sent(clock: Clock) -> None:
    f = Fixture(10)
    f.sicken()
    assert f.guard.refuses
    clock.now += OPEN_SECONDS
    assert f.breaker.is_open
    assert not f.guard.refuses


async def test_all_who_had_to_wait_are_counted(clock: Clock) -> None:
    f = Fixture(1, patience=7.0)
    for _ in range(1 + QUEUED + 1):  # the last of which is dropped
        f.ask()
    assert sum(f.guard.waited.counts) == 1
    clock.now += 7.0
    await turns(3)
    assert sum(f.guard.waited.counts) == 1 + QUEUED


@pytest.mark.parametrize(("failure", "asked"), [(INVALID, False), (WELL, True), (SICK, False)])
async def test_what_a_probe_says(failure: Failure, asked: bool) -> None:
    f = Fixture(10)
    f.sicken()
    f.breaker._until = 0.0
    f.ask()
    f.model.answer(failure)
    assert f.breaker.is_open is not asked
    f.ask()
    assert bool(f.model.pending) is (failure is not SICK), "another probe, if not all may go"


async def test_sessions_are_opened_in_the_principals_turns() -> None:
    f = Fixture(1)
    f.model.well.clear()
    async with asyncio.TaskGroup() as tasks:
        for principal in ("first", *3 * ["greedy"], "modest"):
            tasks.create_task(f.guard.open(principal))
        given_up = tasks.create_task(f.guard.open("greedy"))
        await turns(5)
        given_up.cancel()
        f.model.well.set()
    assert f.model.opened == ["first", "greedy", "modest", "greedy", "greedy"]


async def test_a_place_that_is_given_up_as_it_is_given_is_anothers() -> None:
    places = Places(1, 2, 20 * UNIT)

    async def hold() -> None:
        async with places.place("a"):
            pass

    async with places.place("a"):
        waiting = [asyncio.create_task(hold()) for _ in range(2)]
        await turns(2)
    waiting[0].cancel()
    await waiting[1]
    assert waiting[0].cancelled()
    async with places.place("a"):
        waiting = [asyncio.create_task(hold()) for _ in range(3)]
        await turns(2)
        waiting[0].cancel()
    refused = waiting.pop()
    await waiting[1]
    with pytest.raises(Full) as error:
        await refused
    assert error.value.waited == 0
    await hold()


@pytest.mark.parametrize("turns_later", [0, 1])
async def test_who_gives_up_waiting_lets_nobody_in_and_keeps_nobody_out(turns_later: int) -> None:
    places = Places(1, 2, 20 * UNIT)
    entered: list[str] = []

    async def enter(principal: str) -> None:
        async with places.place(principal):
            entered.append(principal)

    async with places.place("first"):
        greedy = [asyncio.create_task(enter("greedy")) for _ in range(2)]
        await turns(2)
        modest = asyncio.create_task(enter("modest"))  # which the newest of greedy's is refused for
        await turns(turns_later)
        greedy[1].cancel()
        await turns(3)
        greedy[0].cancel()
        await turns(3)
        another = asyncio.create_task(enter("another"))
        await turns(3)
        assert not entered
    await asyncio.gather(modest, another)
    assert entered == ["modest", "another"]
    assert [task.cancelled() for task in greedy] == [True, True]


async def test_all_places_that_are_left_are_free() -> None:
    places = Places(3, 0, 20 * UNIT)
    for _ in range(2):
        async with AsyncExitStack() as stack:
            for _ in range(3):
                await stack.enter_async_context(places.place("a"))
            with pytest.raises(Full):
                await stack.enter_async_context(places.place("a"))


async def test_sessions_are_opened_and_closed_as_ever() -> None:
    f = Fixture(1)
    session = await f.guard.open("a")
    await f.guard.close(session)
    assert f.model.closed == [session]


async def test_an_endpoint_that_stalls_opens_and_closes_so_many_sessions_at_once() -> None:
    f = Fixture(3)
    f.model.well.clear()
    async with asyncio.TaskGroup() as tasks:
        closing = [tasks.create_task(f.guard.close(SESSION)) for _ in range(3 + 1)]
        opening = [tasks.create_task(f.guard.open("a")) for _ in range(3 * (1 + QUEUED))]
        await turns(10)
        assert f.model.called == 3, "those that close have places of their own"
        with pytest.raises(ModelError) as refused:
            await f.guard.open("a")
        assert refused.value.failure == throttled(1.0)
        f.ask()
        assert f.model.pending, "turns have places of their own"
        f.model.well.set()
    assert all(task.result() == SESSION for task in opening)
    assert f.model.closed == [SESSION] * len(closing)
    assert f.model.called == len(opening)


async def test_who_waits_too_long_to_open_a_session_is_told_so(clock: Clock) -> None:
    f = Fixture(1, patience=7.0)
    f.model.well.clear()
    opening, refused = (asyncio.create_task(f.guard.open(who)) for who in ("a", "b"))
    await turns(2)
    clock.now += 7.0
    await turns(5)
    with pytest.raises(ModelError) as error:
        refused.result()
    assert error.value.failure == throttled(7.0)
    f.model.well.set()
    assert await opening == SESSION
    assert await f.guard.open("b") == SESSION


async def test_who_waits_to_open_a_session_at_an_endpoint_that_has_failed_is_told_so(
    clock: Clock,
) -> None:
    f = Fixture(1)
    f.model.well.clear()
    opening, waiting = (asyncio.create_task(f.guard.open(who)) for who in ("a", "b"))
    await turns(2)
    f.sicken()
    clock.now += 0.25
    with pytest.raises(ModelError) as error:
        await f.guard.open("c")
    assert error.value.failure == unavailable(0.75), "for which it need not wait"
    clock.now += 0.25
    f.model.well.set()
    assert await opening == SESSION
    with pytest.raises(ModelError) as error:
        await waiting
    assert error.value.failure == unavailable(0.5)
    assert f.model.opened == ["a"]


async def test_sessions_that_too_many_wait_to_close_are_left_to_expire(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.guard.model.CLOSINGS", 2)
    f = Fixture(1)
    f.model.well.clear()
    with capture_logs() as logs:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(3 + 2 * LINES_A_MINUTE):
                tasks.create_task(f.guard.close(SESSION))
            await turns(5)
            f.model.well.set()
    assert len(f.model.closed) == 3
    line = {"event": "a session is left to expire", "log_level": "warning", "suppressed": 0}
    assert logs == LINES_A_MINUTE * [line]


async def test_sessions_that_wait_too_long_to_be_closed_are_left_to_expire(clock: Clock) -> None:
    f = Fixture(1, patience=7.0)
    f.model.well.clear()
    closing = [asyncio.create_task(f.guard.close(SESSION)) for _ in range(2)]
    await turns(2)
    clock.now += 7.0
    with capture_logs() as logs:
        await turns(5)
    assert [task.done() for task in closing] == [False, True]
    assert [entry["event"] for entry in logs] == ["a session is left to expire"]
    f.model.well.set()
    await asyncio.gather(*closing)
    assert f.model.closed == [SESSION]


def test_lines_are_of_a_logger_that_levels_are_set_for() -> None:
    assert log._logger_factory_args == ("gateway.guard",)  # type: ignore[attr-defined]


async def test_no_crowd_is_opened_in_one_turn_of_the_loop() -> None:
    f = Fixture(100)
    async with asyncio.TaskGroup() as tasks:
        opening = [tasks.create_task(f.guard.open("a")) for _ in range(10 * BEGUN)]
        called = []
        while not all(task.done() for task in opening):
            before = f.model.called
            await asyncio.sleep(0)
            called.append(f.model.called - before)
    assert sum(called) == len(opening)
    assert max(called) == BEGUN


async def test_who_is_cancelled_in_a_crowd_is_passed_over() -> None:
    f = Fixture(100)
    broken: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: broken.append(context))
    opening = [asyncio.create_task(f.guard.open("a")) for _ in range(3 * BEGUN)]
    await turns(1)
    opening.pop().cancel()
    assert await asyncio.gather(*opening) == [SESSION] * len(opening)
    await turns(2)
    assert f.model.called == len(opening)
    assert not broken


async def test_sessions_that_can_not_be_opened_show_that_an_endpoint_fails() -> None:
    f = Fixture(10)
    f.model.failure = SICK
    for _ in range(FAILURES + 1):
        with pytest.raises(ModelError):
            await f.guard.open("a")
    assert f.model.called == FAILURES
    f.ask()
    assert not f.model.pending


async def test_a_session_that_is_opened_shows_that_an_endpoint_is_well() -> None:
    f = Fixture(10)
    f.sicken(FAILURES - 1)
    await f.guard.open("a")
    f.sicken(1)
    f.ask()
    assert f.model.pending
    f.sicken(FAILURES)
    assert f.breaker.is_open


async def test_an_opening_that_is_given_up_leaves_its_place_and_its_probe_to_another() -> None:
    f = Fixture(1)
    f.sicken()
    f.model.well.clear()
    f.breaker._until = 0.0  # it may be asked again
    for number in range(1, 3):
        opening = asyncio.create_task(f.guard.open("a"))
        await turns(3)
        assert f.model.called == number
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        assert opening.cancelled()


def asked(breaker: Breaker) -> int:
    call = breaker.ask()
    assert call is not None
    return call


def opened(breaker: Breaker) -> int:
    """Open it; returns a number of a call that began before."""
    call = 0
    for _ in range(FAILURES):
        assert breaker.wait() == 0
        call = asked(breaker)
        breaker.failed(call)
    assert breaker.is_open
    return call


def test_turns_that_are_never_answered_say_nothing_where_others_are() -> None:
    breaker = Breaker(Clock())
    silent = [asked(breaker) for _ in range(FAILURES)]
    breaker.succeeded(asked(breaker))
    for call in silent:
        breaker.failed(call)
    assert not breaker.is_open
    opened(breaker)


def test_a_breaker_opens_and_closes() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    for _ in range(FAILURES - 1):
        breaker.failed(asked(breaker))
    breaker.succeeded(asked(breaker))
    opened(breaker)
    waits = [breaker.wait()]
    clock.now += waits[0]
    assert breaker.wait() == 0, "a probe"
    probe = asked(breaker)
    assert breaker.wait() == PROBE_SECONDS, "and only one"
    assert breaker.ask() is None
    breaker.failed(probe)
    waits.append(breaker.wait())
    for _ in range(5):
        clock.now += breaker.wait()
        breaker.failed(asked(breaker))
        waits.append(breaker.wait())
    assert waits == [1, 2, 4, 8, 16, 30, 30], "as it is documented"
    assert (waits[0], waits[-1]) == (OPEN_SECONDS, MAX_OPEN_SECONDS)
    clock.now += MAX_OPEN_SECONDS
    probe = asked(breaker)
    assert breaker.wait() == MAX_OPEN_SECONDS
    breaker.unknown(probe)
    assert breaker.wait() == 0, "another probe, since nobody has waited for that"
    breaker.succeeded(asked(breaker))
    assert [breaker.wait() for _ in range(3)] == [0, 0, 0]
    opened(breaker)
    assert breaker.wait() == OPEN_SECONDS, "anew"


def test_what_becomes_of_a_call_from_before_says_nothing() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    for _ in range(3):
        breaker.succeeded(asked(breaker))
    before = opened(breaker)
    clock.now += breaker.wait()
    probe = asked(breaker)
    for older in (breaker.unknown, breaker.failed, breaker.succeeded):
        older(before)
        assert breaker.wait() == PROBE_SECONDS
    breaker.succeeded(probe)
    for _ in range(FAILURES):
        breaker.failed(before)
        breaker.failed(probe)
    assert not breaker.is_open, "they began when it was sick"


def test_calls_that_fail_together_open_it_once() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    together = [asked(breaker) for _ in range(50)]
    assert [breaker.failed(call) for call in together] == FAILURES * [True] + 45 * [False]
    assert breaker.wait() == OPEN_SECONDS
    clock.now += OPEN_SECONDS / 2
    breaker.failed(together[-1])
    breaker.unknown(together[-1])
    breaker.succeeded(together[-1])
    assert breaker.wait() == OPEN_SECONDS / 2
    clock.now += OPEN_SECONDS / 2
    breaker.failed(asked(breaker))
    assert breaker.wait() == 2 * OPEN_SECONDS


def test_a_probe_that_says_nothing_is_not_the_last() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    opened(breaker)
    clock.now += breaker.wait()
    first = asked(breaker)
    clock.now += breaker.wait()
    asked(breaker)
    breaker.failed(first)
    breaker.unknown(first)
    assert breaker.wait() == PROBE_SECONDS, "the second is under way"
    breaker.succeeded(first)
    assert not breaker.is_open


def settled(limit: AdaptiveLimit, seconds: Callable[[int], float], count: int) -> int:
    """The limit after so many replies, each of which takes as long as the limit makes it."""
    now = 0.0
    for _ in range(count):
        now += 1.0
        limit.replied(seconds(limit.limit), now, limit.limit)
    return limit.limit


@pytest.mark.parametrize("seconds", [0.0, 0.01, 1.0, 30.0])
def test_the_limit_stays_where_all_is_well(seconds: float) -> None:
    assert settled(AdaptiveLimit(50), lambda _limit: seconds, 1000) == 50


@pytest.mark.parametrize("usual", [1.0, 0.02])
def test_the_limit_goes_down_where_replies_become_slow_and_comes_back(usual: float) -> None:
    limit = AdaptiveLimit(50)
    settled(limit, lambda _limit: usual, 100)
    low = settled(limit, lambda limit: usual if limit <= 20 else 10 * usual, 300)
    assert low <= 30
    assert settled(limit, lambda _limit: usual, 20_000) == 50


@pytest.mark.parametrize(("part", "long"), [(0.1, 30.0), (0.02, 60.0), (0.01, 100.0)])
def test_some_turns_that_always_take_long_say_nothing(part: float, long: float) -> None:
    limit, random = AdaptiveLimit(200), Random(1)
    lowest = 200
    for _ in range(100):
        lowest = min(lowest, settled(limit, lambda _: long if random.random() < part else 0.2, 200))
    assert lowest >= 150


def test_turns_that_become_longer_are_not_held_back_for_long() -> None:
    limit = AdaptiveLimit(50)
    settled(limit, lambda _limit: 0.2, 1000)
    lows = [settled(limit, lambda _limit: 20.0, 50) for _ in range(40)]
    assert min(lows) >= 10
    assert lows[-1] == 50


def test_throttling_counts_once_in_a_moment() -> None:
    limit = AdaptiveLimit(100)
    for _ in range(50):
        limit.overloaded(1.0)
    assert limit.limit == 90
    for second in range(2, 100):
        limit.overloaded(float(second))
    assert limit.limit == 1


def test_a_moment_is_a_tenth_of_a_second() -> None:
    limit = AdaptiveLimit(100)
    assert [limit.overloaded(now) for now in (0.05, 0.1, 0.15, 0.25)] == [False, True, False, True]


def test_a_limit_that_is_not_tried_does_not_grow() -> None:
    limit = AdaptiveLimit(100)
    limit.overloaded(1.0)
    for _ in range(1000):
        limit.replied(0.1, 2.0, 1)
    assert limit.limit == 90


@pytest.mark.parametrize(("in_flight", "goes_down"), [(49, False), (50, True)])
def test_a_limit_is_tried_by_half_as_many(in_flight: int, goes_down: bool) -> None:
    limit = AdaptiveLimit(100)
    for reply in range(100):
        limit.replied(1.0 if reply < 50 else 10.0, float(reply), in_flight)
    assert (limit.limit < 100) is goes_down


def replied(limit: AdaptiveLimit, seconds: float, in_flight: int, count: int) -> int:
    """The limit after so many replies that begin in one moment."""
    for _ in range(count):
        limit.replied(seconds, 1000.0, in_flight)
    return limit.limit


def test_while_few_are_there_one_reply_in_eight_says_how_long_they_take() -> None:
    def usual() -> AdaptiveLimit:
        limit = AdaptiveLimit(100)
        replied(limit, 1.0, 100, 100)
        return limit

    enough = next(count for count in range(100) if replied(usual(), 10.0, 100, count) < 100)
    assert enough > 2
    eights = 8 * (enough - 1)
    for count, goes_down in ((eights - 1, False), (eights, True)):
        limit = usual()
        assert replied(limit, 10.0, 1, count) == 100
        assert (replied(limit, 10.0, 100, 1) < 100) is goes_down, "with one that counts"


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
    assert [queue.pop(queue.next_up() or "") for _ in range(5)] == expected
    queue.add("c", 1)
    assert queue.drop("c") == 1
    assert queue.size == 0


@pytest.mark.parametrize(
    ("held", "expected"), [({}, "a"), ({"a": 1}, "b"), ({"a": 2, "b": 2}, "a"), ({"b": 1}, "a")]
)
def test_who_has_the_fewest_places_is_next(held: dict[str, int], expected: str) -> None:
    queue: FairQueue[int] = FairQueue()
    queue.add("a", 0)
    queue.add("b", 1)
    assert queue.next_up(held) == expected


async def test_a_turn_whose_reply_comes_later_has_no_place_at_the_model() -> None:
    fixture = Fixture(most=1)
    fixture.ask()
    fixture.ask()
    await fixture.answer(RECEIPT)
    await turns(3)
    assert fixture.ended == [("a", RECEIPT)]
    assert len(fixture.model.pending) == 1, "the other one has been sent"
    ends: list[ModelReply | Failure | Receipt] = []
    fixture.guard.wait(RECEIPT, affinity="s", on_end=ends.append)
    fixture.model.pending[-1].on_end(REPLY)
    assert ends == [REPLY]
