"""The session core, as scripts of events and the effects that must follow."""

import sys
from hashlib import sha256

import pytest
from msgspec import UNSET, Raw

from gateway.errors import WAIT_SECONDS, CloseCode, ErrorCode, Failure, Outcome
from gateway.protocol import messages as wire
from gateway.session import effects as do
from gateway.session import events as on
from gateway.session.events import SessionEvent, Timer
from gateway.session.policy import Opening, Recovery
from gateway.session.ports import ModelReply, ModelRequest, ModelSession
from gateway.session.session import Session
from gateway.session.table import TABLE, State
from gateway.session.transitions import UnexpectedEvent, table
from gateway.session.turn_queue import Turn
from gateway.session.upstream import Upstream
from gateway.session.upstream_table import UPSTREAM, Lost
from tests.support.script import MODEL, START, Script, failure, reply, send

LOST = Failure(code=ErrorCode.SESSION_LOST, message="Gone.")
NEW = ModelSession("model-2", expires_at=START + 5000)


def test_a_session_opens_at_the_model_and_says_so() -> None:
    script = Script().start()
    assert script.effects == [do.Attach(1, 0, opens=True), do.OpenSession()]
    script.step(on.Opened(MODEL))
    assert script.state is State.READY
    assert script.last(wire.SessionOpened) == wire.SessionOpened(
        event=1,
        session_id="s-1",
        resume_key="",
        expires_at="2027-01-15T08:20:00Z",
        route="chat",
        limits=wire.Limits(message_bytes=6_291_456, queued_messages=16, resume_seconds=0.0),
        heartbeat_seconds=30.0,
    )
    assert script.session.model == MODEL
    assert script.timers == {
        Timer.EXPIRY: START + 1195,
        Timer.EXPIRING: START + 1135,
        Timer.IDLE: START + 600,
    }
    timers = [effect for effect in script.effects if isinstance(effect, do.SetTimer)]
    assert {timer.spread for timer in timers} == {0.0}
    assert repr(script.session) == "<Session s-1 ready turns=0>"


def test_what_is_said_is_not_printed() -> None:
    assert repr(MODEL) == "<ModelSession>"
    turn = Turn(1, "m1", b"secret", "secret", request(b"secret", "text/plain"))
    assert repr(turn) == "<Turn 1 'm1' queued>"
    assert repr(turn.request).startswith("ModelRequest(content_type=<10>, body=<6>, ")


def request(body: bytes, content_type: str, **fields: str) -> ModelRequest:
    digest = sha256(body).digest()
    return ModelRequest(body=body, content_type=content_type, sha256=digest, **fields)  # type: ignore[arg-type]


def test_a_turn_goes_to_the_model_and_its_reply_to_the_client() -> None:
    script = Script().ready()
    script.step(send("a"))
    assert script.last(wire.MessageAccepted).queued == 0
    assert script.last(do.Invoke) == do.Invoke(
        1, request(b"hello", "text/plain; charset=utf-8"), MODEL, script.clock + 1195
    )
    script.answer("hi", after=2.25, variant="v1", custom_attributes="x=1")
    assert script.done["a"] == wire.MessageDone(
        event=3,
        id="a",
        status="completed",
        text="hi",
        content_type="text/plain",
        invoked_production_variant="v1",
        custom_attributes="x=1",
        deltas=0,
        duration_ms=2250,
    )
    assert script.state is State.READY
    assert script.session.history.transcript.exchanges == (), "nobody needs it again"


def test_turns_go_one_at_a_time_in_the_order_accepted() -> None:
    script = Script().ready()
    for number, message_id in enumerate("abc"):
        script.step(send(message_id))
        assert script.last(wire.MessageAccepted).queued == number
    for number in (1, 2, 3):
        assert [invoke.turn for invoke in script.invoking] == [number]
        script.answer()
    assert list(script.done) == ["a", "b", "c"]


def test_messages_wait_while_the_session_opens() -> None:
    script = Script().start()
    script.step(send("a"))
    assert not script.invoking
    script.step(on.Opened(MODEL))
    assert [type(event) for event in script.events] == [wire.MessageAccepted, wire.SessionOpened]
    assert [invoke.turn for invoke in script.invoking] == [1]


