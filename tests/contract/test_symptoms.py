"""What stands in a newcomer's way, at real servers: what is told of it, and to whom."""

import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import structs
from structlog.testing import capture_logs

from gateway.errors import ErrorCode, Failure
from gateway.formats.presets import FORMATS
from gateway.local.builtin import BuiltinModel
from gateway.local.environment import apart_from_aws
from gateway.local.faults import Fault
from gateway.local.platform import Endpoint
from gateway.local.server import running
from gateway.local.stateful import Dialect
from gateway.protocol.options import CallOptions
from gateway.sagemaker.model import SageMakerModel
from gateway.sagemaker.profiles import PROFILES
from gateway.sagemaker.symptoms import SEE_LOG, Symptom
from gateway.sagemaker.transport import Transport
from gateway.session.ports import ModelError
from tests.contract.test_sagemaker import ASK
from tests.support import transports
from tests.support.calls import invoke
from tests.support.timing import UNIT

SECRETS = ("000000000000", "arn:", "my-endpoint", "no-such-endpoint", "us-east-1", "local-secret")


@asynccontextmanager
async def platform(
    dialect: Dialect = "container-standards", **options: Any
) -> AsyncIterator[tuple[Endpoint, str]]:
    endpoint = Endpoint("my-endpoint", [BuiltinModel("i-1", dialect=dialect)])
    async with running([endpoint], **options) as url:
        yield endpoint, url


async def failing_open(
    client: Transport, profile: str = "container-standards", name: str = "my-endpoint"
) -> Failure:
    model = SageMakerModel(client, name, PROFILES[profile], CallOptions())
    with pytest.raises(ModelError) as caught:
        await model.open("p")
    failure = caught.value.failure
    assert not [secret for secret in SECRETS if secret in failure.message]
    return failure


def shows(failure: Failure, symptom: Symptom, *says: str) -> None:
    assert failure.facts["symptom"] == symptom
    for text in says:
        assert text in str(failure.facts["hint"])


async def test_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    async with platform() as (_, url):
        with apart_from_aws():
            async with transports.client(url) as client:
                failure = await failing_open(client)
        shows(failure, Symptom.NO_CREDENTIALS, "Run `aws configure`")
        assert failure.message == f"The gateway has no AWS credentials. {SEE_LOG}"
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        async with transports.client(url) as client:
            shows(await failing_open(client), Symptom.SECRET_WRONG, "does not belong")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
        async with transports.client(url) as client:
            shows(await failing_open(client), Symptom.KEY_UNKNOWN, "`aws sts get-caller-identity`")


async def test_another_region() -> None:
    async with platform() as (_, url), transports.client(url, region="eu-west-1") as client:
        shows(await failing_open(client), Symptom.OTHER_REGION, "the region of `aws.endpoint_url`")


@pytest.mark.parametrize(("ahead", "where"), [(3600, "behind"), (-3600, "ahead of")])
async def test_a_clock_that_is_wrong(ahead: int, where: str) -> None:
    async with platform(clock_seconds=ahead) as (_, url), transports.client(url) as client:
        failure = await failing_open(client)
    shows(failure, Symptom.CLOCK_OFF, f" s {where} AWS's, and")
    (seconds,) = re.findall(r"is (\d+) s ", str(failure.facts["hint"]))
    assert abs(int(seconds) - 3600) <= 20 * UNIT


DENIED = "Allow sagemaker:InvokeEndpoint on the endpoint"
# As `tests/integration/test_containers.py` has it from AWS's own session code.
OFF = '{"detail":"Invalid payload. stateful sessions not enabled"}'


async def test_what_the_platform_and_the_container_refuse() -> None:
    async with platform() as (endpoint, url), transports.client(url) as client:
        failure = await failing_open(client, name="no-such-endpoint")
        shows(failure, Symptom.ENDPOINT_MISSING, "Compare `endpoint_name` and `aws.region`")
        for fault, symptom, says in (
            (Fault(error="ExpiredTokenException"), Symptom.CREDENTIALS_EXPIRED, "`aws sso login`"),
            (Fault(error="ThrottlingException"), Symptom.THROTTLED, "quota"),
            (Fault(error="ModelNotReadyException"), Symptom.MODEL_LOADING, "takes minutes"),
            (Fault(error="ModelError", status=400, message=OFF), Symptom.SESSIONS_OFF, "=true"),
            (Fault(error="ModelError", status=503), Symptom.OPEN_REFUSED, "`session`"),
            (Fault(new_session_id="-none-"), Symptom.SESSION_MALFORMED, "`; Expires=`"),
            (Fault(denies=frozenset({"InvokeEndpoint"})), Symptom.ACCESS_DENIED, DENIED),
        ):
            endpoint.faults.add(fault)
            shows(await failing_open(client), symptom, says)


async def test_a_policy_without_the_second_permission_lets_a_conversation_begin() -> None:
    async with platform() as (endpoint, url), transports.client(url) as client:
        endpoint.faults.add(Fault(denies=frozenset({"InvokeEndpointWithResponseStream"})))
        profile, form = PROFILES["container-standards"], FORMATS["plain"]
        model = SageMakerModel(client, "my-endpoint", profile, CallOptions(), body_format=form)
        session = await model.open("p")
        with pytest.raises(ModelError) as caught:
            await invoke(model, structs.replace(ASK, stream=True), session)
    says = "Allow sagemaker:InvokeEndpointWithResponseStream on the endpoint"
    shows(caught.value.failure, Symptom.ACCESS_DENIED, says)


async def test_a_host_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with transports.client(f"http://127.0.0.1:{port}") as client:
        shows(await failing_open(client), Symptom.UNREACHABLE, "a VPC endpoint")
    async with transports.client("http://runtime.sagemaker.xx-none-1.invalid") as client:
        shows(await failing_open(client), Symptom.HOST_UNKNOWN, "`aws.region`")


async def test_a_container_without_sessions() -> None:
    async with platform("stateless") as (_, url), transports.client(url) as client:
        failure = await failing_open(client)
        shows(failure, Symptom.OPENED_NONE, "SAGEMAKER_ENABLE_STATEFUL_SESSIONS=true")
        assert failure.code is ErrorCode.MODEL_ERROR
        first = SageMakerModel(
            client, "my-endpoint", PROFILES["first-message"], CallOptions(), route="chat"
        )
        with capture_logs() as logs:
            await invoke(first, ASK)
    (line,) = logs
    assert (line["event"], line["route"]) == ("no session was opened", "chat")
    assert line["hint"] == failure.facts["hint"]
