"""Every setting, in one place: a TOML file, ``GATEWAY_*`` in the environment, and flags.

A flag wins over the environment, that over the file, and the file over the default. What is wrong
is reported all at once, each with where it was set, the key, and what it should be.
"""

import re
import tomllib
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self
from urllib.parse import SplitResult, urlsplit

import msgspec
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    SettingsConfigDict,
)

from gateway.addresses import is_loopback, origin_of
from gateway.mistakes import (
    ENVIRONMENT_PREFIX,
    ROUTE_EXAMPLE,
    Origins,
    TooSmall,
    problems_of,
    suggest,
    variables,
)
from gateway.protocol.options import OPTIONS, CallOptions, RestrictedOption
from gateway.sagemaker.formats import FORMATS, Format
from gateway.sagemaker.profiles import PROFILES, Profile
from gateway.sagemaker.streams import StreamKind, Text
from gateway.session.bodies import is_json
from gateway.session.policy import Opening, Policy, Recovery
from gateway.session.templates import HISTORY, placeholders, tells_history
from gateway.tomlfile import Tree, shown

EXAMPLE = """\
[aws]
region = "us-east-1"

[routes.chat]                            # the first route is the default one
endpoint_name = "my-endpoint"
session = "container-standards"          # how its container keeps sessions
format = "openai-chat"                   # what its model takes and gives
"""
"""The least that a configuration has to say."""


class ConfigError(Exception):
    """The configuration is wrong; the text has a line for each thing that is."""


def _host(value: str) -> str:
    if not is_loopback(value):
        raise ValueError(
            "must be a loopback address such as 127.0.0.1: this gateway authenticates nobody, so "
            "it serves this machine only; put a proxy that authenticates on the same machine in "
            "front of it"
        )
    return value


def _origin(value: str) -> str:
    parts = _public_parts(value)
    if value.lower() != f"{parts.scheme}://{parts.netloc}".lower():
        raise ValueError("expected an origin such as https://chat.example.com, without a path")
    return origin_of(value)


def _endpoint_url(value: str) -> str:
    parts = _url(value)
    if parts.query or parts.fragment or not _is_ascii(value):
        raise ValueError("expected an address without spaces, `?` and `#`")
    return value


def _public_url(value: str) -> str:
    parts = _public_parts(value)
    if parts.query or parts.fragment:
        raise ValueError(
            "expected an address such as https://chat.example.com/gw, without `?` and `#`"
        )
    return value


def _public_parts(value: str) -> SplitResult:
    parts = _url(value)
    if not _is_ascii(value):
        raise ValueError(
            "expected an address without spaces, and a host's name with other letters as xn--…"
        )
    return parts


def _is_ascii(value: str) -> bool:
    return re.fullmatch(r"[\x21-\x7e]*", value) is not None


def _range(value: str) -> str:
    try:
        network = ip_network(value, strict=False)
    except ValueError:
        raise ValueError(
            "expected an address or a range of them, such as 10.1.2.3 or 10.0.0.0/8"
        ) from None
    if network.prefixlen == 0:
        raise ValueError("must not be all addresses: clients would be taken for proxies")
    return str(network)


def _url(value: str) -> SplitResult:
    """The parts of an address, which names a host and nobody's credentials."""
    wanted = "expected an address such as https://host or http://127.0.0.1:9000"
    try:
        parts = urlsplit(value)
        named = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        raise ValueError(wanted) from None
    if "@" in parts.netloc:
        raise ValueError(
            "must not hold a user or a password (user:password@); credentials come from AWS's "
            "usual chain"
        )
    if not named:
        raise ValueError(wanted)
    return parts


def _number(value: Any) -> Any:
    """What pydantic would take for 0 or 1 is a mistake."""
    if isinstance(value, bool):
        got = str(value).lower()
        raise PydanticCustomError("number", "expected a number, got {got}", {"got": got})
    return value


