"""Where values come from: the file, the environment and flags; and which of them set each."""

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from pydantic_settings import EnvSettingsSource

from gateway.config.tomlfile import Location, Statement, Tree, holds, shown, statements

ENVIRONMENT_PREFIX = "GATEWAY_"

_BODIES = frozenset({"request", "replay_seed", "open_body", "close_body"})
"""Settings that are sent to a model; a key of its container's may be among what they hold."""


class ConfigError(Exception):
    """The configuration is wrong; the text has a line for each thing that is."""


def variables() -> Iterator[tuple[str, list[str], str]]:
    """The gateway's variables that are not empty: name, location and value."""
    for name, value in os.environ.items():
        if value and name.upper().startswith(ENVIRONMENT_PREFIX):
            yield name, name[len(ENVIRONMENT_PREFIX) :].lower().split("__"), value


class Environment(EnvSettingsSource):
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


def merged(stronger: Any, weaker: Any) -> Any:
    """Both, tables merged; the order is the weaker one's."""
    if not isinstance(stronger, dict) or not isinstance(weaker, dict):
        return stronger
    return weaker | {key: merged(value, weaker.get(key)) for key, value in stronger.items()}


def read_file(path: Path) -> tuple[str, Tree]:
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


class Sources:
    """Where each value was set.

    Args:
        path: The file's.
        text: What is in it.
        file: What it says.
        flags: What the command line says.
        values: What all of them amount to.
    """

    def __init__(self, path: Path | None, text: str, file: Tree, flags: Tree, values: Tree) -> None:
        self._file = str(path) if path is not None else "configuration"
        self._text = text
        self._values = values
        # Of two spellings of a name the later one counts, and a key before the JSON of its table.
        latest_first = [*variables()][::-1]
        latest_first.sort(key=lambda variable: -len(variable[1]))
        self._strongest_first: list[tuple[str, Tree]] = [
            *(
                (f"--{key.replace('_', '-')}", {section: {key: value}})
                for section, keys in flags.items()
                for key, value in keys.items()
            ),
            *((name, _tree(location, value)) for name, location, value in latest_first),
            (self._file, file),
        ]

    def has(self, location: Location) -> bool:
        """Whether it was set at all."""
        return holds(self._values, location)

    def told(self, location: Location, text: str, *, known: bool = True, level: str = "") -> str:
        """What is wrong there: where it was set, its key and the text; the file's line below that.

        Args:
            location: Of the key; where it is not set, its table is named.
            text: What is wrong.
            known: Whether there is such a key, or one like it; see `gateway.config.tomlfile.shown`.
            level: Put ahead of the key.
        """
        if self.has(location):
            place, sources = location, self._sources(location)
        else:
            place = location[:-1]
            sources = self._sources(place)[-1:]  # the file, where it is one of them
        line = self._statement(place) if self._file in sources else None
        names = [
            f"{name}:{line.number}" if line is not None and name == self._file else name
            for name in sources
        ]
        message = f"{' and '.join(names)}: {level}{dotted(location)}: {text}"
        if line is None:
            return message
        plain = not isinstance(_value(line.says, location), dict) and _BODIES.isdisjoint(location)
        return f"{message}\n    {shown(line.line, known=known, plain=plain)}"

    def is_variable(self, location: Location) -> bool:
        """Whether it was set in the environment."""
        return self._sources(location)[0].upper().startswith(ENVIRONMENT_PREFIX)

    def _sources(self, location: Location) -> list[str]:
        """Those that say it, if it is a table that they say together."""
        named = [name for name, tree in self._strongest_first if holds(tree, location)]
        if not location or not named:
            return [self._file]
        return named if isinstance(_value(self._values, location), dict) else named[:1]

    def _statement(self, location: Location) -> Statement | None:
        """The statement of the file that sets it first."""
        if not location:
            return None
        found = (statement for statement in self._statements if holds(statement.says, location))
        return next(found, None)

    @cached_property
    def _statements(self) -> list[Statement]:
        return list(statements(self._text))


def _tree(location: list[str], text: str) -> Tree:
    """What one variable says."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        tree = text
    for key in reversed(location):
        tree = {key: tree}
    return cast("Tree", tree)


def _value(tree: Any, location: Location) -> Any:
    for key in location:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def dotted(location: Location) -> str:
    """As TOML would have it, so that it is one line whatever is in it."""
    return ".".join(
        key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)
        for key in map(str, location)
    )
