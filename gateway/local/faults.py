"""Faults to inject, set by admin calls or command-line options."""

import random
from collections import deque
from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import Meta, Struct

from gateway.local.api import PLATFORM_ERRORS, ApiError, model_error

ErrorName = Literal[
    "ThrottlingException",
    "ModelNotReadyException",
    "ServiceUnavailable",
    "InternalFailure",
    "InternalDependencyException",
    "ExpiredTokenException",
    "ModelError",
]

Action = Literal["InvokeEndpoint", "InvokeEndpointAsync", "InvokeEndpointWithResponseStream"]

BreakMode = Literal["exception", "time", "internal", "cut"]

Count = Annotated[int, Meta(ge=0)]

MAX_PART_BYTES = 65_536
"""Maximum size of a part of a stream."""


class Fault(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of an admin call to ``/_local/{endpoint}/faults``.

    Attributes:
        error: The next calls fail with this error, without reaching an instance; ``ModelError`` as
            if a container had responded with `status` and `message`.
        times: Number of calls that fail, and of streams that break.
        status: Status of the container's response.
        message: Message of the container's response.
        delay_seconds: Delay of every call, until changed.
        new_session_id: Replaces the ``NewSessionId`` header of the next opening; empty omits it.
        break_after_parts: The next streams break after this many parts, or at their end, whichever
            comes first.
        break_mode: How they break: ``exception``, ModelStreamError with StreamBroken; ``time``, the
            same with ModelInvocationTimeExceeded; ``internal``, InternalStreamFailure; ``cut``, the
            connection is closed in the middle of a message.
        part_bytes: Size of the parts of every stream, which may split lines and characters, until
            changed; 0 for parts as the container sends them.
        part_seed: With `part_bytes`: parts have random sizes from 1 to that, generated from this
            seed, and the same in every stream.
        delay_parts_seconds: Delay of every part, until changed.
        delay_work_seconds: Additional duration of every asynchronous call on its instance, until
            changed.
        denies: Actions that are denied, as if no policy allowed them, until changed.
        lists: Whether the gateway may list the buckets of asynchronous calls; if not, S3 reports
            missing objects as forbidden.
    """

    error: ErrorName | None = None
    times: Count = 1
    status: int = 500
    message: str = "failed as asked"
    delay_seconds: Annotated[float, Meta(ge=0)] | None = None
    new_session_id: str | None = None
    break_after_parts: Count | None = None
    break_mode: BreakMode = "exception"
    part_bytes: Count | None = None
    part_seed: int | None = None
    delay_parts_seconds: Annotated[float, Meta(ge=0)] | None = None
    delay_work_seconds: Annotated[float, Meta(ge=0)] | None = None
    denies: frozenset[Action] | None = None
    lists: bool | None = None


class Slicer:
    """Splits a stream into parts of the configured sizes.

    Args:
        part_bytes: See `Fault`.
        seed: See `Fault`.
    """

    def __init__(self, part_bytes: int, seed: int | None) -> None:
        self._part_bytes = part_bytes
        self._random = None if seed is None else random.Random(seed)  # noqa: S311 - no secret
        self._rest = b""
        self._next = self._size()

    def take(self, data: bytes) -> Iterator[bytes]:
        """Yield the parts that this data completes."""
        if not self._part_bytes:
            for start in range(0, len(data), MAX_PART_BYTES):
                yield data[start : start + MAX_PART_BYTES]
            return
        data, start = self._rest + data, 0
        while len(data) - start >= self._next:
            end = start + self._next
            yield data[start:end]
            start, self._next = end, self._size()
        self._rest = data[start:]

    def flush(self) -> Iterator[bytes]:
        """Yield the rest at the end of the stream."""
        if self._rest:
            yield self._rest

    def _size(self) -> int:
        most = min(self._part_bytes, MAX_PART_BYTES)
        return most if self._random is None else self._random.randint(1, max(most, 1))


class Faults:
    """The active faults of an endpoint."""

    def __init__(self) -> None:
        self.delay_seconds = 0.0
        self.delay_parts_seconds = 0.0
        self.delay_work_seconds = 0.0
        self.denies: frozenset[str] = frozenset()
        self._part_bytes = 0
        self._part_seed: int | None = None
        self._breaks: deque[Fault] = deque()
        self._errors: deque[Fault] = deque()
        self._new_session_ids: deque[str] = deque()

    def add(self, fault: Fault) -> None:
        """Activate a fault."""
        if fault.delay_seconds is not None:
            self.delay_seconds = fault.delay_seconds
        if fault.delay_parts_seconds is not None:
            self.delay_parts_seconds = fault.delay_parts_seconds
        if fault.delay_work_seconds is not None:
            self.delay_work_seconds = fault.delay_work_seconds
        if fault.denies is not None:
            self.denies = frozenset(fault.denies)
        if fault.part_bytes is not None:
            self._part_bytes, self._part_seed = fault.part_bytes, fault.part_seed
        if fault.break_after_parts is not None:
            self._breaks.extend([fault] * fault.times)
        if fault.error is not None:
            self._errors.extend([fault] * fault.times)
        if fault.new_session_id is not None:
            self._new_session_ids.append(fault.new_session_id)

    def next_error(self, endpoint: str) -> ApiError | None:
        """Return the error that the current call fails with, if any."""
        if not self._errors:
            return None
        fault = self._errors.popleft()
        if fault.error == "ModelError":
            return model_error(fault.status, fault.message, endpoint)
        assert fault.error is not None  # noqa: S101 - only those with one are kept
        status, message = PLATFORM_ERRORS[fault.error]
        return ApiError(fault.error, status, message)

    def next_new_session_id(self) -> str | None:
        """Return the session id to report for the current opening; None for the real one."""
        return self._new_session_ids.popleft() if self._new_session_ids else None

    def next_break(self) -> tuple[int, BreakMode] | None:
        """Return after how many parts the current stream breaks, and how; None if it does not."""
        if not self._breaks:
            return None
        fault = self._breaks.popleft()
        assert fault.break_after_parts is not None  # noqa: S101 - only those with one are kept
        return fault.break_after_parts, fault.break_mode

    def slicer(self) -> Slicer:
        """Create the slicer of the current stream."""
        return Slicer(self._part_bytes, self._part_seed)
