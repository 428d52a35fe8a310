"""JSON templates, which turn a user's text into a model's request."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

HISTORY = ("messages", "transcript")
"""Placeholders for the whole conversation."""

_PLACEHOLDER = re.compile(r"\$([a-z]+)")


def fill(template: Any, values: Mapping[str, Any]) -> Any:
    """Replace a template's placeholders; inserted values are not scanned for placeholders.

    Args:
        template: Any JSON value. A string that is just ``$name`` becomes the value of that name, of
            whatever type; within a longer string, text is inserted as it is, and any other value as
            JSON.
        values: By name; placeholders of other names are left unchanged.
    """
    if isinstance(template, dict):
        return {key: fill(value, values) for key, value in template.items()}
    if isinstance(template, list | tuple):
        return [fill(item, values) for item in template]
    if not isinstance(template, str):
        return template
    if template.startswith("$") and template[1:] in values:
        return values[template[1:]]
    return _PLACEHOLDER.sub(
        lambda found: _text(values[found[1]]) if found[1] in values else found[0], template
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def placeholders(template: Any) -> frozenset[str]:
    """Return the names of a template's placeholders, without their ``$``; see `fill`."""
    return frozenset(_placeholders(template))


def tells_history(template: Any) -> bool:
    """Whether a template has a placeholder for the whole conversation."""
    return not placeholders(template).isdisjoint(HISTORY)


def _placeholders(template: Any) -> Iterator[str]:
    if isinstance(template, dict):
        template = list(template.values())
    if isinstance(template, list | tuple):
        for item in template:
            yield from _placeholders(item)
    elif isinstance(template, str):
        yield from _PLACEHOLDER.findall(template)
