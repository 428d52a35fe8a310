"""The sections of the configuration but for the routes: the clients' side, sessions, the platform.

Each setting has its help here; ``docs/configuration.md`` is printed from it.
"""

from typing import Literal

from pydantic import Field

from gateway.addresses import origin_of
from gateway.config.values import (
    AddressRange,
    Bytes,
    Count,
    EndpointUrl,
    Header,
    HeldBytes,
    LoopbackHost,
    Name,
    Positive,
    PublicUrl,
    Seconds,
    Section,
    Whole,
)


class ServerSettings(Section):
    """``[server]``: the clients' side."""

    host: LoopbackHost = Field(
        default="127.0.0.1", description="address to listen on; a loopback address"
    )
    port: Whole = Field(
        default=8080, ge=0, le=65_535, description="port to listen on; 0 takes a free one"
    )
    public_url: PublicUrl | None = Field(
        default=None,
        description="address that browsers see, where a proxy is in front, such as "
        "https://chat.example.com; its pages may connect",
    )
    trusted_proxies: frozenset[AddressRange] = Field(
        default=frozenset(),
        description="ranges of addresses of proxies, such as 127.0.0.1/32, whose Forwarded or "
        "X-Forwarded-For, -Proto and -Host are believed",
    )
    max_connections: Count = Field(
        default=10_000, description="connections at once, of every kind and from the first byte on"
    )
    buffer_bytes: HeldBytes = Field(
        default=268_435_456,
        description="what may be held for all clients: event logs, conversations, messages that "
        "wait or have come in part; over it, those who hold the most give way",
    )
    open_timeout_seconds: Positive = Field(
        default=10.0, description="time for a client to send session.open; raw, its first frame"
    )
    heartbeat_seconds: Positive = Field(
        default=30.0, description="twice this long without a sign of life ends a connection"
    )
    drain_seconds: Seconds = Field(
        default=30.0, description="time for running turns to finish when the gateway shuts down"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="the least level that is logged"
    )
    log_format: Literal["console", "json"] = Field(
        default="console", description="log lines for people or for machines"
    )
    log_turns: bool = Field(
        default=False, description="log a line for each turn at INFO, not just at DEBUG"
    )

    @property
    def public_origin(self) -> str | None:
        """The origin of the pages at `public_url`, as browsers write it."""
        return None if self.public_url is None else origin_of(self.public_url)


class StoreSettings(Section):
    """``[store]``: where sessions live."""

    kind: Literal["memory"] = Field(default="memory", description="in this process's memory")
    max_sessions: Count = Field(default=10_000, description="sessions at once")


class AwsSettings(Section):
    """``[aws]``: the platform's side. Credentials come from AWS's usual chain."""

    region: Name | None = Field(default=None, description="region; AWS's usual chain where absent")
    profile: Header | None = Field(
        default=None, description="profile of the shared AWS configuration"
    )
    endpoint_url: EndpointUrl | None = Field(
        default=None,
        description="address of SageMaker Runtime, to speak to something other than AWS",
    )
    transport: Literal["auto", "lean", "aiobotocore"] = Field(
        default="auto",
        description='how to call the platform: by "aiobotocore", at a part of its cost by "lean", '
        'or as "auto" decides: lean, but where there is a proxy or the AWS SDK is not as expected',
    )
    max_pool_connections: Count = Field(default=1000, description="calls to the platform at once")
    connect_timeout_seconds: Positive = Field(
        default=5.0, description="time to connect to the platform"
    )
    read_timeout_seconds: Positive = Field(
        default=70.0,
        description="time for the model to answer, and to go on; AWS ends a call after 60",
    )
    call_timeout_seconds: Positive = Field(
        default=120.0,
        description="time for a call as a whole: to wait its turn, and for all of the reply",
    )
    stream_timeout_seconds: Positive = Field(
        default=600.0, description="time for a streamed reply; AWS ends one after 480"
    )
    stream_line_bytes: Bytes = Field(
        default=1_048_576, description="longest line or event of a streamed reply"
    )
    reply_bytes: Bytes = Field(default=26_214_400, description="largest reply in one piece")
