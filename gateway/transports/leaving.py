"""Requests whose client has gone: what they wait for is for nobody."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.requests import Request
from starlette.types import Receive

ON_LEAVING = "session-gateway.leaving"
"""The name of the ASGI extension that takes a function to call when the client has gone."""

OnLeaving = Callable[[Callable[[], object] | None], None]


@contextmanager
def leaving(request: Request, call: Callable[[], object]) -> Iterator[None]:
    """Have this called if the client goes away meanwhile. The request's body has been read."""
    given: OnLeaving | None = (request.scope.get("extensions") or {}).get(ON_LEAVING)
    if given is not None:
        given(call)
        try:
            yield
        finally:
            given(None)
        return
    watching = asyncio.get_running_loop().create_task(_watch(request.receive, call))
    try:
        yield
    finally:
        watching.cancel()


async def _watch(receive: Receive, call: Callable[[], object]) -> None:
    """The same with what every server of ASGI has."""
    while (await receive())["type"] != "http.disconnect":
        pass
    call()
