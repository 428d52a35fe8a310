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
    OnPart,
)


async def invoke(
    model: Model,
    request: ModelRequest,
    session: ModelSession | None = None,
    on_part: OnPart = lambda part: None,  # noqa: ARG005 - nobody listens
) -> ModelReply:
    """Send a turn and wait for its reply; cancelling that cancels the call.

    Raises:
        ModelError: It failed.
    """

    def start(on_end: OnEnd[ModelReply]) -> Call:
        def ended(result: ModelReply | Failure) -> None:
            on_end(ModelError(result) if isinstance(result, Failure) else result)

        return model.invoke(request, session, affinity="a", on_part=on_part, on_end=ended)

    return await result_of(start)
