"""Holds the session's two machines to their tables, in every gateway that a test starts."""

from collections.abc import Callable
from typing import Any

from gateway.session.session import Session
from gateway.session.table import TABLE
from gateway.session.transitions import Table, cause_of
from gateway.session.upstream import Upstream
from gateway.session.upstream_table import UPSTREAM


def check_tables() -> None:
    """From now on, a machine of this process fails where it goes to a state that its table does
    not name.
    """
    Session.handle = _checked(Session.handle, TABLE)  # type: ignore[method-assign]
    Upstream.handle = _checked(Upstream.handle, UPSTREAM)  # type: ignore[method-assign]


def _checked(handle: Callable[..., Any], table: Table[Any]) -> Callable[..., Any]:
    def checked(self: Any, event: object, *arguments: object) -> object:
        before = self.state
        done = handle(self, event, *arguments)
        to = table[before, cause_of(event)].to
        assert self.state in to, f"{event!r} while {before}: then {self.state}, not {to}"
        return done

    return checked
