"""Coming back: keys, missed events, taking over, and what is left after the end."""

from hashlib import sha256

import pytest

from gateway.errors import CloseCode
from gateway.protocol import messages as wire
from gateway.session import effects as do
from gateway.session import events as on
from gateway.session.events import Timer
from gateway.session.keys import ResumeKeys, digest
from gateway.session.table import State
from tests.support.script import MODEL, START, Script, send

ONE, TWO, LOST = map(digest, ("one", "two", "lost"))


class TestKeys:
    def test_the_first_key(self) -> None:
        keys = ResumeKeys([ONE])
        assert keys.accepts(ONE)
        assert not keys.accepts(TWO)
        assert not keys.accepts(b"")

    def test_the_old_key_dies_when_the_client_has_spoken(self) -> None:
        keys = ResumeKeys([ONE])
        keys.rotate(ONE, TWO)
        assert keys.accepts(ONE)
        assert keys.accepts(TWO)
        for _ in range(2):
            keys.confirm()
            assert not keys.accepts(ONE)
            assert keys.accepts(TWO)

    def test_an_answer_that_was_lost_locks_nobody_out(self) -> None:
        keys = ResumeKeys([ONE])
        keys.rotate(ONE, LOST)
        keys.rotate(ONE, TWO)
        assert keys.accepts(ONE)
        assert not keys.accepts(LOST)
        keys.confirm()
        assert [key for key in (ONE, LOST, TWO) if keys.accepts(key)] == [TWO]

    def test_whatever_is_shown_has_a_digest(self) -> None:
        assert sha256(b"one").digest() == ONE
        assert len({digest(shown) for shown in ("", "\ud800", "one", "two")}) == 4


def test_a_client_comes_back_to_what_it_missed() -> None:
    script = Script(resume_seconds=30, streams=True).ready()
    script.step(send("a"))
    script.part("x")
    script.step(on.Detached(script.client))
    assert script.timers[Timer.DETACHED] == START + 30
    script.part("y")
    assert script.resume(last_event=3) == wire.SessionResumed(
        session_id="s-1",
        resume_key="key-1",
        expires_at="2027-01-15T08:20:00Z",
        last_event=4,
        lost=None,
    )
    assert script.log.first == 4, "what it has is forgotten"
    assert Timer.DETACHED not in script.timers
    assert script.last(do.SetTimer) == do.SetTimer(Timer.DETACHED, None, 0.0)
    script.answer()
    assert script.done["a"].deltas == 2


def test_a_gap_is_said() -> None:
    script = Script(resume_seconds=30, streams=True, log_events=2).ready()
    script.step(send("a"))
    script.step(on.Detached(script.client))
    for text in "xyz":
        script.part(text)
    assert script.resume(last_event=1).lost == (2, 3)
    assert script.reader.position == 3


def test_a_session_that_waits_for_its_client_is_not_idle_for_it() -> None:
    script = Script(resume_seconds=30).ready()
    script.step(on.Detached(script.client))
    script.now += 20
    script.resume(last_event=1)
    script.step(on.Detached(script.client), after=20)
    assert script.timers[Timer.DETACHED] == START + 70


def test_the_one_that_was_displaced_takes_nothing_with_it() -> None:
    """It was left in the moment in which the other one came, and is said to be gone after it."""
    script = Script(resume_seconds=30).ready()
    script.resume(last_event=1)
    assert script.effects == [do.Displace(1), do.Trim(1), script.last(do.Attach)]
    assert script.step(on.Detached(1)) == []
    script.step(on.Detached(2))
    assert script.timers[Timer.DETACHED] == START + 30


def test_a_newer_connection_takes_the_place_of_the_one_before() -> None:
    script = Script(resume_seconds=30).ready()
    script.resume(last_event=1)
    script.detach()
    assert script.timers[Timer.DETACHED] == START + 30
    script.resume(last_event=1)
    assert not [effect for effect in script.effects if isinstance(effect, do.Displace)]


def test_who_reads_along_takes_nothing_over() -> None:
    script = Script(resume_seconds=30).ready()
    script.step(on.Subscribed(1000, 0))
    assert script.effects == [do.Attach(1000, 0)]
    script.step(on.Detached(1000), after=40)
    assert Timer.DETACHED not in script.timers
    script.step(on.Subscribed(1001, 0))
    script.resume(last_event=1)
    assert do.Displace(1) in script.effects
    script.detach()
    assert Timer.DETACHED not in script.timers, "one still reads"
    script.step(on.Detached(1001))
    assert Timer.DETACHED in script.timers


def test_a_client_that_is_there_is_not_awaited() -> None:
    script = Script(resume_seconds=30).ready()
    script.detach()
    script.resume(last_event=1)
    script.step(send("a"), after=60)
    script.answer()
    assert script.state is State.READY
    assert Timer.DETACHED not in script.timers


def test_who_is_said_to_be_gone_late_has_been_gone_for_as_long() -> None:
    script = Script(resume_seconds=30).ready()
    script.resume(last_event=1)
    script.detach()
    script.step(on.Detached(1), after=10)
    script.fire(Timer.DETACHED)
    assert script.closing_models == [MODEL]


