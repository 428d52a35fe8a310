"""Requests whose client has gone: what they wait for is for nobody."""

import asyncio
from collections.abc import Callable

from starlette.requests import Request
from starlette.types import Receive

ON_LEAVING = "session-gateway.leaving"
"""The name of the ASGI extension that takes a function to call when the client has gone."""

OnLeaving = Callable[[Callable[[], object] | None], None]


class Leaving:
    """Has a function called if the client goes away meanwhile. The request's body has been read.

    Args:
        request: The client's.
        call: The function.
    """

    __slots__ = ("_call", "_given", "_request", "_watching")

    def __init__(self, request: Request, call: Callable[[], object]) -> None:
        self._request = request
        self._call = call
        self._given: OnLeaving | None = None
        self._watching: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        self._given = (self._request.scope.get("extensions") or {}).get(ON_LEAVING)
        if self._given is not None:
            self._given(self._call)
        else:
            watch = _watch(self._request.receive, self._call)
            self._watching = asyncio.get_running_loop().create_task(watch)

    def __exit__(self, *_exc: object) -> None:
        if self._given is not None:
            self._given(None)
        if self._watching is not None:
            self._watching.cancel()


async def _watch(receive: Receive, call: Callable[[], object]) -> None:
    """The same with what every server of ASGI has."""
    while (await receive())["type"] != "http.disconnect":
        pass
    call()
