"""How mistakes in the configuration are told: where each was made, the key, what it should be."""

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gateway.config.sources import Sources, dotted
from gateway.config.tomlfile import Location, Tree
from gateway.sagemaker.profiles import Profile

ROUTE_EXAMPLE = 'add a table such as [routes.chat] with endpoint_name = "…"'


class TooSmall(NamedTuple):
    """A setting that has to be larger with another as it is."""

    key: Location
    value: float
    least: float
    other: Location


_EXPECTED = {
    "dict_type": "expected a table",
    "model_type": "expected a table",
    "frozen_set_type": "expected a list",
    "string_type": "expected a string",
}


def problems_of(details: Any, sources: Sources, schema: type[BaseModel]) -> Iterator[str]:
    """Lines of where it was set, the key, and what is expected."""
    location: Location = details["loc"]
    kind, text, context = details["type"], str(details["msg"]), details.get("ctx", {})
    if kind == "too_small":
        yield from (_together(setting, sources) for setting in context["small"])
        return
    location = context.get("at", location)
    if location[-1:] == ("[key]",):
        location = location[:-1]
    if kind == "within":  # a key of a table that pydantic knows nothing of
        location += tuple(re.findall(r"[^.\[\]`]+", context["key"]))
        if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", text, re.DOTALL):
            location, kind = (*location, unknown[1]), "extra_forbidden"
    if kind == "missing":
        yield sources.told(location, f"missing{_wanted(location, schema)}")
    elif kind == "extra_forbidden":
        name, known = str(location[-1]), _keys_beside(location, schema)
        text = f"unknown key{suggest(name, known)}"
        yield sources.told(location, text, known=bool(_closest(name, known)))
    else:
        text = _EXPECTED.get(kind, text.removeprefix("Value error, "))
        if kind in _EXPECTED and kind != "string_type" and sources.is_variable(location):
            text += " in JSON"
        yield sources.told(location, text + _shown(kind, details["input"], context))


def _together(small: TooSmall, sources: Sources) -> str:
    """Name the setting that was made; one of the two is, since the defaults go together."""
    key, other = dotted(small.key), dotted(small.other)
    if sources.has(small.key):
        rule = f"must be at least {small.least} with {other} as it is, got {small.value}"
        return sources.told(small.key, rule)
    return sources.told(small.other, f"needs {key} to be at least {small.least}")


def _wanted(location: Location, schema: type[BaseModel]) -> str:
    if len(location) == 1:
        return f" - {ROUTE_EXAMPLE}"
    return f" - {_fields(location[:-1], schema)[str(location[-1])].description}"


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


def _fields(table: Location, schema: type[BaseModel]) -> Mapping[str, FieldInfo]:
    """The keys that a table may have; none where it is no table of the schema."""
    kind: Any = schema
    for key in table:
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
            continue
        fields = getattr(kind, "model_fields", {})
        annotation = fields[key].annotation if key in fields else None
        kind = next((each for each in (annotation, *get_args(annotation)) if _is_table(each)), None)
    return getattr(kind, "model_fields", {})


def _is_table(kind: Any) -> bool:
    return get_origin(kind) is dict or hasattr(kind, "model_fields")


def _keys_beside(location: Location, schema: type[BaseModel]) -> list[str]:
    """The keys that there are where an unknown one was found."""
    match location:
        case ("routes", _, "session", *_):
            return list(Profile.__struct_fields__)
        case _:
            return list(_fields(location[:-1], schema))


def suggest(name: str, known: list[str]) -> str:
    """The one of them that it resembles, else all."""
    close = _closest(name, known)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"


def _closest(name: str, known: list[str]) -> list[str]:
    return difflib.get_close_matches(name, known, n=1)
