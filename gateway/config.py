"""Every setting, in one place: a TOML file, ``GATEWAY_*`` in the environment, and flags.

A flag wins over the environment, that over the file, and the file over the default. What is wrong
is reported all at once, each with where it was set, the key, and what it should be.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import msgspec
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from gateway.sagemaker import PROFILES, Defaults, Profile
from gateway.session.policy import Policy, Recovery
from gateway.transports.origins import is_loopback

ENVIRONMENT_PREFIX = "GATEWAY_"

EXAMPLE = """\
[aws]
region = "us-east-1"

[routes.chat]                            # the first route is the default one
endpoint_name = "my-endpoint"
session = "container-standards"
content_type = "application/json"
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
    parts = urlsplit(value)
    if value != f"{parts.scheme}://{parts.netloc}" or not parts.scheme or not parts.netloc:
        raise ValueError("expected an origin such as https://chat.example.com, without a path")
    return value


def _profile(value: Any) -> Profile:
    if isinstance(value, Profile):
        return value
    if isinstance(value, str):
        if value not in PROFILES:
            raise ValueError(f"expected one of {', '.join(PROFILES)}, or a table of your own")
        return PROFILES[value]
    try:
        return msgspec.convert(value, Profile)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Bytes = Annotated[int, Field(ge=1, le=1_073_741_824)]
Header = Annotated[str, Field(pattern=r"\A[\x20-\x7e]{1,1024}\z")]
Session = Annotated[Any, BeforeValidator(_profile)]
ClientField = Literal[
    "inference_id",
    "target_model",
    "target_variant",
    "target_container_hostname",
    "enable_explanations",
    "inference_component_name",
]