def test_a_session_that_does_not_open_ends_the_connection() -> None:
    script = Script().start()
    script.step(send("a"))
    script.step(on.OpenFailed(failure(ErrorCode.MODEL_ERROR, Outcome.INVOKED)))
    assert script.error("a").outcome is Outcome.NOT_INVOKED
    assert script.last(wire.ErrorMessage).code is ErrorCode.MODEL_ERROR
    assert script.socket == do.CloseClient(CloseCode.UNAVAILABLE, "model_error")
    assert script.state is State.CLOSED


def test_a_throttled_opening_says_when_to_come_back() -> None:
    script = Script(retries=0).start()
    script.step(
        on.OpenFailed(Failure(code=ErrorCode.THROTTLED, message="Slow down.", retry_after=2.0))
    )
    assert script.last(wire.ErrorMessage) == wire.ErrorMessage(
        code=ErrorCode.THROTTLED, message="Slow down.", retryable=True, retry_after=2.0
    )
    assert script.socket == do.CloseClient(CloseCode.TOO_MANY, "throttled")


class TestOpenedByTheFirstMessage:
    def test_the_model_is_asked_when_there_is_a_message(self) -> None:
        script = Script(open_on_connect=False).start()
        assert script.last(wire.SessionOpened).expires_at is None
        assert script.state is State.READY
        script.step(send("a"))
        assert script.effects[-1] == do.OpenSession()
        assert script.stands(State.OPENING)
        script.step(on.Opened(MODEL))
        assert script.last(wire.SessionUpdated).expires_at == "2027-01-15T08:20:00Z"
        assert script.last(do.Invoke).model == MODEL

    def test_a_failure_fails_what_waits_and_the_next_message_tries_again(self) -> None:
        script = Script(open_on_connect=False).start()
        script.step(send("a"))
        script.step(send("b"))
        script.step(on.OpenFailed(failure(outcome=Outcome.NOT_INVOKED)))
        assert {script.error(message_id).code for message_id in "ab"} == {ErrorCode.MODEL_ERROR}
        assert script.state is State.READY
        script.step(send("c"))
        assert script.opening == 1

    def test_the_message_itself_opens_where_the_profile_says_so(self) -> None:
        script = Script(opening=Opening.TURN).start()
        script.step(send("a"))
        assert script.last(do.Invoke).model is None
        script.answer(new_session=MODEL)
        assert script.last(wire.SessionUpdated).expires_at == "2027-01-15T08:20:00Z"
        script.step(send("b"))
        assert script.last(do.Invoke).model == MODEL

    def test_a_first_reply_without_a_session_is_a_lost_session(self) -> None:
        script = Script(opening=Opening.TURN).start()
        script.step(send("a"))
        script.step(send("b"))
        script.answer()
        assert script.done["a"].status == "completed"
        assert script.error("b").code is ErrorCode.SESSION_LOST
        assert script.last(wire.SessionClosed).reason == "lost"

    def test_a_failed_first_turn_fails_what_waits_behind_it(self) -> None:
        script = Script(opening=Opening.TURN).start()
        script.step(send("a"))
        script.step(send("b"))
        script.fail(failure(ErrorCode.TIMEOUT, Outcome.UNKNOWN))
        assert script.error("a").outcome is Outcome.UNKNOWN
        assert script.error("b").outcome is Outcome.NOT_INVOKED
        assert script.state is State.READY

    @pytest.mark.parametrize("opening", [Opening.TURN, Opening.NONE])
    def test_a_later_turn_that_fails_fails_alone(self, opening: Opening) -> None:
        script = Script(opening=opening).start()
        script.step(send("a"))
        script.answer(new_session=MODEL if opening is Opening.TURN else None)
        script.step(send("b"))
        script.step(send("c"))
        script.fail(failure(ErrorCode.TIMEOUT, Outcome.UNKNOWN))
        assert script.error("b").outcome is Outcome.UNKNOWN
        script.answer()
        assert script.done["c"].status == "completed"

    def test_a_late_reply_may_have_closed_what_it_opened(self) -> None:
        script = Script(opening=Opening.TURN).start()
        script.step(send("a"))
        script.step(wire.SessionClose())
        turn = script.invoking[0].turn
        script.fire(Timer.CLOSING)
        late = on.ReplyEnded(turn, reply(new_session=NEW, session_closed=True))
        assert script.step(late) == []

    def test_a_forced_end_closes_the_session_that_a_late_reply_opens(self) -> None:
        script = Script(opening=Opening.TURN).start()
        script.step(send("a"))
        turn = script.invoking[0].turn
        script.step(wire.SessionClose())
        script.fire(Timer.CLOSING)
        assert script.state is State.CLOSED
        script.step(on.ReplyEnded(turn, reply(new_session=MODEL)))
        assert script.effects == [do.CloseSession(MODEL)]


