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


class AtOnce(SageMakerModel):
    """Answers without a call."""

    async def open(self) -> ModelSession:
        """See `Model.open`."""
        return ModelSession("0123456789abcdef")

    async def invoke(
        self,
        request: ModelRequest,  # noqa: ARG002 - the port's
        session: ModelSession | None,  # noqa: ARG002
        *,
        affinity: str,  # noqa: ARG002
        on_part: OnPart,  # noqa: ARG002
    ) -> ModelReply:
        """See `Model.invoke`."""
        return REPLY

    async def close(self, session: ModelSession) -> None:
        """See `Model.close`."""


if __name__ == "__main__":
    setattr(gateway.app, "SageMakerModel", AtOnce)  # noqa: B010 - no assignment may change a class
    main()
