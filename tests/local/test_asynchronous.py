"""Asynchronous calls of the local SageMaker, its S3 and its SQS, as AWS's own clients see them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import ClientError

from gateway.local import asynchronous, notices, objects
from gateway.local.asynchronous import Asynchronous
from gateway.local.builtin import BuiltinModel
from gateway.local.faults import Fault
from gateway.local.notices import Queue
from gateway.local.objects import Bucket, Stored
from gateway.local.platform import Endpoint
from gateway.local.server import REGION, running
from tests.support.processes import local
from tests.support.timing import UNIT

NAME = "my-endpoint"


class Clients:
    """AWS's own, for one platform."""

    runtime: Any
    s3: Any
    sqs: Any

    def __init__(self) -> None:
        self.bucket, self.queue = Bucket(), Queue()
        later = Asynchronous(self.bucket, self.queue.publish)
        self.endpoint = Endpoint(NAME, [BuiltinModel("i-1")], asynchronous=later)

    async def ask(self, body: str = "hello", **parameters: Any) -> Any:
        return await self.runtime.invoke_endpoint_async(
            EndpointName=NAME, ContentType="text/plain", Body=body.encode(), **parameters
        )

    async def get(self, location: str) -> tuple[bytes, str]:
        """An object, once it is there."""
        bucket, _, key = location.removeprefix("s3://").partition("/")
        async with asyncio.timeout(20 * UNIT):
            while True:
                try:
                    answer = await self.s3.get_object(Bucket=bucket, Key=key)
                except self.s3.exceptions.NoSuchKey:
                    await asyncio.sleep(0.01)
                else:
                    async with answer["Body"] as body:
                        return await body.read(), answer["ContentType"]

    async def received(self, **options: Any) -> list[Any]:
        given = {"WaitTimeSeconds": 20, "MaxNumberOfMessages": 10, **options}
        answer = await self.sqs.receive_message(QueueUrl="http://q", **given)
        messages: list[Any] = answer.get("Messages", [])
        return messages


@asynccontextmanager
async def connected(url: str, clients: Clients, **keys: str) -> AsyncIterator[Clients]:
    session: Any = AioSession()
    config = AioConfig(retries={"total_max_attempts": 1}, parameter_validation=False)
    async with AsyncExitStack() as stack:
        for name, service, path in (
            ("runtime", "sagemaker-runtime", ""),
            ("s3", "s3", "/_s3"),
            ("sqs", "sqs", "/_sqs"),
        ):
            client = await stack.enter_async_context(
                session.create_client(
                    service, region_name=REGION, endpoint_url=url + path, config=config, **keys
                )
            )
            setattr(clients, name, client)
        yield clients


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    made = Clients()
    async with (
        running([made.endpoint], bucket=made.bucket, queue=made.queue) as url,
        connected(url, made),
    ):
        yield made


async def test_a_reply_is_an_object(clients: Clients) -> None:
    answer = await clients.ask("/echo hi", InferenceId="my-id")
    assert answer["InferenceId"] == "my-id"
    assert answer["OutputLocation"] == "s3://local/outputs/my-id.out"
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert await clients.get(answer["OutputLocation"]) == (b"hi", "text/plain; charset=utf-8")


async def test_a_failure_is_another(clients: Clients) -> None:
    answer = await clients.ask("/fail 503 no room")
    body, kind = await clients.get(answer["FailureLocation"])
    assert body == b'Received server error (503) from primary with message "no room".'
    assert kind == "text/plain"


async def test_an_output_is_called_as_asked(clients: Clients) -> None:
    answer = await clients.ask(S3OutputPathExtension="a/b/", Filename="c.json")
    assert answer["OutputLocation"] == "s3://local/outputs/a/b/c.json"
    await clients.get(answer["OutputLocation"])


async def test_an_input_may_be_an_object(clients: Clients) -> None:
    await clients.s3.put_object(
        Bucket="b", Key="in puts/1+1", Body=b"/echo there", ContentType="text/plain"
    )
    head = await clients.s3.head_object(Bucket="b", Key="in puts/1+1")
    assert (head["ContentLength"], head["ContentType"]) == (11, "text/plain")
    answer = await clients.runtime.invoke_endpoint_async(
        EndpointName=NAME, ContentType="text/plain", InputLocation="s3://b/in puts/1+1"
    )
    assert (await clients.get(answer["OutputLocation"]))[0] == b"there"
    answer = await clients.runtime.invoke_endpoint_async(
        EndpointName=NAME, InputLocation="s3://b/nothing"
    )
    assert b"input object" in (await clients.get(answer["FailureLocation"]))[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"InputLocation": "s3://b/k"},
        {"Body": b""},
        {"RequestTTLSeconds": 59},
        {"InvocationTimeoutSeconds": 3601},
        {"Filename": "a.b.c"},
        {"S3OutputPathExtension": "s3://b"},
        {"InputLocation": "b/k", "Body": b""},
    ],
    ids=repr,
)
async def test_what_is_refused(clients: Clients, wrong: Any) -> None:
    with pytest.raises(ClientError) as caught:
        await clients.runtime.invoke_endpoint_async(**{"EndpointName": NAME, "Body": b"x", **wrong})
    assert caught.value.response["Error"]["Code"] == "ValidationError"


