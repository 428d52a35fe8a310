"""Sessions that go on with a conversation which was held elsewhere."""

from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from gateway.errors import ErrorCode, Failure, Outcome
from gateway.protocol import messages as wire
from gateway.session import effects as do
from gateway.session import events as on
from gateway.session.events import Timer
from gateway.session.policy import Opening, Policy, Recovery
from gateway.session.table import State
from gateway.session.transitions import UnexpectedEvent
from tests.support.script import MODEL, START, Script, failure, send

TOLD = (("one", "1"), ("two", "2"))
TEMPLATE = {"messages": "$messages", "stream": "$stream"}
THROTTLED = Failure(code=ErrorCode.THROTTLED, message="Wait.", retry_after=1.0)


def body(script: Script) -> Any:
    (invoke,) = script.invoking
    return invoke.request.body


def said(script: Script) -> list[str]:
    return [each["content"] for each in msgspec.json.decode(body(script))["messages"]]


@pytest.mark.parametrize(
    ("rules", "telling"),
    [
        ({}, None),
        ({"on_lost": Recovery.RENEW}, None),
        ({"on_lost": Recovery.REPLAY}, "replayed"),
        ({"on_expiry": Recovery.REPLAY}, "replayed"),
        ({"on_expiry": Recovery.REPLAY, "seed": "$transcript"}, "sent"),
        ({"seed": "$transcript", "opening": Opening.TURN}, "sent"),
        ({"seed": "$transcript", "opening": Opening.NONE}, None),
        ({"sends_history": True, "opening": Opening.NONE}, "sent"),
    ],
)
def test_how_a_session_can_be_told(rules: dict[str, Any], telling: str | None) -> None:
    assert Policy(route="chat", **rules).telling == telling


def test_a_history_that_the_gateway_keeps_begins_with_what_was_said() -> None:
    script = Script(template=TEMPLATE, sends_history=True).start(told=TOLD)
    script.step(on.Opened(MODEL))
    assert script.stands(State.READY)
    assert script.invoking == []
    script.step(send("a", "three"))
    assert said(script) == ["one", "1", "two", "2", "three"]
    script.answer("3")
    script.step(send("b", "four"))
    assert said(script) == ["one", "1", "two", "2", "three", "3", "four"]
    assert script.done["a"].dropped_turns is UNSET


def test_what_no_longer_fits_is_counted() -> None:
    script = Script(template=TEMPLATE, sends_history=True, transcript_turns=1).start(told=TOLD)
    script.step(on.Opened(MODEL))
    script.step(send("a", "three"))
    assert said(script) == ["two", "2", "three"]
    script.answer()
    assert script.done["a"].dropped_turns == 1


def test_a_model_that_keeps_it_is_told_before_its_session_is_used() -> None:
    script = Script(on_lost=Recovery.REPLAY, streams=True).start(told=TOLD)
    assert script.stands(State.RENEWING)
    script.step(on.Opened(MODEL))
    script.step(send("a", "three"))
    for words in (b"one", b"two"):
        assert body(script) == words
        assert not script.invoking[0].request.stream
        assert script.invoking[0].request.content_type == "text/plain; charset=utf-8"
        script.answer()
    assert body(script) == b"three"
    assert script.invoking[0].request.stream
    script.answer("3")
    assert script.done["a"].text == "3"
    kinds = [type(event) for event in script.events]
    assert kinds == [wire.SessionOpened, wire.MessageAccepted, wire.MessageDone], "and no renewal"


def test_it_is_told_ahead_of_the_first_message() -> None:
    script = Script(on_lost=Recovery.REPLAY).start(told=TOLD)
    script.step(on.Opened(MODEL))
    script.answer()
    script.answer()
    assert script.stands(State.READY)
    assert script.invoking == []


@pytest.mark.parametrize("template", [{"text": "$text"}, None])
def test_what_the_model_has_said_unasked_is_not_asked_for(template: Any) -> None:
    """As by a greeting, with which a conversation begins: the user has sent no empty message."""
    script = Script(on_lost=Recovery.REPLAY, template=template)
    script.start(told=(("", "Hello!"), *TOLD))
    script.step(on.Opened(MODEL))
    assert b"one" in body(script)
    script = Script(on_lost=Recovery.REPLAY, template=template).start(told=(("", "Hello!"),))
    script.step(on.Opened(MODEL))
    assert script.stands(State.READY)
    assert script.invoking == []
    script = Script(template=TEMPLATE, sends_history=True).start(told=(("", "Hello!"),))
    script.step(on.Opened(MODEL))
    script.step(send("a", "Hi"))
    assert said(script) == ["", "Hello!", "Hi"]


