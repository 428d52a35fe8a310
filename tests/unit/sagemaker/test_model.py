"""What no platform can be made to do: replies that can't be, and ends in the wrong moment."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.errors import ErrorCode, Failure, Outcome
from gateway.formats.presets import Format
from gateway.formats.streams import StreamKind
from gateway.local.eventstream import payload_part
from gateway.protocol.options import CallOptions
from gateway.sagemaker.budget import ReadBudget
from gateway.sagemaker.model import SageMakerModel
from gateway.sagemaker.profiles import PROFILES
from gateway.sagemaker.replies import ReplyReader
from gateway.sagemaker.transport import OnEnd, OnHead, StreamedReply, result_of
from gateway.session.ports import Call, ModelReply, ModelRequest, OnParts, Receipt


class Handle:
    """A call that is under way."""

    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Transport:
    """Hands out the callbacks that it is given."""

    def __init__(self, budget: ReadBudget) -> None:
        self.budget = budget
        self.end: Callable[[Any], None]
        self.reader: ReplyReader

    def invoke_endpoint(
        self,
        parameters: dict[str, Any],
        on_end: OnEnd[dict[str, Any]],
        *,
        sha256: bytes | None = None,
    ) -> Call:
        del parameters, sha256
        self.end = on_end
        return Handle()

    def invoke_endpoint_with_response_stream(
        self,
        parameters: dict[str, Any],
        on_head: OnHead,
        on_parts: OnParts,
        on_end: OnEnd[StreamedReply],
        *,
        sha256: bytes | None = None,
    ) -> Call:
        del parameters, sha256
        self.reader = ReplyReader(self.budget, on_head, on_parts, on_end)
        self.reader.begin(StreamedReply())
        return self.reader


@pytest.mark.parametrize("stream", [False, True])
async def test_what_nobody_has_foreseen_ends_the_turn(*, stream: bool) -> None:
    transport = Transport(ReadBudget(asyncio.get_running_loop()))
    ends: list[ModelReply | Failure | Receipt] = []

    def on_parts(_parts: object) -> None:
        raise ZeroDivisionError

    form = Format(stream=StreamKind.LINES)
    model = SageMakerModel(
        transport, "my-endpoint", PROFILES["stateless"], CallOptions(), body_format=form
    )
    request = ModelRequest(body=b"{}", content_type="application/json", stream=stream)
    model.invoke(
        request,
        None,
        affinity="a",
        principal="p",
        until=None,
        on_parts=on_parts,
        on_end=ends.append,
    )
    if stream:
        transport.reader.feed(payload_part(b"the beginning of a line"))
        transport.reader.end()
    else:
        transport.end({})  # without a body
    (failure,) = ends
    assert isinstance(failure, Failure)
    assert (failure.code, failure.outcome) == (ErrorCode.STREAM_BROKEN, Outcome.INVOKED)


async def test_an_end_that_comes_when_nobody_waits_any_more() -> None:
    handle = Handle()
    ends: list[OnEnd[dict[str, Any]]] = []

    def start(on_end: OnEnd[dict[str, Any]]) -> Call:
        ends.append(on_end)
        return handle

    waiting = asyncio.create_task(result_of(start))
    await asyncio.sleep(0)
    waiting.cancel()
    ends[0]({})
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert handle.cancelled
