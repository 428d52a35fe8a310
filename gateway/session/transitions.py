"""State machines as tables of what each event does in each state.

A session is two of them: ``table.py`` is the client's side, ``upstream_table.py`` the model
session. A pair of state and event that is not in a table can't happen.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Generic, TypeVar

from msgspec import Struct

from gateway.session.events import Timer, TimerFired

S = TypeVar("S", bound=Enum)

Cause = type | Timer
"""A type of event, or a timer that fires."""


class UnexpectedEvent(Exception):
    """An event that can't happen in this state: a bug in the code that runs the session."""


class Transition(Struct, Generic[S], frozen=True):
    """What an event does in a state.

    Attributes:
        action: The machine's method, without its leading underscore; its docstring says what it
            does.
        to: The possible next states.
    """

    action: str
    to: frozenset[S]


Table = Mapping[tuple[S, Cause], Transition[S]]
Row = tuple[tuple[S, ...], Cause, str, tuple[S, ...]]
"""States, event, action, next states; no next states mean that the state doesn't change."""


def table(rows: Iterable[Row[S]]) -> Table[S]:
    """Build a table from its rows.

    Raises:
        ValueError: A pair of state and event is in two rows.
    """
    found: dict[tuple[S, Cause], Transition[S]] = {}
    for states, event, action, then in rows:
        for state in states:
            if (state, event) in found:
                raise ValueError(f"{event} while {state} is there twice")
            found[state, event] = Transition(action, frozenset(then or (state,)))
    return MappingProxyType(found)


def cause_of(event: object) -> Cause:
    """Return an event's key in a table."""
    return event.timer if type(event) is TimerFired else type(event)
