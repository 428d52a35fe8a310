"""State machines as tables: in which state which event does what, and what follows.

A session is two of them: ``table.py`` has what it is to its client, ``upstream_table.py`` its life
at the model. A pair that is not in a table can't happen.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Generic, TypeVar

from msgspec import Struct

from gateway.session.events import Timer, TimerFired

S = TypeVar("S", bound=Enum)

Cause = type | Timer
"""What happens: a type of event, or the timer whose time has come."""


class UnexpectedEvent(Exception):
    """An event that can't happen in this state: a fault of whoever runs the session."""


class Transition(Struct, Generic[S], frozen=True):
    """What an event does in a state.

    Attributes:
        action: The method of the machine, without its leading underscore; its docstring says what
            it does.
        to: The states that may follow.
    """

    action: str
    to: frozenset[S]


Table = Mapping[tuple[S, Cause], Transition[S]]
Row = tuple[tuple[S, ...], Cause, str, tuple[S, ...]]
"""While, event, action, then; nothing to follow stands for the state that it was in."""


def table(rows: Iterable[Row[S]]) -> Table[S]:
    """A table from its rows.

    Raises:
        ValueError: A pair is in two rows.
    """
    found: dict[tuple[S, Cause], Transition[S]] = {}
    for states, event, action, then in rows:
        for state in states:
            if (state, event) in found:
                raise ValueError(f"{event} while {state} is there twice")
            found[state, event] = Transition(action, frozenset(then or (state,)))
    return MappingProxyType(found)


def cause_of(event: object) -> Cause:
    """What stands for an event in a table."""
    return event.timer if type(event) is TimerFired else type(event)
