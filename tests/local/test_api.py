"""The local SageMaker's API: signatures, parameters and errors, as AWS's own client sees them."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from gateway.local.builtin import BuiltinModel
from gateway.local.containers import HttpContainer
from gateway.local.faults import Fault
from gateway.local.platform import Endpoint
from gateway.local.server import ACCESS_KEY, REGION, SECRET_KEY, running
from tests.support.timing import UNIT

PATH = "/endpoints/my-endpoint/invocations"


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint("my-endpoint", [BuiltinModel("i-1"), BuiltinModel("i-2")])


@pytest.fixture
async def url(endpoint: Endpoint) -> AsyncIterator[str]:
    async with running([endpoint], body_bytes=1000) as url:
        yield url


@pytest.fixture
async def client(url: str) -> AsyncIterator[Any]:
    session: Any = AioSession()
    async with session.create_client(
        "sagemaker-runtime",
        region_name=REGION,
        endpoint_url=url,
        config=AioConfig(retries={"total_max_attempts": 1}),
    ) as client:
        yield client


def signed(url: str, body: bytes = b"{}", region: str = REGION, key: str = SECRET_KEY) -> Any:
    """Headers of a request that is signed as AWS's clients do."""
    request = AWSRequest(
        method="POST", url=url + PATH, data=body, headers={"Content-Type": "application/json"}
    )
    SigV4Auth(Credentials(ACCESS_KEY, key), "sagemaker", region).add_auth(request)
    return dict(request.headers)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 204),
        ({"Host": "localhost:9000"}, 204),
        ({"Host": "[::1]"}, 204),
        ({"Host": "evil.example.com"}, 421),
        ({"Host": "127.0.0.1.example.com"}, 421),
        ({"Host": "10.0.0.1"}, 421),
        ({"Host": "["}, 421),
        ({"Host": ""}, 421),
        ({"Origin": "OWN"}, 204),
        ({"Origin": "https://evil.example.com"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.example.com", "Origin": "http://evil.example.com"}, 421),
    ],
)
async def test_no_web_page_changes_anything(
    url: str, endpoint: Endpoint, headers: dict[str, str], status: int
) -> None:
    headers = {name: value.replace("OWN", url) for name, value in headers.items()}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=20 * UNIT) as http:
        asked = await http.post("/_local/my-endpoint/instances/i-1/lose", json={})
        state = await http.get("/_local/my-endpoint")
        invoked = await http.post(PATH, content=b"{}", headers=signed(url) | headers)
    assert asked.status_code == status
    assert endpoint.instances[0].lost == (status == 204)
    assert state.status_code == (200 if status == 204 else status)
    if status != 204:
        assert invoked.status_code == status
        assert "message" in asked.json()


def changed(name: str, change: Callable[[str], str]) -> Callable[[Any], Any]:
    return lambda headers: {**headers, name: change(headers[name])}


def without(name: str) -> Callable[[Any], Any]:
    return lambda headers: {k: v for k, v in headers.items() if k != name}


