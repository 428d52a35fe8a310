"""The results of trying a route, step by step."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from msgspec import Struct

from gateway.errors import Failure
from gateway.sagemaker.symptoms import SEE_LOG, Symptom, hint_of
from gateway.sagemaker.watched import Watched

Name = Literal["session", "message", "stream", "again", "memory", "close"]
Status = Literal["ok", "warning", "failed", "unknown", "skipped"]


class Step(Struct, frozen=True, omit_defaults=True):
    """The result of one step.

    Attributes:
        name: Name of the step.
        status: Its outcome; ``unknown`` if it can't be determined.
        text: The result, as a sentence.
        seconds: How long it took.
        symptom: The symptom it shows, see `gateway.sagemaker.symptoms`.
        hint: What the symptom means, and what to do.
        details: Messages of AWS and the container, and where the container's log is.
    """

    name: Name
    status: Status
    text: str
    seconds: float | None = None
    symptom: Symptom | None = None
    hint: str | None = None
    details: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Step {self.name}: {self.status}>"


class Trial(Struct, frozen=True):
    """The result of trying a route.

    Attributes:
        route: Name of the route.
        endpoint: Its endpoint.
        ok: Whether conversations work there, as far as can be determined.
        steps: All steps, in order.
    """

    route: str
    endpoint: str
    ok: bool
    steps: list[Step]

    def __repr__(self) -> str:
        return f"<Trial {self.route}: {self.ok}>"


class Findings:
    """Collects the results of a route's steps.

    Args:
        watched: The transport of the calls.
        logged: Lines that would have been logged.
        on_step: Called with each step.
    """

    def __init__(
        self, watched: Watched, logged: Sequence[str], on_step: Callable[[Step], None]
    ) -> None:
        self.steps: list[Step] = []
        self._logged = logged
        self._watched = watched
        self._on_step = on_step

    @property
    def ok(self) -> bool:
        """Whether no step has failed."""
        return not any(step.status == "failed" for step in self.steps)

    def found(self, name: Name, status: Status, text: str, *, seconds: float | None = None) -> None:
        """Add a result that needs no explanation."""
        rounded = None if seconds is None else round(seconds, 3)
        self._add(Step(name, status, text, rounded))

    def symptom(
        self,
        name: Name,
        status: Status,
        text: str,
        symptom: Symptom,
        *,
        failure: Failure | None = None,
        **values: object,
    ) -> None:
        """Add a result that is a known symptom.

        Args:
            name: Name of the step.
            status: Its outcome.
            text: The result.
            symptom: The symptom.
            failure: The failure that showed it, if any.
            values: Values for the placeholders of its hint.
        """
        hint = hint_of(symptom, **values)
        details = self._details({} if failure is None else failure.facts)
        self._add(Step(name, status, text, symptom=symptom, hint=hint, details=details))

    def failed(self, name: Name, failure: Failure) -> None:
        """Add a failed call."""
        facts = failure.facts
        symptom = None if facts.get("symptom") is None else Symptom(str(facts["symptom"]))
        hint = None if symptom is None else str(facts["hint"])
        text = failure.message.removesuffix(SEE_LOG).rstrip(". ")
        code = facts.get("code") or facts.get("raised")
        text += f" ({code})" if code else ""
        details = self._details(facts)
        self._add(Step(name, "failed", text, symptom=symptom, hint=hint, details=details))

    def _details(self, facts: Mapping[str, object]) -> tuple[str, ...]:
        told = [
            ("AWS says", facts.get("message")),
            ("the container says", self._watched.said if facts else None),
            ("the container's log", facts.get("log_stream")),
            *(("the gateway says", line) for line in dict.fromkeys(self._logged)),
        ]
        return tuple(f"{who}: {what}" for who, what in told if what)

    def _add(self, step: Step) -> None:
        self.steps.append(step)
        self._on_step(step)
