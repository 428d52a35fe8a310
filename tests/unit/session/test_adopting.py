"""In another process: what was under way begins again; and what waits to move begins nothing."""

import pytest

from gateway.errors import ErrorCode, Failure, Outcome
from gateway.protocol import messages as wire
from gateway.session import effects as do
from gateway.session import events as on
from gateway.session.events import Timer
from gateway.session.keys import digest
from gateway.session.policy import Opening, Recovery
from gateway.session.ports import ModelSession
from gateway.session.session import MAX_UNSTORED
from gateway.session.table import State
from gateway.session.transitions import UnexpectedEvent
from gateway.session.upstream_table import Life
from tests.support.script import CLOCK, MODEL, START, Script, failure, reply, send

LOST = Failure(code=ErrorCode.SESSION_LOST, message="Gone.")
THROTTLED = Failure(code=ErrorCode.THROTTLED, message="Wait.")
NEW = ModelSession("model-2", expires_at=START + 5000)
NEWER = ModelSession("model-3", expires_at=START + 5000)

CRASHED_OR_NOT = pytest.mark.parametrize("crashed", [True, False], ids=["crashed", "released"])


def adopted(script: Script, *clients: int, crashed: bool = True) -> Script:
    """The session in another process, all of it stored."""
    script.store()
    script.adopt(*clients, crashed=crashed)
    return script


def effects_of(script: Script, kind: type[do.Effect]) -> list[do.Effect]:
    return [effect for effect in script.effects if isinstance(effect, kind)]


def can_move(script: Script) -> bool:
    """A function, so that mypy asks again each time."""
    return script.session.can_move


class TestAtRest:
    @CRASHED_OR_NOT
    def test_nothing_was_under_way(self, crashed: bool) -> None:
        script = adopted(Script(resume_seconds=30).ready(), 1, crashed=crashed)
        assert script.effects == []
        assert script.stands(State.READY)
        assert script.session.clients.owner == 1
        script.step(send("a"))
        assert script.invoking[0].model == MODEL
        script.answer()
        assert script.done["a"].status == "completed"

    @CRASHED_OR_NOT
    def test_a_turn_waits_on_to_be_sent_again(self, crashed: bool) -> None:
        script = Script(resume_seconds=30).ready()
        script.step(send("a"))
        script.step(send("b"))
        script.fail(THROTTLED)
        due = script.timers[Timer.RETRY_TURN]
        adopted(script, 1, crashed=crashed)
        assert script.effects == []
        assert script.stands(State.RETRYING)
        assert script.timers[Timer.RETRY_TURN] == due
        script.fire(Timer.RETRY_TURN)
        assert script.invoking[0].request.body == b"hello"
        script.answer()
        script.answer()
        assert [done.status for done in script.done.values()] == ["completed", "completed"]

    @CRASHED_OR_NOT
    def test_a_turn_that_was_held_begins(self, crashed: bool) -> None:
        script = Script(resume_seconds=30).ready()
        script.step(on.Hold(on=True))
        script.step(send("a"))
        assert not script.invoking
        adopted(script, 1, crashed=crashed)
        assert script.invoking[0].model == MODEL
        assert script.stands(State.RUNNING)

    @CRASHED_OR_NOT
    def test_the_last_events_are_still_there(self, crashed: bool) -> None:
        script = Script(resume_seconds=30).ready()
        script.step(send("a"))
        script.detach()
        script.answer(session_closed=True)
        adopted(script, crashed=crashed)
        assert script.effects == []
        assert script.stands(State.ENDED)
        assert script.timers == {Timer.DETACHED: START + 30}
        assert script.resume(last_event=2).last_event == 4
        script.step(wire.EventAck(event=4))
        assert script.stands(State.CLOSED)


