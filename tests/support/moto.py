"""S3, SQS and SNS as moto has them, in a process of its own."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import msgspec
from aiobotocore.session import AioSession

from gateway.local.objects import NoSuchObject, Stored
from tests.support.timing import UNIT


@contextlib.contextmanager
def server() -> Iterator[str]:
    """A server of moto's; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-p", str(port)]
    environment = {**os.environ, "no_proxy": "127.0.0.1"}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            _until_it_answers(url)
            yield url
        finally:
            process.kill()


def _until_it_answers(url: str) -> None:
    transport = httpx.HTTPTransport(retries=60, verify=False)
    with httpx.Client(transport=transport, timeout=30 * UNIT) as client:
        client.get(f"{url}/moto-api/data.json").raise_for_status()


class Moto:
    """A bucket, and a queue that is subscribed to two topics.

    Attributes:
        url: Of the server.
        queue_url: Of the queue.
    """

    queue_url: str

    def __init__(self, url: str, s3: Any, sqs: Any, sns: Any) -> None:
        self.url = url
        self.s3 = s3
        self.sqs = sqs
        self._sns = sns
        self._topics: dict[bool, str] = {}

    async def prepare(self, *, raw: bool) -> None:
        """Make what there is to be; messages come as they are, or in SNS's envelope."""
        await self.s3.create_bucket(Bucket="outputs")
        await self.s3.create_bucket(Bucket="inputs")
        self.queue_url = (await self.sqs.create_queue(QueueName="notices"))["QueueUrl"]
        about = await self.sqs.get_queue_attributes(
            QueueUrl=self.queue_url, AttributeNames=["QueueArn"]
        )
        for succeeded in (True, False):
            topic = (await self._sns.create_topic(Name=f"ended-{succeeded}"))["TopicArn"]
            self._topics[succeeded] = topic
            await self._sns.subscribe(
                TopicArn=topic,
                Protocol="sqs",
                Endpoint=about["Attributes"]["QueueArn"],
                Attributes={"RawMessageDelivery": str(raw).lower()},
            )

    async def publish(self, notice: dict[str, Any], succeeded: bool) -> None:
        """As an endpoint does, to one of its topics."""
        message = msgspec.json.encode(notice).decode()
        await self._sns.publish(TopicArn=self._topics[succeeded], Message=message)

    async def get(self, location: str) -> Stored:
        """See `gateway.local.objects.Objects`."""
        bucket, _, key = location.removeprefix("s3://").partition("/")
        try:
            answer = await self.s3.get_object(Bucket=bucket, Key=key)
        except self.s3.exceptions.NoSuchKey:
            raise NoSuchObject(location) from None
        async with answer["Body"] as body:
            return Stored(await body.read(), answer["ContentType"])

    async def put(self, location: str, stored: Stored) -> None:
        """See `gateway.local.objects.Objects`."""
        bucket, _, key = location.removeprefix("s3://").partition("/")
        await self.s3.put_object(
            Bucket=bucket, Key=key, Body=stored.body, ContentType=stored.content_type
        )

    async def messages(self) -> int:
        """How many the queue has, those that are hidden included."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        about = await self.sqs.get_queue_attributes(QueueUrl=self.queue_url, AttributeNames=names)
        return sum(int(about["Attributes"][name]) for name in names)


@asynccontextmanager
async def connected(url: str, *, raw: bool = False) -> AsyncIterator[Moto]:
    """Clients of the test's own, with nothing there from before."""
    async with httpx.AsyncClient(verify=False) as http:
        (await http.post(f"{url}/moto-api/reset")).raise_for_status()
    session: Any = AioSession()
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                session.create_client(name, region_name="us-east-1", endpoint_url=url)
            )
            for name in ("s3", "sqs", "sns")
        ]
        moto = Moto(url, *clients)
        async with asyncio.timeout(20 * UNIT):
            await moto.prepare(raw=raw)
        yield moto
