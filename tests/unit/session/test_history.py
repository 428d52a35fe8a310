"""Models that keep no history: each turn carries what was said before it."""

from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from gateway.errors import ErrorCode, Failure, Outcome
from gateway.protocol import messages as wire
from gateway.session import events as on
from gateway.session.events import Timer
from gateway.session.policy import Opening, Recovery
from gateway.session.ports import ModelReply, ModelSession
from gateway.session.table import State
from gateway.session.turn_queue import REMEMBERED_BYTES
from tests.support.script import START, Script, failure, reply, send

LOST = Failure(code=ErrorCode.SESSION_LOST, message="Gone.")
THROTTLED = Failure(code=ErrorCode.THROTTLED, message="Wait.")
NEW = ModelSession("model-2", expires_at=START + 5000)

Messages = list[dict[str, str]]


def chat(**policy: Any) -> Script:
    """A route whose model keeps no history, with its session open."""
    defaults: dict[str, Any] = {
        "template": {"messages": "$messages", "stream": "$stream"},
        "sends_history": True,
        "streams": True,
        "on_expiry": Recovery.RENEW,
        "on_lost": Recovery.RENEW,
    }
    return Script(**defaults | policy).ready()


def sent(script: Script) -> Messages:
    """The messages of the turn that is at the model."""
    (invoke,) = script.invoking
    messages: Messages = msgspec.json.decode(invoke.request.body)["messages"]
    return messages


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_each_turn_carries_what_was_said_before() -> None:
    script = chat(system="Be brief.")
    system = {"role": "system", "content": "Be brief."}
    script.step(send("a", "I am Ada."))
    assert sent(script) == [system, user("I am Ada.")]
    script.part("Hello ")
    script.part("Ada.")
    script.step(on.ReplyEnded(script.invoking[0].turn, reply_in_parts()))
    script.step(send("b", "Who am I?", stream=False))
    assert sent(script) == [system, user("I am Ada."), assistant("Hello Ada."), user("Who am I?")]
    assert not script.invoking[0].request.stream
    script.answer("Ada.")
    script.step(send("c", "木"))
    assert sent(script)[-3:] == [user("Who am I?"), assistant("Ada."), user("木")]
    assert script.done["b"].dropped_turns is UNSET


def reply_in_parts() -> Any:
    return msgspec.structs.replace(reply(), body=None)


def test_the_same_as_text() -> None:
    script = chat(template={"inputs": "$transcript\nAssistant:", "last": "$text"}, system="Hm.")
    script.step(send("a", "one"))
    script.answer("1")
    script.step(send("b", "two"))
    assert msgspec.json.decode(script.invoking[0].request.body) == {
        "inputs": "System: Hm.\nUser: one\nAssistant: 1\nUser: two\nAssistant:",
        "last": "two",
    }


def test_a_model_that_keeps_it_is_sent_the_newest_alone() -> None:
    script = chat(sends_history=False)
    for text in ("one", "two"):
        script.step(send(text, text))
        assert sent(script) == [user(text)]
        script.answer()


def test_a_turn_that_waited_carries_what_was_said_meanwhile() -> None:
    script = chat()
    script.step(send("a", "one"))
    script.step(send("b", "two"))
    script.answer("1")
    assert sent(script) == [user("one"), assistant("1"), user("two")]


def test_a_stopped_turn_is_kept_with_what_the_client_heard() -> None:
    script = chat()
    script.step(send("a", "Count."))
    script.part("1 2 ")
    script.step(wire.MessageCancel(id="a"))
    script.step(on.InvokeCancelled(script.invoking[0].turn))
    script.step(send("b", "Go on."))
    script.step(wire.MessageCancel(id="b"))
    script.step(on.InvokeCancelled(script.invoking[0].turn))
    script.step(send("c", "Well?"))
    assert sent(script) == [
        user("Count."),
        assistant("1 2 "),
        user("Go on."),
        assistant(""),
        user("Well?"),
    ], "roles alternate, as templates of chats demand"