def test_a_model_without_sessions_needs_no_opening_and_no_closing() -> None:
    script = Script(opening=Opening.NONE).start()
    script.step(send("a"))
    assert script.last(do.Invoke).model is None
    script.answer()
    script.step(send("b"))
    script.answer()
    script.step(wire.SessionClose())
    assert not script.closing_models
    assert script.last(wire.SessionClosed).reason == "client"


class TestRefusals:
    def test_a_full_queue(self) -> None:
        script = Script(queued_messages=1).ready()
        for message_id in "abc":
            script.step(send(message_id))
        assert script.effects == [
            do.Tell(
                1,
                wire.ErrorMessage(
                    code=ErrorCode.QUEUE_FULL,
                    message="Too many messages are queued; send it again later.",
                    id="c",
                    retryable=True,
                    retry_after=WAIT_SECONDS,
                ),
            )
        ]

    def test_a_field_that_the_route_does_not_let_clients_set(self) -> None:
        script = Script(client_fields=frozenset({"inference_id"})).ready()
        script.step(send("a", target_model="m"))
        assert script.last(wire.ErrorMessage).code is ErrorCode.FORBIDDEN
        assert "`target_model`" in script.last(wire.ErrorMessage).message
        script.step(send("b", inference_id="i", accept="text/plain"))
        assert script.last(do.Invoke).request == request(
            b"hello", "text/plain; charset=utf-8", accept="text/plain", inference_id="i"
        )

    def test_bare_text_is_no_json(self) -> None:
        content_type = "application/json"
        script = Script(content_type=content_type, json_only=True).ready()
        assert script.step(send("a")) == [
            do.Tell(
                1,
                wire.ErrorMessage(
                    code=ErrorCode.VALIDATION_ERROR,
                    message="The route chat takes JSON, not `text`: send `json`, or set the "
                    "route's `request` or `format`.",
                    id="a",
                    retryable=False,
                ),
            )
        ]
        script.step(wire.MessageSend(id="a", json=Raw(b"{}")))
        assert script.last(do.Invoke).request == request(b"{}", content_type)

    @pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
    def test_text_that_says_what_it_is(self, content_type: str) -> None:
        script = Script(content_type="application/json", json_only=True).ready()
        script.step(send("a", content_type=content_type))
        assert script.last(do.Invoke).request == request(b"hello", content_type)

    def test_an_id_used_for_another_body(self) -> None:
        script = Script().ready()
        script.step(send("a"))
        for _ in range(2):
            script.step(send("a", "other"))
            assert script.effects == [
                do.Tell(
                    1,
                    wire.ErrorMessage(
                        code=ErrorCode.BAD_MESSAGE,
                        message="`id` was used for another body",
                        id="a",
                        retryable=False,
                    ),
                )
            ]
            if script.invoking:
                script.answer()  # and the same of a turn that has ended

    def test_little_is_kept_of_a_turn_that_has_ended(self) -> None:
        script = Script().ready()
        script.step(send("a"))
        running = script.session.turns.running
        assert running is not None
        assert running.said is None
        script.answer()
        ended = script.session.turns.queue.find("a")
        assert ended is not None
        assert ended.digest == sha256(b"hello").digest()[:14]
        ((_, kept),) = script.session.turns.queue.ended
        assert sys.getsizeof(kept) <= sys.getsizeof(b"") + 15, "48 bytes, as memory is handed out"

    def test_a_message_that_is_refused_is_no_use_of_the_session(self) -> None:
        script = Script(idle_seconds=100).ready()
        script.step(send("a", target_model="m"), after=60)
        assert script.last(wire.ErrorMessage).code is ErrorCode.FORBIDDEN
        script.fire(Timer.IDLE)
        assert script.closing_models == [MODEL]

    def test_nobody_is_told_where_nobody_asked(self) -> None:
        script = Script(resume_seconds=30).start(None)
        assert script.step(wire.MessageCancel(id="a")) == []

    def test_an_id_seen_before_is_not_invoked_again(self) -> None:
        script = Script().ready()
        script.step(send("a"))
        script.step(send("b"))
        for message_id, status in (("a", "running"), ("b", "queued")):
            script.step(send(message_id))
            duplicate = script.last(wire.MessageDuplicate)
            assert (duplicate.id, duplicate.status) == (message_id, status)
        script.answer()
        script.step(send("a"))
        assert script.last(wire.MessageDuplicate).status == "completed"
        assert len(script.invoking) == 1

    def test_ids_are_remembered_up_to_a_bound(self) -> None:
        script = Script(remembered_messages=3).ready()
        for message_id in "abcde":
            script.step(send(message_id))
            script.answer()
            script.step(send(message_id))
            assert script.last(wire.MessageDuplicate).id == message_id
        find = script.session.turns.queue.find
        assert [message_id for message_id in "abcde" if find(message_id)] == ["c", "d", "e"]

    def test_a_turn_that_has_not_ended_is_never_forgotten(self) -> None:
        script = Script(remembered_messages=0).ready()
        script.step(send("a"))
        script.step(send("b"))
        script.step(wire.MessageCancel(id="b"))
        script.step(send("c"))
        script.step(send("a"))
        assert script.last(wire.MessageDuplicate).status == "running"
        assert script.session.turns.queue.find("b") is None

    def test_messages_to_a_session_that_closes(self) -> None:
        script = Script().ready()
        script.step(wire.SessionClose())
        script.step(send("a"))
        error = script.last(wire.ErrorMessage)
        assert (error.code, error.message) == (ErrorCode.SESSION_LOST, "Closed as asked.")
        script.closed()
        assert script.step(send("b")) == []


