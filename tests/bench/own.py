"""This gateway with a model that answers at once, in its own process: what its own path costs.

Everything of the gateway is as it is but for the adapter, which makes no call: the clients' side,
the codecs, the state machine and the log.
"""

import asyncio

import gateway.upstream
from gateway.cli import main
from gateway.sagemaker.model import SageMakerModel
from gateway.session.ports import (
    Call,
    ModelReply,
    ModelRequest,
    ModelSession,
    OnEnd,
    OnParts,
)
from tests.bench.upstream import json_text

REPLY = ModelReply(body=json_text(1024), content_type="application/json", variant="AllTraffic")
STREAMED = ModelReply(body=None, content_type="text/plain", variant="AllTraffic")
PART, PARTS = "word " * 8, 200


class AtOnce(SageMakerModel):
    """Answers without a call."""

    async def open(self, principal: str) -> ModelSession:  # noqa: ARG002
        """See `Model.open`."""
        return ModelSession("0123456789abcdef")

    def invoke(
        self,
        request: ModelRequest,
        session: ModelSession | None,  # noqa: ARG002 - the port's
        *,
        affinity: str,  # noqa: ARG002
        principal: str,  # noqa: ARG002
        until: float | None,  # noqa: ARG002 - it is sent at once
        on_parts: OnParts,
        on_end: OnEnd,
    ) -> Call:
        """See `Model.invoke`."""

        def answer() -> None:
            if request.stream:
                on_parts([PART] * PARTS)
            on_end(STREAMED if request.stream else REPLY)

        return asyncio.get_running_loop().call_soon(answer)

    async def close(self, session: ModelSession) -> None:
        """See `Model.close`."""


def leave_the_platform_out() -> None:
    """Let every gateway that this process builds have no platform."""
    setattr(gateway.upstream, "SageMakerModel", AtOnce)  # noqa: B010 - no assignment may change a class


if __name__ == "__main__":
    leave_the_platform_out()
    main()