def test_what_the_model_never_saw_is_not_kept() -> None:
    script = chat(retries=0)
    script.step(send("a", "one"))
    script.step(send("b", "two"))
    script.step(wire.MessageCancel(id="b"))
    script.step(wire.MessageCancel(id="a"))
    script.fail(THROTTLED)
    assert {done.status for done in script.done.values()} == {"cancelled"}
    script.step(send("c", "three"))
    assert sent(script) == [user("three")]


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_failed_turn_is_not_kept(outcome: Outcome) -> None:
    script = chat()
    script.step(send("a", "one"))
    script.part("1")
    script.fail(failure(ErrorCode.MODEL_ERROR, outcome))
    script.step(send("b", "two"))
    assert sent(script) == [user("two")]


@pytest.mark.parametrize("outcome", [Outcome.UNKNOWN, Outcome.INVOKED])
def test_nor_is_one_that_failed_before_it_could_be_stopped(outcome: Outcome) -> None:
    script = chat()
    script.step(send("a", "what the model refuses"))
    script.step(wire.MessageCancel(id="a"))
    script.fail(failure(ErrorCode.MODEL_ERROR, outcome))
    assert script.done["a"].status == "cancelled"
    script.step(send("b", "Count."))
    script.part("1 ")
    script.step(wire.MessageCancel(id="b"))
    script.fail(failure(ErrorCode.STREAM_BROKEN, outcome))
    script.step(send("c", "three"))
    assert sent(script) == [user("Count."), assistant("1 "), user("three")]


def test_one_that_was_faster_than_its_stopping_is() -> None:
    script = chat()
    script.step(send("a", "one"))
    script.step(wire.MessageCancel(id="a"))
    script.answer("1")
    assert script.done["a"].status == "completed"
    assert sent_of(script, "b") == [user("one"), assistant("1"), user("b")]


def test_what_is_no_text_goes_as_it_is_and_is_no_part_of_it() -> None:
    script = chat()
    script.step(send("a", "one"))
    script.answer("1")
    script.step(wire.MessageSend(id="b", json=msgspec.Raw(b'{"messages":[]}')))
    script.part("what a caller with a history of its own hears")
    assert script.invoking[0].request.body == b'{"messages":[]}'
    script.answer("2")
    script.step(send("c", "three"))
    assert sent(script) == [user("one"), assistant("1"), user("three")]
    script.fail(LOST)
    script.step(on.Opened(NEW))
    assert script.last(wire.SessionRenewed).context == "replayed"


def test_records_are_asked_of_the_model_and_are_no_words() -> None:
    script = chat(streams=True)
    body = msgspec.Raw(b'{"messages":[]}')
    script.step(wire.MessageSend(id="a", json=body, verbatim=True))
    assert script.invoking[0].request.verbatim
    script.part('{"choices":[]}')
    running = script.session.turns.running
    assert running is not None
    assert running.heard is None
    script.step(on.ReplyEnded(1, ModelReply(body=None, content_type="text/event-stream")))
    script.step(wire.MessageSend(id="b", json=body))
    assert not script.invoking[0].request.verbatim


@pytest.mark.parametrize(
    ("content_type", "kept"),
    [(None, "hi"), ("binary/octet-stream", "hi"), ("application/octet-stream", "hi"), ("a/b", "")],
)
def test_words_whose_type_nobody_has_named(content_type: str | None, kept: str) -> None:
    script = chat()
    script.step(send("a", "one"))
    turn = script.invoking[0].turn
    script.step(on.ReplyEnded(turn, ModelReply(body=b"hi", content_type=content_type)))
    script.step(send("b", "two"))
    assert sent(script) == [user("one"), assistant(kept), user("two")]


