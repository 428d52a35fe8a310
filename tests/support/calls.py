"""Turns and calls that are waited for."""

from gateway.errors import Failure
from gateway.sagemaker.transport import OnEnd, result_of
from gateway.session.ports import (
    Call,
    Model,
    ModelError,
    ModelReply,
    ModelRequest,
    ModelSession,
    OnParts,
)


async def invoke(
    model: Model,
    request: ModelRequest,
    session: ModelSession | None = None,
    on_parts: OnParts = lambda parts: None,  # noqa: ARG005 - nobody listens
) -> ModelReply:
    """Send a turn and wait for its reply; cancelling that cancels the call.

    Raises:
        ModelError: It failed.
    """

    def start(on_end: OnEnd[ModelReply]) -> Call:
        def ended(result: ModelReply | Failure) -> None:
            on_end(ModelError(result) if isinstance(result, Failure) else result)

        return model.invoke(
            request,
            session,
            affinity="a",
            principal="p",
            until=None,
            on_parts=on_parts,
            on_end=ended,
        )

    return await result_of(start)
