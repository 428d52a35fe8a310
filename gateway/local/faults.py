"""What is to go wrong, told by the admin calls and by flags."""

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
"""The largest part of a stream."""


class Fault(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One admin call to ``/_local/{endpoint}/faults``.

    Attributes:
        error: The next calls fail with this one, before any instance sees them; ``ModelError`` as
            if a container had answered with `status` and `message`.
        times: How many calls fail so; and likewise how many streams break.
        status: Of the container.
        message: Of the container.
        delay_seconds: Every call waits this long, until told otherwise.
        new_session_id: The next opening's ``NewSessionId`` header reads so instead; empty leaves
            the header out.
        break_after_parts: The next streams break after so many parts, or at their end, whatever
            comes first.
        break_mode: How: ``exception``, ModelStreamError with StreamBroken; ``time``, the same with
            ModelInvocationTimeExceeded; ``internal``, InternalStreamFailure; ``cut``, the
            connection is dropped in the middle of a message.
        part_bytes: Every stream comes in parts of so many bytes, wherever that cuts lines and
            characters, until told otherwise; 0 for parts as the container gives them.
        part_seed: With `part_bytes`: parts are of 1 to so many bytes, at random from this seed,
            the same in every stream.
        delay_parts_seconds: Every part waits this long, until told otherwise.
        delay_work_seconds: Every asynchronous call takes this much longer once an instance is free,
            until told otherwise.
        denies: What whoever calls may not do, as if no policy allowed it, until told otherwise.
        lists: Whether the gateway may list the buckets of asynchronous calls; where it may not, S3
            says that what is not there is forbidden.
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
    """Cuts a stream into the parts that are asked for.

    Args:
        part_bytes: See `Fault`.
        seed: Likewise.
    """

    def __init__(self, part_bytes: int, seed: int | None) -> None:
        self._part_bytes = part_bytes
        self._random = None if seed is None else random.Random(seed)  # noqa: S311 - no secret
        self._rest = b""
        self._next = self._size()

    def take(self, data: bytes) -> Iterator[bytes]:
        """The parts that are complete with this."""
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
        """What remains at the end."""
        if self._rest:
            yield self._rest

    def _size(self) -> int:
        most = min(self._part_bytes, MAX_PART_BYTES)
        return most if self._random is None else self._random.randint(1, max(most, 1))


class Faults:
    """The faults that are in force."""

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
        """Bring a fault into force."""
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

    def next_break(self) -> tuple[int, BreakMode] | None:
        """After how many parts the present stream is to break, and how."""
        if not self._breaks:
            return None
        fault = self._breaks.popleft()
        assert fault.break_after_parts is not None  # noqa: S101 - only those with one are kept
        return fault.break_after_parts, fault.break_mode

    def slicer(self) -> Slicer:
        """What cuts the present stream."""
        return Slicer(self._part_bytes, self._part_seed)