class TestTurns:
    @CRASHED_OR_NOT
    def test_the_one_at_the_model_fails_once_and_those_that_wait_go_on(self, crashed: bool) -> None:
        script = Script(resume_seconds=30).ready()
        script.step(send("a"), after=1.0)
        script.step(send("b"))
        adopted(script, 1, crashed=crashed)
        error = script.error("a")
        assert (error.code, error.outcome) == (ErrorCode.GATEWAY_LOST, Outcome.UNKNOWN)
        assert error.retryable is False
        assert [(invoke.turn, invoke.model) for invoke in script.invoking] == [(2, MODEL)]
        with pytest.raises(UnexpectedEvent, match="turn 1 is not at the model"):
            script.handle(on.ReplyEnded(1, reply()))
        script.answer()
        assert script.done["b"].status == "completed"
        script.step(send("a"))
        assert script.last(wire.MessageDuplicate).status == "failed"

    def test_also_where_it_is_adopted_again_and_again(self) -> None:
        script = Script(resume_seconds=30).ready()
        for name in ("a", "b", "c"):
            script.step(send(name))
        adopted(script)
        adopted(script)
        adopted(script)
        codes = [script.error(name).code for name in ("a", "b", "c")]
        assert codes == [ErrorCode.GATEWAY_LOST] * 3
        assert script.stands(State.READY)
        adopted(script)
        assert script.effects == []

    def test_one_that_was_to_be_cancelled_is(self) -> None:
        script = Script(resume_seconds=30).ready()
        script.step(send("a"))
        script.step(wire.MessageCancel(id="a"))
        adopted(script, 1)
        assert script.done["a"].status == "cancelled"
        assert script.done["a"].outcome is Outcome.UNKNOWN

    def test_it_is_not_sent_to_a_new_session(self) -> None:
        script = Script(resume_seconds=30, on_lost=Recovery.RENEW).ready()
        script.step(send("a"))
        adopted(script, 1)
        assert script.error("a").code is ErrorCode.GATEWAY_LOST
        assert script.session.model == MODEL
        assert not script.opening

    def test_where_it_was_to_open_the_session_those_that_wait_are_not_sent(self) -> None:
        script = Script(resume_seconds=30, opening=Opening.TURN).start()
        script.step(send("a"))
        script.step(send("b"))
        adopted(script, 1)
        assert script.error("a").outcome is Outcome.UNKNOWN
        assert script.error("b").outcome is Outcome.NOT_INVOKED
        script.step(send("c"))
        script.answer(new_session=MODEL)
        assert script.session.model == MODEL

    def test_one_whose_session_has_expired_meanwhile(self) -> None:
        script = Script(resume_seconds=30, on_expiry=Recovery.RENEW).ready()
        script.step(send("a"), after=1190)
        script.step(send("b"))
        script.fire(Timer.EXPIRY)
        adopted(script, 1)
        assert script.closing_models == [MODEL]
        assert script.stands(State.RENEWING)
        script.step(on.Opened(NEW))
        assert script.invoking[0].model == NEW


