"""Keeps message texts, keys and tokens out of logs: a log line, a traceback or a failed callback
may print any value.
"""

from enum import Enum

from msgspec import UNSET, Raw, Struct

OPEN = frozenset(
    {"code", "context", "expires_at", "id", "reason", "route", "session_id", "state", "status"}
)
"""Fields whose texts are printed, since they are never secret."""


class Discreet(Struct, frozen=True):
    """A value whose repr shows the sizes of its texts and bytes instead of their content."""

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({shown})"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        values = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return [
            (name, repr(value) if name in OPEN else _shown(value))
            for name, value in values
            if value is not UNSET
        ]


def _shown(value: object) -> str:
    if isinstance(value, int | float | Enum | Struct | None):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, str | bytes | Raw):
        return f"<{len(memoryview(value)) if isinstance(value, Raw) else len(value)}>"
    return "…"
