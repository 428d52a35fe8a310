"""Expiry and loss: a new session takes the old one's place, told or not told what was said."""

import msgspec
import pytest

from gateway.errors import ErrorCode, Failure, Outcome
from gateway.formats.templates import fill
from gateway.protocol import messages as wire
from gateway.session import effects as do
from gateway.session import events as on
from gateway.session.events import Timer
from gateway.session.policy import Opening, Recovery
from gateway.session.ports import ModelReply, ModelRequest, ModelSession
from gateway.session.table import State
from gateway.session.transcript import Exchange, Line, Transcript, told
from gateway.session.transitions import UnexpectedEvent
from tests.support.script import MODEL, START, Script, failure, reply, send

LOST = Failure(code=ErrorCode.SESSION_LOST, message="Gone.")
THROTTLED = Failure(code=ErrorCode.THROTTLED, message="Wait.")
NEW = ModelSession("model-2", expires_at=START + 5000)


def said(script: Script) -> list[bytes]:
    return [invoke.request.body for invoke in script.invoking]


def replaying(**policy: object) -> Script:
    """A session that is lost with its second turn; another is open, and told of the first."""
    script = Script(on_lost=Recovery.REPLAY, **policy).ready()
    script.step(send("a", "one"))
    script.answer()
    script.step(send("b", "two"))
    script.fail(LOST)
    script.step(on.Opened(NEW))
    return script


