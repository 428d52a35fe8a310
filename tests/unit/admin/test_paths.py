"""The paths of operators, and what becomes of an operator who may not be one any more."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from gateway.admin import watching
from gateway.admin.console import Console
from gateway.admin.fleet import Alone, Fleet
from gateway.admin.watching import Watch
from gateway.telemetry.reading import Reading
from gateway.transports.admin import Admin, AdminGate
from gateway.transports.proxies import Proxies
from tests.support.sessions import running
from tests.support.timing import UNIT
from tests.support.visitors import Anybody


async def read() -> Reading:
    """Of nothing."""
    reading = Reading()
    reading.set("build_info", 1, "0")
    return reading


@asynccontextmanager
async def paths() -> AsyncIterator[tuple[httpx.AsyncClient, Anybody]]:
    async with running() as f:
        visitor = Anybody()
        visitor.is_operator = True
        fleet = Fleet(Console("here", f.sessions, read), Alone(), {"chat": "e"})
        watch = Watch(fleet, f.sessions.spawn)
        gate = AdminGate(visitor, Proxies(()), None, authenticated=False)
        app = Starlette(routes=Admin(fleet, watch, gate).routes())
        transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
        base = "http://127.0.0.1/v1/admin"
        async with httpx.AsyncClient(transport=transport, base_url=base) as http:
            yield http, visitor
        assert visitor.there == 0


async def test_who_asks_too_often_is_told_to_wait() -> None:
    async with paths() as (http, visitor):
        visitor.waits = 3.0
        answer = await http.get("/routes")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")


async def test_who_is_no_operator_is_told_so_and_costs_nothing() -> None:
    async with paths() as (http, visitor):
        visitor.is_operator = False
        for path in ("/routes", "/events"):
            assert (await http.get(path)).status_code == 403
        assert visitor.taken == 0


async def test_as_many_as_may_are_watching(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "MOST_WATCH", 0)
    async with paths() as (http, _):
        answer = await http.get("/events")
        assert (answer.status_code, answer.json()["retryable"]) == (429, True)


@pytest.mark.parametrize(
    "change",
    [
        {"expires_at": lambda: time.time() - 1},
        {"is_operator": lambda: False},
        {"on_withdrawn": None},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_whoever_may_not_any_more_watches_no_longer(
    change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "EACH_SECONDS", 0.01)
    async with paths() as (http, visitor):
        seen = 0
        whole = Watch._overview

        async def overview(watch: Watch, window: Any) -> bytes:
            nonlocal seen
            seen += 1
            if seen == 3:
                for name, value in change.items():
                    if value is not None:
                        setattr(visitor, name, value())
                    elif visitor.on_withdrawn is not None:
                        visitor.on_withdrawn()
            return await whole(watch, window)

        monkeypatch.setattr(Watch, "_overview", overview)
        answer = await http.get("/events", timeout=20 * UNIT)
        events = answer.text.split("\n\n")
        assert answer.status_code == 200
        assert events[0].startswith("data: {")
        assert len(events) <= 3