class TestOpening:
    @CRASHED_OR_NOT
    def test_a_session_is_asked_for_again(self, crashed: bool) -> None:
        script = Script(resume_seconds=30, open_on_connect=False).start()
        script.step(send("a"))
        adopted(script, 1, crashed=crashed)
        assert script.effects == [do.OpenSession()]
        assert script.stands(State.OPENING)
        script.step(on.Opened(MODEL))
        script.answer()
        assert script.done["a"].status == "completed"

    @CRASHED_OR_NOT
    def test_or_when_the_time_for_that_comes(self, crashed: bool) -> None:
        script = Script(resume_seconds=30, open_on_connect=False).start()
        script.step(send("a"))
        script.step(on.OpenFailed(THROTTLED))
        due = script.timers[Timer.RETRY_OPEN]
        adopted(script, 1, crashed=crashed)
        assert script.effects == []
        assert script.timers[Timer.RETRY_OPEN] == due
        script.fire(Timer.RETRY_OPEN)
        assert script.effects == [do.OpenSession()]

    def test_one_in_the_place_of_another_too(self) -> None:
        script = Script(resume_seconds=30, on_expiry=Recovery.RENEW).ready()
        script.fire(Timer.EXPIRY)
        script.step(send("a"))
        adopted(script, 1)
        assert script.effects == [do.CloseSession(ModelSession(MODEL.id)), do.OpenSession()]
        script.closed()
        assert script.stands(State.RENEWING)
        script.step(on.Opened(NEW))
        assert script.last(wire.SessionRenewed).reason == "expiring"
        assert script.invoking[0].model == NEW

    def test_one_in_the_place_of_another_that_was_refused_at_first(self) -> None:
        script = Script(resume_seconds=30, on_expiry=Recovery.RENEW).ready()
        script.fire(Timer.EXPIRY)
        script.step(send("a"))
        script.step(on.OpenFailed(THROTTLED))
        adopted(script, 1)
        assert script.effects == [do.CloseSession(ModelSession(MODEL.id))]
        assert script.stands(State.RENEWING)
        script.fire(Timer.RETRY_OPEN)
        script.step(on.Opened(NEW))
        assert script.invoking[0].model == NEW


class TestReplay:
    def replaying(self, **policy: object) -> Script:
        """Two turns are to be told to a new session, of which one has been."""
        script = Script(on_lost=Recovery.REPLAY, resume_seconds=30, **policy).ready()
        for text in ("one", "two"):
            script.step(send(text, text))
            script.answer()
        script.step(send("three", "three"))
        script.fail(LOST)
        script.step(on.Opened(NEW))
        script.answer()
        assert [invoke.request.body for invoke in script.invoking] == [b"two"]
        return script

    def finish(self, script: Script) -> None:
        script.step(on.Opened(NEWER))
        told = []
        while not script.done.get("three"):
            told.append((script.invoking[0].request.body, script.invoking[0].model))
            script.answer()
        assert told == [(body, NEWER) for body in (b"one", b"two", b"three")]
        renewed = [event for event in script.events if isinstance(event, wire.SessionRenewed)]
        assert [(event.reason, event.context) for event in renewed] == [("lost", "replayed")]

    @CRASHED_OR_NOT
    def test_another_session_is_told_all_of_it(self, crashed: bool) -> None:
        script = adopted(self.replaying(), 1, crashed=crashed)
        assert effects_of(script, do.CloseSession) == [do.CloseSession(NEW)]
        assert script.effects[-1] == do.OpenSession()
        assert script.stands(State.RENEWING)
        assert script.session.upstream.state is Life.OPENING
        script.closed()
        self.finish(script)

    @CRASHED_OR_NOT
    def test_also_where_a_step_was_to_be_sent_again(self, crashed: bool) -> None:
        script = self.replaying()
        script.fail(THROTTLED)
        adopted(script, 1, crashed=crashed)
        assert Timer.RETRY_REPLAY not in script.timers
        assert effects_of(script, do.CloseSession) == [do.CloseSession(NEW)]
        assert script.effects[-1] == do.OpenSession()
        script.closed()
        self.finish(script)

    def test_where_the_first_turn_opens_the_new_session(self) -> None:
        script = Script(opening=Opening.TURN, on_lost=Recovery.REPLAY, resume_seconds=30).start()
        script.step(send("a", "one"))
        script.answer(new_session=MODEL)
        script.step(send("b", "two"))
        script.fail(LOST)
        step = script.invoking[0].turn
        adopted(script, 1)
        assert script.stands(State.RENEWING)
        (again,) = script.invoking
        assert (again.request.body, again.model) == (b"one", None)
        assert again.turn > step, "what comes of the one before is not taken for its reply"
        script.answer(new_session=NEW)
        assert script.invoking[0].request.body == b"two"

    @pytest.mark.parametrize("timer", [Timer.EXPIRY, Timer.EXPIRING])
    def test_the_timers_of_the_session_that_is_let_go_go_with_it(self, timer: Timer) -> None:
        script = adopted(self.replaying(), 1)
        assert timer not in script.timers

    def test_the_step_that_was_at_the_model_is_not_cancelled_later(self) -> None:
        script = adopted(self.replaying(), 1)
        script.step(wire.SessionClose())
        assert effects_of(script, do.CancelInvoke) == []


