"""What a model has to be told of a conversation: with each turn, or when a session is replayed."""

import msgspec
from msgspec import structs

from gateway.formats.templates import fill
from gateway.protocol.messages import Context
from gateway.session.policy import Policy, Recovery
from gateway.session.ports import ModelRequest
from gateway.session.transcript import Exchange, Line, Transcript, told
from gateway.session.turn_queue import Turn


class History:
    """A conversation as its route wants it kept and told.

    Args:
        policy: The route's rules.
        transcript: What was said so far; nothing where it is left out.
    """

    __slots__ = ("_keeps_turns", "_policy", "keeps_words", "needs_words", "transcript")

    def __init__(self, policy: Policy, transcript: Transcript | None = None) -> None:
        self._policy = policy
        self._keeps_turns = Recovery.REPLAY in (policy.on_expiry, policy.on_lost)
        self.keeps_words = policy.sends_history or policy.seed is not None
        """Whether what is kept of a turn is what was said in it, and not its request."""
        self.needs_words = self.keeps_words or policy.template is not None
        """Whether a turn's text is needed beside its body."""
        self.transcript = transcript or Transcript(
            max_turns=policy.transcript_turns, max_bytes=policy.transcript_bytes
        )

    def compose(self, turn: Turn) -> bool:
        """Make the body of a turn that has words, where the route has a template for them.

        Returns:
            Whether it has.
        """
        policy, said = self._policy, turn.said
        if said is None or policy.template is None:
            return False
        lines: list[Line] = []
        if policy.sends_history:
            if policy.system is not None:
                lines.append(("system", policy.system))
            lines += self.transcript.lines()
            turn.dropped = self.transcript.dropped
        lines.append(("user", said))
        values = {"text": said, "stream": turn.request.stream, **told(lines, policy.template)}
        body = msgspec.json.encode(fill(policy.template, values))
        turn.request = structs.replace(turn.request, body=body)
        return True

    def hear(self, turn: Turn, parts: list[str | bytes]) -> None:
        """Keep parts of a turn's reply."""
        if self.keeps_words:
            for part in parts:
                if isinstance(part, str):
                    turn.hear(part, self._policy.transcript_bytes)

    def keep(self, turn: Turn, answered: str | None) -> None:
        """Keep a turn that the model has answered.

        Args:
            turn: It has ended.
            answered: The model's words, where they did not come in parts.
        """
        if self.keeps_words:
            self._keep_words(turn, answered)
        elif self._keeps_turns:
            self.transcript.add(Exchange(turn.request))

    def keep_stopped(self, turn: Turn) -> None:
        """Keep a turn with what the client has heard of it."""
        if self.keeps_words:
            self._keep_words(turn, None)
        elif self._keeps_turns:
            self.transcript.leave_out()  # answered in full, it might take for ever

    def _keep_words(self, turn: Turn, answered: str | None) -> None:
        if turn.said is not None:
            request = structs.replace(turn.request, body=b"", sha256=None)
            words = "".join(turn.heard or ()) if answered is None else answered
            self.transcript.add(Exchange(request, turn.said, words))
        elif not self._policy.sends_history:
            self.transcript.leave_out()

    def to_replay(self, recovery: Recovery) -> list[ModelRequest]:
        """What a new session is told, one after the other, before it is used."""
        if recovery is not Recovery.REPLAY or self._policy.sends_history:
            return []  # the next turn carries the history
        if self._policy.seed is None:
            return self.transcript.turns()
        return self.transcript.seed(self._policy.seed)

    def context_after(self, recovery: Recovery) -> Context:
        """How much of the conversation a new session has been told."""
        if recovery is not Recovery.REPLAY and not self._policy.sends_history:
            return "lost"
        return "replayed" if self.transcript.whole else "partial"
