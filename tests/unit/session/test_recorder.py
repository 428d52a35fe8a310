"""What is stored of a session, change by change, is the session as it stands."""

from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from msgspec import structs

from gateway.errors import ErrorCode, Failure
from gateway.protocol import messages as wire
from gateway.session import effects as do
from gateway.session import events as on
from gateway.session.events import SessionEvent, Timer
from gateway.session.policy import Recovery
from gateway.session.ports import ModelRequest, ModelSession
from gateway.session.recorder import Recorder, head_of, snapshot_of
from gateway.session.snapshot import Snapshot, restore, take
from gateway.session.storage import Saved, Unreadable
from gateway.session.turn_queue import Turn
from tests.support.script import START, merged, send
from tests.support.script import Script as Scripted
from tests.unit.session.test_machine import Sessions

LOST = Failure(code=ErrorCode.SESSION_LOST, message="Gone.")


def without_what_is_not_stored(snapshot: Snapshot, *, composed: bool) -> Snapshot:
    """Without what another process has no use for.

    Args:
        snapshot: Of a session.
        composed: Whether bodies are made, again where need be, when turns are sent.
    """

    def bare(turn: Turn) -> Turn:
        turn = structs.replace(turn, heard=None)
        if composed and turn.said is not None:
            turn.request = structs.replace(turn.request, body=b"")
        return turn

    def at_model(turn: Turn) -> Turn:
        request = ModelRequest(body=b"", content_type="", stream=turn.request.stream)
        return structs.replace(turn, heard=None, request=request)

    renewal = snapshot.renewal
    return structs.replace(
        snapshot,
        waiting=[bare(turn) for turn in snapshot.waiting],
        running=snapshot.running and at_model(snapshot.running),
        renewal=None if renewal is None else structs.replace(renewal, steps=None),
    )


def check(script: Scripted, saved: Saved) -> None:
    """What was saved is the session, and setting it up again changes nothing of it."""
    composed = script.policy.template is not None
    snapshot, events = snapshot_of(saved)
    session, _ = restore(snapshot, script.policy, script.clock, script.now)
    assert take(session, script.clock, script.now) == snapshot
    now = take(script.session, script.clock, script.now)
    assert without_what_is_not_stored(snapshot, composed=composed) == without_what_is_not_stored(
        now, composed=composed
    )
    kept = script.log.since(0)
    assert [*events][len(events) - len(kept) :] == kept
    numbers = [event.event for event in events]
    assert numbers == [*range(script.log.last - len(events) + 1, script.log.last + 1)]


class Recorded(Scripted):
    """A script that is stored at every step."""

    def step(self, event: SessionEvent, after: float = 0.0) -> list[do.Effect]:
        effects = super().step(event, after)
        check(self, self.store())
        return effects


class RecordedSessions(Sessions):
    """The same as of the session itself."""

    script_type = Recorded


def test_any_order_of_events() -> None:
    run_state_machine_as_test(RecordedSessions, settings=settings(stateful_step_count=40))


def recorded(**policy: Any) -> tuple[Scripted, Recorder]:
    script = Scripted(resume_seconds=30, **policy).ready()
    return script, Recorder(script.session, script.log, stored=True)


def test_a_change_has_no_more_than_what_is_new() -> None:
    script, recorder = recorded()
    script.step(send("a"))
    script.step(send("b", "x" * 1000))
    change = recorder.take(script.clock, script.now)
    assert not change.whole
    assert [*change.turns] == ["b"]
    assert change.events is not None
    assert [event["event"] for event in msgspec.json.decode(change.events)] == [2, 3]
    assert (change.first, change.last) == (1, 3)
    change = recorder.take(script.clock, script.now)
    assert (change.turns, change.gone, change.ended, change.said) == ({}, [], [], [])
    assert change.events is None
    assert len(change.head) < 1000
    script.answer()
    change = recorder.take(script.clock, script.now)
    assert (change.turns, [*change.gone], len(change.ended)) == ({}, ["b"], 1)


def test_a_turn_that_has_ended_since_is_not_stored() -> None:
    script, recorder = recorded()
    script.step(send("a"))
    script.answer()
    change = recorder.take(script.clock, script.now)
    assert (change.turns, [*change.gone], len(change.ended)) == ({}, [], 1)


def test_a_new_session_is_stored_whole() -> None:
    script = Scripted(resume_seconds=30).ready()
    recorder = Recorder(script.session, script.log, stored=False)
    assert recorder.take(script.clock, script.now).whole
    assert not recorder.take(script.clock, script.now).whole


