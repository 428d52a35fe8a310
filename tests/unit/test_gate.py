"""What requests to the API leave behind, whoever they are of."""

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import Response

from gateway.admission import Visitor
from gateway.tracecontext import CARRIER, Carrier
from gateway.transports.gate import ApiRequest, Gate, Paths
from gateway.transports.origins import Origins
from gateway.transports.proxies import Proxies
from tests.support.visitors import Anybody

PARENT = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}


class Answers:
    """A path that answers, one that does not, and what they have seen."""

    def __init__(self) -> None:
        self.seen: list[Carrier | None] = []
        origins = Origins({}, public=None, any_name=True)
        self.gate = Gate(Anybody(), origins=origins, proxies=Proxies(()))
        paths = [self.gate.path("/good", GET=self.good), self.gate.path("/bad", GET=self.bad)]
        transport = httpx.ASGITransport(Starlette(routes=paths))
        self.http = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")

    async def good(self, request: ApiRequest, visitor: Visitor) -> Response:
        """Answer."""
        del request, visitor
        self.seen.append(CARRIER.get())
        return Response("x")

    async def bad(self, request: ApiRequest, visitor: Visitor) -> Response:
        """Fail."""
        del request, visitor
        raise RuntimeError


async def test_a_defect_is_counted_as_the_answer_that_it_leads_to() -> None:
    answers = Answers()
    async with answers.http as http:
        await http.get("/good")
        with pytest.raises(RuntimeError):
            await http.get("/bad")
    assert answers.gate.answered == {200: 1, 500: 1}


async def test_a_request_is_of_no_trace_but_its_own() -> None:
    answers = Answers()
    async with answers.http as http:  # which has the application answer in this task
        await http.get("/good", headers=PARENT)
        await http.get("/good")
        with pytest.raises(RuntimeError):
            await http.get("/bad", headers=PARENT)
        assert CARRIER.get() is None
        token = CARRIER.set(PARENT)
        await http.get("/good")
        CARRIER.reset(token)
    assert answers.seen == [PARENT, None, None]


@pytest.mark.parametrize(
    ("root", "path", "status"),
    [
        ("", "/good", 200),
        ("/root", "/root/good", 200),
        ("/root", "/good", 200),
        ("/", "/good", 200),
        ("/g", "/good", 200),
        ("/good", "/good", 404),
        ("", "/better", 404),
    ],
)
async def test_a_path_is_what_follows_the_root(root: str, path: str, status: int) -> None:
    answers = Answers()
    app = Paths([answers.gate.path("/good", GET=answers.good)], Response(status_code=404))
    transport = httpx.ASGITransport(app, root_path=root)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        assert (await http.get(path)).status_code == status