class TestAcknowledging:
    def test_the_log_forgets_what_the_client_has(self) -> None:
        script = Script().ready()
        script.step(wire.EventAck(event=1))
        assert script.log.first == 2

    def test_a_number_past_the_newest_is_refused(self) -> None:
        script = Script().ready()
        script.step(wire.EventAck(event=2))
        error = script.last(wire.ErrorMessage)
        assert error.code is ErrorCode.BAD_MESSAGE
        assert error.message == "`event` is past the newest event, 1"

    def test_what_was_written_is_forgotten_where_nobody_can_come_back_for_it(self) -> None:
        assert Script().ready().step(on.Written(1)) == [do.Trim(1)]
        assert Script(resume_seconds=30).ready().step(on.Written(1)) == []


class TestCancelling:
    def test_a_waiting_turn_is_removed(self) -> None:
        script = Script().ready()
        script.step(send("a"))
        script.step(send("b"))
        script.step(wire.MessageCancel(id="b"))
        assert script.done["b"] == wire.MessageDone(
            event=4,
            id="b",
            status="cancelled",
            deltas=0,
            duration_ms=0,
            outcome=Outcome.NOT_INVOKED,
        )
        script.answer()
        assert not script.invoking

    def test_a_running_turn_ends_when_its_request_is_closed(self) -> None:
        script = Script().ready()
        script.step(send("a"))
        script.step(send("b"))
        assert script.step(wire.MessageCancel(id="a")) == [do.CancelInvoke(1)]
        script.step(on.InvokeCancelled(1))
        assert script.done["a"].status == "cancelled"
        assert script.done["a"].outcome is Outcome.UNKNOWN
        assert [invoke.turn for invoke in script.invoking] == [2]

    def test_a_reply_that_was_faster_counts(self) -> None:
        script = Script().ready()
        script.step(send("a"))
        script.step(wire.MessageCancel(id="a"))
        script.answer()
        assert script.done["a"].status == "completed"

    def test_unknown_and_finished_turns(self) -> None:
        script = Script().ready()
        script.step(wire.MessageCancel(id="a"))
        assert script.last(wire.ErrorMessage) == wire.ErrorMessage(
            code=ErrorCode.UNKNOWN_MESSAGE,
            message="No message has this `id`.",
            id="a",
            retryable=False,
        )
        script.step(send("a"))
        script.answer()
        script.step(wire.MessageCancel(id="a"))
        assert script.last(wire.MessageDuplicate) == wire.MessageDuplicate(
            id="a", status="completed"
        )


