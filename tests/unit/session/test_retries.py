"""Calls that the model certainly never saw are made again, within bounds."""

import pytest

from gateway.errors import WAIT_SECONDS, ErrorCode, Failure, Outcome
from gateway.protocol import messages as wire
from gateway.session import effects as do
from gateway.session import events as on
from gateway.session.events import Timer
from gateway.session.policy import Recovery
from gateway.session.ports import ModelSession
from gateway.session.table import State
from tests.support.script import MODEL, START, Script, failure, send

NEW = ModelSession("model-2", expires_at=START + 5000)
THROTTLED = Failure(code=ErrorCode.THROTTLED, message="Wait.")


def test_a_turn_is_sent_again_after_a_wait_that_grows() -> None:
    script = Script(retries=2, retry_seconds=0.5).ready()
    script.step(send("a"))
    script.step(send("b"))
    for spread in (0.5, 1.0):
        script.fail(THROTTLED)
        assert script.stands(State.RETRYING)
        assert script.last(do.SetTimer) == do.SetTimer(Timer.RETRY_TURN, script.clock, spread)
        script.fire(Timer.RETRY_TURN)
        assert [invoke.request.body for invoke in script.invoking] == [b"hello"]
    assert script.invoking[0].turn == 4, "each call has a number of its own"
    script.fail(THROTTLED)
    assert script.error("a") == wire.ErrorObject(
        code=ErrorCode.THROTTLED,
        message="Wait.",
        retryable=True,
        outcome=Outcome.NOT_INVOKED,
        retry_after=WAIT_SECONDS,
    )
    script.answer()
    assert script.done["b"].status == "completed"


def test_how_long_a_turn_took_counts_from_when_it_was_first_sent() -> None:
    script = Script().ready()
    script.step(send("a"))
    script.fail(THROTTLED, after=1)
    script.fire(Timer.RETRY_TURN)
    script.answer(after=2)
    assert script.done["a"].duration_ms == 3000


def test_the_model_says_how_long() -> None:
    script = Script(retry_max_seconds=8).ready()
    script.step(send("a"))
    for seconds, at in ((3.0, 3), (8.0, 11)):
        script.fail(Failure(code=ErrorCode.THROTTLED, message="Wait.", retry_after=seconds))
        assert script.timers[Timer.RETRY_TURN] == START + at
        script.fire(Timer.RETRY_TURN)
    script.fail(Failure(code=ErrorCode.THROTTLED, message="Wait.", retry_after=9.0))
    assert script.error("a").retry_after == 9.0


@pytest.mark.parametrize(
    "reason",
    [
        failure(ErrorCode.UNAVAILABLE, Outcome.UNKNOWN),
        failure(ErrorCode.TIMEOUT, Outcome.UNKNOWN),
        failure(ErrorCode.THROTTLED, Outcome.INVOKED),
        failure(ErrorCode.VALIDATION_ERROR, Outcome.NOT_INVOKED),
    ],
)
def test_what_the_model_may_have_seen_is_not(reason: Failure) -> None:
    script = Script().ready()
    script.step(send("a"))
    script.fail(reason)
    assert script.done["a"].status == "failed"


def test_a_turn_that_waits_to_be_sent_again_can_be_removed() -> None:
    script = Script().ready()
    script.step(send("a"))
    script.step(send("b"))
    script.fail(THROTTLED)
    script.step(wire.MessageCancel(id="a"))
    assert script.done["a"].outcome is Outcome.NOT_INVOKED
    assert Timer.RETRY_TURN not in script.timers
    assert script.stands(State.RUNNING)


def test_another_one_is_removed_without_haste() -> None:
    script = Script().ready()
    script.step(send("a"))
    script.step(send("b"))
    script.fail(THROTTLED)
    script.step(wire.MessageCancel(id="b"))
    assert script.stands(State.RETRYING)
    assert Timer.RETRY_TURN in script.timers


def test_opening_is_tried_again_too() -> None:
    script = Script(retries=1).start()
    script.step(send("a"))
    script.step(on.OpenFailed(THROTTLED))
    assert script.stands(State.OPENING)
    script.fire(Timer.RETRY_OPEN)
    assert script.effects == [do.OpenSession()]
    script.step(on.Opened(MODEL))
    assert script.stands(State.RUNNING)


def spreads(script: Script, times: int) -> list[float]:
    """How far the tries are spread when the model refuses to open so often."""
    found = []
    for _ in range(times):
        script.step(on.OpenFailed(THROTTLED))
        timer = script.last(do.SetTimer)
        assert timer.timer is Timer.RETRY_OPEN
        found.append(timer.spread)
        script.fire(Timer.RETRY_OPEN)
    return found


def test_an_opening_waits_longer_each_time_and_the_next_one_begins_anew() -> None:
    script = Script(
        open_on_connect=False, retries=5, retry_max_seconds=4, on_lost=Recovery.RENEW
    ).start()
    script.step(send("a"))
    assert spreads(script, 5) == [0.5, 1.0, 2.0, 4.0, 4.0]
    script.step(on.OpenFailed(THROTTLED))
    assert script.error("a").code is ErrorCode.THROTTLED
    script.step(send("b"))
    assert spreads(script, 2) == [0.5, 1.0]
    script.step(on.Opened(MODEL))
    script.fail(Failure(code=ErrorCode.SESSION_LOST, message="Gone."))
    assert spreads(script, 1) == [0.5]


def test_each_step_of_a_replay_may_be_sent_again_as_often() -> None:
    script = Script(on_lost=Recovery.REPLAY, retries=1).ready()
    for message_id in "ab":
        script.step(send(message_id))
        script.answer()
    script.step(send("c"))
    script.fail(Failure(code=ErrorCode.SESSION_LOST, message="Gone."))
    script.step(on.Opened(NEW))
    for _ in range(2):
        script.fail(THROTTLED)
        script.fire(Timer.RETRY_REPLAY)
        script.answer()
    assert script.last(wire.SessionRenewed).context == "replayed"
    script.fail(THROTTLED)
    assert script.last(do.SetTimer).spread == 0.5


def test_the_end_does_not_wait_for_it() -> None:
    script = Script().ready()
    script.step(send("a"))
    script.fail(THROTTLED)
    script.step(wire.SessionClose())
    assert script.done["a"].status == "cancelled"
    assert script.closing_models == [MODEL]
    assert Timer.RETRY_TURN not in script.timers