class TestClosing:
    def test_what_was_being_closed_is_closed_again(self) -> None:
        script = Script(resume_seconds=30, on_expiry=Recovery.RENEW).ready()
        script.fire(Timer.EXPIRY)
        adopted(script, 1)
        assert script.effects == [do.CloseSession(ModelSession(MODEL.id))]
        assert script.stands(State.READY)
        script.closed()
        adopted(script, 1)
        assert script.effects == []

    def test_all_of_it(self) -> None:
        script = Script(resume_seconds=30, on_expiry=Recovery.RENEW, idle_seconds=5000).ready()
        script.fire(Timer.EXPIRY)
        script.step(send("a"))
        script.step(on.Opened(NEW))
        script.answer()
        script.fire(Timer.EXPIRY)
        script.step(wire.SessionClose())
        adopted(script, 1)
        assert [model.id for model in script.closing_models] == [MODEL.id, NEW.id]
        script.closed()
        assert script.stands(State.CLOSING)
        script.closed()
        assert script.stands(State.ENDED)

    @CRASHED_OR_NOT
    def test_the_turn_at_the_model_ends_as_the_session_does(self, crashed: bool) -> None:
        script = Script(resume_seconds=30).ready()
        script.step(send("a"))
        script.step(wire.SessionClose())
        adopted(script, 1, crashed=crashed)
        assert script.done["a"].status == "cancelled"
        assert script.done["a"].outcome is Outcome.UNKNOWN
        assert effects_of(script, do.CloseSession) == [do.CloseSession(MODEL)]
        assert script.stands(State.CLOSING)
        script.closed()
        assert script.last(wire.SessionClosed).reason == "client"

    def test_one_that_was_to_finish_does_not(self) -> None:
        script = Script(resume_seconds=30).ready()
        script.step(send("a"))
        script.step(on.Drain())
        assert Timer.CLOSING not in script.timers
        adopted(script, 1)
        assert script.error("a").outcome is Outcome.UNKNOWN
        assert Timer.CLOSING in script.timers
        script.fire(Timer.CLOSING)
        assert script.stands(State.CLOSED)

    def test_a_session_that_was_asked_for_is_not_waited_for(self) -> None:
        script = Script(resume_seconds=30, open_on_connect=False).start()
        script.step(send("a"))
        script.step(wire.SessionClose())
        assert script.session.upstream.state is Life.STOPPING
        adopted(script, 1)
        assert script.last(wire.SessionClosed).reason == "client"
        assert script.stands(State.ENDED)

    def test_nor_is_a_replay(self) -> None:
        script = TestReplay().replaying()
        script.step(wire.SessionClose())
        adopted(script, 1)
        assert effects_of(script, do.CloseSession) == [do.CloseSession(NEW)]
        assert script.stands(State.CLOSING)
        script.closed()
        assert script.stands(State.ENDED)

    def test_what_nobody_waits_for_any_more_is_closed_again_too(self) -> None:
        script = Script(resume_seconds=30).ready()
        script.step(wire.SessionClose())
        script.fire(Timer.CLOSING)
        assert script.stands(State.ENDED)
        adopted(script)
        assert script.effects == [do.CloseSession(ModelSession(MODEL.id))]
        script.closed()
        assert script.stands(State.ENDED)


