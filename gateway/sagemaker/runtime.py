"""SageMaker Runtime: the client of all routes of a gateway."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Literal
from urllib.parse import urlsplit

import structlog
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError

import gateway
from gateway.addresses import is_loopback
from gateway.sagemaker.aio import AioTransport, HttpSession
from gateway.sagemaker.checks import no_credentials, platform_problems
from gateway.sagemaker.lean import Clock, lean_transport
from gateway.sagemaker.sdk import NotLean
from gateway.sagemaker.transport import CallLimits, Transport

log = structlog.stdlib.get_logger("gateway.sagemaker")


USER_AGENT = f"session-gateway/{gateway.__version__}"

START_SECONDS = 30.0
"""Time limit for resolving credentials before the gateway starts; calls need them anyway."""


class NotConfigured(Exception):
    """No client can be made: for example, there is no region, or the profile does not exist."""


def _is_on_this_machine(url: str | None) -> bool:
    """Whether an address is on this machine."""
    try:
        return is_loopback(urlsplit(url or "").hostname or "")
    except ValueError:  # not a valid address
        return False


def without_proxies(url: str | None) -> dict[str, str] | None:
    """Return the proxies for an address: none for this machine, for which the environment may name
    one by mistake; None to use the environment.
    """
    return {} if _is_on_this_machine(url) else None


def runtime_config(
    limits: CallLimits, endpoint_url: str | None, http_session: Callable[..., HttpSession]
) -> AioConfig:
    """Return the configuration of a client for ``sagemaker-runtime``."""
    return AioConfig(
        # One attempt. botocore's default of five would send a turn again after a read timeout or a
        # 5xx, and a stateful model would see it twice. This overrides AWS_MAX_ATTEMPTS.
        retries={"total_max_attempts": 1, "mode": "standard"},
        connect_timeout=limits.connect_timeout,
        read_timeout=limits.read_timeout,
        max_pool_connections=limits.connections,
        http_session_cls=http_session,
        proxies=without_proxies(endpoint_url),
        tcp_keepalive=True,
        user_agent_extra=USER_AGENT,
    )


@asynccontextmanager
async def runtime_client(
    *,
    region: str | None,
    profile: str | None,
    endpoint_url: str | None,
    limits: CallLimits,
    transport: Literal["auto", "lean", "aiobotocore"] = "auto",
    clock: Clock = time.time,
) -> AsyncIterator[Transport]:
    """Make a client that is closed with this context. Credentials come from AWS's default chain.

    Args:
        region: The region; None for that of the environment or the profile.
        profile: A profile in the shared configuration files; None for the default one.
        endpoint_url: An endpoint to call instead of AWS; on this machine, without any proxy.
        limits: Limits of time and size.
        transport: The transport: ``lean``, ``aiobotocore``, or ``auto``, which is lean if that
            works with the installed SDK.
        clock: The clock for signatures of the lean transport.

    Raises:
        NotConfigured: No client can be made.
    """
    session: Any = AioSession(profile=profile)
    http_options: dict[str, Any] = {}  # as resolved by botocore
    http_session = partial(HttpSession, on_options=http_options.update)
    config = runtime_config(limits, endpoint_url, http_session)

    async def refusal(text: str) -> NotConfigured:
        known = await platform_problems(
            region=region, profile=profile, endpoint_url=endpoint_url, credentials=False
        )
        return NotConfigured("\n".join(str(each) for each in known if each.certain) or text)

    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(START_SECONDS):
                credentials = await session.get_credentials()
        except TimeoutError:
            text = f"looking for AWS credentials took longer than {START_SECONDS:g} s"
            raise await refusal(text) from None
        except Exception as error:  # noqa: BLE001 - the SDK raises anything for a program's output
            raise await refusal(no_credentials(error)) from None
        try:
            client = await stack.enter_async_context(
                session.create_client(
                    "sagemaker-runtime",
                    region_name=region,
                    endpoint_url=endpoint_url,
                    config=config,
                )
            )
        except (BotoCoreError, ValueError) as error:
            raise await refusal(f"[aws]: {error}") from None
        made: Transport = AioTransport(client, limits)
        if transport != "aiobotocore":
            try:
                made = await stack.enter_async_context(
                    lean_transport(client, credentials, http_options, limits, clock)
                )
            except NotLean as error:
                if transport == "lean":
                    text = f'[aws]: transport = "lean" is not possible: {error}; "auto" is'
                    raise NotConfigured(text) from None
                log.warning("calls use aiobotocore", why=str(error))
        yield made
