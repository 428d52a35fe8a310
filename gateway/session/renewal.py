"""A session at the model that is gone, and what has to be done until another has its place."""

from collections import deque

from gateway.protocol.messages import RenewedReason
from gateway.session.policy import Recovery
from gateway.session.ports import ModelRequest


class Renewal:
    """One renewal, from the end of the old session until the client is told of the new one.

    Attributes:
        recovery: What the route asks for.
        expires_at: When the old session expires; None where it was lost.
        steps: What is still to be told to the new session; None until it is there.
        running: The number of the step that is at the model.
        retries: How often a call has been made again, since the model never saw it.
    """

    __slots__ = ("expires_at", "recovery", "retries", "running", "steps")

    def __init__(self, recovery: Recovery, expires_at: float | None) -> None:
        self.recovery = recovery
        self.expires_at = expires_at
        self.steps: deque[ModelRequest] | None = None
        self.running: int | None = None
        self.retries = 0

    def reason(self, now: float) -> RenewedReason:
        """Why the old session is gone."""
        if self.expires_at is None:
            return "lost"
        return "expiring" if now < self.expires_at else "expired"