async def test_a_body_may_have_128000_bytes(clients: Clients) -> None:
    await clients.ask("x" * 128_000)
    with pytest.raises(ClientError) as caught:
        await clients.ask("x" * 128_001)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413


async def test_an_endpoint_takes_calls_of_one_kind(clients: Clients) -> None:
    with pytest.raises(ClientError, match="asynchronous calls alone"):
        await clients.runtime.invoke_endpoint(EndpointName=NAME, Body=b"x")
    clients.endpoint.asynchronous = None
    with pytest.raises(ClientError, match="no asynchronous calls"):
        await clients.ask()


async def test_what_takes_too_long_fails(clients: Clients) -> None:
    answer = await clients.ask("/sleep 60", InvocationTimeoutSeconds=1)
    assert b"timed out" in (await clients.get(answer["FailureLocation"]))[0]


async def test_what_waits_too_long_fails(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    clients.endpoint.faults.add(Fault(delay_work_seconds=60))
    for _ in range(asynchronous.CONCURRENT):
        await clients.ask()
    monkeypatch.setattr(asynchronous, "TTL_SECONDS", 0.1)
    answer = await clients.ask()
    assert b"expired in the queue" in (await clients.get(answer["FailureLocation"]))[0]
    monkeypatch.setattr(asynchronous, "MAX_WAITING", asynchronous.CONCURRENT)
    with pytest.raises(ClientError, match="Rate exceeded"):
        await clients.ask()


async def test_the_queue_is_told_of_each_end(clients: Clients) -> None:
    done = await clients.ask(InferenceId="one")
    await clients.ask("/fail 400", InferenceId="two")
    told: dict[str, Any] = {}
    while len(told) < 2:
        for message in await clients.received():
            assert message["Attributes"]["ApproximateReceiveCount"] == "1"
            notice = msgspec.json.decode(msgspec.json.decode(message["Body"])["Message"])
            told[notice["inferenceId"]] = notice
    assert told["one"]["invocationStatus"] == "Completed"
    assert told["one"]["responseParameters"]["outputLocation"] == done["OutputLocation"]
    assert told["two"]["invocationStatus"] == "Failed"
    assert told["two"]["failureReason"] == "ClientError: ModelError"


async def test_a_message_comes_again_until_it_is_deleted(clients: Clients) -> None:
    clients.queue.add("x")
    (message,) = await clients.received(VisibilityTimeout=600)
    assert await clients.received(WaitTimeSeconds=0) == []
    await clients.sqs.change_message_visibility_batch(
        QueueUrl="q",
        Entries=[{"Id": "0", "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 0}],
    )
    (message,) = await clients.received(VisibilityTimeout=600)
    assert message["Attributes"]["ApproximateReceiveCount"] == "2"
    await clients.sqs.delete_message_batch(
        QueueUrl="q", Entries=[{"Id": "0", "ReceiptHandle": message["ReceiptHandle"]}]
    )
    assert len(clients.queue) == 0
    with pytest.raises(ClientError) as caught:
        await clients.sqs.purge_queue(QueueUrl="q")
    assert caught.value.response["Error"]["Code"] == "UnsupportedOperation"


async def test_who_waits_is_told_when_a_message_comes(clients: Clients) -> None:
    waiting = asyncio.create_task(clients.received())
    await asyncio.sleep(0.1 * UNIT)
    clients.queue.add("x")
    async with asyncio.timeout(10 * UNIT):
        assert [message["Body"] for message in await waiting] == ["x"]


async def test_who_may_not_list_is_told_that_it_is_forbidden(clients: Clients) -> None:
    clients.bucket.lists = False
    with pytest.raises(ClientError) as caught:
        await clients.s3.get_object(Bucket="b", Key="k")
    assert caught.value.response["Error"]["Code"] == "AccessDenied"


async def test_signatures_are_checked_there_too() -> None:
    async with running([]) as url, AsyncExitStack() as stack:
        others = Clients()
        keys = {"aws_access_key_id": "local", "aws_secret_access_key": "wrong"}
        await stack.enter_async_context(connected(url, others, **keys))
        for call in (
            others.s3.put_object(Bucket="b", Key="k", Body=b"x"),
            others.sqs.receive_message(QueueUrl="q"),
        ):
            with pytest.raises(ClientError) as caught:
                await call
            assert caught.value.response["Error"]["Code"] == "InvalidSignatureException"


async def test_what_is_held_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "MAX_HELD_BYTES", 10)
    monkeypatch.setattr(notices, "MAX_MESSAGES", 2)
    bucket, queue = Bucket(), Queue()
    for key in ("a", "b", "b"):
        await bucket.put(f"s3://x/{key}", Stored(b"1234", "text/plain"))
    await bucket.put("s3://x/c", Stored(b"1234", "text/plain"))
    assert bucket.locations == ["s3://x/b", "s3://x/c"]
    for body in "abc":
        queue.add(body)
    assert [message.body for message in await queue.receive(10, 0, 0)] == ["b", "c"]


async def test_the_command_has_it() -> None:
    with local("--asynchronous", "--delay-work", "0.1") as process:
        async with connected(process.url, Clients()) as clients:
            answer = await clients.ask("/echo hi")
            assert (await clients.get(answer["OutputLocation"]))[0] == b"hi"
            assert len(await clients.received()) == 1
    assert f"GATEWAY_AWS__S3_ENDPOINT_URL={process.url}/_s3" in process.output