class TestBounds:
    def test_the_turns_that_no_longer_fit_are_counted(self) -> None:
        script = chat(transcript_turns=2)
        for number in range(5):
            script.step(send(str(number), str(number)))
            script.answer()
        assert sent_of(script, "x")[0] == user("3")
        dropped = [script.done[str(number)].dropped_turns for number in range(5)]
        assert dropped == [UNSET, UNSET, UNSET, 1, 2]

    def test_bytes_are_those_of_utf_8(self) -> None:
        script = chat(transcript_bytes=8)
        script.step(send("a", "木木"))
        script.answer("ab")
        assert sent_of(script, "b") == [user("木木"), assistant("ab"), user("b")]
        script.answer("")
        script.step(send("c", "c"))
        assert sent(script) == [user("b"), assistant(""), user("c")]
        script.fail(failure())
        assert script.done["c"].dropped_turns == 1, "also where it failed"

    @pytest.mark.parametrize(
        ("less", "dropped"), [(0, 0), (1, 1), (20, 1), (21, 2), (50, 3), (900, 3)]
    )
    def test_a_body_holds_no_more_than_it_may(self, less: int, dropped: int) -> None:
        whole = self.asked(None)
        assert len(sent(whole)) == 8
        most = len(whole.invoking[0].request.body) - less
        script = self.asked(most)
        body = script.invoking[0].request.body
        assert len(body) <= most or len(sent(script)) == 2
        assert sent(script) == sent(whole)[:1] + sent(whole)[1 + 2 * dropped :]
        script.answer()
        assert script.done["x"].dropped_turns == (dropped or UNSET)

    def asked(self, most: int | None) -> Script:
        """Three turns of twenty bytes each, which JSON makes longer, and one more."""
        script = chat(body_bytes=most, system="s")
        for number in range(3):
            script.step(send(str(number), '"' * 10))
            script.answer("\n" * 10)
        script.step(send("x", "x"))
        return script

    def test_an_exchange_that_is_too_large_by_itself(self) -> None:
        script = chat(transcript_bytes=4)
        script.step(send("a", "1"))
        script.answer("2")
        script.step(send("b", ""))
        for _ in range(3):
            script.part("12345")
        script.step(on.ReplyEnded(script.invoking[0].turn, reply_in_parts()))
        assert sent_of(script, "c") == [user("c")]
        script.answer("")
        assert script.done["c"].dropped_turns == 2


def sent_of(script: Script, text: str) -> Messages:
    """What is sent for one more message."""
    script.step(send(text, text))
    return sent(script)


class TestNewSessions:
    @pytest.mark.parametrize("recovery", [Recovery.RENEW, Recovery.REPLAY])
    def test_loss_costs_nothing(self, recovery: Recovery) -> None:
        script = chat(on_lost=recovery)
        script.step(send("a", "one"))
        script.answer("1")
        script.step(send("b", "two"))
        script.fail(LOST)
        script.step(on.Opened(NEW))
        renewed = script.last(wire.SessionRenewed)
        assert (renewed.reason, renewed.context) == ("lost", "replayed")
        assert sent(script) == [user("one"), assistant("1"), user("two")]
        assert script.invoking[0].model == NEW

    def test_nor_does_expiry(self) -> None:
        script = chat()
        script.step(send("a", "one"))
        script.answer("1")
        script.fire(Timer.EXPIRY)
        script.step(send("b", "two"))
        assert script.stands(State.RENEWING)
        script.step(on.Opened(NEW))
        assert script.last(wire.SessionRenewed).context == "replayed"
        assert sent(script) == [user("one"), assistant("1"), user("two")]

    def test_a_history_that_is_not_whole_is_said_to_be_partial(self) -> None:
        script = chat(transcript_turns=1)
        for text in ("one", "two"):
            script.step(send(text, text))
            script.answer()
        script.step(send("c", "three"))
        script.fail(LOST)
        script.step(on.Opened(NEW))
        assert script.last(wire.SessionRenewed).context == "partial"
        script.answer()
        assert script.done["c"].dropped_turns == 1

    def test_a_first_turn_that_opens_the_session_carries_it_too(self) -> None:
        script = Script(
            opening=Opening.TURN,
            template="$messages",
            sends_history=True,
            on_lost=Recovery.RENEW,
        ).start()
        script.step(send("a", "one"))
        script.answer("1", new_session=NEW)
        script.step(send("b", "two"))
        script.fail(LOST)
        body = msgspec.json.decode(script.invoking[0].request.body)
        assert body == [user("one"), assistant("1"), user("two")]
        assert script.invoking[0].model is None