class TestLoss:
    def test_the_turn_goes_on_in_a_new_session(self) -> None:
        script = Script(on_lost=Recovery.RENEW).ready()
        script.step(send("a"))
        script.step(send("b"))
        script.fail(LOST)
        assert script.stands(State.RENEWING)
        assert script.effects[-1] == do.OpenSession()
        assert script.session.model is None
        script.step(on.Opened(NEW))
        assert script.last(wire.SessionRenewed) == wire.SessionRenewed(
            event=4, reason="lost", context="lost", expires_at="2027-01-15T09:23:20Z"
        )
        assert script.invoking[0].model == NEW
        assert Timer.EXPIRING in script.timers
        script.answer()
        script.answer()
        assert {done.status for done in script.done.values()} == {"completed"}

    def test_what_was_said_is_said_again_before_the_turn_goes_on(self) -> None:
        script = Script(on_lost=Recovery.REPLAY, streams=True).ready()
        for number, text in enumerate(("one", "two")):
            script.step(send(str(number), text))
            script.answer()
        script.step(send("c", "three"))
        script.fail(LOST)
        script.step(on.Opened(NEW))
        for body in (b"one", b"two"):
            assert said(script) == [body]
            assert not script.invoking[0].request.stream
            script.step(on.ReplyParts(script.invoking[0].turn, ["nobody reads this"]))
            script.answer()
        renewed = script.last(wire.SessionRenewed)
        assert (renewed.reason, renewed.context) == ("lost", "replayed")
        assert said(script) == [b"three"]
        script.answer("3")
        assert script.done["c"].text == "3"
        assert len(script.events) == 1 + 2 * 3 + 1, "replies to the replay are for nobody"

    def test_a_model_that_loses_every_session_is_not_hammered(self) -> None:
        script = Script(on_lost=Recovery.RENEW).ready()
        script.step(send("a"))
        script.fail(LOST)
        script.step(on.Opened(NEW))
        script.fail(LOST)
        assert script.error("a").code is ErrorCode.SESSION_LOST
        assert script.last(wire.SessionClosed).reason == "lost"

    @pytest.mark.parametrize("outcome", [Outcome.UNKNOWN, Outcome.INVOKED])
    def test_a_turn_that_it_may_have_seen_is_not_sent_again(self, outcome: Outcome) -> None:
        script = Script(on_lost=Recovery.RENEW).ready()
        script.step(send("a"))
        script.fail(failure(ErrorCode.SESSION_LOST, outcome))
        assert script.error("a").outcome is outcome
        assert script.stands(State.READY)
        script.step(send("b"))
        assert script.stands(State.RENEWING)

    def test_a_session_that_can_not_be_opened_fails_what_waits(self) -> None:
        script = Script(on_lost=Recovery.RENEW, retries=1).ready()
        script.step(send("a"))
        script.fail(LOST)
        script.step(on.OpenFailed(THROTTLED))
        assert script.stands(State.RENEWING)
        script.fire(Timer.RETRY_OPEN)
        script.step(on.OpenFailed(THROTTLED))
        assert script.error("a").code is ErrorCode.THROTTLED
        assert script.stands(State.READY)
        script.step(send("b"))
        script.step(on.Opened(NEW))
        assert script.last(wire.SessionRenewed).reason == "lost"

    def test_a_replay_that_is_turned_away_is_tried_again(self) -> None:
        script = replaying(retries=1)
        script.fail(THROTTLED)
        script.fire(Timer.RETRY_REPLAY)
        assert said(script) == [b"one"]
        script.fail(THROTTLED)
        assert script.last(do.CloseSession).model == NEW, "which may have been told a part"
        assert script.error("b").outcome is Outcome.NOT_INVOKED
        assert script.error("b").code is ErrorCode.THROTTLED
        assert script.state is State.READY
        script.step(on.CloseEnded(NEW))
        script.step(send("c", "three"))
        script.step(on.Opened(MODEL))
        script.fail(THROTTLED)
        script.fire(Timer.RETRY_REPLAY)
        script.answer()
        assert script.last(wire.SessionRenewed).context == "replayed"
        assert said(script) == [b"three"]

    def test_a_replay_that_may_have_been_heard_in_part_is_the_end(self) -> None:
        script = replaying()
        script.fail(Failure(code=ErrorCode.UNAVAILABLE, message="", outcome=Outcome.UNKNOWN))
        assert script.last(do.CloseSession).model == NEW
        script.closed()
        assert script.last(wire.SessionClosed).reason == "lost"

    def test_a_replay_may_lose_its_session_too(self) -> None:
        script = replaying()
        script.fail(LOST)
        assert script.last(wire.SessionClosed).reason == "lost"
        assert not script.closing_models

    def test_a_replay_may_get_another_id_or_be_closed(self) -> None:
        script = Script(on_lost=Recovery.REPLAY).ready()
        for text in ("one", "two"):
            script.step(send(text, text))
            script.answer()
        script.step(send("c", "three"))
        script.fail(LOST)
        script.step(on.Opened(ModelSession("model-3")))
        script.answer(new_session=NEW)
        assert script.invoking[0].model == NEW
        script.answer(session_closed=True)
        assert script.last(wire.SessionClosed).reason == "model"

    def test_the_first_turn_may_open_the_new_session(self) -> None:
        script = Script(opening=Opening.TURN, on_lost=Recovery.REPLAY).start()
        script.step(send("a", "one"))
        script.answer(new_session=MODEL)
        script.step(send("b", "two"))
        script.fail(LOST)
        assert said(script) == [b"one"]
        assert script.invoking[0].model is None
        script.answer(new_session=NEW)
        assert script.last(wire.SessionRenewed).context == "replayed"
        assert script.invoking[0].model == NEW

    def test_a_first_turn_that_opens_none_ends_it(self) -> None:
        script = Script(opening=Opening.TURN, on_lost=Recovery.REPLAY).start()
        script.step(send("a", "one"))
        script.answer(new_session=MODEL)
        script.step(send("b", "two"))
        script.fail(LOST)
        script.answer()
        assert script.last(wire.SessionClosed).reason == "lost"

    def test_the_end_comes_while_it_is_replayed(self) -> None:
        for finish in (
            on.InvokeCancelled(3),
            on.ReplyEnded(3, reply()),
            on.InvokeFailed(3, failure()),
        ):
            script = Script(on_lost=Recovery.REPLAY).ready()
            script.step(send("a", "one"))
            script.answer()
            script.step(send("b", "two"))
            script.fail(LOST)
            script.step(on.Opened(NEW))
            number = script.invoking[0].turn
            script.step(wire.SessionClose())
            assert do.CancelInvoke(number) in script.effects
            script.step(on.ReplyParts(number, ["x"]))
            script.step(msgspec.structs.replace(finish, turn=number))
            assert script.last(do.CloseSession).model == NEW
            script.closed()
            assert script.done["b"].outcome is Outcome.NOT_INVOKED

    def test_a_completion_of_no_replay_is_an_error(self) -> None:
        script = Script(on_lost=Recovery.RENEW).ready()
        script.step(send("a"))
        script.fail(LOST)
        with pytest.raises(UnexpectedEvent):
            script.handle(on.ReplyEnded(1, reply()))

    def test_nor_is_that_of_another_step(self) -> None:
        script = Script(on_lost=Recovery.REPLAY).ready()
        script.step(send("a"))
        script.answer()
        script.step(send("b"))
        script.fail(LOST)
        script.step(on.Opened(NEW))
        step = script.invoking[0].turn
        for late in (on.ReplyEnded(step - 1, reply()), on.InvokeFailed(step - 1, LOST)):
            with pytest.raises(UnexpectedEvent, match=f"step {step - 1} is not at the model"):
                script.handle(late)

    def test_the_timers_of_the_old_session_go_with_it(self) -> None:
        script = Script(on_lost=Recovery.RENEW).ready()
        script.step(send("a"))
        script.fail(LOST)
        assert script.timers == {Timer.IDLE: START + 600}

    def test_after_a_renewal_a_session_is_as_any_other(self) -> None:
        script = Script(on_lost=Recovery.RENEW).ready()
        script.step(send("a"))
        script.fail(LOST)
        script.step(on.Opened(NEW))
        script.answer(new_session=MODEL)
        assert script.last(wire.SessionUpdated).expires_at == "2027-01-15T08:20:00Z"

    def test_a_message_is_accepted_meanwhile(self) -> None:
        script = Script(on_lost=Recovery.RENEW, resume_seconds=30).ready()
        script.step(send("a"))
        script.fail(LOST)
        script.step(on.Detached(script.client))
        script.step(send("b"))
        assert script.last(wire.MessageAccepted).queued == 1


