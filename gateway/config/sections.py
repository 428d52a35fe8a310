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
    """``[server]``: the clients' side."""

    host: Host = Field(
        default="127.0.0.1", description="address to listen on; without [auth], a loopback address"
    )
    port: Whole = Field(
        default=8080, ge=0, le=65_535, description="port to listen on; 0 takes a free one"
    )
    workers: Count = Field(
        default=1,
        description="processes that share the port; over one needs a store that they share too",
    )
    replica: ReplicaName | None = Field(
        default=None,
        description="how this process's name begins, in logs and among those that share a store; "
        "with the host's name where absent",
    )
    public_url: PublicUrl | None = Field(
        default=None,
        description="address that browsers see, where a proxy is in front, such as "
        "https://chat.example.com; its pages may connect",
    )
    local_operator: bool = Field(
        default=False,
        description="without [auth]: whether this machine's programs and pages are operators "
        "(/operator, /v1/admin); never where a proxy passes others on",
    )
    trusted_proxies: frozenset[AddressRange] = Field(
        default=frozenset(),
        description="ranges of addresses of proxies, such as 127.0.0.1/32, whose Forwarded or "
        "X-Forwarded-For, -Proto and -Host are believed",
    )
    max_connections: Count = Field(
        default=10_000,
        description="connections at once, of every kind and from the first byte on, of each worker",
    )
    buffer_bytes: HeldBytes = Field(
        default=268_435_456,
        description="what a worker may hold for its clients: event logs, conversations, messages "
        "that wait or have come in part; over it, those who hold the most give way",
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
        default=False,
        description="log a line for each turn at INFO, not just at DEBUG, and with SageMaker's id "
        "of its session",
    )

    @property
    def public_origin(self) -> str | None:
        """The origin of the pages at `public_url`, as browsers write it."""
        return None if self.public_url is None else origin_of(self.public_url)