class TestReplays:
    """Of models that keep their history."""

    @staticmethod
    def context(script: Script) -> str:
        script.step(send("z", "z"))
        script.fail(LOST)
        script.step(on.Opened(NEW))
        while script.stands(State.RENEWING):
            script.answer()
        return script.last(wire.SessionRenewed).context

    @pytest.mark.parametrize("seed", [None, "$transcript"])
    def test_what_is_cut_off_makes_it_partial(self, seed: str | None) -> None:
        script = Script(on_lost=Recovery.REPLAY, seed=seed, transcript_turns=1).ready()
        for text in ("one", "two"):
            script.step(send(text, text))
            script.answer()
        assert self.context(script) == "partial"

    def test_so_does_what_is_not_in_words_where_words_are_told(self) -> None:
        script = Script(on_lost=Recovery.REPLAY, seed="$transcript").ready()
        script.step(wire.MessageSend(id="a", data=b"\x00"))
        script.answer()
        assert self.context(script) == "partial"

    def test_one_that_was_faster_than_its_stopping_is_sent_again(self) -> None:
        script = Script(on_lost=Recovery.REPLAY).ready()
        script.step(send("a", "one"))
        script.step(wire.MessageCancel(id="a"))
        script.answer()
        assert self.context(script) == "replayed"

    @pytest.mark.parametrize(("seed", "context"), [(None, "partial"), ("$transcript", "replayed")])
    def test_a_stopped_turn_is_told_but_not_sent_again(
        self, seed: str | None, context: str
    ) -> None:
        script = Script(on_lost=Recovery.REPLAY, seed=seed, streams=True).ready()
        script.step(send("a", "Count."))
        script.part("1 2 ")
        script.step(wire.MessageCancel(id="a"))
        script.step(on.InvokeCancelled(script.invoking[0].turn))
        script.step(send("z", "z"))
        script.fail(LOST)
        script.step(on.Opened(NEW))
        if seed is not None:
            assert script.invoking[0].request.body == b"User: Count.\nAssistant: 1 2 "
            script.answer()
        assert script.invoking[0].request.body == b"z"
        assert script.last(wire.SessionRenewed).context == context

    def test_nor_is_one_whose_body_is_made_of_words(self) -> None:
        script = Script(on_lost=Recovery.REPLAY, template={"inputs": "$text"}, streams=True).ready()
        script.step(send("a", "Count."))
        assert script.session.turns.queue.waiting == []
        script.step(send("b", "two"))
        assert script.session.turns.queue.waiting[0].request.body == b"", "it is made when sent"
        script.part("1 2 ")
        script.step(wire.MessageCancel(id="a"))
        script.step(on.InvokeCancelled(script.invoking[0].turn))
        script.fail(LOST)
        script.step(on.Opened(NEW))
        assert script.invoking[0].request.body == b'{"inputs":"two"}'
        assert script.last(wire.SessionRenewed).context == "partial"

    def test_the_body_made_of_words_is_sent_again(self) -> None:
        script = Script(on_lost=Recovery.REPLAY, template={"inputs": "$text"}).ready()
        script.step(send("a", "one"))
        script.answer()
        script.step(send("b", "two"))
        script.fail(LOST)
        script.step(on.Opened(NEW))
        assert script.invoking[0].request.body == b'{"inputs":"one"}'
        script.answer()
        assert script.invoking[0].request.body == b'{"inputs":"two"}'


def test_what_is_made_of_the_users_words_counts_as_held() -> None:
    script = Script(sends_history=True, template={"all": "$messages"}).ready()
    script.step(send("a", "hello"))
    body = script.invoking[0].request.body
    assert script.session.turns.queue.bytes == len(body) + len("hello")
    script.answer()
    assert script.session.turns.queue.bytes == REMEMBERED_BYTES
