"""What every response of OpenAI's API says, and that none is without an answer."""

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from structlog.testing import capture_logs

from gateway.admission import Allowance, Refused, Visitor
from gateway.errors import ErrorCode
from gateway.transports.openai.gate import SHOWN, TAKEN, OpenAiGate
from gateway.transports.origins import Origins
from gateway.transports.proxies import Proxies
from tests.support.visitors import Anybody


async def answers(_request: Request, _visitor: Visitor) -> Response:
    return JSONResponse({})


async def names_itself(_request: Request, _visitor: Visitor) -> Response:
    return Response(headers={"X-Request-Id": "req_own"})


async def refuses(_request: Request, _visitor: Visitor) -> Response:
    raise Refused(ErrorCode.RATE_LIMITED, "Slow down.", 1.5)


async def breaks(_request: Request, _visitor: Visitor) -> Response:
    raise ZeroDivisionError("with somebody's words")


@pytest.fixture
def visitor() -> Anybody:
    return Anybody()


@pytest.fixture
def http(visitor: Anybody) -> httpx.AsyncClient:
    origins = Origins({"chat": []}, public=None, any_name=True)
    gate = OpenAiGate(visitor, origins=origins, proxies=Proxies(), taken=TAKEN, shown=SHOWN)
    handlers = {"/ok": answers, "/own": names_itself, "/refuses": refuses, "/breaks": breaks}
    app = Starlette(routes=[gate.path(path, POST=each) for path, each in handlers.items()])
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")


async def test_each_response_has_an_id(http: httpx.AsyncClient) -> None:
    first, second = await http.post("/ok"), await http.post("/ok")
    assert first.headers["x-request-id"].startswith("req_")
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert "x-ratelimit-limit-requests" not in first.headers
    own = await http.post("/own")
    assert own.headers.get_list("x-request-id") == ["req_own"]


async def test_what_is_left_is_told(http: httpx.AsyncClient, visitor: Anybody) -> None:
    visitor.allowed = Allowance(40, 38, 0.1)
    for path in ("/ok", "/refuses"):
        headers = (await http.post(path)).headers
        assert headers["x-ratelimit-limit-requests"] == "40"
        assert headers["x-ratelimit-remaining-requests"] == "38"
        assert headers["x-ratelimit-reset-requests"] == "0.100s"


async def test_refusals_are_in_openais_words(http: httpx.AsyncClient, visitor: Anybody) -> None:
    response = await http.post("/refuses")
    assert (response.status_code, response.headers["x-should-retry"]) == (429, "true")
    assert response.headers["retry-after-ms"] == "1500"
    visitor.principal = None
    nobody = await http.post("/ok")
    assert nobody.status_code == 401
    assert nobody.json()["error"]["code"] == "invalid_api_key"
    foreign = await http.post("/ok", headers={"Origin": "https://evil.example"})
    assert foreign.status_code == 403
    assert foreign.json()["error"]["code"] == "forbidden"
    assert foreign.headers["x-request-id"].startswith("req_")


async def test_a_fault_is_an_answer_that_nobody_sends_again(
    http: httpx.AsyncClient, visitor: Anybody
) -> None:
    with capture_logs() as logs:
        response = await http.post("/breaks")
    assert (response.status_code, response.headers["x-should-retry"]) == (424, "false")
    assert "words" not in response.text
    assert [line["event"] for line in logs] == ["a request failed"]
    assert visitor.there == 0


async def test_pages_may_ask_what_openais_client_sends(http: httpx.AsyncClient) -> None:
    origin = {"Origin": "http://127.0.0.1"}
    response = await http.options("/ok", headers=origin)
    assert "X-Stainless-Retry-Count" in response.headers["access-control-allow-headers"]
    shown = (await http.post("/ok", headers=origin)).headers["access-control-expose-headers"]
    assert "X-Request-Id" in shown
