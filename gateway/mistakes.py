"""How mistakes in the configuration are told: where each was made, the key, what it should be."""

import difflib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gateway.sagemaker import Profile

ENVIRONMENT_PREFIX = "GATEWAY_"
ROUTE_EXAMPLE = 'add a table such as [routes.chat] with endpoint_name = "…"'

Location = tuple[str | int, ...]
Tree = dict[str, Any]


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
        file: What it says.
        flags: What the command line says.
        values: What all of them amount to.
    """

    def __init__(self, path: Path | None, file: Tree, flags: Tree, values: Tree) -> None:
        self._file = str(path) if path is not None else "configuration"
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

    def of(self, location: Location) -> str:
        """The source to name for what is wrong there."""
        named = [name for name, tree in self._strongest_first if _has(tree, location)]
        if not named:
            return self._file
        table = isinstance(_value(self._values, location), dict)
        return " and ".join(named) if table else named[0]

    def of_missing(self, location: Location) -> str:
        """The source to name for a key that is nowhere: that of its table."""
        table = location[:-1]
        if not table:
            return self._file
        return [name for name, tree in self._strongest_first if _has(tree, table)][-1]

    def has(self, location: Location) -> bool:
        """Whether it was set at all."""
        return _has(self._values, location)


def _tree(location: list[str], text: str) -> Tree:
    """What one variable says."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        tree = text
    for key in reversed(location):
        tree = {key: tree}
    return cast("Tree", tree)


def _has(tree: Any, location: Location) -> bool:
    """Whether something is there; the items of a list are where the list is."""
    for key in location:
        if not isinstance(tree, dict):
            return True
        if key not in tree:
            return False
        tree = tree[key]
    return True


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
        wanted = _wanted(location, schema)
        yield f"{origins.of_missing(location)}: {_key(location)}: missing{wanted}"
    elif kind == "extra_forbidden":
        suggestion = suggest(str(location[-1]), _keys_beside(location, schema))
        yield f"{origins.of(location)}: {_key(location)}: unknown key{suggestion}"
    else:
        source = origins.of(location)
        text = _EXPECTED.get(kind, text.removeprefix("Value error, "))
        if kind in _EXPECTED and kind != "string_type" and source.upper().startswith("GATEWAY_"):
            text += " in JSON"
        yield f"{source}: {_key(location)}: {text}{_shown(kind, details['input'])}"


def _together(small: TooSmall, origins: Origins) -> str:
    """Name the setting that was made; one of the two is, since the defaults go together."""
    key, other = _key(small.key), _key(small.other)
    if origins.has(small.key):
        rule = f"must be at least {small.least} with {other} as it is, got {small.value}"
        return f"{origins.of(small.key)}: {key}: {rule}"
    return f"{origins.of(small.other)}: {other}: needs {key} to be at least {small.least}"


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


def _shown(kind: str, value: Any) -> str:
    """What was there, unless it could be a secret: only numbers and words among choices are not."""
    if kind.startswith(("int_", "float_", "greater_", "less_", "finite_")):
        number = isinstance(value, int | float) and -1e12 < value < 1e12
        if number or (isinstance(value, str) and re.fullmatch(r"[-+]?[0-9.]{1,12}", value)):
            return f", got {value}"
    word = isinstance(value, str) and re.fullmatch(r"[A-Za-z_-]{1,16}", value)
    return f", got {value}" if word and kind in {"literal_error", "choice"} else ""


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
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"
