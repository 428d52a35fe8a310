"""Asynchronous routes against moto's S3, SQS and SNS: other people's idea of what AWS does."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from gateway.errors import ErrorCode, Failure, Outcome
from gateway.local.asynchronous import Asynchronous
from gateway.local.builtin import BuiltinModel
from gateway.local.faults import Fault
from gateway.local.platform import Endpoint
from gateway.local.server import running
from gateway.protocol.options import CallOptions
from gateway.sagemaker.asynchronous import AsyncModel
from gateway.sagemaker.options import AsyncOptions
from gateway.session.ports import ModelError
from tests.support import moto
from tests.support.asynchronous import ask, services, text_of
from tests.support.calls import invoke
from tests.support.moto import Moto
from tests.support.timing import UNIT


@pytest.fixture(scope="module")
def transport() -> str:
    """Asynchronous routes have but one way to call."""
    return "aiobotocore"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with moto.server() as url:
        yield url


class Platform:
    """An endpoint whose objects and topics are at moto's, and an adapter in front of it."""

    model: AsyncModel

    def __init__(self, aws: Moto) -> None:
        self.aws = aws
        later = Asynchronous(
            aws, aws.publish, outputs="s3://outputs/of", failures="s3://outputs/failed"
        )
        self.endpoint = Endpoint("my-endpoint", [BuiltinModel("i-1")], asynchronous=later)


@pytest.fixture(params=[False, True], ids=["enveloped", "raw"])
async def platform(url: str, request: pytest.FixtureRequest) -> AsyncIterator[Platform]:
    async with moto.connected(url, raw=request.param) as aws:
        made = Platform(aws)
        async with (
            running([made.endpoint]) as local,
            services(local, s3_endpoint_url=url, sqs_endpoint_url=url) as clients,
        ):
            options = AsyncOptions(
                input_location="s3://inputs/all/",
                notification_queue_url=aws.queue_url,
                poll_seconds=600.0,
                poll_max_seconds=600.0,
            )
            made.model = AsyncModel(clients, "my-endpoint", CallOptions(), options)
            made.endpoint.faults.add(Fault(delay_work_seconds=0.2))
            yield made


async def test_a_reply_is_told_of_and_found(platform: Platform) -> None:
    async with asyncio.timeout(20 * UNIT):
        replies = await asyncio.gather(
            *(invoke(platform.model, ask(f"/echo é {number}")) for number in range(5))
        )
        assert [text_of(reply) for reply in replies] == [f"é {number}" for number in range(5)]
        assert {reply.content_type for reply in replies} == {"text/plain; charset=utf-8"}
        while await platform.aws.messages():  # noqa: ASYNC110 - it is in a queue
            await asyncio.sleep(0.05)
    inputs = await platform.aws.s3.list_objects_v2(Bucket="inputs")
    assert len(inputs["Contents"]) == 5
    assert all(each["Key"].startswith("all/") for each in inputs["Contents"])


async def test_a_failure_too(platform: Platform) -> None:
    with pytest.raises(ModelError) as caught:
        async with asyncio.timeout(20 * UNIT):
            await invoke(platform.model, ask("/fail 503"))
    failure: Failure = caught.value.failure
    assert (failure.code, failure.outcome) == (ErrorCode.MODEL_ERROR, Outcome.INVOKED)
    assert failure.facts["original_status"] == 503


async def test_a_bucket_that_is_not_there(platform: Platform) -> None:
    for key in [each["Key"] for each in (await _contents(platform.aws))]:
        await platform.aws.s3.delete_object(Bucket="inputs", Key=key)
    await platform.aws.s3.delete_bucket(Bucket="inputs")
    with pytest.raises(ModelError) as caught:
        await invoke(platform.model, ask())
    failure = caught.value.failure
    assert (failure.code, failure.outcome) == (ErrorCode.UNAVAILABLE, Outcome.NOT_INVOKED)
    assert failure.retryable is False
    assert failure.facts["code"] == "NoSuchBucket"


async def _contents(aws: Moto) -> list[dict[str, str]]:
    listed = await aws.s3.list_objects_v2(Bucket="inputs")
    found: list[dict[str, str]] = listed.get("Contents", [])
    return found
