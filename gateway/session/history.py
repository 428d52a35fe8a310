"""The conversation that a model is sent: with each turn, or when a session is replayed."""

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import structs

from gateway.formats.templates import fill
from gateway.protocol.messages import Context, MessageSend
from gateway.session.bodies import body_of, request_of
from gateway.session.events import Words
from gateway.session.policy import Policy, Recovery
from gateway.session.ports import ModelRequest
from gateway.session.transcript import Exchange, Line, Transcript, told
from gateway.session.turn_queue import Turn


class History:
    """A conversation, kept and sent as its route is configured.

    Args:
        policy: The route's rules.
        transcript: The conversation so far; a new one by default.
    """

    __slots__ = ("_keeps_turns", "_policy", "keeps_words", "needs_words", "transcript")

    def __init__(self, policy: Policy, transcript: Transcript | None = None) -> None:
        self._policy = policy
        self._keeps_turns = policy.replays
        self.keeps_words = policy.sends_history or policy.seed is not None
        """Whether a turn is kept as its texts, not as its request."""
        self.needs_words = self.keeps_words or policy.template is not None
        """Whether a turn's text is needed beside its body."""
        self.transcript = transcript or Transcript(
            max_turns=policy.transcript_turns, max_bytes=policy.transcript_bytes
        )

    def compose(self, turn: Turn) -> bool:
        """Fill the route's template to make the body of a text turn.

        Returns:
            Whether the turn has text and the route a template.
        """
        policy, said = self._policy, turn.said
        if said is None or policy.template is None:
            return False
        if not policy.sends_history:
            turn.request = self._filled(turn.request, said)
            return True
        transcript, most = self.transcript, policy.body_bytes
        system: list[Line] = [] if policy.system is None else [("system", policy.system)]
        turn.request = self._filled(turn.request, said, [*system, *transcript.lines()])
        turn.dropped = transcript.dropped
        if most is not None and (excess := len(turn.request.body) - most) > 0:
            # JSON encoding never makes a text shorter, so this drops enough.
            without = transcript.oldest(excess)
            lines = [*system, *transcript.lines(without)]
            turn.request = self._filled(turn.request, said, lines)
            turn.dropped += without
        return True

    def _filled(
        self, request: ModelRequest, said: str, before: Sequence[Line] = ()
    ) -> ModelRequest:
        """Return the request with a body made of the user's text and the turns before."""
        template = self._policy.template
        lines = [*before, ("user", said)]
        values = {"text": said, "stream": request.stream, **told(lines, template)}
        return structs.replace(request, body=msgspec.json.encode(fill(template, values)))

    def begin(self, words: Iterable[Words]) -> bool:
        """Import a conversation.

        Returns:
            Whether it must be replayed to the model session before the first turn.
        """
        for each in words:
            if each.said or self.keeps_words:  # else there is nothing to replay
                self.transcript.add(self._exchange(each))
        return self.transcript.count > 0 and not self._policy.sends_history

    def _exchange(self, words: Words) -> Exchange:
        """Convert an imported turn to what is kept of a turn of this session."""
        policy = self._policy
        message = MessageSend(id="", text=words.said)
        body, kind = body_of(message)
        request = request_of(message, policy, options={}, body=body, kind=kind, sha256=None)
        if self.keeps_words:
            without_body = structs.replace(request, body=b"")
            return Exchange(without_body, words.said, words.answered)
        if policy.template is not None:
            request = self._filled(request, words.said)
        return Exchange(request)

    def hear(self, turn: Turn, parts: list[str | bytes]) -> None:
        """Keep parts of a turn's reply."""
        if self.keeps_words and turn.said is not None:
            for part in parts:
                if isinstance(part, str):
                    turn.hear(part, self._policy.transcript_bytes)

    def keep(self, turn: Turn, answered: str | None) -> None:
        """Keep a turn that the model has answered.

        Args:
            turn: The completed turn.
            answered: The model's text; None if it was streamed in parts.
        """
        if self.keeps_words:
            self._keep_words(turn, answered)
        elif self._keeps_turns:
            self.transcript.add(Exchange(turn.request))

    def keep_stopped(self, turn: Turn) -> None:
        """Keep a cancelled turn with the part of its reply that the client has received."""
        if self.keeps_words:
            self._keep_words(turn, None)
        elif self._keeps_turns:
            self.transcript.leave_out()  # its full reply, if replayed, might never end

    def _keep_words(self, turn: Turn, answered: str | None) -> None:
        if turn.said is not None:
            request = structs.replace(turn.request, body=b"", sha256=None)
            words = "".join(turn.heard or ()) if answered is None else answered
            self.transcript.add(Exchange(request, turn.said, words))
        elif not self._policy.sends_history:
            self.transcript.leave_out()

    def to_replay(self, recovery: Recovery) -> list[ModelRequest]:
        """The requests that replay the conversation to a new session, in order."""
        if recovery is not Recovery.REPLAY or self._policy.sends_history:
            return []  # the next turn carries the history
        if self._policy.seed is None:
            return self.transcript.turns()
        return self.transcript.seed(self._policy.seed)

    def context_after(self, recovery: Recovery) -> Context:
        """How much of the conversation a new session knows."""
        if recovery is not Recovery.REPLAY and not self._policy.sends_history:
            return "lost"
        return "replayed" if self.transcript.whole else "partial"