class _Section(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Server(_Section):
    """``[server]``: the clients' side."""

    host: Annotated[str, AfterValidator(_host)] = Field(
        default="127.0.0.1", description="address to listen on; a loopback address"
    )
    port: int = Field(
        default=8080, ge=0, le=65_535, description="port to listen on; 0 takes a free one"
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


class Store(_Section):
    """``[store]``: where sessions live."""

    kind: Literal["memory"] = Field(default="memory", description="in this process's memory")
    max_sessions: Count = Field(default=10_000, description="sessions at once")


class Aws(_Section):
    """``[aws]``: the platform's side. Credentials come from AWS's usual chain."""

    region: str | None = Field(default=None, description="region; AWS's usual chain where absent")
    profile: str | None = Field(default=None, description="profile of the shared AWS configuration")
    endpoint_url: str | None = Field(
        default=None,
        pattern=r"\Ahttps?://",
        description="address of SageMaker Runtime, to speak to something other than AWS",
    )
    max_pool_connections: Count = Field(default=1000, description="calls to the platform at once")
    connect_timeout_seconds: Positive = Field(
        default=5.0, description="time to connect to the platform"
    )
    read_timeout_seconds: Positive = Field(
        default=70.0, description="time for the model to answer; AWS ends a call after 60"
    )
    reply_bytes: Bytes = Field(default=26_214_400, description="largest reply in one piece")


_RECOVERY = {
    "close": Recovery.NONE,
    "fail": Recovery.NONE,
    "renew": Recovery.RENEW,
    "replay": Recovery.REPLAY,
}


class Route(_Section):
    """``[routes.NAME]``: one endpoint, and how to talk to it. The first is the default route."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    endpoint_name: str = Field(
        pattern=r"\A[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}\z", description="the SageMaker endpoint"
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
    allow: frozenset[ClientField] = Field(
        default=frozenset(), description="message fields that clients may set"
    )
    accept: Header | None = Field(default=None, description="Accept, where a message has none")
    custom_attributes: Header | None = Field(default=None, description="CustomAttributes, likewise")
    inference_id: Header | None = Field(default=None, description="InferenceId, likewise")
    target_model: Header | None = Field(default=None, description="TargetModel, likewise")
    target_variant: Header | None = Field(default=None, description="TargetVariant, likewise")
    target_container_hostname: Header | None = Field(
        default=None, description="TargetContainerHostname, likewise"
    )
    enable_explanations: Header | None = Field(
        default=None, description="EnableExplanations, likewise"
    )
    inference_component_name: Header | None = Field(
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
    on_expiry: Literal["close", "renew", "replay"] = Field(
        default="close",
        description='when a session expires, "renew" goes on in a new one that knows nothing, '
        '"replay" in one that is told again what was said',
    )
    on_lost: Literal["fail", "renew", "replay"] = Field(
        default="fail", description="the same when the model has lost the session"
    )
    replay_seed: Any = Field(
        default=None,
        description="replay by one message: text, or a table, with $transcript or $messages in it",
    )
    transcript_turns: Count = Field(default=100, description="turns kept to be replayed")
    transcript_bytes: Bytes = Field(default=1_048_576, description="the same in bytes")
    retries: Annotated[int, Field(ge=0, le=100)] = Field(
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

    @property
    def profile(self) -> Profile:
        """How the route's container keeps sessions."""
        assert isinstance(self.session, Profile)  # noqa: S101 - the validator made it one
        return self.session

    @property
    def defaults(self) -> Defaults:
        """What is sent where a message says nothing."""
        return Defaults(**{name: getattr(self, name) for name in Defaults.__struct_fields__})

    def policy(self, name: str, server: Server) -> Policy:
        """The rules of the route's sessions."""
        same = {
            field: getattr(self, field)
            for field in Policy.__struct_fields__
            if field in Route.model_fields and field not in {"on_expiry", "on_lost"}
        }
        return Policy(
            route=name,
            opening=self.profile.opening,
            open_on_connect=self.open == "on_connect",
            json_replies=self.body == "json",
            on_expiry=_RECOVERY[self.on_expiry],
            on_lost=_RECOVERY[self.on_lost],
            seed=self.replay_seed,
            client_fields=frozenset(self.allow),
            heartbeat_seconds=server.heartbeat_seconds,
            **same,
        )


class Settings(BaseSettings):
    """All settings."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
    )

    server: Server = Server()
    store: Store = Store()
    aws: Aws = Aws()
    routes: dict[Annotated[str, Field(pattern=r"\A[A-Za-z0-9_-]{1,64}\z")], Route] = Field(
        min_length=1
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's interface
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment, then the file; the first that has a value wins."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @model_validator(mode="after")
    def _log_holds_a_reply(self) -> Self:
        for name, route in self.routes.items():
            if route.log_bytes <= 2 * self.aws.reply_bytes:
                raise ValueError(
                    f"routes.{name}.log_bytes must be more than twice aws.reply_bytes "
                    f"({self.aws.reply_bytes}), or a large reply could not be kept"
                )
            if route.log_seconds <= route.resume_seconds:
                raise ValueError(
                    f"routes.{name}.log_seconds must be more than resume_seconds "
                    f"({route.resume_seconds}), or a client could come back to nothing"
                )
        return self


def load(path: Path | None, flags: Mapping[str, Mapping[str, Any]] | None = None) -> Settings:
    """The settings, from everywhere.

    Args:
        path: The file; None where there is none.
        flags: Values by section and key, from the command line.

    Raises:
        ConfigError: Something is wrong.
    """
    if path is not None:
        _check_syntax(path)

    class Loaded(Settings):
        model_config = SettingsConfigDict(toml_file=path)

    given = {section: dict(values) for section, values in (flags or {}).items() if values}
    problems = _unknown_variables()
    try:
        settings = Loaded(**given)  # type: ignore[arg-type]
        if not problems:
            return settings
    except ValidationError as error:
        problems += [_problem(details, path, given) for details in error.errors()]
    except SettingsError as error:
        problems.append(f"environment: {error}")
    raise ConfigError("\n".join(problems))


def _check_syntax(path: Path) -> None:
    try:
        with path.open("rb") as file:
            tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None


def _unknown_variables() -> list[str]:
    """Variables whose section there is none of; pydantic-settings would pass over them."""
    sections = list(Settings.model_fields)
    return [
        f"{name}: unknown section{_suggest(section, sections)}"
        for name in os.environ
        if name.upper().startswith(ENVIRONMENT_PREFIX)
        and (section := name[len(ENVIRONMENT_PREFIX) :].lower().partition("__")[0]) not in sections
    ]


def _problem(details: Any, path: Path | None, flags: Mapping[str, Mapping[str, Any]]) -> str:
    """One line: where it was set, the key, what is expected, what was there."""
    location = [str(part) for part in details["loc"] if part != "[key]"]
    key = ".".join(location)
    variable = ENVIRONMENT_PREFIX + "__".join(location).upper()
    if len(location) == 2 and location[1] in flags.get(location[0], {}):
        source = f"--{location[1].replace('_', '-')}"
    elif variable in {name.upper() for name in os.environ}:
        source = variable
    else:
        source = str(path) if path is not None else "configuration"
    kind, text, value = details["type"], str(details["msg"]), details["input"]
    if kind == "missing":
        example = ' - add a table such as [routes.chat] with endpoint_name = "…"'
        return f"{source}: {key}: missing{example if key == 'routes' else ''}"
    if kind == "extra_forbidden":
        return f"{source}: {key}: unknown key{_suggest(location[-1], _keys_beside(location))}"
    text = text.removeprefix("Value error, ")
    if not location:
        return f"{source}: {text}"
    return f"{source}: {key}: {text}, got {value!r:.80}"


def _keys_beside(location: list[str]) -> list[str]:
    """The keys that there are where an unknown one was found."""
    if location[0] == "routes":
        return list(Route.model_fields)
    section = Settings.model_fields.get(location[0])
    if len(location) == 1 or section is None:
        return list(Settings.model_fields)
    return list(getattr(section.annotation, "model_fields", {}))


def _suggest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"
