"""The turns of a session: accepts messages, and ends each accepted one exactly once."""

from msgspec import UNSET, structs

from gateway.errors import ErrorCode, Failure, Outcome
from gateway.protocol import messages as wire
from gateway.session import effects as do
from gateway.session.bodies import ReplyFields, body_of, options_of, reply_fields, request_of
from gateway.session.endings import Ending
from gateway.session.history import History
from gateway.session.output import Output
from gateway.session.policy import Policy
from gateway.session.ports import ModelReply, ModelSession, Receipt
from gateway.session.refusals import refusal
from gateway.session.transitions import UnexpectedEvent
from gateway.session.turn_queue import Turn, TurnQueue, digest


class Turns:
    """Accepts messages, and emits their events.

    Args:
        policy: The route's rules.
        history: Keeps the conversation.
        queue: The turns.
        out: Collects effects.
    """

    __slots__ = ("_history", "_out", "_policy", "queue")

    def __init__(self, policy: Policy, history: History, queue: TurnQueue, out: Output) -> None:
        self._policy = policy
        self._history = history
        self._out = out
        self.queue = queue

    @property
    def running(self) -> Turn | None:
        """The turn at the model."""
        return self.queue.running

    # From the client

    def accept(self, message: wire.MessageSend) -> None:
        """Queue a turn for a message, or reject it with an error."""
        if self.is_known(message):
            return
        queue = self.queue
        options = options_of(message)
        refused = refusal(message, options, self._policy, queued=len(queue.waiting))
        if refused is not None:
            self._out.refuse(*refused, message.id)
            return
        ahead = queue.pending
        said = None
        if self._history.needs_words and message.text is not UNSET:
            said = message.text
        body, kind = body_of(message)
        body_digest = digest(body)
        request = request_of(
            message, self._policy, options=options, body=body, kind=kind, sha256=body_digest
        )
        queue.add(message.id, said, body_digest, request)
        out = self._out
        out.emit(wire.MessageAccepted(event=out.last + 1, id=message.id, queued=ahead))

    def is_known(self, message: wire.MessageSend) -> bool:
        """Whether the id was accepted before; if so, report its status to the client."""
        known = self.queue.find(message.id)
        if known is None:
            return False
        if digest(body_of(message)[0]).startswith(known.digest):
            self._out.tell(wire.MessageDuplicate(id=known.id, status=known.status))
        else:
            text = "`id` was used for another body"
            self._out.refuse(ErrorCode.BAD_MESSAGE, text, message.id)
        return True

    def cancel(self, message: wire.MessageCancel) -> None:
        """Remove a waiting turn, or cancel the request of the running one."""
        turn = self.queue.find(message.id)
        if turn is None:
            self._out.refuse(ErrorCode.UNKNOWN_MESSAGE, "No message has this `id`.", message.id)
        elif turn.status == "queued":
            self._end(turn, "cancelled", outcome=Outcome.NOT_INVOKED)
        elif turn.status == "running":
            turn.cancelling = True
            self.stop(turn)
        else:
            self._out.tell(wire.MessageDuplicate(id=turn.id, status=turn.status))

    def stop(self, turn: Turn) -> None:
        """Cancel the request of the running turn."""
        turn.stopping = True
        self._out.do(do.CancelInvoke(turn.number))

    # To the model and back

    def begin(self, model: ModelSession | None, until: float | None) -> None:
        """Send the turn that has waited longest; see `Invoke`."""
        turn = self.queue.begin(self._out.now)
        if self._history.compose(turn):
            self.queue.resize(turn)
        self._out.do(do.Invoke(turn.number, turn.request, model, until))

    def at_model(self, number: int) -> Turn:
        """Return the turn at the model.

        Raises:
            UnexpectedEvent: It has another number, or there is none.
        """
        turn = self.queue.running
        if turn is None or turn.number != number:
            raise UnexpectedEvent(f"turn {number} is not at the model")
        return turn

    def submit(self, turn: Turn, receipt: Receipt) -> None:
        """Await the asynchronous reply to a turn, unless it was cancelled."""
        turn.receipt = receipt
        # It is never sent again, and may take hours.
        turn.request = structs.replace(turn.request, body=b"", sha256=None)
        if not self._history.keeps_words:
            turn.said = None
        self.queue.resize(turn)
        if not turn.stopping:
            self._out.do(do.Await(turn.number, receipt))

    def take_parts(self, number: int, parts: list[str | bytes]) -> None:
        """Pass on parts of the running turn's reply; others belong to a replay and are dropped."""
        turn = self.queue.running
        if turn is None or turn.number != number:
            return
        first, index = self._out.last + 1, turn.deltas
        self._out.emit(
            *[
                wire.MessageDelta(event=first + number, id=turn.id, index=index + number, text=part)
                if isinstance(part, str)
                else wire.MessageDelta(
                    event=first + number, id=turn.id, index=index + number, base64=part
                )
                for number, part in enumerate(parts)
            ]
        )
        turn.deltas += len(parts)
        self._history.hear(turn, parts)

    # Ends

    def complete(self, turn: Turn, reply: ModelReply) -> None:
        """End a turn with its reply."""
        fields = reply_fields(reply, self._policy)
        self._end(turn, "completed", reply=fields)
        self._history.keep(turn, fields.get("text"))

    def fail(self, turn: Turn, failure: Failure) -> None:
        """End a turn that failed; if the client has cancelled it, it ends as cancelled."""
        if turn.cancelling:
            self._end(turn, "cancelled", outcome=failure.outcome)
            if turn.deltas:
                self._history.keep_stopped(turn)
        else:
            self._end(turn, "failed", failure=failure)

    def cancelled(self, turn: Turn, outcome: Outcome | None) -> None:
        """End a turn whose request was cancelled; see `InvokeCancelled`."""
        self._end(turn, "cancelled", outcome=outcome or turn.outcome_if_cut)
        if outcome is None:
            self._history.keep_stopped(turn)

    def fail_waiting(self, failure: Failure) -> None:
        """Fail the waiting turns; the model has seen the opening at most, none of these."""
        not_sent = structs.replace(failure, outcome=Outcome.NOT_INVOKED)
        for turn in [*self.queue.waiting]:
            self._end(turn, "failed", failure=not_sent)

    def end_waiting(self, ending: Ending) -> None:
        """End the waiting turns with the session."""
        for turn in [*self.queue.waiting]:
            self._end_with(turn, ending, Outcome.NOT_INVOKED)

    def cut(self, turn: Turn, ending: Ending, outcome: Outcome | None = None) -> None:
        """End the turn at the model with the session; see `InvokeCancelled`."""
        self._end_with(turn, ending, outcome or turn.outcome_if_cut)

    def _end_with(self, turn: Turn, ending: Ending, outcome: Outcome) -> None:
        if ending.status == "cancelled":
            self._end(turn, "cancelled", outcome=outcome)
        else:
            failure = Failure(code=ending.code, message=ending.message, outcome=outcome)
            self._end(turn, "failed", failure=failure)

    def _end(
        self,
        turn: Turn,
        status: wire.Status,
        *,
        reply: ReplyFields | None = None,
        failure: Failure | None = None,
        outcome: Outcome | None = None,
    ) -> None:
        self.queue.end(turn, status)
        duration = 0.0 if turn.started is None else self._out.now - turn.started
        self._out.emit(
            wire.MessageDone(
                event=self._out.last + 1,
                id=turn.id,
                status=status,
                deltas=turn.deltas,
                duration_ms=round(duration * 1000),
                dropped_turns=turn.dropped or UNSET,
                error=_error_object(failure) if failure else UNSET,
                outcome=outcome or UNSET,
                **(reply or {}),
            )
        )


def _error_object(failure: Failure) -> wire.ErrorObject:
    return wire.ErrorObject(
        code=failure.code,
        message=failure.message,
        retryable=failure.may_retry,
        outcome=failure.outcome,
        retry_after=failure.wait,
    )