class TestExpiry:
    def test_an_unused_session_is_let_go_and_the_next_message_gets_another(self) -> None:
        script = Script(on_expiry=Recovery.RENEW).ready()
        assert Timer.EXPIRING not in script.timers
        script.fire(Timer.EXPIRY)
        assert script.stands(State.READY)
        assert script.closing_models == [MODEL]
        assert script.session.model is None
        script.closed()
        script.step(send("a"), after=1.0)
        script.step(on.Opened(NEW))
        assert script.last(wire.SessionRenewed).reason == "expiring"

    @pytest.mark.parametrize("after", [5, 105])
    def test_long_after(self, after: int) -> None:
        script = Script(on_expiry=Recovery.RENEW, idle_seconds=5000).ready()
        script.fire(Timer.EXPIRY)
        script.step(send("a"), after=after)
        script.step(on.Opened(NEW))
        assert script.last(wire.SessionRenewed).reason == "expired"

    def test_the_turn_at_the_model_finishes(self) -> None:
        script = Script(on_expiry=Recovery.RENEW).ready()
        script.step(send("a"), after=1190)
        script.step(send("b"))
        script.fire(Timer.EXPIRY)
        assert script.stands(State.RUNNING)
        assert script.effects == []
        assert script.session.model == MODEL
        script.answer()
        assert script.done["a"].status == "completed"
        assert script.closing_models == [MODEL]
        assert script.stands(State.RENEWING)

    def test_nothing_is_opened_for_nobody(self) -> None:
        script = Script(on_expiry=Recovery.RENEW).ready()
        script.step(send("a"), after=1190)
        script.fire(Timer.EXPIRY)
        script.answer()
        assert script.closing_models == [MODEL]
        assert script.stands(State.READY)
        assert not script.opening

    def test_a_turn_that_waits_to_be_sent_again_gets_another_session(self) -> None:
        script = Script(on_expiry=Recovery.REPLAY).ready()
        script.step(send("a"), after=1194)
        script.fail(THROTTLED)
        script.fire(Timer.EXPIRY)
        script.fire(Timer.RETRY_TURN)
        assert script.stands(State.RENEWING)
        script.step(on.Opened(NEW))
        assert script.last(wire.SessionRenewed).context == "replayed"

    def test_a_session_that_expires_before_it_is_used_is_no_use(self) -> None:
        script = Script(on_expiry=Recovery.RENEW).start()
        script.step(send("a"))
        script.step(on.Opened(ModelSession("m", expires_at=START + 2)))
        assert script.error("a").code is ErrorCode.SESSION_LOST
        assert script.last(do.CloseSession).model.id == "m"

    def test_nor_one_that_expires_while_it_is_told(self) -> None:
        script = Script(on_expiry=Recovery.REPLAY).ready()
        script.step(send("a"))
        script.answer()
        script.fire(Timer.EXPIRY)
        script.step(send("b"))
        script.step(on.Opened(ModelSession("m", expires_at=script.now + 6)))
        script.fire(Timer.EXPIRY)
        assert script.error("b").outcome is Outcome.NOT_INVOKED

    def test_the_end_waits_for_the_old_sessions_to_close(self) -> None:
        script = Script(on_expiry=Recovery.RENEW, idle_seconds=5000).ready()
        script.fire(Timer.EXPIRY)
        script.step(send("a"))
        script.step(on.Opened(NEW))
        script.answer()
        script.fire(Timer.EXPIRY)
        assert script.closing_models == [MODEL, NEW]
        script.step(wire.SessionClose())
        for model in (NEW, MODEL):
            assert script.stands(State.CLOSING)
            script.step(on.CloseEnded(model))
        assert script.stands(State.CLOSED)

    def test_but_not_for_those_that_are_closed(self) -> None:
        script = Script(on_expiry=Recovery.RENEW).ready()
        script.fire(Timer.EXPIRY)
        script.closed()
        script.step(wire.SessionClose())
        assert script.stands(State.CLOSED)

    def test_the_session_is_of_no_use_from_the_moment_in_which_it_expires(self) -> None:
        script = Script(on_expiry=Recovery.RENEW).start()
        script.step(on.Opened(ModelSession("m", expires_at=START + 5)))
        assert script.last(do.CloseSession).model.id == "m"
        assert script.stands(State.CLOSING)