class TestClosing:
    def test_the_session_is_closed_at_the_model_and_then_for_the_client(self) -> None:
        script = Script().ready()
        script.step(wire.SessionClose())
        assert script.closing_models == [MODEL]
        assert script.state is State.CLOSING
        script.closed()
        assert script.last(wire.SessionClosed).reason == "client"
        assert script.socket == do.CloseClient(CloseCode.NORMAL, "")
        assert script.effects[-1] == do.Forget()

    def test_what_waits_and_what_runs_is_cancelled(self) -> None:
        script = Script().ready()
        script.step(send("a"))
        script.step(send("b"))
        script.step(wire.SessionClose())
        assert do.CancelInvoke(1) in script.effects
        assert script.timers == {Timer.CLOSING: START + 10}
        assert script.done["b"].outcome is Outcome.NOT_INVOKED
        script.step(wire.MessageCancel(id="a"))
        script.step(on.InvokeCancelled(1))
        assert script.done["a"].outcome is Outcome.UNKNOWN
        assert script.closing_models == [MODEL]

    def test_a_reply_that_was_faster_counts(self) -> None:
        script = Script().ready()
        script.step(send("a"))
        script.step(wire.SessionClose())
        script.answer(new_session=NEW)
        assert script.done["a"].status == "completed"
        assert script.closing_models == [NEW]

    def test_a_session_that_the_model_closed_meanwhile(self) -> None:
        script = Script().ready()
        script.step(send("a"))
        script.step(wire.SessionClose())
        script.answer(session_closed=True)
        assert script.state is State.CLOSED

    @pytest.mark.parametrize("reason", [LOST, failure()])
    def test_a_turn_that_fails_meanwhile(self, reason: Failure) -> None:
        script = Script().ready()
        script.step(send("a"))
        script.step(wire.SessionClose())
        script.fail(reason)
        assert script.error("a").code is reason.code
        assert bool(script.closing_models) is (reason is not LOST)

    def test_a_session_that_is_still_being_opened(self) -> None:
        script = Script().start()
        script.step(wire.SessionClose())
        script.step(on.Opened(MODEL))
        assert script.closing_models == [MODEL]
        script.closed()
        assert script.state is State.CLOSED
        assert not script.events, "what was never announced is not closed either"

    def test_an_opening_that_fails_meanwhile(self) -> None:
        script = Script().start()
        script.step(wire.SessionClose())
        script.step(on.OpenFailed(failure()))
        assert script.state is State.CLOSED

    def test_a_model_that_does_not_close_is_not_waited_for(self) -> None:
        script = Script().ready()
        script.step(send("a"))
        script.step(wire.SessionClose())
        script.fire(Timer.CLOSING)
        assert script.done["a"].status == "cancelled"
        assert script.last(wire.SessionClosed).reason == "client"
        assert script.closing_models == [MODEL], "asked to close all the same"
        late: SessionEvent
        for late in (
            on.InvokeCancelled(1),
            on.InvokeFailed(1, failure()),
            on.ReplyEnded(1, reply()),
            on.CloseEnded(MODEL),
            on.OpenFailed(failure()),
            on.Detached(1),
            on.Confirmed(),
            on.Written(1),
            on.Drain(),
            wire.SessionClose(),
            wire.EventAck(event=0),
            wire.MessageCancel(id="a"),
        ):
            assert script.handle(late) == []

    def test_a_session_that_opens_after_all_is_closed(self) -> None:
        script = Script().start()
        script.step(wire.SessionClose())
        script.fire(Timer.CLOSING)
        assert script.step(on.Opened(MODEL)) == [do.CloseSession(MODEL)]


class TestTheModelEndsIt:
    def test_a_reply_says_that_the_session_is_closed(self) -> None:
        script = Script().ready()
        script.step(send("a"))
        script.step(send("b"))
        script.answer(session_closed=True)
        assert script.done["a"].status == "completed"
        assert script.error("b") == wire.ErrorObject(
            code=ErrorCode.SESSION_LOST,
            message="The model has closed the session; open a new one.",
            retryable=False,
            outcome=Outcome.NOT_INVOKED,
        )
        assert script.last(wire.SessionClosed).reason == "model"
        assert script.socket == do.CloseClient(CloseCode.GONE, "session_lost")
        assert not script.closing_models

    def test_a_lost_session_is_left_alone(self) -> None:
        script = Script().ready()
        script.step(send("a"))
        script.step(send("b"))
        script.fail(LOST)
        assert script.error("a").code is ErrorCode.SESSION_LOST
        assert script.error("b").code is ErrorCode.SESSION_LOST
        assert script.last(wire.SessionClosed).reason == "lost"
        assert not script.closing_models

    def test_another_failure_ends_the_turn_only(self) -> None:
        script = Script(retries=0).ready()
        script.step(send("a"))
        script.step(send("b"))
        script.fail(
            Failure(
                code=ErrorCode.THROTTLED,
                message="Slow down.",
                outcome=Outcome.NOT_INVOKED,
                retry_after=1.5,
            )
        )
        assert script.error("a").retry_after == 1.5
        assert script.error("a").retryable
        assert [invoke.turn for invoke in script.invoking] == [2]

    def test_throttling_is_answered_with_a_wait(self) -> None:
        script = Script(retries=0).ready()
        for outcome, wait in ((Outcome.NOT_INVOKED, WAIT_SECONDS), (Outcome.UNKNOWN, UNSET)):
            script.step(send(outcome))
            script.fail(Failure(code=ErrorCode.THROTTLED, message="Slowly.", outcome=outcome))
            assert script.error(outcome).retry_after == wait

    def test_a_new_session_in_a_later_reply_replaces_the_old_one(self) -> None:
        script = Script().ready()
        script.step(send("a"))
        script.answer(new_session=NEW)
        assert script.last(wire.SessionUpdated).expires_at == "2027-01-15T09:23:20Z"
        assert script.timers[Timer.EXPIRY] == START + 4995
        script.step(send("b"))
        assert script.last(do.Invoke).model == NEW

    def test_a_reply_that_grants_a_session_and_closes_it(self) -> None:
        script = Script().ready()
        script.step(send("a"))
        script.answer(new_session=NEW, session_closed=True)
        assert script.last(wire.SessionClosed).reason == "model"
        assert not script.closing_models


