"""The session core under any order of events that its runner could give it.

The invariants are those of `tests.support.script.Script`, checked on every step; here are the
choices, and what must be true when all is over.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gateway.errors import ErrorCode, Failure, Outcome
from gateway.protocol import messages as wire
from gateway.session import events as on
from gateway.session.keys import digest
from gateway.session.policy import Opening, Recovery
from gateway.session.ports import ModelSession
from gateway.session.table import State
from tests.support.script import RECEIPT, Script, failure, reply, send

IDS = st.sampled_from("abcdef")
# Such times are the same on every clock, to the last digit.
AFTER = st.integers(0, 30 * 64).map(lambda ticks: ticks / 64)
SELDOM = st.sampled_from([False] * 7 + [True])
"""For what ends a session, so that more happens before."""
FAILURES = st.builds(
    failure,
    st.sampled_from(
        [ErrorCode.MODEL_ERROR, ErrorCode.SESSION_LOST, ErrorCode.TIMEOUT, ErrorCode.THROTTLED]
    ),
    st.sampled_from(Outcome),
)


class Sessions(RuleBasedStateMachine):
    """A client, a model, a clock, an operator and other processes, each at its worst."""

    script_type = Script

    def __init__(self) -> None:
        super().__init__()
        self.models = 0
        self.connected = True
        self.confirmed = True
        self.readers = 0

    def model(self, lifetime: float | None) -> ModelSession:
        self.models += 1
        expires_at = None if lifetime is None else self.script.now + lifetime
        return ModelSession(f"model-{self.models}", expires_at)

    @initialize(
        client=st.sampled_from([None, 1, 1, 1]),
        opening=st.sampled_from(Opening),
        open_on_connect=st.booleans(),
        queued_messages=st.integers(0, 3),
        remembered_messages=st.integers(0, 3),
        resume_seconds=st.sampled_from([0.0, 30.0]),
        streams=st.booleans(),
        log_events=st.sampled_from([1, 2, 1000]),
        retries=st.integers(0, 2),
        on_expiry=st.sampled_from(Recovery),
        on_lost=st.sampled_from(Recovery),
        seed=st.sampled_from([None, "$transcript"]),
        template=st.sampled_from([None, {"all": "$messages"}]),
        sends_history=st.booleans(),
        transcript_turns=st.sampled_from([1, 100]),
    )
    def start(self, client: int | None, **policy: object) -> None:
        self.script = self.script_type(
            idle_seconds=50,
            session_seconds=200,
            expiring_notice_seconds=20,
            client_fields=frozenset({"target_model"}),
            **policy,
        )
        self.script.start(client)
        self.connected = client is not None

    def running(self) -> int:
        return self.script.invoking[0].turn

    # The client

    @rule(message_id=IDS, text=st.sampled_from(["x", "y"]), after=AFTER)
    def send(self, message_id: str, text: str, after: float) -> None:
        known = self.script.session.turns.queue.find(message_id)
        if known is None and message_id in self.script.done:
            return  # forgotten: the client may not use an id again, and the script could not tell
        self.script.step(send(message_id, text), self.until_next_timer(after))

    @rule(message_id=IDS)
    def cancel(self, message_id: str) -> None:
        self.script.step(wire.MessageCancel(id=message_id))

    @rule(event=st.integers(0, 20))
    def acknowledge(self, event: int) -> None:
        self.script.step(wire.EventAck(event=event))

    @rule(sure=SELDOM)
    def close(self, *, sure: bool = True) -> None:
        if sure:
            self.script.step(wire.SessionClose())

    @precondition(lambda self: self.connected and self.script.socket is None)
    @rule()
    def detach(self) -> None:
        self.connected = False
        self.script.step(on.Detached(self.script.client))

    @precondition(lambda self: self.script.state is not State.CLOSED)
    @rule(has=st.floats(0, 1), key=st.sampled_from([-1, -2]))
    def resume(self, has: float, key: int) -> None:
        """Also while a connection is there, which is taking over."""
        script = self.script
        shown = script.keys[max(key, -len(script.keys))]
        good = shown == script.keys[-1] or not self.confirmed
        assert script.session.accepts(digest(shown)) is good
        if good:
            script.resume(int(has * script.last_event), shown)
            script.keys[-2:] = [shown, script.keys[-1]]
            self.connected, self.confirmed = True, False

    @precondition(lambda self: self.script.state is not State.CLOSED)
    @rule(has=st.floats(0, 1))
    def subscribe(self, has: float) -> None:
        """As one that reads along."""
        self.readers += 1
        last_event = int(has * self.script.last_event)
        self.script.step(on.Subscribed(1000 + self.readers, last_event))

    @precondition(lambda self: self.script.readers)
    @rule()
    def unsubscribe(self) -> None:
        self.script.step(on.Detached(self.script.readers.pop()))

    @rule(has=st.floats(0, 1))
    def written(self, has: float) -> None:
        self.script.step(on.Written(int(has * self.script.last_event)))

    @precondition(lambda self: self.connected)
    @rule()
    def confirm(self) -> None:
        self.confirmed = True
        self.script.step(on.Confirmed())

    # The model

    @precondition(lambda self: self.script.opening)
    @rule(lifetime=st.sampled_from([None, 0.0, 3.0, 60.0, 1200.0]))
    def opened(self, lifetime: float | None) -> None:
        self.script.step(on.Opened(self.model(lifetime)))

    @precondition(lambda self: self.script.opening)
    @rule(reason=FAILURES)
    def open_failed(self, reason: Failure) -> None:
        self.script.step(on.OpenFailed(reason))

    def may_submit(self) -> bool:
        """A model that answers later has no sessions, and sends no parts."""
        turn = self.script.session.turns.running
        stateless = self.script.policy.opening is Opening.NONE
        if not (stateless and self.script.invoking):
            return False
        if turn is None:  # it has been given up, or this is a step of a replay
            return self.script.state in {State.ENDED, State.CLOSED}
        return turn.receipt is None and not turn.deltas

    @precondition(may_submit)
    @rule()
    def submitted(self) -> None:
        self.script.submitted(RECEIPT)

    def may_send_parts(self) -> bool:
        turn = self.script.session.turns.running
        return bool(self.script.invoking) and (turn is None or turn.receipt is None)

    @precondition(may_send_parts)
    @rule(part=st.sampled_from(["ab", b"\x00"]))
    def part(self, part: str | bytes) -> None:
        self.script.part(part)

    @precondition(lambda self: self.script.invoking)
    @rule(
        new=st.sampled_from(["none", "none", "none", "forever", "short"]),
        closed=st.sampled_from([False, False, False, True]),
        after=AFTER,
    )
    def replied(self, new: str, closed: bool, after: float) -> None:
        session = None
        if new != "none" and self.script.policy.opening is not Opening.NONE:
            session = self.model(None if new == "forever" else 10.0)
        self.script.step(
            on.ReplyEnded(self.running(), reply(new_session=session, session_closed=closed)),
            self.until_next_timer(after),
        )

    @precondition(lambda self: self.script.invoking)
    @rule(reason=FAILURES)
    def failed(self, reason: Failure) -> None:
        self.script.step(on.InvokeFailed(self.running(), reason))

    @precondition(lambda self: self.script.cancelling())
    @rule(sent=st.booleans())
    def cancelled(self, sent: bool) -> None:
        turn = self.script.session.turns.running
        sent = sent or (turn is not None and (turn.deltas > 0 or turn.receipt is not None))
        self.script.step(on.InvokeCancelled(self.running(), None if sent else Outcome.NOT_INVOKED))

    @precondition(lambda self: self.script.closing_models)
    @rule()
    def close_ended(self) -> None:
        self.script.closed()

    # Time, the store and the operator

    def until_next_timer(self, after: float) -> float:
        """No timer is overdue by more than the time that one event takes."""
        due = min(self.script.timers.values(), default=float("inf"))
        return max(0.0, min(after, due - self.script.now))

    @precondition(lambda self: self.script.timers)
    @rule()
    def next_timer(self) -> None:
        self.script.fire(min(self.script.timers, key=lambda timer: self.script.timers[timer]))

    @rule(force=st.booleans(), sure=SELDOM)
    def drain(self, force: bool, sure: bool) -> None:
        if sure:
            self.script.step(on.Drain(force=force))

    @rule(sure=SELDOM)
    def evict(self, *, sure: bool) -> None:
        if sure:
            self.script.step(on.Evict())

    # Other processes

    @rule(held=st.booleans(), sure=SELDOM)
    def hold(self, held: bool, sure: bool) -> None:
        if sure or not held:
            self.script.step(on.Hold(on=held))

    @precondition(lambda self: self.script.session.announced)
    @precondition(lambda self: self.script.state is not State.CLOSED)
    @rule(
        parts=st.integers(0, 3),
        stays=st.booleans(),
        returns=st.booleans(),
        sure=SELDOM,
    )
    def crash(self, parts: int, stays: bool, returns: bool, sure: bool) -> None:
        """The process dies; it may have told its client parts that were not stored."""
        script = self.script
        if not sure:
            return
        script.store()
        running, owner = script.session.turns.running, script.session.clients.owner
        if running is not None and running.request.stream and running.receipt is None:
            for _ in range(parts):
                script.part("lost")
        has = script.last_event
        self.connected = stays and owner is not None
        script.adopt(*((owner,) if self.connected and owner is not None else ()))
        gone = script.state is State.CLOSED
        if returns and not gone and not self.connected and script.policy.resume_seconds:
            assert script.session.may_have_told(has)
            script.resume(has)
            self.connected, self.confirmed = True, False

    @precondition(lambda self: self.script.session.announced and self.script.session.can_move)
    @rule()
    def move(self) -> None:
        """It is let go, and taken over by who has its client, if one is there."""
        script = self.script
        script.store()
        owner = script.session.clients.owner
        self.connected = owner is not None
        script.adopt(*(() if owner is None else (owner,)), crashed=False)

    @precondition(lambda self: self.script.session.inherited)
    @rule(sure=SELDOM)
    def forgotten(self, sure: bool) -> None:
        if sure:
            self.script.step(on.Forgotten())

    # The end

    def teardown(self) -> None:
        """Whatever has happened: the session ends, and nothing stays open at the model."""
        if not hasattr(self, "script"):
            return
        script = self.script
        for _ in range(100):
            if script.opening:
                script.step(on.OpenFailed(failure()))
            elif script.cancelling():
                self.cancelled(sent=True)
            elif script.invoking:
                script.answer()
            elif script.closing_models:
                self.close_ended()
            elif script.state is State.ENDED:
                self.next_timer()
            elif script.state is not State.CLOSED:
                self.close()
            else:
                break
        assert script.state is State.CLOSED
        assert not script.open_models, "what was opened has been closed"


def test_any_order_of_events() -> None:
    run_state_machine_as_test(Sessions, settings=settings(stateful_step_count=40))
