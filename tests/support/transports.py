"""What the tests of the adapter call SageMaker with."""

from contextlib import AbstractAsyncContextManager
from typing import Any, Literal

from msgspec import structs

from gateway.sagemaker.runtime import runtime_client
from gateway.sagemaker.transport import CallLimits, Transport
from tests.support.timing import UNIT

BOTH: tuple[Literal["lean"], Literal["aiobotocore"]] = ("lean", "aiobotocore")

chosen: Literal["lean", "aiobotocore"] = "lean"
"""Set by the fixture of ``tests/contract``, which runs each of them with both."""

LIMITS = CallLimits(
    connections=10,
    connect_timeout=5.0 * UNIT,
    read_timeout=5.0 * UNIT,
    call_timeout=10.0 * UNIT,
    stream_timeout=10.0 * UNIT,
    reply_bytes=1_000_000,
)


def limits_of(options: dict[str, Any]) -> CallLimits:
    """The usual limits, but for those that the options have, which are taken out of them."""
    names = options.keys() & {*CallLimits.__struct_fields__}
    return structs.replace(LIMITS, **{name: options.pop(name) for name in names})


def client(url: str | None, **options: Any) -> AbstractAsyncContextManager[Transport]:
    """A client of SageMaker Runtime; see `runtime_client` and `CallLimits` for the options."""
    limits = limits_of(options)
    given = {"region": "us-east-1", "profile": None, "transport": chosen, **options}
    return runtime_client(endpoint_url=url, limits=limits, **given)
