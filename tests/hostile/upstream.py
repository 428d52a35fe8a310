"""SageMaker Runtime in as few instructions as in the bench, for models that are hostile too.

The endpoint's name says what is answered: ``reply-N``, a reply of N bytes; ``lines-N``, a stream of
N bytes of ``{}`` lines; ``crumbs-N``, a stream of N parts of one byte; ``json-N``, N bytes of empty
lists; ``silent``, nothing. Run as a module with such names, it makes their answers first of all.
"""

import re
import sys
from functools import cache

import uvloop

from gateway.local.eventstream import CONTENT_TYPE, payload_part
from tests.bench.upstream import CLOSED, OPENED, answer
from tests.support.runtime import Runtime, serve

PART_BYTES = 65_536

_ENDPOINT = re.compile(rb"POST /endpoints/([^/]+)/")


def _response(content_type: str, body: bytes, *headers: str) -> bytes:
    lines = (
        "HTTP/1.1 200 OK",
        "x-amzn-RequestId: 00000000-0000-4000-8000-000000000000",
        "x-Amzn-Invoked-Production-Variant: AllTraffic",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        *headers,
    )
    return "\r\n".join((*lines, "", "")).encode() + body


@cache
def answer_of(endpoint: str) -> bytes:
    """The bytes of an endpoint's every answer."""
    kind, _, number = endpoint.partition("-")
    if kind == "silent":
        return b""
    if kind == "reply":
        return answer(endpoint)
    size = int(number)
    if kind == "json":
        return _response("application/json", b"[" + b",".join([b"[]"] * (size // 3)) + b"]")
    whole = b"{}\n" * (size // 3) if kind == "lines" else b"x" * size
    step = PART_BYTES if kind == "lines" else 1
    parts = (whole[at : at + step] for at in range(0, len(whole), step))
    body = b"".join(map(payload_part, parts))
    return _response(CONTENT_TYPE, body, "X-Amzn-SageMaker-Content-Type: application/jsonlines")


class Endpoints(Runtime):
    """One connection."""

    def answer(self, head: bytes, body: bytes) -> None:
        """See `Runtime.answer`."""
        endpoint = _ENDPOINT.match(head)
        if b"NEW_SESSION" in body:
            self.transport.write(OPENED)
        elif b'"CLOSE"' in body:
            self.transport.write(CLOSED)
        elif endpoint is not None:
            self.transport.write(answer_of(endpoint[1].decode()))


async def main(*endpoints: str) -> None:
    """Serve on any free port."""
    for endpoint in endpoints:
        answer_of(endpoint)
    await serve(Endpoints)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
