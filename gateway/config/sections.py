"""The sections of the configuration but for the routes: the clients' side, sessions, the platform.

Each setting has its help here; ``docs/configuration.md`` is printed from it.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from gateway.addresses import origin_of
from gateway.config.values import (
    AddressRange,
    Bytes,
    Claim,
    Count,
    EndpointUrl,
    Header,
    HeldBytes,
    Host,
    KeysUrl,
    Name,
    Positive,
    PositiveBytes,
    PublicUrl,
    ReplicaName,
    Seconds,
    Section,
    StoreUrl,
    Whole,
)
from gateway.security.principals import PrincipalLimits


class ServerSettings(Section):
    """``[server]``: the port that clients connect to, and this process."""

    host: Host = Field(
        default="127.0.0.1",
        description="Address to listen on. Without [auth], it must be a loopback address.",
    )
    port: Whole = Field(
        default=8080, ge=0, le=65_535, description="Port to listen on; 0 picks a free one."
    )
    workers: Count = Field(
        default=1,
        description="Number of processes that share the port. More than one requires a shared "
        "store.",
    )
    replica: ReplicaName | None = Field(
        default=None,
        description="Prefix of this process's name in logs and in the shared store. Defaults "
        "to the host name.",
    )
    public_url: PublicUrl | None = Field(
        default=None,
        description="URL that browsers use if a proxy is in front, such as "
        "https://chat.example.com. Pages at its origin may connect.",
    )
    local_operator: bool = Field(
        default=False,
        description="Without [auth], makes programs and pages on this machine operators "
        "(/operator, /v1/admin). Don't enable it behind a proxy on this machine: "
        "its clients would be operators too.",
    )
    trusted_proxies: frozenset[AddressRange] = Field(
        default=frozenset(),
        description="Address ranges of proxies, such as 127.0.0.1/32, whose Forwarded or "
        "X-Forwarded-For, -Proto and -Host headers are trusted.",
    )
    max_connections: Count = Field(
        default=10_000,
        description="Maximum open connections of every kind per worker, including those still "
        "in a handshake.",
    )
    buffer_bytes: HeldBytes = Field(
        default=268_435_456,
        description="Maximum bytes that a worker holds for its clients: event logs, "
        "conversations, queued messages and partly received messages. Beyond it, "
        "the clients that hold the most are cut back first.",
    )
    open_timeout_seconds: Positive = Field(
        default=10.0,
        description="Time for a client to send session.open or, on a raw connection, its "
        "first frame.",
    )
    heartbeat_seconds: Positive = Field(
        default=30.0,
        description="Heartbeat interval. A connection that is silent for twice this long is "
        "closed.",
    )
    drain_seconds: Seconds = Field(
        default=30.0, description="Time for running turns to finish when the gateway shuts down."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Minimum level of log lines."
    )
    log_format: Literal["console", "json"] = Field(
        default="console", description='"console" for people, "json" for programs.'
    )
    log_turns: bool = Field(
        default=False,
        description="Log a line for each turn at INFO instead of DEBUG, including SageMaker's "
        "session id, which is a secret.",
    )

    @property
    def public_origin(self) -> str | None:
        """The origin of the pages at `public_url`, as browsers write it."""
        return None if self.public_url is None else origin_of(self.public_url)


class KeySettings(Section):
    """``[auth.keys]``: API keys."""

    file: Path = Field(
        description="File of the keys' names, digests, routes and limits. `session-gateway "
        "key add` writes it."
    )


Algorithm = Literal[
    "HS256",
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
]


class JwtSettings(Section):
    """``[auth.jwt]``: JSON Web Tokens of one issuer."""

    issuer: Claim = Field(description="Required value of the `iss` claim.")
    audience: Claim = Field(description="Required value of the `aud` claim.")
    jwks_url: KeysUrl | None = Field(
        default=None,
        description="URL of the issuer's public keys, a JWK Set. Set exactly one of jwks_url, "
        "jwks_file and secret_file.",
    )
    jwks_file: Path | None = Field(
        default=None, description="File with the issuer's public keys, a JWK Set."
    )
    secret_file: Path | None = Field(
        default=None, description="File with the secret shared with the issuer, for HS256."
    )
    algorithms: tuple[Algorithm, ...] = Field(
        default=("RS256", "ES256", "EdDSA"),
        min_length=1,
        description="Accepted signature algorithms; with secret_file, HS256 only.",
    )
    leeway_seconds: Annotated[Seconds, Field(le=300)] = Field(
        default=30.0,
        description="Tolerated difference between the issuer's clock and this machine's.",
    )
    principal_claim: Claim = Field(default="sub", description="Claim that names the principal.")
    routes_claim: Claim = Field(
        default="routes",
        description="Claim that lists the routes the principal may use. A token without it "
        "may use all routes.",
    )
    operator_claim: Claim | None = Field(
        default=None,
        description="Claim that makes the principal an operator: either true, or a list or "
        "space-separated string that contains `operator`, as in scope or groups. "
        "If unset, no token does.",
    )

    @model_validator(mode="before")
    @classmethod
    def _secrets_are_for_hs256(cls, values: Any) -> Any:
        if isinstance(values, dict) and "secret_file" in values:
            return {"algorithms": ("HS256",), **values}
        return values

    @model_validator(mode="after")
    def _keys_of_one_kind(self) -> Self:
        given = [name for name in KEYS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"expected one of {', '.join(KEYS)}")
        if (self.secret_file is not None) != ("HS256" in self.algorithms):
            raise ValueError(
                "HS256 goes with secret_file, and the other algorithms with public keys"
            )
        if self.secret_file is not None and self.algorithms != ("HS256",):
            raise ValueError("secret_file goes with HS256 alone")
        return self


KEYS = ("jwks_url", "jwks_file", "secret_file")


class AuthSettings(Section):
    """``[auth]``: authentication. Without it, everybody who can reach the gateway may use it."""

    keys: KeySettings | None = Field(default=None, description="API keys")
    jwt: JwtSettings | None = Field(default=None, description="JSON Web Tokens")

    @property
    def required(self) -> bool:
        """Whether everybody has to say who they are."""
        return self.keys is not None or self.jwt is not None


class TlsSettings(Section):
    """``[tls]``: TLS in this process. Both files are reloaded when they change, and on SIGHUP."""

    cert_file: Path = Field(
        description="Certificate chain as PEM: the certificate, then the intermediates."
    )
    key_file: Path = Field(description="Private key as PEM, without a passphrase.")


class LimitSettings(Section):
    """``[limits]``: limits per principal (with ``[auth]``) and per address."""

    connections_per_principal: Count = Field(
        default=100, description="Maximum open connections of a principal."
    )
    connections_per_address: Count = Field(
        default=200,
        description="Maximum open WebSockets of an address; sockets of every kind may be "
        "twice as many. This machine and trusted proxies are exempt.",
    )
    handshakes_per_second: Positive = Field(
        default=200.0,
        description="Maximum new connections per second from other machines, in total; a "
        "quarter of that from one address, half of it from one IPv6 /48. Bursts "
        "may be twice as large; half of a burst is reserved for IPv4 addresses "
        "and IPv6 /48s without a handshake in the last two seconds.",
    )
    sessions_per_principal: Count = Field(
        default=200, description="Maximum open sessions of a principal."
    )
    messages_per_second: Positive = Field(
        default=20.0,
        description="Maximum messages per second of a principal. Bursts may be twice as large.",
    )
    bytes_per_second: PositiveBytes = Field(
        default=4_000_000.0,
        description="Maximum message bytes per second of a principal. Bursts may be twice as "
        "large.",
    )

    @property
    def of_principals(self) -> PrincipalLimits:
        """Those of each principal that has none of its own."""
        return PrincipalLimits(
            connections=self.connections_per_principal,
            sessions=self.sessions_per_principal,
            messages_per_second=self.messages_per_second,
            bytes_per_second=self.bytes_per_second,
        )


class MetricsSettings(Section):
    """``[metrics]``: a separate port for Prometheus."""

    host: Host = Field(default="127.0.0.1", description="Address to listen on.")
    port: Annotated[Whole, Field(ge=0, le=65_535)] | None = Field(
        default=None,
        description="Port of GET /metrics, for all workers together; 0 picks a free one. If "
        "unset, GET /metrics is on the clients' port, and only where no other "
        "machine can reach that: one process, without [auth] and without a proxy.",
    )


class TraceSettings(Section):
    """``[traces]``: OpenTelemetry traces of turns. Requires the extra ``otel``."""

    endpoint: EndpointUrl = Field(
        description="URL of an OTLP/HTTP collector, such as http://127.0.0.1:4318/v1/traces. "
        "Environment variables of the OpenTelemetry SDK, such as "
        "OTEL_EXPORTER_OTLP_HEADERS, apply."
    )
    sample: Annotated[float, Field(ge=0, le=1)] = Field(
        default=1.0,
        description="Fraction of turns to trace, from 0 to 1. A turn that its client has "
        "marked as not sampled is never traced.",
    )


class StoreSettings(Section):
    """``[store]``: where sessions are stored."""

    kind: Literal["memory", "valkey"] = Field(
        default="memory",
        description='"memory" keeps them in this process; "valkey" shares them between '
        "replicas. Redis 7 or later works as well.",
    )
    url: StoreUrl | None = Field(
        default=None,
        description="URL of Valkey, such as valkey://127.0.0.1:6379/0. Use valkeys:// for TLS "
        "and ?cluster=true for a cluster.",
    )
    password: SecretStr | None = Field(
        default=None,
        description="Password for Valkey. Prefer the environment variable GATEWAY_STORE__PASSWORD.",
    )
    ca_file: Path | None = Field(
        default=None,
        description="CA certificates that signed Valkey's certificate, if the system does not "
        "trust them already.",
    )
    encryption_key_file: Path | None = Field(
        default=None,
        description="File of keys that encrypt what is stored: one per line, 32 bytes as "
        "Base64. The first key encrypts, all of them decrypt.",
    )
    lease_seconds: Annotated[Positive, Field(ge=1)] = Field(
        default=5.0,
        description="Time after which other replicas take over a dead replica's sessions.",
    )
    max_sessions: Count = Field(default=10_000, description="Maximum sessions per replica.")

    @model_validator(mode="after")
    def _valkey_has_an_address(self) -> Self:
        if (self.kind == "valkey") != (self.url is not None):
            raise PydanticCustomError(
                "at", 'kind = "valkey" and url go together', {"at": ("store", "url")}
            )
        return self


class OpenAiSettings(Section):
    """``[openai]``: the OpenAI-compatible API under ``/openai/v1``."""

    keep_seconds: Positive = Field(
        default=86_400.0,
        description="How long a response or conversation can be retrieved and continued. Its "
        "content is stored for that long.",
    )
    memory_bytes: Bytes = Field(
        default=268_435_456,
        description="Maximum bytes of stored responses and conversations if the store is "
        '"memory". The least recently used are evicted.',
    )
    conversation_turns: Count = Field(
        default=1000,
        description="Maximum responses in a chain (`previous_response_id`) or conversation, "
        "including items that the client adds.",
    )
    conversation_bytes: Bytes = Field(
        default=16_777_216, description="Maximum bytes of a chain or conversation, as stored."
    )


PageText = Annotated[str, Field(min_length=1, max_length=1000)]


class PageSettings(Section):
    """``[page]``: the pages that the gateway serves to browsers."""

    enabled: bool = Field(
        default=True,
        description="Serve the pages and the files under /static, such as client.js. With "
        "false, only the APIs remain.",
    )
    title: Annotated[str, Field(min_length=1, max_length=100)] = Field(
        default="session-gateway", description="Title of the chat page."
    )
    logo: Path | None = Field(
        default=None,
        description="File of the logo: SVG or PNG, at most 262144 bytes. Reloaded when it "
        "changes, and on SIGHUP.",
    )
    welcome: PageText | None = Field(
        default=None, description="Text shown before the first message."
    )
    examples: tuple[PageText, ...] = Field(
        default=(),
        max_length=4,
        description="Up to four example messages, shown before the first message.",
    )


class AwsSettings(Section):
    """``[aws]``: calls to AWS. Credentials come from the AWS SDK's default chain."""

    region: Name | None = Field(
        default=None, description="AWS region. Defaults to what the AWS SDK finds."
    )
    profile: Header | None = Field(
        default=None, description="Profile in the shared AWS configuration files."
    )
    endpoint_url: EndpointUrl | None = Field(
        default=None,
        description="URL to use for SageMaker Runtime instead of AWS's.",
    )
    s3_endpoint_url: EndpointUrl | None = Field(
        default=None, description="URL to use for S3 (asynchronous routes) instead of AWS's."
    )
    sqs_endpoint_url: EndpointUrl | None = Field(
        default=None, description="URL to use for SQS (asynchronous routes) instead of AWS's."
    )
    transport: Literal["auto", "lean", "aiobotocore"] = Field(
        default="auto",
        description='HTTP client for calls to SageMaker: "aiobotocore" is the AWS SDK, "lean" '
        'the gateway\'s own at a fraction of the CPU time, and "auto" is "lean" '
        "unless a proxy is configured or the SDK is not as expected.",
    )
    max_pool_connections: Count = Field(
        default=1000, description="Maximum concurrent calls to AWS per worker."
    )
    connect_timeout_seconds: Positive = Field(default=5.0, description="Time to connect to AWS.")
    read_timeout_seconds: Positive = Field(
        default=70.0,
        description="Maximum wait for the next bytes of a reply, the first included. AWS ends "
        "a call after 60 seconds.",
    )
    call_timeout_seconds: Positive = Field(
        default=120.0,
        description="Maximum time for a call and its whole reply. Before it, a turn may wait "
        "as long for a place at the endpoint.",
    )
    stream_timeout_seconds: Positive = Field(
        default=600.0,
        description="Maximum time for a streamed reply. AWS ends a stream after 480 seconds.",
    )
    stream_line_bytes: Bytes = Field(
        default=1_048_576, description="Maximum bytes of a line or event in a streamed reply."
    )
    reply_bytes: Bytes = Field(
        default=26_214_400, description="Maximum bytes of a reply that is not streamed."
    )