class TestClients:
    def test_those_that_are_gone_have_left(self) -> None:
        script = Script(resume_seconds=30).ready()
        script.step(on.Subscribed(1000, 0))
        script.step(send("a"))
        adopted(script)
        clients = script.session.clients
        assert (clients.owner, clients.readers) == (None, ())
        assert script.timers[Timer.DETACHED] == START + 30
        script.fire(Timer.DETACHED)
        assert script.closing_models == [MODEL]

    def test_one_that_is_still_there_is_not_awaited(self) -> None:
        script = Script(resume_seconds=30).ready()
        script.step(on.Subscribed(1000, 0))
        adopted(script, 1)
        clients = script.session.clients
        assert (clients.owner, clients.readers) == (1, (1,))
        assert Timer.DETACHED not in script.timers
        script.detach()
        assert script.timers[Timer.DETACHED] == START + 30

    def test_one_that_had_left_before_has_no_more_time(self) -> None:
        script = Script(resume_seconds=30).ready()
        script.detach()
        script.clock += 20
        adopted(script)
        assert script.timers[Timer.DETACHED] == START + 30

    @pytest.mark.parametrize("state", [State.READY, State.OPENING, State.RETRYING, State.RENEWING])
    def test_they_are_awaited_in_each_state(self, state: State) -> None:
        script = Script(
            resume_seconds=30, on_expiry=Recovery.RENEW, open_on_connect=state is not State.OPENING
        ).start()
        if state is not State.OPENING:
            script.step(on.Opened(MODEL))
        if state is State.RENEWING:
            script.fire(Timer.EXPIRY)
        if state is not State.READY:
            script.step(send("a"))
        if state is State.RETRYING:
            script.fail(THROTTLED)
        assert script.state is state
        adopted(script)
        assert script.state is state
        assert script.timers[Timer.DETACHED] == script.now + 30

    def test_a_session_that_nobody_can_come_back_to_is_closed(self) -> None:
        script = adopted(Script(resume_seconds=0.0).ready())
        if script.stands(State.READY):
            script.fire(Timer.DETACHED)
        assert script.closing_models == [MODEL]

    def test_their_keys_are_good(self) -> None:
        script = Script(resume_seconds=30).ready()
        script.resume(last_event=1)
        script.step(send("a"))
        adopted(script)
        assert script.session.accepts(digest("key-0"))
        assert script.session.accepts(digest("key-1"))
        script.resume(last_event=2)
        assert not script.session.accepts(digest("key-0"))