class TestNeverSent:
    """A turn that waits for its endpoint: the session takes it for one that is there."""

    @pytest.mark.parametrize("opening", [Opening.CALL, Opening.TURN])
    def test_cancelled(self, opening: Opening) -> None:
        script = Script(opening=opening, transcript_turns=5)
        script.ready() if opening is Opening.CALL else script.start()
        for name in ("a", "b"):
            script.step(send(name))
        script.step(wire.MessageCancel(id="a"))
        script.step(on.InvokeCancelled(script.invoking[0].turn, Outcome.NOT_INVOKED))
        done = script.done["a"]
        assert (done.status, done.outcome) == ("cancelled", Outcome.NOT_INVOKED)
        assert "b" not in script.done, "which goes on"
        assert script.session.history.transcript.turns() == []

    def test_the_end_of_its_session(self) -> None:
        script = Script().ready()
        script.step(send("a"))
        script.step(wire.SessionClose())
        script.step(on.InvokeCancelled(1, Outcome.NOT_INVOKED))
        done = script.done["a"]
        assert (done.status, done.outcome) == ("cancelled", Outcome.NOT_INVOKED)

    def test_it_is_not_to_be_sent_when_its_session_has_expired(self) -> None:
        script = Script().ready()
        script.step(send("a"))
        assert script.last(do.Invoke).until == script.clock + 1195
        other = Script(opening=Opening.TURN).start()
        other.step(send("a"))
        assert other.last(do.Invoke).until is None


class TestTime:
    def test_a_client_is_warned_and_then_the_session_expires(self) -> None:
        script = Script().ready()
        script.fire(Timer.EXPIRING)
        assert script.last(wire.SessionExpiring).expires_at == "2027-01-15T08:20:00Z"
        script.step(send("a"))
        script.step(send("b"))
        script.fire(Timer.EXPIRY)
        assert script.error("b").outcome is Outcome.NOT_INVOKED
        script.step(on.InvokeCancelled(1))
        assert script.error("a").outcome is Outcome.UNKNOWN
        assert script.error("a").code is ErrorCode.SESSION_LOST
        script.closed()
        assert script.last(wire.SessionClosed).reason == "expired"
        assert script.socket == do.CloseClient(CloseCode.GONE, "session_lost")

    def test_a_session_is_never_used_past_its_margin(self) -> None:
        script = Script().ready()
        script.step(send("a"), after=1195)
        assert script.error("a").outcome is Outcome.NOT_INVOKED
        assert not script.invoking

    def test_a_turn_that_ends_past_it_before_the_timer_is_the_last(self) -> None:
        script = Script().ready()
        script.step(send("a"))
        script.detach()
        script.answer("hi", after=1195)
        assert script.done["a"].status == "completed"
        script.closed()
        assert script.last(wire.SessionClosed).reason == "expired", "not that nobody is there"

    def test_a_model_that_gives_no_expiry_gets_the_routes(self) -> None:
        script = Script(session_seconds=100).ready(ModelSession("m"))
        assert script.last(wire.SessionOpened).expires_at is None
        assert script.timers[Timer.EXPIRY] == START + 95

    def test_an_unused_session_is_closed(self) -> None:
        script = Script(idle_seconds=100).ready()
        script.step(send("a"), after=60)
        script.fire(Timer.IDLE)
        assert script.state is State.RUNNING
        script.answer()
        script.fire(Timer.IDLE)
        script.fire(Timer.CLOSING)
        assert script.last(wire.SessionClosed).reason == "idle"

    def test_a_used_session_is_not(self) -> None:
        script = Script(idle_seconds=100).ready()
        script.step(send("a"), after=60)
        script.answer(after=10)
        script.fire(Timer.IDLE)
        assert script.timers[Timer.IDLE] == START + 170


