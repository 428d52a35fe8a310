"""The AWS clients of asynchronous routes: SageMaker Runtime, S3 and SQS, through aiobotocore."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError

from gateway.sagemaker.aio import AioTransport, HttpSession
from gateway.sagemaker.notices import WAIT_SECONDS, Notices
from gateway.sagemaker.objects import AT_ONCE, Objects
from gateway.sagemaker.runtime import USER_AGENT, NotConfigured, runtime_config, without_proxies
from gateway.sagemaker.transport import CallLimits

T = TypeVar("T")

ATTEMPTS = 3
"""Attempts of a call to S3 or SQS, which are safe to repeat."""


class Services:
    """The clients, and the tasks that use them; made by `async_services`."""

    def __init__(self, transport: AioTransport, objects: Objects, sqs: Any) -> None:
        self.transport = transport
        self.objects = objects
        self._sqs = sqs
        self._notices: dict[str, Notices] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def notices(self, queue_url: str) -> Notices:
        """Return the receiver of a queue, shared by all routes with that queue."""
        found = self._notices.get(queue_url)
        if found is None:
            found = self._notices[queue_url] = Notices(self._sqs, queue_url)
            self.spawn(found.run())
        return found

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run work as a task, until this is closed."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the loop keeps only a weak reference
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Cancel what is in progress."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def async_services(
    *,
    region: str | None,
    profile: str | None,
    endpoint_url: str | None,
    s3_endpoint_url: str | None,
    sqs_endpoint_url: str | None,
    limits: CallLimits,
) -> AsyncIterator[Services]:
    """Make clients that are closed with this context. Credentials come from AWS's default chain.

    Args:
        region: The region; None for that of the environment or the profile.
        profile: A profile in the shared configuration files; None for the default one.
        endpoint_url: An endpoint to call instead of SageMaker Runtime's.
        s3_endpoint_url: The same for S3.
        sqs_endpoint_url: The same for SQS.
        limits: Limits of time and size.

    Raises:
        NotConfigured: No clients can be made.
    """
    session: Any = AioSession(profile=profile)

    http = partial(HttpSession, on_options=lambda _options: None)

    def other(url: str | None, read_timeout: float) -> AioConfig:
        return AioConfig(
            retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
            connect_timeout=limits.connect_timeout,
            read_timeout=read_timeout,
            max_pool_connections=2 * AT_ONCE,
            http_session_cls=http,
            proxies=without_proxies(url),
            user_agent_extra=USER_AGENT,
            # Servers that emulate AWS don't support bucket names as hosts.
            s3=None if url is None else {"addressing_style": "path"},
        )

    read = limits.read_timeout
    async with AsyncExitStack() as stack:
        clients = []
        for name, url, config in (
            ("sagemaker-runtime", endpoint_url, runtime_config(limits, endpoint_url, http)),
            ("s3", s3_endpoint_url, other(s3_endpoint_url, read)),
            ("sqs", sqs_endpoint_url, other(sqs_endpoint_url, read + WAIT_SECONDS)),
        ):
            made = session.create_client(name, region_name=region, endpoint_url=url, config=config)
            try:
                clients.append(await stack.enter_async_context(made))
            except (BotoCoreError, ValueError) as error:
                raise NotConfigured(f"[aws]: {error}") from None
        runtime, s3, sqs = clients
        objects = Objects(s3, seconds=limits.call_timeout, most=limits.reply_bytes)
        services = Services(AioTransport(runtime, limits), objects, sqs)
        stack.push_async_callback(services.close)
        yield services