def an_hour_ago(_value: str) -> str:
    return (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y%m%dT%H%M%SZ")


async def post(url: str, headers: Any, body: bytes = b"{}") -> httpx.Response:
    async with httpx.AsyncClient(timeout=20 * UNIT) as http:
        return await http.post(url + PATH, content=body, headers=headers)


async def test_a_signed_request_is_answered(url: str) -> None:
    response = await post(url, signed(url))
    assert response.status_code == 200
    assert response.headers["x-amzn-requestid"]


@pytest.mark.parametrize(
    ("tamper", "code"),
    [
        (without("Authorization"), "MissingAuthenticationTokenException"),
        (changed("Authorization", lambda _: "Basic abc"), "IncompleteSignature"),
        (changed("Authorization", lambda v: v.replace("=local/", "=me/")), "UnrecognizedClientEx"),
        (changed("Authorization", lambda v: v[:-1] + "g"), "IncompleteSignature"),
        (changed("Authorization", lambda v: v[:-4] + "0000"), "InvalidSignatureException"),
        (changed("Authorization", lambda v: v.replace("host;", "")), "InvalidSignatureException"),
        (changed("X-Amz-Date", an_hour_ago), "InvalidSignatureException"),
        (changed("X-Amz-Date", lambda _: "now"), "InvalidSignatureException"),
        (changed("Content-Type", lambda _: "text/plain"), "InvalidSignatureException"),
    ],
)
async def test_tampering_is_found(url: str, tamper: Callable[[Any], Any], code: str) -> None:
    response = await post(url, tamper(signed(url)))
    assert response.status_code == 403
    assert response.headers["x-amzn-errortype"].startswith(code)


async def test_another_body_key_or_region(url: str) -> None:
    for headers, body in (
        (signed(url, b"{}"), b"[]"),
        (signed(url, key="wrong"), b"{}"),
        (signed(url, region="eu-west-1"), b"{}"),
    ):
        response = await post(url, headers, body)
        assert response.headers["x-amzn-errortype"] == "InvalidSignatureException"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"EndpointName": "elsewhere"}, "Endpoint elsewhere of account"),
        ({"SessionId": "-x"}, "Value at 'sessionId'"),
        ({"SessionId": "x" * 257}, "Value at 'sessionId'"),
        ({"CustomAttributes": "x" * 1025}, "Value at 'customAttributes'"),
        ({"TargetVariant": "a b"}, "Value at 'targetVariant'"),
        ({"SessionId": "unknown"}, "Session unknown not found"),
        ({"Body": b"x" * 1001}, "limit of 1000 bytes"),
    ],
)
async def test_parameters_are_checked(client: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(client.exceptions.ValidationError, match=message):
        await client.invoke_endpoint(**{"EndpointName": "my-endpoint", "Body": b"{}", **given})


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("ModelNotReadyException", "ModelNotReadyException"),
        ("InternalDependencyException", "InternalDependencyException"),
        ("InternalFailure", "InternalFailure"),
        ("ServiceUnavailable", "ServiceUnavailable"),
        ("ModelError", "ModelError"),
    ],
)
async def test_errors_are_those_of_the_api_model(
    client: Any, endpoint: Endpoint, fault: Any, kind: str
) -> None:
    endpoint.faults.add(Fault(error=fault, status=418, message="no tea"))
    with pytest.raises(getattr(client.exceptions, kind)) as caught:
        await client.invoke_endpoint(EndpointName="my-endpoint", Body=b"{}")
    response: dict[str, Any] = dict(caught.value.response)
    if kind == "ModelError":
        assert response["OriginalStatusCode"] == 418
        assert response["OriginalMessage"] == "no tea"
        assert response["LogStreamArn"].startswith("arn:aws:logs:")


async def test_throttling_and_lost_instances(client: Any, endpoint: Endpoint) -> None:
    endpoint.faults.add(Fault(error="ThrottlingException"))
    with pytest.raises(ClientError, match="Rate exceeded"):
        await client.invoke_endpoint(EndpointName="my-endpoint", Body=b"{}")
    opened = await client.invoke_endpoint(
        EndpointName="my-endpoint", Body=b'{"requestType":"NEW_SESSION"}', SessionId="NEW_SESSION"
    )
    session = opened["NewSessionId"].partition(";")[0]
    (holder,) = (name for name, count in endpoint.sessions.items() if count)
    endpoint.lose(holder)
    for _ in range(2):
        with pytest.raises(client.exceptions.ValidationError, match=session):
            await client.invoke_endpoint(EndpointName="my-endpoint", Body=b"{}", SessionId=session)
        endpoint.restore(holder)
    assert sum(endpoint.sessions.values()) == 0


async def test_calls_without_a_session_go_round(client: Any, endpoint: Endpoint) -> None:
    for _ in range(4):
        await client.invoke_endpoint(EndpointName="my-endpoint", Body=b"{}")
    assert [instance.invocations for instance in endpoint.instances] == [2, 2]


async def test_a_container_that_does_not_answer() -> None:
    endpoint = Endpoint("my-endpoint", [HttpContainer("http://127.0.0.1:9")])
    async with running([endpoint]) as url:
        response = await post(url, signed(url))
        assert response.status_code == 424
        assert response.json()["OriginalStatusCode"] == 0


async def test_admin_calls_that_make_no_sense(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=20 * UNIT) as http:
        for path, body in (
            ("/_local/my-endpoint/faults", "{"),
            ("/_local/my-endpoint/faults", '{"error": "Nonsense"}'),
            ("/_local/elsewhere/faults", "{}"),
            ("/_local/my-endpoint/instances/i-9/lose", ""),
        ):
            response = await http.post(path, content=body)
            assert response.status_code == 400
            assert response.json()["message"]
        assert (await http.post("/_local/my-endpoint/instances/i-1/lose")).status_code == 204
        assert (await http.post("/_local/my-endpoint/instances/i-1/restore")).status_code == 204
        state = (await http.get("/_local/my-endpoint")).json()
        assert [instance["lost"] for instance in state["instances"]] == [False, False]