def test_all_of_it_where_it_is_not_certain_what_is_there() -> None:
    script, recorder = recorded(on_lost=Recovery.REPLAY, remembered_messages=2)
    for name in ("a", "b", "c"):
        script.step(send(name))
        script.answer()
    script.step(send("d"))
    script.step(send("e"))
    script.step(wire.EventAck(event=4))
    recorder.take(script.clock, script.now)
    script.step(wire.MessageCancel(id="e"))
    recorder.reset()
    change = recorder.take(script.clock, script.now)
    assert change.whole
    assert [*change.turns] == []
    assert (change.max_ended, len(change.ended)) == (2, 2)
    assert (change.max_said, len(change.said)) == (3, 3)
    assert (change.first, change.last) == (5, 10)
    check(script, merged(None, change))
    assert not recorder.take(script.clock, script.now).whole


def test_a_change_that_was_not_written_is_in_all_of_it() -> None:
    script, recorder = recorded()
    script.step(send("a"))
    recorder.take(script.clock, script.now)
    recorder.reset()
    script.step(send("b"))
    change = recorder.take(script.clock, script.now)
    assert [*change.turns] == ["b"]
    check(script, merged(None, change))


def test_what_was_said_is_kept_as_far_as_the_session_keeps_it() -> None:
    script = Scripted(
        resume_seconds=30, on_lost=Recovery.REPLAY, transcript_turns=2, transcript_bytes=20
    ).ready()
    for number, text in enumerate(("one", "two", "three", "x" * 30, "four")):
        script.step(send(str(number), text))
        script.answer()
        check(script, script.store())
    snapshot, _ = snapshot_of(script.store())
    assert [exchange.request.body for exchange in snapshot.exchanges] == [b"four"]
    assert (snapshot.dropped, snapshot.whole) == (4, False)


def test_a_head_has_no_bodies() -> None:
    script, recorder = recorded(on_lost=Recovery.REPLAY, seed="$transcript")
    script.step(send("a", "secret"))
    script.answer("secret")
    script.step(send("b", "secret"))
    script.step(send("c", "secret"))
    head = recorder.take(script.clock, script.now).head
    assert b"secret" not in head
    known = head_of(head)
    assert [turn.id for turn in known.waiting] == ["c"]
    assert known.running is not None
    assert (known.running.id, known.running.request.body) == ("b", b"")
    assert not known.ended
    assert not known.exchanges


def test_a_renewal_is_stored_without_its_steps() -> None:
    script = Scripted(on_lost=Recovery.REPLAY, resume_seconds=30).ready()
    script.step(send("a"))
    script.answer()
    script.step(send("b"))
    script.fail(LOST)
    script.step(on.Opened(ModelSession("new", START + 5000)))
    check(script, script.store())
    renewal = snapshot_of(script.store())[0].renewal
    assert renewal is not None
    assert (renewal.recovery, renewal.steps, renewal.step) == (
        Recovery.REPLAY,
        None,
        script.invoking[0].turn,
    )


def test_what_comes_as_json_is_stored_as_it_came() -> None:
    script, recorder = recorded(json_replies=True)
    script.step(wire.MessageSend(id="a", json=msgspec.Raw(b'{"a": 1.0}')))
    script.answer('{"b":  2}', content_type="application/json")
    change = recorder.take(script.clock, script.now)
    assert change.events is not None
    assert b'"json":{"b":  2}' in change.events


def test_what_is_stored_after_other_numbers_were_given() -> None:
    script = Scripted(resume_seconds=30, streams=True, log_seconds=1e6).ready()
    script.step(send("a"))
    script.step(send("b"))
    script.store()
    script.part("x")
    script.adopt()
    check(script, script.store())
    script.resume(last_event=4)
    check(script, script.store())
    script.answer()
    check(script, script.store())


@pytest.mark.parametrize("part", ["head", "turns", "ended", "said", "events"])
def test_what_is_no_session(part: str) -> None:
    script = Scripted(resume_seconds=30, on_lost=Recovery.REPLAY).ready()
    script.step(send("a"))
    script.answer()
    script.step(send("b"))
    saved = script.store()
    broken: Any = {"head": b"{}", "turns": {"b": b"{}"}}.get(part, [b"{}"])
    with pytest.raises(Unreadable):
        snapshot_of(structs.replace(saved, **{part: broken}))


@pytest.mark.parametrize("head", [b"", b"\xff", b"[]", b'{"id": "s-1"}'])
def test_what_is_no_head(head: bytes) -> None:
    with pytest.raises(Unreadable):
        head_of(head)


def test_a_session_whose_turn_is_missing() -> None:
    script = Scripted(resume_seconds=30).ready()
    script.step(send("a"))
    script.step(send("b"))
    with pytest.raises(Unreadable):
        snapshot_of(structs.replace(script.store(), turns={}))


def test_timers_are_stored_with_the_head() -> None:
    script, recorder = recorded()
    script.detach()
    head = head_of(recorder.take(script.clock, script.now).head)
    assert head.timers[Timer.DETACHED.value] == START + 30
