"""A route as its sessions use it: its policy, its model and its log lines."""

import logging

import structlog
from msgspec import UNSET, Struct

from gateway.errors import ErrorCode, Failure
from gateway.logs import LogLimit, log_quickly
from gateway.protocol.messages import MessageDone
from gateway.session.policy import Policy
from gateway.session.ports import Model
from gateway.session.session import Session
from gateway.tally import RouteMeasures, Tracer, TurnTimes

FAILURES_A_MINUTE = 60
"""Log lines a minute about failed calls of a route, for each reason."""

log = structlog.stdlib.get_logger("gateway.sessions")


class TurnLine(Struct, tag_field="event", tag="turn", omit_defaults=True):
    """See docs/observability.md."""

    level: str
    route: str
    session: str
    id: str
    status: str
    deltas: int
    duration_ms: int
    queued_ms: int | None = None
    upstream_ms: int | None = None
    first_delta_ms: int | None = None
    gateway_us: int | None = None
    sagemaker_session: str | None = None
    error: str | None = None
    outcome: str | None = None
    logger: str = ""
    timestamp: str = ""
    replica: str | None = None

    def __repr__(self) -> str:
        return f"<TurnLine {self.session} {self.id}>"


class Route:
    """A route's policy and model.

    Args:
        policy: Its policy.
        model: Its model.
        measures: Counts its turns; new ones by default.
        tracer: Traces its turns; None if tracing is off.
    """

    __slots__ = ("_log", "failures", "measures", "model", "policy", "tracer")

    def __init__(
        self,
        policy: Policy,
        model: Model,
        measures: RouteMeasures | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self.policy = policy
        self.model = model
        self.measures = measures or RouteMeasures()
        self.tracer = tracer
        self.failures = LogLimit(FAILURES_A_MINUTE)
        # Not the module's logger, which would be bound permanently to the current configuration.
        self._log = log_quickly(structlog.stdlib.get_logger("gateway.sessions").bind())

    def log_turn(
        self, level: int, session: Session, done: MessageDone, times: TurnTimes | None
    ) -> None:
        """Log the end of a turn.

        Args:
            level: Log level; above debug, the operator has asked for it, and the model's session is
                included.
            session: Its session.
            done: Its ``message.done``.
            times: Its times; None if it was accepted in another process.
        """
        asked, model = level > logging.DEBUG, None
        queued = upstream = first = own = None
        if times is not None:
            model = times.model
            waited, at_model = times.queued, times.upstream
            queued = int(waited * 1000) if waited else 0
            own = int(times.own * 1_000_000)
            if times.sent:
                upstream = int(at_model * 1000)
            if times.first:
                first = int((times.first - times.accepted) * 1000)
        if model is None:
            model = session.model
        line = TurnLine(
            "info" if asked else "debug",
            self.policy.route,
            session.id,
            done.id,
            done.status,
            done.deltas,
            done.duration_ms,
            queued,
            upstream,
            first,
            own,
            model.id if asked and model is not None else None,
        )
        if done.error is not UNSET:
            line.error, line.outcome = done.error.code.value, done.error.outcome.value
        elif done.outcome is not UNSET:
            line.outcome = done.outcome.value
        self._log(line)

    def log_failure(self, call: str, session_id: str, failure: Failure) -> None:
        """Log a failed call, at a limited rate; as an error if the operator has to fix it."""
        self.measures.failures[call, failure.code.value] += 1
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
