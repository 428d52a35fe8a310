"""Notices when the client of a request disconnects, so that its work can be cancelled."""

import asyncio
from collections.abc import Callable

from starlette.requests import Request
from starlette.types import Receive

ON_LEAVING = "session-gateway.leaving"
"""Name of the ASGI extension that takes a function to call when the client disconnects."""

OnLeaving = Callable[[Callable[[], object] | None], None]


class Leaving:
    """Calls a function if the client disconnects meanwhile. The request's body has been read.

    Args:
        request: The request.
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
    """Do the same with what every ASGI server provides."""
    while (await receive())["type"] != "http.disconnect":
        pass
    call()