class KeySettings(Section):
    """``[auth.keys]``: API keys."""

    file: Path = Field(
        description="file of names, digests, routes and limits; `session-gateway key add` writes it"
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

    issuer: Claim = Field(description="who makes them: their claim iss")
    audience: Claim = Field(description="for whom they are: their claim aud")
    jwks_url: KeysUrl | None = Field(
        default=None, description="address of the issuer's public keys, a JWK set"
    )
    jwks_file: Path | None = Field(default=None, description="the same as a file")
    secret_file: Path | None = Field(
        default=None, description="file of the secret that is shared with the issuer, for HS256"
    )
    algorithms: tuple[Algorithm, ...] = Field(
        default=("RS256", "ES256", "EdDSA"),
        min_length=1,
        description="the algorithms that may be used; with secret_file, HS256",
    )
    leeway_seconds: Annotated[Seconds, Field(le=300)] = Field(
        default=30.0, description="by how much the issuer's clock may differ"
    )
    principal_claim: Claim = Field(default="sub", description="the claim that says whose it is")
    routes_claim: Claim = Field(
        default="routes",
        description="the claim with the routes that may be used; all where a token has none",
    )
    operator_claim: Claim | None = Field(
        default=None,
        description="the claim that makes an operator: it is true, or has `operator` among its "
        "words, as scope or groups may; without it no token does",
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
    """``[auth]``: who may come in. Without it, whoever reaches the gateway."""

    keys: KeySettings | None = Field(default=None, description="API keys")
    jwt: JwtSettings | None = Field(default=None, description="JSON Web Tokens")

    @property
    def required(self) -> bool:
        """Whether everybody has to say who they are."""
        return self.keys is not None or self.jwt is not None


class TlsSettings(Section):
    """``[tls]``: TLS in this process. Both files are read again on SIGHUP and when they change."""

    cert_file: Path = Field(description="certificate, and those between it and the root, as PEM")
    key_file: Path = Field(description="its private key, as PEM, without a password")


class LimitSettings(Section):
    """``[limits]``: what a principal may, where there is ``[auth]``, and what an address."""

    connections_per_principal: Count = Field(default=100, description="connections at once")
    connections_per_address: Count = Field(
        default=200,
        description="WebSockets at once from one address, and twice as many sockets of every "
        "kind; but for this machine's and trusted proxies'",
    )
    handshakes_per_second: Positive = Field(
        default=200.0,
        description="connections that may come in a second from other machines, in all, a quarter "
        "of them from one address, and half from one IPv6 /48; twice as many at once, half of them "
        "kept for addresses that have had none for two seconds",
    )
    sessions_per_principal: Count = Field(default=200, description="sessions at once")
    messages_per_second: Positive = Field(
        default=20.0, description="messages of a principal in a second; twice as many at once"
    )
    bytes_per_second: PositiveBytes = Field(default=4_000_000.0, description="the same in bytes")

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
    """``[metrics]``: a port for Prometheus, apart from the clients'."""

    host: Host = Field(default="127.0.0.1", description="address to listen on")
    port: Annotated[Whole, Field(ge=0, le=65_535)] | None = Field(
        default=None,
        description="port of GET /metrics, of all workers together; 0 takes a free one. Without it "
        "that is at the clients' port, where this machine alone can reach it: one process without "
        "[auth] and without a proxy",
    )


class TraceSettings(Section):
    """``[traces]``: where traces of turns go; needs the extra ``otel``."""

    endpoint: EndpointUrl = Field(
        description="address of a collector for OTLP over HTTP, such as "
        "http://127.0.0.1:4318/v1/traces; OTEL_EXPORTER_OTLP_HEADERS and so on are heeded"
    )
    sample: Annotated[float, Field(ge=0, le=1)] = Field(
        default=1.0,
        description="share of turns that are traced, of those whose client has not decided "
        "against it",
    )


class StoreSettings(Section):
    """``[store]``: where sessions live."""

    kind: Literal["memory", "valkey"] = Field(
        default="memory",
        description='"memory" of this process, or "valkey", which replicas share; Redis 7 will do',
    )
    url: StoreUrl | None = Field(
        default=None,
        description="address of Valkey, such as valkey://127.0.0.1:6379/0; valkeys:// for TLS, "
        "?cluster=true for a cluster",
    )
    password: SecretStr | None = Field(
        default=None, description="of Valkey; best as GATEWAY_STORE__PASSWORD"
    )
    ca_file: Path | None = Field(
        default=None,
        description="certificates of those who have signed Valkey's, where the system does not "
        "know them",
    )
    encryption_key_file: Path | None = Field(
        default=None,
        description="file of keys that encrypt what is kept, one a line, 32 bytes as Base64; the "
        "first encrypts",
    )
    lease_seconds: Annotated[Positive, Field(ge=1)] = Field(
        default=5.0, description="how soon the sessions of a dead replica are taken over"
    )
    max_sessions: Count = Field(default=10_000, description="sessions at once, of each replica")

    @model_validator(mode="after")
    def _valkey_has_an_address(self) -> Self:
        if (self.kind == "valkey") != (self.url is not None):
            raise PydanticCustomError(
                "at", 'kind = "valkey" and url go together', {"at": ("store", "url")}
            )
        return self


class OpenAiSettings(Section):
    """``[openai]``: OpenAI's API, under ``/openai/v1``."""

    keep_seconds: Positive = Field(
        default=86_400.0,
        description="how long a response or a conversation can be asked for and gone on with; what "
        "was said in it is kept in the store for so long",
    )
    memory_bytes: Bytes = Field(
        default=268_435_456,
        description='how much of that may be kept where the store is "memory"; what was not asked '
        "for for longest makes room",
    )
    conversation_turns: Count = Field(
        default=1000,
        description="responses that may go on from each other, or that a conversation may have, "
        "additions of its client included",
    )
    conversation_bytes: Bytes = Field(
        default=16_777_216, description="the same in bytes, as they are kept"
    )


PageText = Annotated[str, Field(min_length=1, max_length=1000)]


class PageSettings(Section):
    """``[page]``: the pages that the gateway serves to browsers."""

    enabled: bool = Field(
        default=True,
        description="serve pages, and the files under /static that they and others are made of; "
        "false leaves the gateway with its APIs alone",
    )
    title: Annotated[str, Field(min_length=1, max_length=100)] = Field(
        default="session-gateway", description="what the chat page is called"
    )
    logo: Path | None = Field(
        default=None,
        description="file of its logo, an SVG or a PNG of 262144 bytes at most; it is read again "
        "on SIGHUP and when it changes",
    )
    welcome: PageText | None = Field(
        default=None, description="a sentence or two that are shown before the first message"
    )
    examples: tuple[PageText, ...] = Field(
        default=(), max_length=4, description="up to four messages to try, shown with these"
    )


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
    s3_endpoint_url: EndpointUrl | None = Field(
        default=None, description="the same of S3, where asynchronous routes have their objects"
    )
    sqs_endpoint_url: EndpointUrl | None = Field(
        default=None, description="the same of SQS, where they have their notices"
    )
    transport: Literal["auto", "lean", "aiobotocore"] = Field(
        default="auto",
        description='how to call the platform: by "aiobotocore", at a part of its cost by "lean", '
        'or as "auto" decides: lean, but where there is a proxy or the AWS SDK is not as expected',
    )
    max_pool_connections: Count = Field(
        default=1000, description="calls to the platform at once, of each worker"
    )
    connect_timeout_seconds: Positive = Field(
        default=5.0, description="time to connect to the platform"
    )
    read_timeout_seconds: Positive = Field(
        default=70.0,
        description="time for the model to answer, and to go on; AWS ends a call after 60",
    )
    call_timeout_seconds: Positive = Field(
        default=120.0,
        description="time for a call as a whole, with all of its reply; and as much before it for "
        "a turn to wait for its place",
    )
    stream_timeout_seconds: Positive = Field(
        default=600.0, description="time for a streamed reply; AWS ends one after 480"
    )
    stream_line_bytes: Bytes = Field(
        default=1_048_576, description="longest line or event of a streamed reply"
    )
    reply_bytes: Bytes = Field(default=26_214_400, description="largest reply in one piece")
