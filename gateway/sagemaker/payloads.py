"""The payload of a streamed reply, extracted from its event stream.

botocore's ``EventStream`` is not used: it hides the ``ErrorCode`` of a ``ModelStreamError``, and
doesn't detect a stream that ends in the middle of an event.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from gateway.errors import Failure
from gateway.sagemaker.errors import BROKEN_OFF, TIMED_OUT, with_facts
from gateway.sagemaker.eventstream import EventStream, Malformed
from gateway.sagemaker.said import error_name
from gateway.session.ports import ModelError

_FAULT_BYTES = 65_536
"""The largest payload of an error that is parsed; the platform's own are far smaller."""


class Payloads:
    """Extracts the bytes of each ``PayloadPart`` from a body."""

    def __init__(self) -> None:
        self._events = EventStream()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Parse the next bytes of the body, and lazily yield the payload of each event in them.

        Unknown events have none.

        Raises:
            ModelError: The stream is malformed, or the platform ended it with an exception.
        """
        try:
            for headers, payload in self._events.feed(data):
                if headers.get(":message-type") in {"exception", "error"}:
                    raise ModelError(_failure(headers, payload))
                yield payload if headers.get(":event-type") == "PayloadPart" else b""
        except Malformed as error:
            raise ModelError(with_facts(BROKEN_OFF, cause=str(error))) from None

    def end(self) -> None:
        """End the body.

        Raises:
            ModelError: It ended in the middle of an event.
        """
        if self._events.pending:
            cause = "the stream ends in the middle of an event"
            raise ModelError(with_facts(BROKEN_OFF, cause=cause))


class _StreamError(msgspec.Struct, rename="pascal"):
    """The member of ``ModelStreamError`` that identifies the error."""

    error_code: str = ""


def _failure(headers: Mapping[str, Any], payload: bytes) -> Failure:
    cause = ""
    if len(payload) <= _FAULT_BYTES:
        with suppress(msgspec.DecodeError):
            cause = msgspec.json.decode(payload, type=_StreamError).error_code
    failure = TIMED_OUT if cause == "ModelInvocationTimeExceeded" else BROKEN_OFF
    code = headers.get(":exception-type") or headers.get(":error-code") or ""
    return with_facts(failure, code=error_name(str(code)), cause=error_name(cause))
