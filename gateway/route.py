"""A route as sessions use it: its rules, the way to its model, and what is logged of it."""

import logging

import structlog
from msgspec import UNSET

from gateway.errors import ErrorCode, Failure
from gateway.logs import LogLimit
from gateway.protocol.messages import MessageDone
from gateway.session.policy import Policy
from gateway.session.ports import Model

FAILURES_A_MINUTE = 60
"""How many lines a route logs of its calls that fail for one reason."""

log = structlog.stdlib.get_logger("gateway.sessions")


class Route:
    """The rules of a route, and the way to its model.

    Args:
        policy: Its rules.
        model: The way.
    """

    __slots__ = ("failures", "model", "policy")

    def __init__(self, policy: Policy, model: Model) -> None:
        self.policy = policy
        self.model = model
        self.failures = LogLimit(FAILURES_A_MINUTE)

    def log_turn(self, level: int, session_id: str, done: MessageDone) -> None:
        """One line for a turn that has ended."""
        about = {
            "route": self.policy.route,
            "session": session_id,
            "id": done.id,
            "status": done.status,
            "deltas": done.deltas,
            "duration_ms": done.duration_ms,
        }
        if done.error is not UNSET:
            about["error"] = done.error.code.value
        log.log(level, "turn", **about)

    def log_failure(self, call: str, session_id: str, failure: Failure) -> None:
        """One line for each call that fails, but for a flood of them; what the operator has to mend
        is an error.
        """
        suppressed = self.failures.suppressed(f"{call} {failure.code}")
        if suppressed is None:
            return
        theirs = failure.retryable is False or failure.code is ErrorCode.INTERNAL
        about: dict[str, object] = {
            "call": call,
            "route": self.policy.route,
            "session": session_id,
            "error": failure.code.value,
            "outcome": failure.outcome.value,
            "message": failure.message,
        }
        if suppressed:
            about["suppressed"] = suppressed
        level = logging.ERROR if theirs else logging.WARNING
        log.log(level, "call failed", **{**about, **failure.facts})