class TestSeed:
    def test_one_message_tells_of_all(self) -> None:
        script = Script(on_lost=Recovery.REPLAY, seed="We said:\n$transcript", streams=True).ready()
        script.step(send("a", "one"))
        script.part("1")
        script.part("!")
        script.part(b"\xff")  # no text, so no part of what was said
        streamed = ModelReply(body=None, content_type="text/plain")
        script.step(on.ReplyEnded(script.invoking[0].turn, streamed))
        script.step(send("b", "two"))
        script.answer("2")
        script.step(send("c", "three"))
        script.fail(LOST)
        script.step(on.Opened(NEW))
        assert said(script) == [b"We said:\nUser: one\nAssistant: 1!\nUser: two\nAssistant: 2"]
        told = script.invoking[0].request
        assert (told.stream, told.sha256) == (False, None), "it is another body"
        script.answer()
        assert said(script) == [b"three"]

    def test_as_json(self) -> None:
        script = Script(
            on_lost=Recovery.REPLAY, seed={"messages": "$messages", "max_tokens": 1}
        ).ready()
        script.step(send("a", "one"))
        script.answer("1")
        script.step(send("b", "two"))
        script.fail(LOST)
        script.step(on.Opened(NEW))
        assert msgspec.json.decode(script.invoking[0].request.body) == {
            "messages": [
                {"role": "user", "content": "one"},
                {"role": "assistant", "content": "1"},
            ],
            "max_tokens": 1,
        }
        assert script.invoking[0].request.content_type == "application/json"

    def test_a_text_is_sent_as_one_whatever_the_turns_are_sent_as(self) -> None:
        script = Script(
            on_lost=Recovery.REPLAY, seed="$transcript", template={"all": "$messages"}
        ).ready()
        script.step(send("a", "one"))
        script.answer("1")
        script.step(send("b", "two"))
        assert said(script) == [b'{"all":[{"role":"user","content":"two"}]}']
        assert script.invoking[0].request.content_type == "application/json"
        script.fail(LOST)
        script.step(on.Opened(NEW))
        assert script.invoking[0].request.content_type == "text/plain; charset=utf-8"

    def test_what_is_no_text_can_not_be_told(self) -> None:
        script = Script(on_lost=Recovery.REPLAY, seed="$transcript").ready()
        script.step(wire.MessageSend(id="a", data=b"\x00"))
        script.answer()
        script.step(send("b", "two"))
        script.fail(LOST)
        script.step(on.Opened(NEW))
        assert said(script) == [b"two"]

    def test_a_reply_is_kept_up_to_a_bound(self) -> None:
        script = Script(
            on_lost=Recovery.REPLAY, seed="$transcript", transcript_bytes=20, streams=True
        ).ready()
        script.step(send("a", "one"))
        for _ in range(100):
            script.part("x" * 10)
        running = script.session.turns.running
        assert running is not None
        assert running.heard == ["x" * 10] * 3, "one part too many, so that it is not kept"


