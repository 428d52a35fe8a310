"""JSON made from a template: how a route turns a user's words into what its model reads."""

import re
from collections.abc import Mapping
from typing import Any

_PLACEHOLDER = re.compile(r"\$([a-z]+)")


def fill(template: Any, values: Mapping[str, Any]) -> Any:
    """The template with its placeholders replaced; what is put in is not looked at again.

    Args:
        template: Any JSON value. A string that is ``$name`` and no more becomes the value of that
            name, of whatever type; within a longer string, the value's text is put in.
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
    return _PLACEHOLDER.sub(lambda found: str(values.get(found[1], found[0])), template)
