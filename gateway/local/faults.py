"""What is to go wrong, told by the admin calls and by flags."""

from collections import deque
from typing import Literal

from msgspec import Struct

from gateway.local.api import PLATFORM_ERRORS, ApiError, model_error

ErrorName = Literal[
    "ThrottlingException",
    "ModelNotReadyException",
    "ServiceUnavailable",
    "InternalFailure",
    "InternalDependencyException",
    "ModelError",
]


class Fault(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One admin call to ``/_local/faults``.

    Attributes:
        error: The next calls fail with this one, before any instance sees them; ``ModelError`` as
            if a container had answered with `status` and `message`.
        times: How many.
        status: Of the container.
        message: Of the container.
        delay_seconds: Every call waits this long, until told otherwise.
        new_session_id: The next opening's ``NewSessionId`` header reads so instead; empty leaves
            the header out.
    """

    error: ErrorName | None = None
    times: int = 1
    status: int = 500
    message: str = "failed as asked"
    delay_seconds: float | None = None
    new_session_id: str | None = None


class Faults:
    """The faults that are in force."""

    def __init__(self) -> None:
        self.delay_seconds = 0.0
        self._errors: deque[Fault] = deque()
        self._new_session_ids: deque[str] = deque()

    def add(self, fault: Fault) -> None:
        """Bring a fault into force."""
        if fault.delay_seconds is not None:
            self.delay_seconds = fault.delay_seconds
        if fault.error is not None:
            self._errors.extend([fault] * fault.times)
        if fault.new_session_id is not None:
            self._new_session_ids.append(fault.new_session_id)

    def next_error(self, endpoint: str) -> ApiError | None:
        """What the present call is to fail with."""
        if not self._errors:
            return None
        fault = self._errors.popleft()
        if fault.error == "ModelError":
            return model_error(fault.status, fault.message, endpoint)
        assert fault.error is not None  # noqa: S101 - only those with one are kept
        status, message = PLATFORM_ERRORS[fault.error]
        return ApiError(fault.error, status, message)

    def next_new_session_id(self) -> str | None:
        """What the present opening is to be told; None for the truth."""
        return self._new_session_ids.popleft() if self._new_session_ids else None
