"""What a call costs, and a part of a streamed one: ``python -m tests.contract.cost [CLIENTS]``.

CPU time of this process (user and system) against aiobotocore's as one would use it, in turns, so
that whatever else the machine does falls on all of them. The server is a process of its own.
"""

import asyncio
import os
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any
from zlib import crc32

import uvloop
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession

from gateway.config import AwsSettings
from gateway.formats.streams import StreamKind, splitter
from gateway.sagemaker.transport import Transport, result_of
from gateway.upstream import runtime
from tests.support.transports import BOTH

ROUNDS = 9
PARTS = 200
CALL = {
    "EndpointName": "my-endpoint",
    "Body": b"y" * 1024,
    "ContentType": "application/json",
    "CustomAttributes": "a=b",
    "SessionId": "s-1",
}
HEADERS = (
    b"x-amzn-RequestId: 0d2c3c1c-9f0e-4f3a-8f5c-1a2b3c4d5e6f\r\n"
    b"x-Amzn-Invoked-Production-Variant: AllTraffic\r\n"
    b"Date: Sat, 21 Nov 2026 08:26:51 GMT\r\n"
)
WHOLE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1024\r\n"
    + HEADERS
    + b"\r\n"
    + b"x" * 1024
)


def part(payload: bytes) -> bytes:
    """An event in a chunk."""
    names = {
        b":message-type": b"event",
        b":event-type": b"PayloadPart",
        b":content-type": b"application/octet-stream",
    }
    head = b"".join(
        struct.pack("!B", len(name)) + name + struct.pack("!BH", 7, len(value)) + value
        for name, value in names.items()
    )
    prelude = struct.pack("!II", 16 + len(head) + len(payload), len(head))
    event = prelude + struct.pack("!I", crc32(prelude)) + head + payload
    event += struct.pack("!I", crc32(event))
    return b"%x\r\n%b\r\n" % (len(event), event)


STREAMED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.amazon.eventstream\r\n"
    b"Transfer-Encoding: chunked\r\n" + HEADERS + b"\r\n" + part(b"x" * 40) * PARTS + b"0\r\n\r\n"
)


class Server(asyncio.Protocol):
    """Answers as fast as it can."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, rest = self._data.partition(b"\r\n\r\n")
        if end and len(rest) >= len(CALL["Body"]):
            self._data = b""
            self._transport.write(STREAMED if b"-response-stream " in head else WHOLE)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


Call = Callable[[], Awaitable[object]]


async def main(url: str, clients: int) -> None:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        lean, full = [
            await enter(
                runtime(AwsSettings(region="us-east-1", endpoint_url=url, transport=transport))
            )
            for transport in BOTH
        ]
        session: Any = AioSession()
        config = AioConfig(max_pool_connections=1000)
        plain = await enter(
            session.create_client("sagemaker-runtime", "us-east-1", endpoint_url=url, config=config)
        )

        async def plain_call() -> None:
            await (await plain.invoke_endpoint(**CALL))["Body"].read()

        async def plain_stream() -> None:
            reply = await plain.invoke_endpoint_with_response_stream(**CALL)
            async for event in reply["Body"]:
                assert event["PayloadPart"]["Bytes"]

        def call(transport: Transport) -> Call:
            return lambda: result_of(partial(transport.invoke_endpoint, CALL))

        def stream(transport: Transport) -> Call:
            return lambda: result_of(
                partial(
                    transport.invoke_endpoint_with_response_stream,
                    CALL,
                    lambda _: splitter(StreamKind.RAW),
                    lambda _: None,
                )
            )

        await compare(
            "call", clients, 1, {"plain": plain_call, "full": call(full), "lean": call(lean)}
        )
        await compare(
            "part",
            clients,
            PARTS,
            {"plain": plain_stream, "full": stream(full), "lean": stream(lean)},
        )


async def compare(what: str, clients: int, of: int, calls: dict[str, Call]) -> None:
    """Print the medians in microseconds, and the median of each round's ratio to the first."""
    costs: dict[str, list[float]] = {name: [] for name in calls}
    count = max(1, 512 // clients // (1 if of == 1 else 8))
    for number in range(ROUNDS + 1):
        for name, one in calls.items():
            repeat = count * (8 if name == "lean" else 1)
            cost = await cpu(one, clients, repeat) / of
            if number:  # the first opens the connections
                costs[name].append(cost)
    first = next(iter(costs.values()))
    for name, each in costs.items():
        ratio = statistics.median(cost / base for cost, base in zip(each, first, strict=True))
        spread = f"{min(each):.2f} to {max(each):.2f}"
        print(f"{what} {name:6} {statistics.median(each):8.2f} µs ({spread}) {ratio:.3f}")  # noqa: T201


async def cpu(one: Call, clients: int, repeat: int) -> float:
    """In microseconds a call."""

    async def client() -> None:
        for _ in range(repeat):
            await one()

    start = time.process_time()
    await asyncio.gather(*(client() for _ in range(clients)))
    return (time.process_time() - start) / clients / repeat * 1e6


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        uvloop.run(serve())
    else:
        os.environ |= {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local-secret"}
        command = [sys.executable, "-m", "tests.contract.cost", "serve"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                port = int(server.stdout.readline())
                uvloop.run(main(f"http://127.0.0.1:{port}", int((sys.argv[1:] or ["64"])[0])))
            finally:
                server.terminate()
