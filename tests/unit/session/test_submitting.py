"""Turns that a model takes at once, and answers later."""

import pytest

from gateway.errors import ErrorCode, Outcome
from gateway.protocol import messages as wire
from gateway.session import effects as do
from gateway.session import events as on
from gateway.session.events import Timer
from gateway.session.policy import Opening
from gateway.session.table import State
from gateway.session.transitions import UnexpectedEvent
from tests.support.script import RECEIPT, START, Script, failure, send


def submitted(**policy: object) -> Script:
    """A turn has been taken."""
    script = Script(**{"opening": Opening.NONE, "resume_seconds": 30, **policy}).start()
    script.step(send("a"))
    script.submitted()
    return script


def in_another_process(script: Script, *clients: int, crashed: bool = True) -> list[do.Effect]:
    script.store()
    return script.adopt(*clients, crashed=crashed)


def test_its_reply_is_waited_for() -> None:
    script = submitted()
    assert script.effects == [do.Await(1, RECEIPT)]
    assert script.stands(State.RUNNING)
    script.answer("at last", after=900)
    done = script.done["a"]
    assert (done.status, done.text, done.duration_ms) == ("completed", "at last", 900_000)


def test_or_the_reason_why_there_is_none() -> None:
    script = submitted()
    script.fail()
    error = script.error("a")
    assert (error.code, error.outcome) == (ErrorCode.MODEL_ERROR, Outcome.INVOKED)


def test_those_that_wait_behind_it_wait_on() -> None:
    script = submitted()
    script.step(send("b"))
    assert script.last(wire.MessageAccepted).queued == 1
    script.answer()
    assert script.invoking[0].turn == 2
    with pytest.raises(UnexpectedEvent, match="turn 1 is not at the model"):
        script.handle(on.Submitted(1, RECEIPT))


@pytest.mark.parametrize("crashed", [True, False], ids=["crashed", "released"])
def test_another_process_waits_on(crashed: bool) -> None:
    script = submitted()
    script.step(send("b"))
    assert script.session.can_move is True
    effects = in_another_process(script, 1, crashed=crashed)
    assert effects == [do.Await(1, RECEIPT)]
    script.answer()
    script.answer()
    assert [done.status for done in script.done.values()] == ["completed", "completed"]


def test_also_where_it_was_a_stream_that_was_asked_for() -> None:
    """A reply that comes later has no parts, so no client has any that are not stored."""
    script = submitted(streams=True)
    in_another_process(script)
    assert script.session.sure_until is None
    assert not script.session.may_have_told(script.last_event + 1)


def test_and_the_conversation_has_what_was_said_in_it() -> None:
    script = submitted(sends_history=True, template="$messages")
    in_another_process(script, 1)
    script.answer("hi")
    script.step(send("b", "again"))
    assert script.invoking[0].request.body == (
        b'[{"role":"user","content":"hello"},{"role":"assistant","content":"hi"},'
        b'{"role":"user","content":"again"}]'
    )


def test_before_that_nobody_knows_what_has_become_of_it() -> None:
    script = Script(opening=Opening.NONE, resume_seconds=30).start()
    script.step(send("a"))
    assert script.session.can_move is False
    script.store()
    script.submitted()
    script.adopt(1)
    error = script.error("a")
    assert (error.code, error.outcome) == (ErrorCode.GATEWAY_LOST, Outcome.UNKNOWN)


def test_one_that_is_cancelled_is_not_waited_for_any_more() -> None:
    script = submitted()
    script.step(wire.MessageCancel(id="a"))
    assert script.effects == [do.CancelInvoke(1)]
    assert script.session.can_move is False
    script.step(on.InvokeCancelled(1))
    done = script.done["a"]
    assert (done.status, done.outcome) == ("cancelled", Outcome.UNKNOWN)


def test_nor_one_that_was_cancelled_before_it_was_taken() -> None:
    script = Script(opening=Opening.NONE, resume_seconds=30).start()
    script.step(send("a"))
    script.step(wire.MessageCancel(id="a"))
    assert script.submitted() == []
    assert script.session.can_move is False
    in_another_process(script, 1)
    assert script.done["a"].status == "cancelled"


def test_nor_one_whose_session_has_ended() -> None:
    script = submitted()
    script.step(wire.SessionClose())
    script.step(on.InvokeCancelled(1))
    done = script.done["a"]
    assert (done.status, done.outcome) == ("cancelled", Outcome.UNKNOWN)
    assert script.stands(State.ENDED)


def test_one_that_is_taken_when_its_session_has_been_given_up_is_nobodys() -> None:
    script = Script(opening=Opening.NONE, resume_seconds=30).start()
    script.step(send("a"))
    script.step(wire.SessionClose())
    script.fire(Timer.CLOSING)
    assert script.stands(State.ENDED)
    assert script.submitted() == []


def test_a_gateway_that_shuts_down_waits_for_it_until_time_is_up() -> None:
    script = Script(opening=Opening.NONE, resume_seconds=30).start()
    script.step(send("a"))
    script.step(on.Drain())
    assert script.submitted() == [do.Await(1, RECEIPT)]
    assert script.session.can_move is False, "it has ended but for this"
    script.step(on.Drain(force=True))
    assert script.effects == [do.CancelInvoke(1)]
    script.step(on.InvokeCancelled(1))
    assert script.error("a").outcome is Outcome.UNKNOWN


def test_a_client_may_be_away_for_as_long_as_it_takes() -> None:
    script = submitted()
    script.detach()
    script.fire(Timer.DETACHED)
    assert script.stands(State.RUNNING)
    script.answer("hi", after=3600)
    assert script.stands(State.ENDED), "nobody has come back for a while"
    assert script.timers == {Timer.DETACHED: START + 3660}
    assert script.resume(2).last_event == 4


def test_one_that_was_taken_is_never_sent_again() -> None:
    script = submitted(retries=1)
    script.fail(failure(ErrorCode.THROTTLED, Outcome.NOT_INVOKED))
    assert script.error("a").code is ErrorCode.THROTTLED
    assert script.stands(State.READY)


def test_one_that_is_sent_again_before_that_is_taken_once() -> None:
    script = Script(opening=Opening.NONE, retries=1).start()
    script.step(send("a"))
    script.fail(failure(ErrorCode.THROTTLED, Outcome.NOT_INVOKED))
    script.fire(Timer.RETRY_TURN)
    assert script.submitted() == [do.Await(2, RECEIPT)]
    script.answer()
    assert script.done["a"].status == "completed"


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        ({}, 0),
        ({"template": {"prompt": "$text"}}, 0),
        ({"template": "$messages", "sends_history": True}, 5),
    ],
    ids=["body", "template", "history"],
)
def test_what_was_sent_is_not_kept_while_the_reply_is_waited_for(
    policy: dict[str, object], kept: int
) -> None:
    script = submitted(**policy)
    queue = script.session.turns.queue
    assert queue.bytes == kept, "the words that are told again"
    assert queue.running is not None
    assert (queue.running.request.body, queue.running.request.sha256) == (b"", None)
    script.step(send("a"))
    assert script.last(wire.MessageDuplicate).status == "running"
    script.answer("hi")
    assert script.done["a"].text == "hi"