class TestHold:
    def test_nothing_more_is_begun_until_it_is_taken_back(self) -> None:
        script = Script(resume_seconds=30).ready()
        script.step(on.Hold(on=True))
        assert script.effects == []
        assert can_move(script)
        script.step(send("a"))
        assert script.last(wire.MessageAccepted).id == "a"
        assert not script.invoking
        assert can_move(script)
        script.step(on.Hold(on=False))
        assert len(script.invoking) == 1
        assert not can_move(script)
        script.answer()
        assert script.done["a"].status == "completed"

    def test_what_waits_to_be_begun_elsewhere_is_not_given_up(self) -> None:
        script = Script(resume_seconds=30).ready()
        script.step(on.Hold(on=True))
        script.step(send("a"))
        script.detach()
        script.fire(Timer.DETACHED)
        assert script.stands(State.READY)
        script.step(on.Hold(on=False))
        script.answer()
        assert script.done["a"].status == "completed"

    def test_the_turn_at_the_model_finishes_and_the_next_does_not_begin(self) -> None:
        script = Script(resume_seconds=30).ready()
        script.step(send("a"))
        script.step(send("b"))
        script.step(on.Hold(on=True))
        assert script.stands(State.RUNNING)
        assert not can_move(script)
        script.answer()
        assert script.done["a"].status == "completed"
        assert script.stands(State.READY)
        assert can_move(script)
        adopted(script, 1, crashed=False)
        script.answer()
        assert script.done["b"].status == "completed"

    def test_no_session_is_opened(self) -> None:
        script = Script(resume_seconds=30, open_on_connect=False).start()
        script.step(on.Hold(on=True))
        script.step(send("a"))
        assert not script.opening
        script.step(on.Hold(on=False))
        assert script.opening

    @pytest.mark.parametrize("renews", [False, True])
    def test_one_that_is_asked_for_comes_first(self, renews: bool) -> None:
        script = Script(resume_seconds=30, on_expiry=Recovery.RENEW, open_on_connect=renews).start()
        if renews:
            script.step(on.Opened(MODEL))
            script.fire(Timer.EXPIRY)
            script.closed()
        script.step(send("a"))
        script.step(on.Hold(on=True))
        assert not can_move(script)
        script.step(on.Opened(NEW))
        assert script.stands(State.READY)
        assert not script.invoking
        assert can_move(script)

    def test_a_turn_that_is_to_be_sent_again_is_sent_elsewhere(self) -> None:
        script = Script(resume_seconds=30).ready()
        script.step(send("a"))
        script.fail(THROTTLED)
        script.step(on.Hold(on=True))
        assert can_move(script)
        script.fire(Timer.RETRY_TURN)
        assert not script.invoking
        assert can_move(script)
        adopted(script, 1, crashed=False)
        assert len(script.invoking) == 1

    def test_it_does_not_move_while_a_session_is_being_closed(self) -> None:
        script = Script(resume_seconds=30, on_expiry=Recovery.RENEW).ready()
        script.fire(Timer.EXPIRY)
        script.step(on.Hold(on=True))
        assert not can_move(script)
        script.closed()
        assert can_move(script)

    def test_what_ends_may_move_when_it_has(self) -> None:
        script = Script(resume_seconds=30).ready()
        script.step(wire.SessionClose())
        script.step(on.Hold(on=True))
        assert not can_move(script)
        script.closed()
        assert can_move(script)
        script.step(on.Hold(on=True))
        assert script.effects == []

    @pytest.mark.parametrize("stays", [True, False])
    def test_the_session_was_in_use_while_it_was_held(self, stays: bool) -> None:
        script = Script(resume_seconds=30, idle_seconds=50).ready()
        script.step(send("a"))
        script.fire(Timer.IDLE)
        script.step(on.Hold(on=True))
        script.answer(after=49.0)
        if stays:
            script.step(on.Hold(on=False))
        else:
            adopted(script, 1, crashed=False)
        script.fire(Timer.IDLE)
        assert script.stands(State.READY)

    def test_nobody_comes_back_while_it_is_held(self) -> None:
        script = Script(resume_seconds=3, idle_seconds=600).ready()
        script.step(send("a"))
        script.detach()
        script.fire(Timer.DETACHED)
        script.step(on.Hold(on=True))
        script.answer()
        script.step(on.Hold(on=False))
        assert Timer.DETACHED in script.timers or script.stands(State.CLOSING)


