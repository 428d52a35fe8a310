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
    Receipt,
)


class _Latest:
    """A call, and then the wait that follows from it."""

    call: Call

    def cancel(self) -> object:
        return self.call.cancel()


async def invoke(
    model: Model,
    request: ModelRequest,
    session: ModelSession | None = None,
    on_parts: OnParts = lambda parts: None,  # noqa: ARG005 - nobody listens
) -> ModelReply:
    """Send a turn and wait for its reply, also one that comes later; cancelling that cancels the
    call, or the wait.

    Raises:
        ModelError: It failed.
    """

    def start(on_end: OnEnd[ModelReply]) -> Call:
        def ended(result: ModelReply | Failure | Receipt) -> None:
            if isinstance(result, Receipt):
                both.call = model.wait(result, affinity="a", on_end=ended)
            else:
                on_end(ModelError(result) if isinstance(result, Failure) else result)

        both = _Latest()
        both.call = model.invoke(
            request,
            session,
            affinity="a",
            principal="p",
            until=None,
            on_parts=on_parts,
            on_end=ended,
        )
        return both

    return await result_of(start)
