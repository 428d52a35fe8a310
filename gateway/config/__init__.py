"""The configuration: every setting, where values come from, and how mistakes are told.

- `settings` is the whole: `Settings.load` for programs, `read` for commands.
- `sections` and `routes` declare the settings, each with its help; `values` says what single ones
  have to be.
- `sources` are the file, the environment and flags; `tomlfile` knows the file's lines.
- `mistakes` turns what is wrong into lines that say where it was set.
"""

from gateway.config.routes import RouteSettings
from gateway.config.sections import (
    AwsSettings,
    JwtSettings,
    KeySettings,
    LimitSettings,
    MetricsSettings,
    OpenAiSettings,
    PageSettings,
    ServerSettings,
    StoreSettings,
    TlsSettings,
    TraceSettings,
)
from gateway.config.settings import EXAMPLE, Configuration, Settings, read
from gateway.config.sources import ConfigError

__all__ = [
    "EXAMPLE",
    "AwsSettings",
    "ConfigError",
    "Configuration",
    "JwtSettings",
    "KeySettings",
    "LimitSettings",
    "MetricsSettings",
    "OpenAiSettings",
    "PageSettings",
    "RouteSettings",
    "ServerSettings",
    "Settings",
    "StoreSettings",
    "TlsSettings",
    "TraceSettings",
    "read",
]
