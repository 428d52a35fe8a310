"""An asynchronous endpoint in the test's process, and an adapter in front of it."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from gateway.formats.presets import Format
from gateway.local.asynchronous import Asynchronous
from gateway.local.builtin import BuiltinModel
from gateway.local.notices import Queue
from gateway.local.objects import Bucket
from gateway.local.platform import Endpoint
from gateway.local.server import running
from gateway.protocol.options import CallOptions
from gateway.sagemaker.asynchronous import AsyncModel
from gateway.sagemaker.options import AsyncOptions
from gateway.sagemaker.services import Services, async_services
from gateway.session.ports import ModelReply, ModelRequest, Receipt
from tests.support.transports import limits_of

LONG_AGO = Receipt(id="i", reply_at="s3://b/none", failure_at="s3://b/no-error", until=0.0)


def ask(text: str = "hello", **options: Any) -> ModelRequest:
    """A turn."""
    return ModelRequest(body=text.encode(), content_type="text/plain", **options)


def soon(receipt: Receipt, seconds: float = 60.0) -> Receipt:
    """A receipt whose time is up in a while."""
    return Receipt(
        id=receipt.id,
        reply_at=receipt.reply_at,
        failure_at=receipt.failure_at,
        until=time.time() + seconds,
    )


class Fixture:
    """The platform and the clients of one gateway."""

    services: Services
    url: str

    def __init__(self) -> None:
        self.bucket, self.queue = Bucket(), Queue()
        self.later = Asynchronous(self.bucket, self.queue.publish)
        self.endpoint = Endpoint("my-endpoint", [BuiltinModel("i-1")], asynchronous=self.later)

    @property
    def queue_url(self) -> str:
        return f"{self.url}/_sqs"

    def model(
        self, form: Format | None = None, defaults: CallOptions | None = None, **options: Any
    ) -> AsyncModel:
        """An adapter that looks for replies often."""
        given = {"poll_seconds": 0.01, "poll_max_seconds": 0.05, **options}
        return AsyncModel(
            self.services,
            "my-endpoint",
            defaults or CallOptions(),
            AsyncOptions(**given),
            body_format=form or Format(),
            route="slow",
        )


@asynccontextmanager
async def services(url: str, **options: Any) -> AsyncIterator[Services]:
    """The clients of one gateway."""
    limits = limits_of(options)
    given = {
        "region": "us-east-1",
        "profile": None,
        "endpoint_url": url,
        "s3_endpoint_url": f"{url}/_s3",
        "sqs_endpoint_url": f"{url}/_sqs",
        **options,
    }
    async with async_services(**given, limits=limits) as made:
        yield made


@asynccontextmanager
async def platform(**options: Any) -> AsyncIterator[Fixture]:
    """Both; options are those of `services`."""
    fixture = Fixture()
    async with AsyncExitStack() as stack:
        fixture.url = await stack.enter_async_context(
            running([fixture.endpoint], bucket=fixture.bucket, queue=fixture.queue)
        )
        fixture.services = await stack.enter_async_context(services(fixture.url, **options))
        yield fixture


def text_of(reply: ModelReply) -> str:
    """What a model has said."""
    assert reply.body is not None
    return reply.body.decode()