class TestNumbers:
    def streaming(self, *, stored: int = 1, shared: bool = False, **policy: object) -> Script:
        """The process dies after four parts, of which not all were stored."""
        script = Script(
            **{"resume_seconds": 30, "streams": True, "log_seconds": 1e6, **policy}
        ).ready()
        if shared:
            script.step(on.Subscribed(1000, 1))
            script.step(on.Detached(1000))
        for name in ("a", "b"):
            script.step(send(name))
        for number in range(4):
            if number == stored:
                script.store()
            script.part(str(number))
        script.adopt()
        return script

    def test_a_client_with_more_than_was_stored_gets_what_follows_above_that(self) -> None:
        script = self.streaming()
        assert script.done["a"].event == 5, "four were stored"
        assert script.session.sure_until == 4
        assert script.session.may_have_told(4 + MAX_UNSTORED)
        assert not script.session.may_have_told(5 + MAX_UNSTORED)
        resumed = script.resume(last_event=7)
        assert effects_of(script, do.Renumber) == [do.Renumber(4, 3)]
        assert script.effects[0] == do.Renumber(4, 3)
        assert (resumed.last_event, resumed.lost) == (8, None)
        done = script.reader.take()
        assert isinstance(done, wire.MessageDone)
        assert (done.event, done.id) == (8, "a")
        assert done.error
        assert done.error.code is ErrorCode.GATEWAY_LOST
        script.answer()
        assert script.done["b"].event == 9
        assert script.session.may_have_told(9)
        assert not script.session.may_have_told(10)

    def test_once(self) -> None:
        script = self.streaming()
        script.resume(last_event=7)
        script.resume(last_event=8)
        assert effects_of(script, do.Renumber) == []
        script.step(on.Subscribed(1000, 0))
        assert effects_of(script, do.Renumber) == []

    @pytest.mark.parametrize("last_event", [1, 3, 4])
    def test_one_with_no_more_than_that_gets_all_that_it_has_missed(self, last_event: int) -> None:
        script = self.streaming()
        resumed = script.resume(last_event)
        assert effects_of(script, do.Renumber) == []
        assert (resumed.last_event, resumed.lost) == (5, None)
        assert not script.session.may_have_told(6)

    def test_one_that_reads_along_may_be_the_first(self) -> None:
        script = self.streaming()
        script.step(on.Subscribed(1000, 6))
        assert script.effects[0] == do.Renumber(4, MAX_UNSTORED)
        assert script.effects[1] == do.Attach(1000, 6)
        assert script.last_event == 5 + MAX_UNSTORED
        assert script.session.sure_until is None
        resumed = script.resume(last_event=9)  # there was one that had been told more
        assert resumed.lost == (10, 4 + MAX_UNSTORED)

    def test_others_may_have_been_told_more_than_the_owner(self) -> None:
        script = self.streaming(shared=True)
        resumed = script.resume(last_event=6)
        assert resumed.lost == (7, 4 + MAX_UNSTORED)

    def test_one_that_wants_no_more_than_what_is_to_come_is_told_no_number_twice(self) -> None:
        script = self.streaming()
        script.step(on.Subscribed(1000, None))
        assert script.effects[0] == do.Renumber(4, MAX_UNSTORED)
        assert script.effects[1] == do.Attach(1000, 5 + MAX_UNSTORED)
        assert script.session.sure_until is None
        script.step(on.Subscribed(1001, None))
        assert effects_of(script, do.Renumber) == []
        assert effects_of(script, do.Attach) == [do.Attach(1001, 5 + MAX_UNSTORED)]

    def test_it_may_have_died_more_than_once_meanwhile(self) -> None:
        script = self.streaming()
        script.store()
        script.part("another's")
        script.adopt()
        assert [script.error(name).code for name in ("a", "b")] == [ErrorCode.GATEWAY_LOST] * 2
        script.store()
        script.adopt()
        assert script.session.sure_until == 4, "that of the first"
        resumed = script.resume(last_event=7)
        assert resumed.last_event == 9
        script.step(send("c"))
        assert script.last_event == 10

    def test_what_was_accepted_meanwhile_has_other_numbers_too(self) -> None:
        script = self.streaming()
        script.answer()
        script.step(send("c"))
        script.answer()
        script.resume(last_event=9)
        assert [event.event for event in script.events] == [1, 2, 3, 4, *range(10, 14)]
        numbers = []
        while (event := script.reader.take()) is not None:
            assert isinstance(event, wire.Event)
            numbers.append(event.event)
        assert numbers == [*range(10, 14)]

    def test_what_nobody_reads_may_be_stored_with_its_new_number(self) -> None:
        script = self.streaming()
        script.resume(last_event=7)
        adopted(script, 2)
        assert script.session.out.last == script.log.last == 9
        assert script.log.since(7) == script.events[-2:]

    @pytest.mark.parametrize("streams", [True, False])
    def test_without_a_stream_all_was_stored_before_it_was_told(self, streams: bool) -> None:
        script = Script(resume_seconds=30, streams=streams).ready()
        script.step(send("a", stream=False))
        adopted(script)
        assert script.session.sure_until is None
        assert script.session.may_have_told(3)
        assert not script.session.may_have_told(4)

    def test_nor_is_there_more_than_was_stored_where_no_turn_was_at_the_model(self) -> None:
        script = adopted(Script(resume_seconds=30, streams=True).ready())
        assert script.session.sure_until is None
        assert not script.session.may_have_told(2)

    def test_while_it_is_being_closed(self) -> None:
        script = Script(resume_seconds=30, streams=True).ready()
        script.step(send("a"))
        script.step(wire.SessionClose())
        script.store()
        for _ in range(3):
            script.part("x")
        has = script.last_event
        script.adopt()
        script.closed()
        assert script.session.may_have_told(has)

    def test_where_some_of_what_follows_is_no_longer_kept(self) -> None:
        script = Script(resume_seconds=30, streams=True, log_events=2).ready()
        for name in ("a", "b", "c"):
            script.step(send(name))
        script.store()
        script.part("x")
        script.part("y")
        script.adopt()
        script.answer()
        script.answer()
        assert script.log.first == 6
        assert script.resume(last_event=6).lost == (7, 7)
        script.step(send("d"))
        assert script.last_event == 10