class TestDetaching:
    def test_an_unused_session_ends_with_its_connection(self) -> None:
        script = Script().ready()
        script.step(on.Detached(script.client))
        assert script.closing_models == [MODEL]

    def test_accepted_turns_are_finished_first(self) -> None:
        script = Script().ready()
        script.step(send("a"))
        script.step(send("b"))
        script.step(on.Detached(script.client))
        script.fire(Timer.DETACHED)
        script.answer()
        assert script.state is State.RUNNING
        script.answer()
        assert script.closing_models == [MODEL]
        assert all(done.status == "completed" for done in script.done.values())

    def test_a_session_is_kept_as_long_as_the_client_may_come_back(self) -> None:
        script = Script(resume_seconds=30).ready()
        script.step(on.Detached(script.client))
        assert script.state is State.READY
        script.fire(Timer.DETACHED)
        assert script.closing_models == [MODEL]
        script.closed()
        assert script.last(wire.SessionClosed).reason == "idle"

    def test_a_turn_that_ends_in_time_ends_nothing_else(self) -> None:
        script = Script(resume_seconds=30).ready()
        script.step(send("a"))
        script.step(on.Detached(script.client))
        script.answer(after=10)
        assert script.state is State.READY


class TestDraining:
    def test_an_unused_session_closes(self) -> None:
        script = Script().ready()
        script.step(on.Drain())
        assert script.timers == {Timer.CLOSING: START + 10}
        script.closed()
        assert script.last(wire.SessionClosed).reason == "operator"
        assert script.socket == do.CloseClient(CloseCode.RESTARTING, "unavailable")

    def test_the_running_turn_finishes_and_the_others_may_be_sent_elsewhere(self) -> None:
        script = Script().ready()
        script.step(send("a"))
        script.step(send("b"))
        script.step(on.Drain())
        assert script.error("b").retryable
        assert Timer.CLOSING not in script.timers
        assert script.step(on.Drain()) == []
        script.answer(after=7)
        assert script.done["a"].status == "completed"
        assert script.closing_models == [MODEL]
        assert script.timers == {Timer.CLOSING: START + 17}

    def test_nobody_comes_back_to_a_gateway_that_goes(self) -> None:
        script = Script(resume_seconds=30).ready()
        script.detach()
        script.step(on.Drain())
        script.closed()
        assert script.state is State.CLOSED

    def test_nor_to_a_session_that_was_being_closed_already(self) -> None:
        script = Script(resume_seconds=30).ready()
        script.moves = False  # what can move is not drained
        script.step(wire.SessionClose())
        script.step(on.Drain())
        script.closed()
        assert script.last(wire.SessionClosed).reason == "client"
        assert script.state is State.CLOSED

    def test_when_time_is_up_it_is_cancelled(self) -> None:
        script = Script().ready()
        script.step(send("a"))
        script.step(on.Drain())
        assert script.step(on.Drain(force=True)) == [do.CancelInvoke(1)]
        script.step(on.InvokeCancelled(1))
        assert script.error("a").outcome is Outcome.UNKNOWN
        assert not script.error("a").retryable
        assert script.step(on.Drain(force=True)) == []


class TestEvicting:
    def test_it_ends_as_if_its_client_had_asked_and_says_who_has(self) -> None:
        script = Script(resume_seconds=30).ready()
        script.step(send("a"))
        script.step(send("b"))
        script.step(on.Evict())
        assert script.timers == {Timer.CLOSING: START + 10}
        assert script.error("b").code is ErrorCode.SESSION_LOST
        assert script.error("b").outcome is Outcome.NOT_INVOKED
        script.step(on.InvokeCancelled(1))
        assert script.error("a").outcome is Outcome.UNKNOWN
        script.closed()
        assert script.last(wire.SessionClosed).reason == "operator"
        assert script.socket == do.CloseClient(CloseCode.GONE, "session_lost")
        assert script.step(on.Evict()) == []

    def test_who_is_not_there_finds_out_when_it_comes_back(self) -> None:
        script = Script(resume_seconds=30).ready()
        script.detach()
        script.step(on.Evict())
        script.closed()
        assert script.state is State.ENDED
        assert Timer.DETACHED in script.timers


