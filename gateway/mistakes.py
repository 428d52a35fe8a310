"""How mistakes in the configuration are told: where each was made, the key, what it should be."""

import difflib
import json
import os
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gateway.sagemaker.profiles import Profile
from gateway.tomlfile import Location, Statement, Tree, holds, shown, statements

ENVIRONMENT_PREFIX = "GATEWAY_"
ROUTE_EXAMPLE = 'add a table such as [routes.chat] with endpoint_name = "…"'

_BODIES = frozenset({"request", "replay_seed", "open_body", "close_body"})
"""Settings that are sent to a model; a key of its container's may be among what they hold."""


class TooSmall(NamedTuple):
    """A setting that has to be larger with another as it is."""

    key: Location
    value: float
    least: float
    other: Location


def variables() -> Iterator[tuple[str, list[str], str]]:
    """The gateway's variables that are not empty: name, location and value."""
    for name, value in os.environ.items():
        if value and name.upper().startswith(ENVIRONMENT_PREFIX):
            yield name, name[len(ENVIRONMENT_PREFIX) :].lower().split("__"), value


class Origins:
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
            known: Whether there is such a key, or one like it; see `gateway.tomlfile.shown`.
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
        message = f"{' and '.join(names)}: {level}{_key(location)}: {text}"
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


_EXPECTED = {
    "dict_type": "expected a table",
    "model_type": "expected a table",
    "frozen_set_type": "expected a list",
    "string_type": "expected a text",
}


def problems_of(details: Any, origins: Origins, schema: type[BaseModel]) -> Iterator[str]:
    """Lines of where it was set, the key, and what is expected."""
    location: Location = details["loc"]
    kind, text, context = details["type"], str(details["msg"]), details.get("ctx", {})
    if kind == "too_small":
        yield from (_together(setting, origins) for setting in context["small"])
        return
    if location[-1] == "[key]":
        location = location[:-1]
    if kind == "within":  # a key of a table that pydantic knows nothing of
        location += tuple(re.findall(r"[^.\[\]`]+", context["key"]))
        if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", text, re.DOTALL):
            location, kind = (*location, unknown[1]), "extra_forbidden"
    if kind == "missing":
        yield origins.told(location, f"missing{_wanted(location, schema)}")
    elif kind == "extra_forbidden":
        name, known = str(location[-1]), _keys_beside(location, schema)
        text = f"unknown key{suggest(name, known)}"
        yield origins.told(location, text, known=bool(_closest(name, known)))
    else:
        text = _EXPECTED.get(kind, text.removeprefix("Value error, "))
        if kind in _EXPECTED and kind != "string_type" and origins.is_variable(location):
            text += " in JSON"
        yield origins.told(location, text + _shown(kind, details["input"], context))


def _together(small: TooSmall, origins: Origins) -> str:
    """Name the setting that was made; one of the two is, since the defaults go together."""
    key, other = _key(small.key), _key(small.other)
    if origins.has(small.key):
        rule = f"must be at least {small.least} with {other} as it is, got {small.value}"
        return origins.told(small.key, rule)
    return origins.told(small.other, f"needs {key} to be at least {small.least}")


def _key(location: Location) -> str:
    """As TOML would have it, so that it is one line whatever is in it."""
    return ".".join(
        key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)
        for key in map(str, location)
    )


def _wanted(location: Location, schema: type[BaseModel]) -> str:
    if len(location) == 1:
        return f" - {ROUTE_EXAMPLE}"
    return f" - expected {_route(schema)[str(location[-1])].description}"


def _shown(kind: str, value: Any, context: Tree) -> str:
    """What was there, unless it could be a secret: only numbers and words among choices are not."""
    if kind.startswith(("int_", "float_", "greater_", "less_", "finite_")):
        number = isinstance(value, int | float) and -1e12 < value < 1e12
        if number or (isinstance(value, str) and re.fullmatch(r"[-+]?[0-9.]{1,12}", value)):
            return f", got {value}"
    if kind not in {"literal_error", "choice"} or not isinstance(value, str):
        return ""
    choices = re.findall(r"[\w-]+", str(context.get("expected") or context["choices"]))
    close = _closest(value, choices)
    got = f", got {value}" if re.fullmatch(r"[A-Za-z_-]{1,16}", value) else ""
    return f"{got}; did you mean {close[0]}?" if close else got


def _route(schema: type[BaseModel]) -> dict[str, FieldInfo]:
    """The keys of a route."""
    _, route = get_args(schema.model_fields["routes"].annotation)
    return cast("dict[str, FieldInfo]", route.model_fields)


def _keys_beside(location: Location, schema: type[BaseModel]) -> list[str]:
    """The keys that there are where an unknown one was found."""
    match location:
        case ("routes", _, "session", *_):
            return list(Profile.__struct_fields__)
        case ("routes", *_):
            return list(_route(schema))
        case (str(section), _):
            return list(getattr(schema.model_fields[section].annotation, "model_fields", {}))
        case _:
            return list(schema.model_fields)


def suggest(name: str, known: list[str]) -> str:
    """The one of them that it resembles, else all."""
    close = _closest(name, known)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"


def _closest(name: str, known: list[str]) -> list[str]:
    return difflib.get_close_matches(name, known, n=1)
