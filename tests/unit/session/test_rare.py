"""Orders of events that a search meets seldom."""

from typing import Any

import pytest

from gateway.errors import ErrorCode, Failure
from gateway.protocol import messages as wire
from gateway.session import events as on
from gateway.session.events import Timer
from gateway.session.policy import Opening, Recovery
from gateway.session.ports import ModelSession
from gateway.session.table import State
from tests.support.script import MODEL, START, Script, failure, send

BUSY = Failure(code=ErrorCode.THROTTLED, message="", retry_after=5.0)


def retrying(lifetime: float, **policy: Any) -> Script:
    """A turn waits to be sent again, in five seconds; another one waits behind it."""
    script = Script(**policy).ready(ModelSession("m", START + lifetime))
    script.step(send("a"))
    script.step(send("b"))
    script.fail(BUSY)
    return script


def replaying(lifetime: float) -> Script:
    """A new session is being told what was said, and runs out before long."""
    script = Script(on_lost=Recovery.REPLAY).ready()
    script.step(send("a"))
    script.answer()
    script.step(send("b"))
    script.fail(Failure(code=ErrorCode.SESSION_LOST, message=""))
    script.step(on.Opened(ModelSession("n", START + lifetime)))
    return script


def opening() -> Script:
    """The first message has the model asked for a session."""
    script = Script(open_on_connect=False, resume_seconds=30.0).start()
    script.step(send("a"))
    return script


def test_the_session_expires_in_the_moment_in_which_a_turn_is_to_be_sent_again() -> None:
    script = retrying(10.0)
    script.fire(Timer.RETRY_TURN)
    assert script.stands(State.CLOSING)


def test_it_expires_while_a_turn_waits_to_be_sent_again() -> None:
    script = retrying(10.0)
    script.fire(Timer.EXPIRY)
    assert script.stands(State.CLOSING)
    script = retrying(18.0)
    script.fire(Timer.EXPIRING)
    assert script.stands(State.RETRYING)


def test_the_next_turn_needs_another_one_then() -> None:
    script = retrying(10.0, on_expiry=Recovery.RENEW)
    script.fire(Timer.EXPIRY)
    assert script.stands(State.RETRYING)
    script.step(wire.MessageCancel(id="a"))
    assert script.stands(State.RENEWING)


@pytest.mark.parametrize(
    ("resume_seconds", "then"), [(0.0, State.CLOSED), (3.0, State.ENDED), (9.0, State.READY)]
)
def test_the_last_turn_is_cancelled_when_nobody_is_there(
    resume_seconds: float, then: State
) -> None:
    script = Script(opening=Opening.NONE, resume_seconds=resume_seconds).start()
    script.step(send("a"))
    script.detach()
    script.fail(BUSY)
    script.step(wire.MessageCancel(id="a"), after=resume_seconds and 3.0)
    assert script.stands(then)


def test_a_new_session_expires_while_it_is_told_what_was_said() -> None:
    script = replaying(18.0)
    script.fire(Timer.EXPIRING)
    assert script.last(wire.SessionExpiring).expires_at == "2027-01-15T08:00:18Z"
    script.fail(BUSY)
    assert script.stands(State.RENEWING)
    script = replaying(18.0)
    script.fail(BUSY)
    script.fire(Timer.EXPIRING)
    assert script.stands(State.RENEWING)
    script = replaying(10.0)
    script.fail(BUSY)
    script.fire(Timer.EXPIRY)
    assert script.stands(State.CLOSING)


def test_the_client_has_closed_and_gone_before_the_model_opens() -> None:
    for late in (on.Opened(MODEL), on.OpenFailed(failure())):
        script = opening()
        script.step(wire.SessionClose())
        script.detach()
        script.fire(Timer.CLOSING)
        assert script.stands(State.ENDED)
        script.step(late)
        assert script.stands(State.ENDED)
    script = opening()
    script.step(wire.SessionClose())
    script.detach()
    script.step(on.OpenFailed(failure()))
    assert script.stands(State.ENDED)
    script = opening()
    script.step(on.OpenFailed(BUSY))
    script.detach()
    script.step(wire.SessionClose())
    assert script.stands(State.ENDED)


def test_who_speaks_without_reading_gives_the_session_more_time() -> None:
    script = Script(opening=Opening.NONE, resume_seconds=30.0, idle_seconds=30.0).start(None)
    script.step(send("a"), after=20.0)
    script.answer()
    script.fire(Timer.DETACHED)
    assert script.stands(State.READY)
    assert script.timers[Timer.DETACHED] == START + 50