class TestBodies:
    def test_requests(self) -> None:
        script = Script(opening=Opening.NONE).start()
        for message, body, content_type in (
            (wire.MessageSend(id="1", json=Raw(b'{"a": 1}')), b'{"a": 1}', "application/json"),
            (wire.MessageSend(id="2", data=b"\x00"), b"\x00", "application/octet-stream"),
            (wire.MessageSend(id="3", data=b"", content_type="a/b"), b"", "a/b"),
        ):
            script.step(message)
            assert script.last(do.Invoke).request == request(body, content_type)
            script.answer()

    def test_the_routes_content_type_comes_before_the_bodys(self) -> None:
        script = Script(opening=Opening.NONE, content_type="a/b").start()
        script.step(send("a"))
        assert script.last(do.Invoke).request.content_type == "a/b"

    @pytest.mark.parametrize(
        ("body", "content_type", "json_replies", "field", "value"),
        [
            (b"hi", "text/html", False, "text", "hi"),
            (b"{}", "application/json; charset=utf-8", False, "text", "{}"),
            (b"{}", "application/vnd.api+json", False, "text", "{}"),
            (b"{}", "application/json", True, "json", b"{}"),
            (b"{}", None, True, "json", b"{}"),
            (b"{", "application/json", True, "text", "{"),
            (b'"\xff"', "application/json", True, "base64", b'"\xff"'),
            (b"1e999", "application/json", True, "json", b"1e999"),
            (b"hi", " text/plain", False, "text", "hi"),
            (b"\xff", "text/plain", False, "base64", b"\xff"),
            (b"hi", "application/octet-stream", False, "base64", b"hi"),
            (b"hi", None, False, "base64", b"hi"),
        ],
    )
    def test_replies(
        self,
        body: bytes,
        content_type: str | None,
        json_replies: bool,
        field: str,
        value: object,
    ) -> None:
        script = Script(opening=Opening.NONE, json_replies=json_replies).start()
        script.step(send("a"))
        script.step(on.ReplyEnded(1, ModelReply(body=body, content_type=content_type)))
        done = script.done["a"]
        got = getattr(done, field)
        assert (bytes(got) if isinstance(got, Raw) else got) == value
        assert [done.text, done.json, done.base64].count(UNSET) == 2
        assert done.content_type == (UNSET if content_type is None else content_type)


class TestTheTable:
    def test_a_pair_that_is_not_there_is_an_error(self) -> None:
        with pytest.raises(UnexpectedEvent, match="Start while ready"):
            Script().ready().handle(on.Start(key=b"", client=1))

    def test_a_completion_of_no_turn_is_an_error(self) -> None:
        script = Script().ready()
        script.step(send("a"))
        with pytest.raises(UnexpectedEvent, match="turn 2"):
            script.handle(on.InvokeCancelled(2))

    def test_every_action_says_what_it_does(self) -> None:
        for transition in TABLE.values():
            assert getattr(Session, f"_{transition.action}").__doc__
        for at_model in UPSTREAM.values():
            assert getattr(Upstream, f"_{at_model.action}").__doc__

    def test_a_pair_is_there_once(self) -> None:
        row = ((State.READY,), on.Drain, "drain", ())
        with pytest.raises(ValueError, match="twice"):
            table([row, row])

    def test_nothing_to_follow_is_the_state_that_it_was_in(self) -> None:
        live = (State.READY, State.RUNNING)
        made = table([(live, on.Drain, "drain", ()), (live, on.Written, "written", live)])
        assert [made[state, on.Drain].to for state in live] == [{state} for state in live]
        assert [made[state, on.Written].to for state in live] == [{*live}, {*live}]

    def test_nothing_is_asked_for_but_in_answer_to_an_event(self) -> None:
        """What was asked for is kept no longer, for it may hold large bodies."""
        with pytest.raises(AttributeError):
            Script().ready().session.out.do(do.OpenSession())

    def test_nothing_happens_at_the_model_that_can_not(self) -> None:
        with pytest.raises(UnexpectedEvent, match="Lost while opening at the model"):
            Script().start().session.upstream.handle(Lost(Recovery.NONE))