@pytest.mark.parametrize("template", [{"text": "$text"}, None])
def test_turns_are_told_as_the_route_makes_them(template: Any) -> None:
    script = Script(on_expiry=Recovery.REPLAY, template=template, content_type="a/b")
    script.start(told=TOLD)
    script.step(on.Opened(MODEL))
    assert body(script) == (b"one" if template is None else b'{"text":"one"}')
    assert script.invoking[0].request.content_type == "a/b"


def test_a_seed_tells_it_in_one_message() -> None:
    script = Script(seed="Go on: $transcript").start(told=TOLD)
    script.step(on.Opened(MODEL))
    assert body(script) == b"Go on: User: one\nAssistant: 1\nUser: two\nAssistant: 2"
    script.answer()
    assert script.stands(State.READY)


def test_a_session_that_its_first_turn_opens_is_opened_by_what_is_told() -> None:
    script = Script(opening=Opening.TURN, on_lost=Recovery.REPLAY).start(told=TOLD)
    assert script.stands(State.READY)
    script.step(send("a", "three"))
    assert [each.model for each in script.invoking] == [None]
    script.answer(new_session=MODEL)
    assert [each.model for each in script.invoking] == [MODEL]
    assert script.last(wire.SessionUpdated).expires_at == "2027-01-15T08:20:00Z"
    script.answer()
    script.answer("3")
    assert script.done["a"].text == "3"


def test_a_session_that_is_opened_later_is_told_then() -> None:
    script = Script(open_on_connect=False, on_lost=Recovery.REPLAY).start(told=TOLD)
    assert script.stands(State.READY)
    script.step(send("a", "three"))
    assert script.stands(State.RENEWING)
    script.step(on.Opened(MODEL))
    assert body(script) == b"one"


def test_where_nothing_was_said_there_is_nothing_to_tell() -> None:
    script = Script().start(told=())
    assert script.stands(State.OPENING)
    script.step(on.Opened(MODEL))
    assert script.stands(State.READY)


def test_a_model_that_can_not_be_told_is_a_fault_of_whoever_asks() -> None:
    with pytest.raises(UnexpectedEvent):
        Script(on_lost=Recovery.RENEW).start(told=TOLD)


def test_a_session_that_can_not_be_opened_ends_before_it_has_begun() -> None:
    script = Script(on_lost=Recovery.REPLAY, retries=0).start(told=TOLD)
    script.step(on.OpenFailed(failure()))
    assert script.stands(State.CLOSED)
    assert script.last(wire.ErrorMessage).code is ErrorCode.MODEL_ERROR


def test_what_could_not_be_told_is_told_with_the_next_message() -> None:
    script = Script(on_lost=Recovery.REPLAY, retries=0).start(told=TOLD)
    script.step(on.Opened(MODEL))
    script.step(send("a", "three"))
    script.fail(THROTTLED)
    assert script.error("a").outcome is Outcome.NOT_INVOKED
    script.closed()
    script.step(send("b", "four"))
    script.step(on.Opened(MODEL))
    assert body(script) == b"one"


def test_a_model_that_fails_while_it_is_told_ends_the_session() -> None:
    script = Script(on_lost=Recovery.REPLAY).start(told=TOLD)
    script.step(on.Opened(MODEL))
    script.step(send("a", "three"))
    script.fail()
    assert script.error("a").code is ErrorCode.SESSION_LOST
    assert script.error("a").outcome is Outcome.NOT_INVOKED


def test_a_session_that_is_lost_later_is_replayed_with_what_was_told() -> None:
    script = Script(on_lost=Recovery.REPLAY).start(told=TOLD)
    script.step(on.Opened(MODEL))
    script.answer()
    script.answer()
    script.step(send("a", "three"))
    script.fail(Failure(code=ErrorCode.SESSION_LOST, message="Gone."))
    script.step(on.Opened(MODEL))
    assert body(script) == b"one"
    script.answer()
    script.answer()
    assert script.last(wire.SessionRenewed).reason == "lost"
    assert body(script) == b"three"


def test_another_process_tells_it_from_the_beginning() -> None:
    script = Script(on_lost=Recovery.REPLAY, resume_seconds=30).start(told=TOLD)
    script.step(send("a", "three"))
    script.step(on.Opened(MODEL))
    script.answer()
    script.store()
    script.adopt()
    assert any(isinstance(effect, do.CloseSession) for effect in script.effects)
    script.closed()
    script.step(on.Opened(MODEL))
    assert body(script) == b"one"
    script.answer()
    script.answer()
    assert body(script) == b"three"
    assert Timer.EXPIRY in script.timers
    assert script.timers[Timer.EXPIRY] > START
