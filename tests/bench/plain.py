"""The reference: what a client of SageMaker pays today, a loop around aiobotocore's own call.

It takes the commands of ``driver.py`` itself, since its own CPU time is what is measured. Run as a
module with the platform's address.
"""

import asyncio
import sys
import time
from typing import Any

import uvloop
from aiobotocore.session import get_session
from botocore.config import Config

from tests.bench import driver
from tests.bench.upstream import json_text


class Plain:
    """Tasks that call an endpoint.

    Args:
        client: aiobotocore's.
        endpoint: Its name; one that begins with ``burst`` is asked for a stream.
    """

    def __init__(self, client: Any, endpoint: str) -> None:
        self._client = client
        self._call = self._stream if endpoint.startswith("burst") else self._whole
        self._endpoint = endpoint
        self._clients = 0

    async def connect(self, clients: int) -> None:
        """See `driver.Connect`."""
        self._clients = clients

    async def run(self, run: driver.Run) -> driver.Result:
        """See `driver.Run`."""
        timer = driver.Timer(run)
        body = json_text(run.body)

        async def calls() -> None:
            while True:
                sent = time.perf_counter()
                await self._call(body)
                now = time.perf_counter()
                timer.taken.append(now - sent)
                if not timer.goes_on(now):
                    return

        await asyncio.gather(*(calls() for _ in range(run.flight or self._clients)))
        return timer.result()

    async def _whole(self, body: bytes) -> None:
        reply = await self._client.invoke_endpoint(
            EndpointName=self._endpoint,
            ContentType="application/json",
            SessionId="0123456789abcdef",
            Body=body,
        )
        await reply["Body"].read()

    async def _stream(self, body: bytes) -> None:
        reply = await self._client.invoke_endpoint_with_response_stream(
            EndpointName=self._endpoint,
            ContentType="application/json",
            SessionId="0123456789abcdef",
            Body=body,
        )
        async for _ in reply["Body"]:
            pass


async def main() -> None:
    """Run as a module."""
    url, endpoint = sys.argv[1:]
    session: Any = get_session()
    config = Config(max_pool_connections=1000)
    async with session.create_client(
        "sagemaker-runtime", region_name="us-east-1", endpoint_url=url, config=config
    ) as client:
        await driver.obey(Plain(client, endpoint))


if __name__ == "__main__":
    uvloop.run(main())
