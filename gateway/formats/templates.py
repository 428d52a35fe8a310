"""JSON made from a template: how a route turns a user's words into what its model reads."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

HISTORY = ("messages", "transcript")
"""The placeholders for all of a conversation."""

_PLACEHOLDER = re.compile(r"\$([a-z]+)")


def fill(template: Any, values: Mapping[str, Any]) -> Any:
    """The template with its placeholders replaced; what is put in is not looked at again.

    Args:
        template: Any JSON value. A string that is ``$name`` and no more becomes the value of that
            name, of whatever type; within a longer string, a text is put in as it is, and any
            other value as JSON.
        values: By name; other names stay as they are written.
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
    """The names that a template has a place for, without their ``$``; see `fill`."""
    return frozenset(_placeholders(template))


def tells_history(template: Any) -> bool:
    """Whether a template has a place for all of a conversation."""
    return not placeholders(template).isdisjoint(HISTORY)


def _placeholders(template: Any) -> Iterator[str]:
    if isinstance(template, dict):
        template = list(template.values())
    if isinstance(template, list | tuple):
        for item in template:
            yield from _placeholders(item)
    elif isinstance(template, str):
        yield from _PLACEHOLDER.findall(template)