class TestTranscript:
    def test_what_an_exchange_holds(self) -> None:
        request = ModelRequest(body=b"12345", content_type="text/plain")
        assert Exchange(request).size == 5
        assert Exchange(request, "木", "ab").size == 10

    def test_what_a_template_has_no_place_for_is_not_told(self) -> None:
        lines: list[Line] = [("user", "Hi."), ("assistant", "Hello.")]
        assert told(lines, ["$transcript"]) == {"transcript": "User: Hi.\nAssistant: Hello."}
        messages = [{"role": role, "content": content} for role, content in lines]
        assert told(lines, {"all": "$messages"}) == {"messages": messages}

    def exchange(self, text: str) -> Exchange:
        return Exchange(ModelRequest(body=text.encode(), content_type="text/plain"), text, "")

    def test_bounds(self) -> None:
        transcript = Transcript(max_turns=2, max_bytes=10)
        for text in ("1", "2", "3"):
            transcript.add(self.exchange(text))
        assert [request.body for request in transcript.turns()] == [b"2", b"3"]
        transcript.add(self.exchange("12345"))
        assert [request.body for request in transcript.turns()] == [b"12345"]
        transcript.add(self.exchange("123456"))
        assert transcript.turns() == []


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("$text", "a $stream b"),
        ("<$text|$stream|$other>", "<a $stream b|true|$other>"),
        (
            {"s": "$stream", "n": 1, "l": ["$text", None]},
            {"s": True, "n": 1, "l": ["a $stream b", None]},
        ),
    ],
)
def test_templates(template: object, filled: object) -> None:
    assert fill(template, {"text": "a $stream b", "stream": True}) == filled


def test_a_template_makes_the_models_body_from_the_users_text() -> None:
    script = Script(template={"inputs": "$text", "stream": "$stream"}, streams=True).ready()
    script.step(send("a", "Hi"))
    request = script.invoking[0].request
    assert request.body == b'{"inputs":"Hi","stream":true}'
    assert request.content_type == "application/json"
    script.step(send("a", "Hi", stream=False))
    assert script.last(wire.MessageDuplicate).id == "a"
    script.answer()
    script.step(wire.MessageSend(id="b", data=b"Hi"))
    assert script.invoking[0].request.body == b"Hi"