def _endpoint_name(value: str) -> str:
    if re.match(r"(arn:|https?://)", value):
        wanted = "expected the endpoint's name, which an ARN has after `endpoint/`"
        name = re.search(r"endpoints?/([A-Za-z0-9-]{1,63})(/|$)", value)
        raise ValueError(f"{wanted}; did you mean {name[1]}?" if name else wanted)
    return value


def _matching(pattern: str, most: int, expected: str) -> AfterValidator:
    """Holds a text to that pattern and length."""
    compiled = re.compile(pattern)

    def validate(value: str) -> str:
        if len(value) > most or not compiled.fullmatch(value):
            raise ValueError(f"expected 1 to {most} {expected}")
        return value

    return AfterValidator(validate)


def _text(most: int) -> AfterValidator:
    """What a header may carry; HTTP drops spaces at its ends."""
    expected = "printable ASCII characters, without a space at either end"
    return _matching(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", most, expected)


def _label(most: int) -> AfterValidator:
    """What AWS calls things by."""
    expected = "letters, digits and hyphens, with a letter or a digit at either end"
    return _matching(r"[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?", most, expected)


def _expression(value: str) -> str:
    Text(value)
    return value


def _profile(value: Any) -> Profile:
    if isinstance(value, Profile):
        return value
    if isinstance(value, str):
        if value not in PROFILES:
            choices = ", ".join(PROFILES)
            raise PydanticCustomError(
                "choice", "expected one of {choices}, or a table of your own", {"choices": choices}
            )
        return PROFILES[value]
    if not isinstance(value, dict):
        raise PydanticCustomError("profile", "expected the name of a profile, or a table")
    try:
        return msgspec.convert(value, Profile)
    except msgspec.ValidationError as error:
        # It names the key within the table, and may quote what it has found there.
        text, _, key = str(error).partition(" - at `$.")
        if text.startswith("Invalid enum value"):
            text = f"expected one of {', '.join(opening.value for opening in Opening)}"
        raise PydanticCustomError(
            "within", "{text}", {"text": text.partition(", got ")[0], "key": key}
        ) from None


def _holding(template: Any, names: tuple[str, ...], what: str) -> Any:
    """A template that has a place for one of these."""
    if template is not None and placeholders(template).isdisjoint(names):
        places = " or ".join(f"${name}" for name in names)
        raise ValueError(f"needs {places} in it, for {what}: the model would not see it")
    return template


Seconds = Annotated[float, BeforeValidator(_number), Field(ge=0, le=86_400, allow_inf_nan=False)]
Positive = Annotated[float, BeforeValidator(_number), Field(gt=0, le=86_400, allow_inf_nan=False)]
Whole = Annotated[int, BeforeValidator(_number)]
Count = Annotated[Whole, Field(ge=1, le=1_000_000)]
Bytes = Annotated[Whole, Field(ge=1, le=1_073_741_824)]
# The lengths are those of SageMaker Runtime's API model.
Header = Annotated[str, _text(1024)]
Id = Annotated[str, _text(64)]
Name = Annotated[str, _label(63)]
RouteName = Annotated[
    str, _matching(r"[A-Za-z0-9_-]+", 64, "letters, digits, `-` and `_` as a route's name")
]
Session = Annotated[Any, BeforeValidator(_profile)]


class _Section(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Server(_Section):
    """``[server]``: the clients' side."""

    host: Annotated[str, AfterValidator(_host)] = Field(
        default="127.0.0.1", description="address to listen on; a loopback address"
    )
    port: Whole = Field(
        default=8080, ge=0, le=65_535, description="port to listen on; 0 takes a free one"
    )
    public_url: Annotated[str, AfterValidator(_public_url)] | None = Field(
        default=None,
        description="address that browsers see, where a proxy is in front, such as "
        "https://chat.example.com; its pages may connect",
    )
    trusted_proxies: frozenset[Annotated[str, AfterValidator(_range)]] = Field(
        default=frozenset(),
        description="ranges of addresses of proxies, such as 127.0.0.1/32, whose Forwarded or "
        "X-Forwarded-For, -Proto and -Host are believed",
    )
    max_connections: Count = Field(default=10_000, description="connections at once")
    open_timeout_seconds: Positive = Field(
        default=10.0, description="time for a client to send session.open"
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


class Store(_Section):
    """``[store]``: where sessions live."""

    kind: Literal["memory"] = Field(default="memory", description="in this process's memory")
    max_sessions: Count = Field(default=10_000, description="sessions at once")


class Aws(_Section):
    """``[aws]``: the platform's side. Credentials come from AWS's usual chain."""

    region: Name | None = Field(default=None, description="region; AWS's usual chain where absent")
    profile: Header | None = Field(
        default=None, description="profile of the shared AWS configuration"
    )
    endpoint_url: Annotated[str, AfterValidator(_endpoint_url)] | None = Field(
        default=None,
        description="address of SageMaker Runtime, to speak to something other than AWS",
    )
    transport: Literal["lean", "aiobotocore"] = Field(
        default="lean",
        description='how to call the platform: cheaply, or by "aiobotocore", which is used anyway '
        "where there is a proxy",
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


_RECOVERY = {
    "close": Recovery.NONE,
    "fail": Recovery.NONE,
    "renew": Recovery.RENEW,
    "replay": Recovery.REPLAY,
}


HISTORY_BYTES = 65_536
"""Of a conversation that the gateway keeps, unless told otherwise: 16,000 tokens or so, since most
models answer more than they can read with an error."""
REPLAY_BYTES = 1_048_576
"""Of one that the model keeps."""


class Route(_Section):
    """``[routes.NAME]``: one endpoint, and how to talk to it. The first is the default route."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    endpoint_name: Annotated[str, AfterValidator(_endpoint_name), _label(63)] = Field(
        description="the SageMaker endpoint"
    )
    session: Session = Field(
        default=PROFILES["container-standards"],
        description=f"how its container keeps sessions: {', '.join(PROFILES)}, or a table",
    )
    open: Literal["on_connect", "on_first_message"] = Field(
        default="on_connect", description="when to open the session at the model"
    )
    content_type: Header | None = Field(
        default=None, description="content type of bodies whose message names none"
    )
    body: Literal["auto", "json"] = Field(
        default="auto", description='"json" gives replies to clients as JSON where they parse'
    )
    format: Literal["openai-chat", "lmi", "tgi", "plain"] | None = Field(
        default=None,
        description="what the model takes and gives; `stream`, `text` and `request` are its parts, "
        "and win over it",
    )
    stream: Literal["off", "raw", "lines", "sse"] | None = Field(
        default=None,
        description="how the model streams: its reply as it is, a record a line, or server-sent "
        "events",
    )
    text: Annotated[str, AfterValidator(_expression)] | None = Field(
        default=None,
        description="a JMESPath expression for where the text is in the model's JSON; clients then "
        "get the text alone",
    )
    request: Any = Field(
        default=None,
        description="what the model is sent for a client's text: a table with $text, or $messages "
        "or $transcript for all of the conversation, and $stream in it",
    )
    history: Literal["gateway", "model"] | None = Field(
        default=None,
        description='who keeps the conversation: with "gateway" each turn carries all of it, with '
        '"model" the newest message alone; "gateway" where `request`, or that of the `format`, '
        "has $messages or $transcript",
    )
    system: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="what the model is told ahead of the conversation that the gateway keeps",
    )
    allow: frozenset[RestrictedOption] = Field(
        default=frozenset(), description="message fields that clients may set"
    )
    accept: Header | None = Field(default=None, description="Accept, where a message has none")
    custom_attributes: Header | None = Field(default=None, description="CustomAttributes, likewise")
    inference_id: Id | None = Field(default=None, description="InferenceId, likewise")
    target_model: Header | None = Field(default=None, description="TargetModel, likewise")
    target_variant: Name | None = Field(default=None, description="TargetVariant, likewise")
    target_container_hostname: Name | None = Field(
        default=None, description="TargetContainerHostname, likewise"
    )
    enable_explanations: Id | None = Field(default=None, description="EnableExplanations, likewise")
    inference_component_name: Name | None = Field(
        default=None, description="InferenceComponentName, likewise"
    )
    allowed_origins: frozenset[Annotated[str, AfterValidator(_origin)]] = Field(
        default=frozenset(), description="further origins whose pages may connect"
    )
    message_bytes: Bytes = Field(
        default=6_291_456, description="largest message; SageMaker's limit for a body"
    )
    queued_messages: Count = Field(default=16, description="messages that may wait in a session")
    remembered_messages: Count = Field(
        default=10_000, description="message ids kept to recognise duplicates"
    )
    resume_seconds: Seconds = Field(
        default=120.0,
        description="how long a session is kept for a client whose connection is lost",
    )
    on_expiry: Literal["close", "renew", "replay"] | None = Field(
        default=None,
        description='when a session expires, "close" ends it, "renew" goes on in a new one that '
        'knows nothing, "replay" in one that is told again what was said; "renew" where the '
        'gateway keeps the conversation, else "close"',
    )
    on_lost: Literal["fail", "renew", "replay"] | None = Field(
        default=None,
        description='the same when the model has lost the session, with "fail" for its end',
    )
    replay_seed: Any = Field(
        default=None,
        description="replay by one message: text, or a table, with $transcript or $messages in it",
    )
    transcript_turns: Count = Field(
        default=100, description="turns of a conversation that are kept to be told to the model"
    )
    transcript_bytes: Bytes | None = Field(
        default=None,
        description="the same in bytes, of which a model reads about four as a token; 65536 where "
        "the gateway keeps the conversation, else 1048576",
    )
    retries: Annotated[Whole, Field(ge=0, le=100)] = Field(
        default=3, description="how often a call that the model never saw is made again"
    )
    retry_seconds: Positive = Field(
        default=0.5, description="longest wait before the first of these; it doubles with each"
    )
    retry_max_seconds: Positive = Field(
        default=8.0,
        description="longest wait before any; a model that asks for more fails the turn",
    )
    idle_seconds: Positive = Field(
        default=600.0, description="a session unused for this long is closed at the model"
    )
    session_seconds: Positive = Field(
        default=1200.0, description="how long a session lasts where the model does not say"
    )
    expiry_margin_seconds: Seconds = Field(
        default=5.0, description="a session counts as expired this long before it is"
    )
    expiring_notice_seconds: Seconds = Field(
        default=60.0, description="how long before that the client is told"
    )
    close_seconds: Positive = Field(
        default=10.0, description="time for the model to close a session"
    )
    log_events: Count = Field(default=4096, description="events kept for a client")
    log_bytes: Bytes = Field(
        default=67_108_864, description="the same in bytes; more than twice aws.reply_bytes"
    )
    log_seconds: Positive = Field(
        default=600.0, description="how long they are kept; more than resume_seconds"
    )

    @field_validator("request")
    @classmethod
    def _request_has_a_place(cls, value: Any) -> Any:
        return _holding(value, ("text", *HISTORY), "what the client says")

    @field_validator("replay_seed")
    @classmethod
    def _seed_has_a_place(cls, value: Any) -> Any:
        return _holding(value, HISTORY, "what was said")

    @field_validator("on_expiry", "on_lost")
    @classmethod
    def _has_a_session(cls, value: str | None, info: ValidationInfo) -> str | None:
        profile = info.data.get("session")
        if value == "replay" and profile is not None and profile.opening is Opening.NONE:
            raise ValueError(
                'there is no session to replay with a `session` such as "stateless" or '
                '"prefix-aware"; leave it out. Where the gateway keeps the conversation '
                '(`history = "gateway"`), each turn tells all of it anyway'
            )
        return value

    @property
    def profile(self) -> Profile:
        """How the route's container keeps sessions."""
        assert isinstance(self.session, Profile)  # noqa: S101 - the validator made it one
        return self.session

    @property
    def defaults(self) -> CallOptions:
        """What is sent where a message says nothing."""
        given = {name: getattr(self, name) for name in OPTIONS}
        return CallOptions(**{name: value for name, value in given.items() if value is not None})

    @property
    def body_format(self) -> Format:
        """What the route's model takes and gives."""
        given = {"stream": self.stream, "text": self.text, "request": self.request}
        known = FORMATS[self.format] if self.format else Format()
        made = {
            name: getattr(known, name) if value is None else value for name, value in given.items()
        }
        return msgspec.convert({**made, "accept": known.accept}, Format)

    @model_validator(mode="after")
    def _text_has_a_place(self) -> Self:
        try:
            makes_text = self.body_format.text is not None
        except msgspec.ValidationError as error:
            raise ValueError(str(error).partition(" - at")[0]) from None
        if makes_text and self.body == "json":
            raise ValueError('`body = "json"` and `text` (or a `format` with one) exclude another')
        return self

    @property
    def takes_json_only(self) -> bool:
        """Whether there is nothing to make the JSON of a text that the model is sent."""
        return is_json(self.content_type) and self.body_format.request is None

    @property
    def sends_history(self) -> bool:
        """Whether the gateway keeps the conversation for the model."""
        if self.history is not None:
            return self.history == "gateway"
        return tells_history(self.body_format.request)

    @model_validator(mode="after")
    def _history_can_be_kept(self) -> Self:
        if not self.sends_history:
            if self.system is not None:
                raise ValueError('`system` goes with `history = "gateway"`')
        elif not tells_history(self.body_format.request):
            raise ValueError(
                '`history = "gateway"` needs a `request` with $messages or $transcript in it, or a '
                "`format` with one"
            )
        elif self.body == "json":
            raise ValueError(
                '`body = "json"` and `history = "gateway"` exclude another: what the model says is '
                "kept as text"
            )
        elif self.replay_seed is not None:
            raise ValueError(
                '`replay_seed` and `history = "gateway"` exclude another: each turn tells it all'
            )
        return self

    def policy(self, name: str, server: Server) -> Policy:
        """The rules of the route's sessions."""
        same = {
            field: getattr(self, field)
            for field in Policy.__struct_fields__
            if field in Route.model_fields
            and field not in {"on_expiry", "on_lost", "transcript_bytes"}
        }
        form = self.body_format
        gone = Recovery.RENEW if self.sends_history else Recovery.NONE
        transcript = HISTORY_BYTES if self.sends_history else REPLAY_BYTES
        return Policy(
            route=name,
            streams=form.stream is not StreamKind.OFF,
            template=form.request,
            opening=self.profile.opening,
            open_on_connect=self.open == "on_connect",
            json_only=self.takes_json_only,
            json_replies=self.body == "json",
            sends_history=self.sends_history,
            on_expiry=_RECOVERY[self.on_expiry] if self.on_expiry else gone,
            on_lost=_RECOVERY[self.on_lost] if self.on_lost else gone,
            seed=self.replay_seed,
            transcript_bytes=self.transcript_bytes or transcript,
            client_fields=frozenset(self.allow),
            heartbeat_seconds=server.heartbeat_seconds,
            **same,
        )


class Settings(_Section):
    """All settings; made from values that are at hand, it looks at no file and no environment."""

    server: Server = Server()
    store: Store = Store()
    aws: Aws = Aws()
    routes: dict[RouteName, Route]

    @field_validator("routes")
    @classmethod
    def _has_a_route(cls, routes: dict[str, Route]) -> dict[str, Route]:
        if not routes:
            raise ValueError(f"expected at least one route; {ROUTE_EXAMPLE}")
        return routes

    @model_validator(mode="after")
    def _logs_hold_what_they_must(self) -> Self:
        # A connection that is half a log behind is closed, and one message can be that much.
        small: list[TooSmall] = []
        for name, route in self.routes.items():
            at = ("routes", name)
            reply, queue, resume = (
                self.aws.reply_bytes,
                route.queued_messages,
                route.resume_seconds,
            )
            small += [
                TooSmall(
                    (*at, "log_bytes"), route.log_bytes, 2 * reply + 1, ("aws", "reply_bytes")
                ),
                TooSmall(
                    (*at, "log_events"), route.log_events, 2 * queue + 16, (*at, "queued_messages")
                ),
                TooSmall((*at, "log_seconds"), route.log_seconds, resume, (*at, "resume_seconds")),
            ]
        small = [setting for setting in small if setting.value < setting.least]
        if small:
            raise PydanticCustomError("too_small", "a log is too small", {"small": small})
        return self


class _Variables(Settings, BaseSettings):
    """How the environment is read."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter="__", env_ignore_empty=True
    )


class _Environment(EnvSettingsSource):
    """The environment; what is no JSON where it has to be is left for the validation to refuse."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        # A table comes before its keys, which would otherwise be lost with what it replaces.
        return dict(sorted(super()._load_env_vars().items()))

    def decode_complex_value(self, field_name: str, field: Any, value: Any) -> Any:
        """See `PydanticBaseSettingsSource`."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except (ValueError, RecursionError):
            return value


class Configuration(NamedTuple):
    """The settings, and where each was set."""

    settings: Settings
    origins: Origins


def load(path: Path | None, flags: Mapping[str, Mapping[str, Any]] | None = None) -> Settings:
    """The settings, from everywhere; see `read`."""
    return read(path, flags).settings


def read(path: Path | None, flags: Mapping[str, Mapping[str, Any]] | None = None) -> Configuration:
    """The settings, from everywhere, and where each was set.

    Args:
        path: The file; None where there is none.
        flags: Values by section and key, from the command line.

    Raises:
        ConfigError: Something is wrong.
    """
    text, file = ("", {}) if path is None else _read(path)
    given = {section: dict(values) for section, values in (flags or {}).items() if values}
    values = _over(given, _over(_Environment(_Variables)(), file))
    origins = Origins(path, text, file, given, values)
    problems = _unknown_variables()
    try:
        settings = Settings.model_validate(values)
        if not problems:
            return Configuration(settings, origins)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            problems += problems_of(details, origins, Settings)
    raise ConfigError("\n".join(problems))


def _over(stronger: Any, weaker: Any) -> Any:
    """Both, tables merged; the order is the weaker one's."""
    if not isinstance(stronger, dict) or not isinstance(weaker, dict):
        return stronger
    merged = {key: _over(value, weaker.get(key)) for key, value in stronger.items()}
    return weaker | merged


def _read(path: Path) -> tuple[str, Tree]:
    """What is in the file, and what it says."""
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    try:
        return text, tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{path}: tables or lists are too deep") from None
    except ValueError as error:
        raise ConfigError(_not_toml(path, text, str(error))) from None


def _not_toml(path: Path, text: str, why: str) -> str:
    if why.startswith("Invalid value"):
        why = why.replace("Invalid value", "Invalid value; texts stand in quotes", 1)
    lines = text.split("\n")
    if place := re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", why, re.DOTALL):
        number, why = int(place[2]), f"{place[1]} (column {place[3]})"
    elif why.endswith(" (at end of document)"):
        number = text.rstrip().count("\n") + 1
    else:
        return f"{path}: not TOML: {why}"
    return f"{path}:{number}: not TOML: {why}\n    {shown(lines[number - 1], known=False)}"


def _unknown_variables() -> list[str]:
    """Variables whose section there is none of; pydantic-settings would pass over them."""
    sections = list(Settings.model_fields)
    return [
        f"{name}: unknown section{suggest(location[0], sections)}"
        for name, location, _ in variables()
        if location[0] not in sections
    ]