@pytest.mark.parametrize("open_on_connect", [True, False])
def test_a_session_that_nobody_reads_waits_for_a_client(open_on_connect: bool) -> None:
    script = Script(resume_seconds=30, idle_seconds=600, open_on_connect=open_on_connect).start(
        None
    )
    assert script.timers == {Timer.DETACHED: START + 600}


class TestWithoutAConnection:
    """A client that comes with requests alone."""

    def opened(self) -> Script:
        script = Script(resume_seconds=30, idle_seconds=600).start(None)
        script.step(on.Opened(MODEL))
        return script

    def test_there_may_be_as_long_between_requests_as_between_turns(self) -> None:
        script = self.opened()
        script.step(on.Subscribed(1000, 0), after=10.0)
        script.step(on.Detached(1000), after=10.0)
        script.fire(Timer.DETACHED)
        assert script.stands(State.READY)
        assert script.timers[Timer.DETACHED] == START + 620
        script.fire(Timer.DETACHED)
        assert script.closing_models == [MODEL]

    def test_it_is_not_missed_while_it_listens(self) -> None:
        script = self.opened()
        script.step(on.Subscribed(1000, 0))
        script.fire(Timer.DETACHED)
        assert script.stands(State.READY)
        assert Timer.DETACHED not in script.timers

    def test_resume_seconds_may_be_longer(self) -> None:
        script = Script(resume_seconds=900, idle_seconds=600).start(None)
        assert script.timers[Timer.DETACHED] == START + 900

    def test_that_is_so_in_another_process_too(self) -> None:
        script = self.opened()
        script.store()
        script.adopt()
        assert script.timers[Timer.DETACHED] == START + 600
        assert script.session.clients.connectionless

    def test_one_that_connects_can_lose_its_connection(self) -> None:
        script = self.opened()
        script.resume(last_event=1)
        script.detach()
        assert script.timers[Timer.DETACHED] == START + 30


def test_the_newest_key_is_confirmed_by_the_first_message() -> None:
    script = Script(resume_seconds=30).ready()
    script.resume(last_event=1)
    assert script.session.accepts(digest("key-0"))
    script.step(on.Confirmed())
    assert not script.session.accepts(digest("key-0"))
    assert script.session.accepts(digest("key-1"))


def test_a_session_that_has_not_begun_accepts_no_key() -> None:
    assert not Script().session.accepts(digest(""))


class TestAfterTheEnd:
    def ended(self) -> Script:
        script = Script(resume_seconds=30).ready()
        script.step(send("a"))
        script.step(on.Detached(script.client))
        script.answer(session_closed=True)
        assert script.state is State.ENDED
        assert do.CloseClient(CloseCode.GONE, "session_lost") in script.effects
        assert script.timers == {Timer.DETACHED: START + 30}
        return script

    def test_the_last_events_are_still_there(self) -> None:
        script = self.ended()
        resumed = script.resume(last_event=2)
        assert (script.reader.position, resumed.last_event) == (2, 4)
        assert resumed.expires_at is None
        assert script.socket == do.CloseClient(CloseCode.GONE, "session_lost", script.client)
        script.step(on.Confirmed())
        script.step(send("b"))
        assert script.last(wire.ErrorMessage).id == "b"
        script.step(send("a"))
        assert script.last(wire.MessageDuplicate).status == "completed"
        script.step(wire.EventAck(event=3))
        assert script.state is State.ENDED
        assert script.effects == [do.Trim(3)]
        script.step(wire.EventAck(event=4))
        assert script.effects[-1] == do.Forget()

    def test_for_so_long(self) -> None:
        script = self.ended()
        script.fire(Timer.DETACHED)
        assert script.state is State.CLOSED

    def test_or_until_the_operator_says_so(self) -> None:
        script = self.ended()
        script.step(on.Drain())
        assert script.state is State.CLOSED

    def test_a_client_that_closes_and_has_seen_the_end_needs_none(self) -> None:
        script = Script(resume_seconds=30).ready()
        script.step(wire.SessionClose())
        script.closed()
        assert script.session.is_closed_by_client
        script.step(wire.EventAck(event=2))
        assert script.state is State.CLOSED
        assert not script.session.is_closed_by_client

    def test_a_client_that_closes_may_lose_its_connection_before_it_is_told(self) -> None:
        script = Script(resume_seconds=30).ready()
        script.step(wire.SessionClose())
        script.closed()
        script.step(on.Detached(script.client))
        assert script.resume(last_event=1).last_event == 2
        assert not [effect for effect in script.effects if isinstance(effect, do.Displace)]

    def test_one_that_left_before_it_was_told_may_ask(self) -> None:
        script = Script(resume_seconds=30).ready()
        script.step(wire.SessionClose())
        script.step(on.Detached(script.client))
        script.closed()
        assert script.state is State.ENDED
        assert script.resume(last_event=1).last_event == 2
        assert script.socket == do.CloseClient(CloseCode.NORMAL, "", script.client)

    def test_what_opens_too_late_is_closed(self) -> None:
        script = Script(resume_seconds=30).ready()
        script.step(send("a"))
        script.fire(Timer.EXPIRY)
        script.fire(Timer.CLOSING)
        assert script.state is State.ENDED
        assert script.closing_models == [MODEL]
        script.closed()
        script.step(on.InvokeCancelled(1))
        script.step(on.Detached(script.client))
