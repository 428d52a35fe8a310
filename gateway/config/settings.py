"""All settings, from a TOML file, ``GATEWAY_*`` in the environment, and flags.

A flag wins over the environment, that over the file, and the file over the default. What is wrong
is reported all at once, each with where it was set, the key, and what it should be.
"""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic import ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway.addresses import is_loopback
from gateway.config.mistakes import ROUTE_EXAMPLE, TooSmall, problems_of, suggest
from gateway.config.routes import RouteSettings
from gateway.config.sections import (
    AuthSettings,
    AwsSettings,
    LimitSettings,
    MetricsSettings,
    OpenAiSettings,
    PageSettings,
    ServerSettings,
    StoreSettings,
    TlsSettings,
    TraceSettings,
)
from gateway.config.sources import (
    ENVIRONMENT_PREFIX,
    ConfigError,
    Environment,
    Sources,
    merged,
    read_file,
    variables,
)
from gateway.config.values import RouteName, Section

EXAMPLE = """\
[aws]
region = "us-east-1"

[routes.chat]                            # the first route is the default
endpoint_name = "my-endpoint"
session = "container-standards"          # how the container keeps sessions
format = "openai-chat"                   # what the model takes and returns
"""
"""The least that a configuration has to say."""


class Settings(Section):
    """All settings; made from values that are at hand, it looks at no file and no environment."""

    server: ServerSettings = ServerSettings()
    store: StoreSettings = StoreSettings()
    auth: AuthSettings = AuthSettings()
    tls: TlsSettings | None = None
    limits: LimitSettings = LimitSettings()
    metrics: MetricsSettings = MetricsSettings()
    traces: TraceSettings | None = None
    openai: OpenAiSettings = OpenAiSettings()
    page: PageSettings = PageSettings()
    aws: AwsSettings = AwsSettings()
    routes: dict[RouteName, RouteSettings]

    @classmethod
    def load(cls, path: str | PathLike[str] | None = None) -> "Settings":
        """The settings from a file and the environment, which wins over the file.

        Args:
            path: The file; None where there is none, and the environment says it all.

        Raises:
            ConfigError: Something is wrong; the text has a line for each thing that is.
        """
        return read(None if path is None else Path(path)).settings

    @property
    def shows_metrics_to_clients(self) -> bool:
        """Whether the clients' port has metrics: it has no others, and nobody but this machine's
        programs reaches it.
        """
        return self.metrics.port is None and self.server.workers == 1 and self.serves_its_machine

    @property
    def serves_its_machine(self) -> bool:
        """Whether clients are this machine's programs: nobody has to say who they are, and no proxy
        is known that would pass others on.
        """
        server = self.server
        behind_a_proxy = server.public_url is not None or bool(server.trusted_proxies)
        return not self.auth.required and not behind_a_proxy

    @property
    def makes_its_machine_operator(self) -> bool:
        """Whether whoever reaches it is an operator. A proxy that nobody has told of can't be told
        from this machine, so that it takes a word of whoever knows that there is none.
        """
        return self.server.local_operator and self.serves_its_machine

    @field_validator("routes")
    @classmethod
    def _has_a_route(cls, routes: dict[str, RouteSettings]) -> dict[str, RouteSettings]:
        if not routes:
            raise ValueError(f"expected at least one route; {ROUTE_EXAMPLE}")
        return routes

    @field_validator("auth")
    @classmethod
    def _says_who_may_come_in(cls, auth: AuthSettings) -> AuthSettings:
        if not auth.required:  # which is not asked of a default
            raise ValueError(
                "expected [auth.keys] or [auth.jwt]; where nobody has to say who they are, leave "
                "[auth] out"
            )
        return auth

    @model_validator(mode="after")
    def _serves_others_only_with_auth(self) -> Self:
        if not self.auth.required and not is_loopback(self.server.host):
            raise PydanticCustomError(
                "at",
                "must be a loopback address such as 127.0.0.1 without [auth.keys] or [auth.jwt]: "
                "whoever reaches this gateway may use its models; say who may with [auth], or put "
                "a proxy that authenticates on the same machine in front of it",
                {"at": ("server", "host")},
            )
        return self

    @model_validator(mode="after")
    def _workers_share_a_store(self) -> Self:
        if self.server.workers > 1 and self.store.kind == "memory":
            raise PydanticCustomError(
                "at",
                'more than one needs [store] kind = "valkey": a client that comes back may reach '
                "any of them, and each would know its own sessions only",
                {"at": ("server", "workers")},
            )
        return self

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
                TooSmall(
                    (*at, "log_seconds"), route.events_seconds, resume, (*at, "resume_seconds")
                ),
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


class Configuration(NamedTuple):
    """The settings, and where each was set."""

    settings: Settings
    sources: Sources


def read(path: Path | None, flags: Mapping[str, Mapping[str, Any]] | None = None) -> Configuration:
    """The settings, from everywhere, and where each was set.

    Args:
        path: The file; None where there is none.
        flags: Values by section and key, from the command line.

    Raises:
        ConfigError: Something is wrong.
    """
    text, file = ("", {}) if path is None else read_file(path)
    given = {section: dict(values) for section, values in (flags or {}).items() if values}
    values = merged(given, merged(Environment(_Variables)(), file))
    sources = Sources(path, text, file, given, values)
    problems = _unknown_variables()
    try:
        settings = Settings.model_validate(values)
        if not problems:
            return Configuration(settings, sources)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            problems += problems_of(details, sources, Settings)
    raise ConfigError("\n".join(problems))


def _unknown_variables() -> list[str]:
    """Variables whose section there is none of; pydantic-settings would pass over them."""
    sections = list(Settings.model_fields)
    return [
        f"{name}: unknown section{suggest(location[0], sections)}"
        for name, location, _ in variables()
        if location[0] not in sections
    ]
