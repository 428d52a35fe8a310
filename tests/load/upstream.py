"""SageMaker Runtime whose endpoints fall ill when they are told to.

A reply takes as long as its endpoint's name says: ``quick-20`` answers after 20 ms. ``POST
/behave/ENDPOINT/HOW`` makes one behave otherwise from then on; see `Behaviour`.
"""

import asyncio
import re
import sys
from collections import defaultdict
from collections.abc import Callable
from enum import StrEnum

import uvloop

from tests.bench.upstream import CLOSED, OPENED, answer
from tests.support.runtime import Runtime, serve


class Behaviour(StrEnum):
    """How an endpoint behaves."""

    WELL = "well"
    """It answers."""
    STALLED = "stalled"
    """It answers nothing before it is well again; then what has waited, one after the other."""
    THROTTLING = "throttling"
    """It refuses everything."""
    DEAD = "dead"
    """Connections are cut."""


_ENDPOINT = re.compile(rb"POST /(endpoints|behave)/([^/ ]+)/([^/ ]+)")
_THROTTLED = b'{"message":"Rate exceeded"}'
THROTTLED = (
    b"HTTP/1.1 429 Too Many Requests\r\nx-amzn-ErrorType: ThrottlingException\r\n"
    b"x-amzn-RequestId: 00000000-0000-4000-8000-000000000000\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_THROTTLED)
) + _THROTTLED
DONE = b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"
REPLY = answer("reply-200")

APART_SECONDS = 0.001
"""How far apart the answers are that were held."""


class Endpoint:
    """What is behind one name."""

    def __init__(self) -> None:
        self.behaviour = Behaviour.WELL
        self.held: list[Callable[[], None]] = []

    def behave(self, how: Behaviour) -> None:
        """From now on; what was held is answered if it is well again."""
        self.behaviour = how
        if how is Behaviour.WELL:
            held, self.held = self.held, []
            for number, send in enumerate(held):
                asyncio.get_running_loop().call_later(number * APART_SECONDS, send)


class Endpoints(Runtime):
    """One connection.

    Args:
        endpoints: By name.
    """

    def __init__(self, endpoints: defaultdict[str, Endpoint]) -> None:
        super().__init__()
        self._endpoints = endpoints

    def answer(self, head: bytes, body: bytes) -> None:
        """See `Runtime.answer`."""
        called = _ENDPOINT.match(head)
        assert called is not None
        kind, name, what = (part.decode() for part in called.groups())
        endpoint = self._endpoints[name]
        if kind == "behave":
            endpoint.behave(Behaviour(what))
            self.transport.write(DONE)
        else:
            self._answer(endpoint, name, body)

    def _answer(self, endpoint: Endpoint, name: str, body: bytes) -> None:
        whole = OPENED if b"NEW_SESSION" in body else CLOSED if b'"CLOSE"' in body else REPLY
        seconds = float(name.rpartition("-")[2]) / 1000

        def send() -> None:
            asyncio.get_running_loop().call_later(seconds, self.transport.write, whole)

        match endpoint.behaviour:
            case Behaviour.WELL:
                send()
            case Behaviour.STALLED:
                endpoint.held.append(send)
            case Behaviour.THROTTLING:
                self.transport.write(THROTTLED)
            case Behaviour.DEAD:
                self.transport.abort()


async def main() -> None:
    """Serve on any free port."""
    endpoints: defaultdict[str, Endpoint] = defaultdict(Endpoint)
    await serve(lambda: Endpoints(endpoints))


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
