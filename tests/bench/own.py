"""This gateway with a model that answers at once, in its own process: what its own path costs.

Everything of the gateway is as it is but for the adapter, which makes no call: the clients' side,
the codecs, the state machine and the log.
"""

import gateway.app
from gateway.cli import main
from gateway.sagemaker import SageMakerModel
from gateway.session.ports import ModelReply, ModelRequest, ModelSession, OnPart
from tests.bench.upstream import json_text

REPLY = ModelReply(body=json_text(1024), content_type="application/json", variant="AllTraffic")
STREAMED = ModelReply(body=None, content_type="text/plain", variant="AllTraffic")
PART, PARTS = "word " * 8, 200


class AtOnce(SageMakerModel):
    """Answers without a call."""

    async def open(self) -> ModelSession:
        """See `Model.open`."""
        return ModelSession("0123456789abcdef")

    async def invoke(
        self,
        request: ModelRequest,
        session: ModelSession | None,  # noqa: ARG002 - the port's
        *,
        affinity: str,  # noqa: ARG002
        on_part: OnPart,
    ) -> ModelReply:
        """See `Model.invoke`."""
        if not request.stream:
            return REPLY
        for _ in range(PARTS):
            on_part(PART)
        return STREAMED

    async def close(self, session: ModelSession) -> None:
        """See `Model.close`."""


def leave_the_platform_out() -> None:
    """Let every gateway that this process builds have no platform."""
    setattr(gateway.app, "SageMakerModel", AtOnce)  # noqa: B010 - no assignment may change a class


if __name__ == "__main__":
    leave_the_platform_out()
    main()
