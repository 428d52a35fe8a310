"""Replies in parts, and stopping them."""

from gateway.errors import ErrorCode, Failure, Outcome
from gateway.protocol import messages as wire
from gateway.session import effects as do
from gateway.session import events as on
from gateway.session.ports import ModelReply
from gateway.session.table import State
from tests.support.script import Script, failure, send

STREAMED = ModelReply(body=None, content_type="text/plain")


def test_parts_are_passed_on_and_the_end_has_no_body() -> None:
    script = Script(streams=True).ready()
    script.step(send("a"))
    assert script.invoking[0].request.stream
    script.part("Hel")
    script.part(b"\xff")
    script.step(on.ReplyEnded(1, STREAMED))
    assert script.events[2:] == [
        wire.MessageDelta(event=3, id="a", index=0, text="Hel"),
        wire.MessageDelta(event=4, id="a", index=1, base64=b"\xff"),
        wire.MessageDone(
            event=5, id="a", status="completed", content_type="text/plain", deltas=2, duration_ms=0
        ),
    ]


def test_parts_that_come_together_are_numbered_one_by_one() -> None:
    script = Script(streams=True).ready()
    script.step(send("a"))
    assert script.step(on.ReplyParts(1, ["a", "b", b"c", b"d"])) == [
        do.Append(
            (
                wire.MessageDelta(event=3, id="a", index=0, text="a"),
                wire.MessageDelta(event=4, id="a", index=1, text="b"),
                wire.MessageDelta(event=5, id="a", index=2, base64=b"c"),
                wire.MessageDelta(event=6, id="a", index=3, base64=b"d"),
            )
        )
    ]
    running = script.session.turns.running
    assert running is not None
    assert running.heard is None, "nobody needs it again"
    script.step(wire.MessageCancel(id="a"))
    script.step(on.InvokeCancelled(1))
    assert script.session.history.transcript.whole


def test_a_client_may_want_the_reply_in_one_piece() -> None:
    script = Script(streams=True).ready()
    script.step(send("a", stream=False))
    assert not script.invoking[0].request.stream
    script.answer()
    script.step(send("b", stream=True))
    assert script.invoking[0].request.stream


def test_a_route_that_does_not_stream_answers_in_one_piece() -> None:
    script = Script().ready()
    script.step(send("a", stream=True))
    assert not script.invoking[0].request.stream


def test_a_reply_that_breaks_off_says_how_much_came() -> None:
    script = Script(streams=True).ready()
    script.step(send("a"))
    script.part("x")
    script.fail(failure(ErrorCode.STREAM_BROKEN))
    assert script.done["a"].deltas == 1
    assert script.error("a").outcome is Outcome.INVOKED


def test_a_reply_that_is_stopped_was_certainly_seen() -> None:
    script = Script(streams=True).ready()
    script.step(send("a"))
    script.part("x")
    script.step(wire.MessageCancel(id="a"))
    assert script.effects == [do.CancelInvoke(1)]
    script.part("y")
    script.step(on.InvokeCancelled(1))
    assert script.done["a"].status == "cancelled"
    assert (script.done["a"].outcome, script.done["a"].deltas) == (Outcome.INVOKED, 2)
    assert script.state is State.READY


def test_a_stopped_turn_that_never_arrived_is_not_sent_again() -> None:
    script = Script().ready()
    script.step(send("a"))
    script.step(wire.MessageCancel(id="a"))
    script.fail(Failure(code=ErrorCode.THROTTLED, message="Wait."))
    assert script.done["a"].status == "cancelled"
    assert script.done["a"].outcome is Outcome.NOT_INVOKED
    assert script.state is State.READY


def test_a_session_that_drains_lets_the_reply_come() -> None:
    script = Script(streams=True).ready()
    script.step(send("a"))
    script.step(on.Drain())
    script.part("x")
    script.step(on.Drain(force=True))
    script.step(on.InvokeCancelled(1))
    assert script.error("a").outcome is Outcome.INVOKED


def test_parts_that_come_late_are_dropped() -> None:
    script = Script(streams=True).ready()
    script.step(send("a"))
    script.step(wire.SessionClose())
    while script.timers:
        script.fire(next(iter(script.timers)))
    assert script.step(on.ReplyParts(1, ["x"])) == []
