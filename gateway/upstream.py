"""Creates the clients of the routes' models from the settings, to serve routes or to test them."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from gateway.config import AwsSettings, ConfigError, RouteSettings, Settings
from gateway.sagemaker.asynchronous import AsyncModel
from gateway.sagemaker.model import SageMakerModel
from gateway.sagemaker.runtime import NotConfigured, runtime_client
from gateway.sagemaker.services import Services, async_services
from gateway.sagemaker.transport import CallLimits, Transport
from gateway.session.ports import Model

T = TypeVar("T")


@contextlib.asynccontextmanager
async def _configured(client: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    async with contextlib.AsyncExitStack() as stack:
        try:
            made = await stack.enter_async_context(client)
        except NotConfigured as error:
            raise ConfigError(str(error)) from None
        yield made


def limits_of(aws: AwsSettings) -> CallLimits:
    """Return the limits on the duration and the size of calls."""
    return CallLimits(
        connections=aws.max_pool_connections,
        connect_timeout=aws.connect_timeout_seconds,
        read_timeout=aws.read_timeout_seconds,
        call_timeout=aws.call_timeout_seconds,
        stream_timeout=aws.stream_timeout_seconds,
        reply_bytes=aws.reply_bytes,
    )


def runtime(aws: AwsSettings) -> AbstractAsyncContextManager[Transport]:
    """Return the transport for calls to the platform.

    Raises:
        ConfigError: On entering: the platform can't be called with these settings.
    """
    return _configured(
        runtime_client(
            region=aws.region,
            profile=aws.profile,
            endpoint_url=aws.endpoint_url,
            limits=limits_of(aws),
            transport=aws.transport,
        )
    )


def services(settings: Settings) -> AbstractAsyncContextManager[Services | None]:
    """Return the AWS clients of asynchronous routes; None if there are no such routes.

    Raises:
        ConfigError: On entering: AWS can't be called with these settings.
    """
    aws = settings.aws
    if all(route.mode != "async" for route in settings.routes.values()):
        return contextlib.nullcontext()
    return _configured(
        async_services(
            region=aws.region,
            profile=aws.profile,
            endpoint_url=aws.endpoint_url,
            s3_endpoint_url=aws.s3_endpoint_url,
            sqs_endpoint_url=aws.sqs_endpoint_url,
            limits=limits_of(aws),
        )
    )


def model(
    name: str,
    route: RouteSettings,
    aws: AwsSettings,
    transport: Transport,
    later: Services | None,
) -> Model:
    """Return the model of a route."""
    if route.mode == "async" and later is not None:
        return AsyncModel(
            later,
            route.endpoint_name,
            route.defaults,
            route.async_options,
            body_format=route.body_format,
            route=name,
        )
    return SageMakerModel(
        transport,
        route.endpoint_name,
        route.profile,
        route.defaults,
        body_format=route.body_format,
        line_bytes=aws.stream_line_bytes,
        route=name,
    )