class TestForgotten:
    """A client has events that the store has lost."""

    def test_all_who_have_the_session_after_one_that_has_died_know(self) -> None:
        script = Script(resume_seconds=30).ready()
        inherited = []
        for crashed in (False, True, False, False):
            adopted(script, 1, crashed=crashed)
            inherited.append(script.session.inherited)
        assert inherited == [False, True, True, True]

    def test_the_session_is_over(self) -> None:
        script = Script(resume_seconds=30).ready()
        script.step(send("a"))
        script.step(send("b"))
        adopted(script)
        over = [script.session.is_over]
        script.step(on.Forgotten())
        over.append(script.session.is_over)
        assert over == [False, True]
        assert script.cancelling()
        script.step(on.InvokeCancelled(script.invoking[0].turn))
        assert script.error("b").code is ErrorCode.SESSION_LOST
        script.closed()
        assert script.last(wire.SessionClosed).reason == "lost"
        assert script.step(on.Forgotten()) == []
        assert script.stands(State.ENDED)

    def test_also_where_nothing_is_under_way(self) -> None:
        script = adopted(Script(resume_seconds=30).ready())
        script.step(on.Forgotten())
        assert script.closing_models == [MODEL]


def test_a_completion_that_comes_after_all_is_nobodys() -> None:
    script = Script(resume_seconds=30).ready()
    script.step(send("a"))
    adopted(script)
    for late in (on.InvokeFailed(1, failure()), on.InvokeCancelled(1)):
        with pytest.raises(UnexpectedEvent):
            script.handle(late)


def test_times_are_the_same_by_another_clock() -> None:
    script = Script(resume_seconds=30).ready()
    script.step(send("a"), after=3.0)
    script.store()
    script.adopt(1)
    assert script.clock > CLOCK
    assert script.done["a"].duration_ms == 0
    assert script.timers[Timer.EXPIRY] == START + 1195


def test_one_that_nobody_waits_for_is_closed_and_waits_for_nobody() -> None:
    script = Script(resume_seconds=30, on_lost=Recovery.REPLAY, opening=Opening.TURN).start()
    script.step(send("a"))
    script.answer(new_session=MODEL)
    script.step(send("b"))
    script.answer()
    script.step(send("c"))
    script.fail(failure(code=ErrorCode.SESSION_LOST, outcome=Outcome.NOT_INVOKED))
    script.detach()
    script.fire(Timer.DETACHED)
    script.step(wire.MessageCancel(id="c"))
    script.answer(new_session=NEW)
    assert script.stands(State.RENEWING)
    adopted(script)
    assert script.closing_models == [NEW]
    assert script.stands(State.CLOSING)
    assert [*script.timers] == [Timer.CLOSING]
