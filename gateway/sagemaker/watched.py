"""A transport that remembers how its newest call has ended, for diagnosis."""

from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from gateway.logs import printable
from gateway.sagemaker.budget import ReadBudget
from gateway.sagemaker.transport import OnEnd, OnHead, StreamedReply, T, Transport
from gateway.session.ports import Call, OnParts

MOST = 300
"""The longest message of a container that is kept."""


class Watched:
    """See `Transport`.

    Args:
        transport: Makes the calls.

    Attributes:
        closed: Whether the newest reply has closed a session.
        said: The container's message, if the newest call failed. It may quote the request, so show
            it only to its sender.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.closed = False
        self.said: str | None = None

    @property
    def budget(self) -> ReadBudget:
        """See `Transport`."""
        return self._transport.budget

    def invoke_endpoint(
        self,
        parameters: dict[str, Any],
        on_end: OnEnd[dict[str, Any]],
        *,
        sha256: bytes | None = None,
    ) -> Call:
        """See `Transport.invoke_endpoint`."""
        ended = partial(self._ended, on_end)
        return self._transport.invoke_endpoint(parameters, ended, sha256=sha256)

    def invoke_endpoint_with_response_stream(
        self,
        parameters: dict[str, Any],
        on_head: OnHead,
        on_parts: OnParts,
        on_end: OnEnd[StreamedReply],
        *,
        sha256: bytes | None = None,
    ) -> Call:
        """See `Transport.invoke_endpoint_with_response_stream`."""
        return self._transport.invoke_endpoint_with_response_stream(
            parameters, on_head, on_parts, partial(self._ended, on_end), sha256=sha256
        )

    def _ended(self, on_end: OnEnd[T], result: T | Exception) -> None:
        self.closed = isinstance(result, dict) and result.get("ClosedSessionId") is not None
        self.said = None
        if isinstance(result, ClientError):
            said = result.response.get("OriginalMessage")
            self.said = printable(str(said), MOST) if said else None
        on_end(result)
