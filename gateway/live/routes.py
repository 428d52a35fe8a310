"""Tries routes, one after the other."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import structlog

from gateway.config import RouteSettings, Settings
from gateway.live.findings import Step, Trial
from gateway.live.speaker import Given
from gateway.live.trial import Tried, tried
from gateway.sagemaker.watched import Watched
from gateway.upstream import model, runtime, services


class Audience(Protocol):
    """Callbacks while routes are tried."""

    def route(self, name: str, route: RouteSettings) -> None:
        """Called before a route is tried."""
        ...

    def begin(self, what: str) -> None:
        """Called before something that takes time."""
        ...

    def step(self, step: Step) -> None:
        """Called with the result of a step."""
        ...


class Nobody:
    """An `Audience` that does nothing."""

    def route(self, name: str, route: RouteSettings) -> None:
        """See `Audience.route`."""

    def begin(self, what: str) -> None:
        """See `Audience.begin`."""

    def step(self, step: Step) -> None:
        """See `Audience.step`."""


async def trials(
    settings: Settings,
    names: Sequence[str],
    *,
    given: Given | None,
    seconds: float,
    audience: Audience,
) -> list[Trial]:
    """Hold a short conversation on each route; see `tried`.

    Args:
        settings: The configuration.
        names: The routes to try.
        given: The message to send, if any.
        seconds: Maximum duration of a reply.
        audience: Called with progress and results.

    Raises:
        ConfigError: The platform can't be called with these settings.
    """
    routes = {name: settings.routes[name] for name in names}
    chosen = settings.model_copy(update={"routes": routes})
    results = []
    with _logged() as logged:
        async with runtime(settings.aws) as transport, services(chosen) as later:
            for name, route in routes.items():
                audience.route(name, route)
                logged.clear()
                watched = Watched(transport)
                of = Tried(name, route, model(name, route, settings.aws, watched, later), watched)
                trial = await tried(
                    of,
                    given=given,
                    seconds=seconds,
                    logged=logged,
                    on_begin=audience.begin,
                    on_step=audience.step,
                )
                results.append(trial)
    return results


@contextlib.contextmanager
def _logged() -> Iterator[list[str]]:
    """Collect log lines instead of writing them."""
    lines: list[str] = []

    def keep(_logger: object, _method: str, line: Mapping[str, Any]) -> Mapping[str, Any]:
        why = f": {line['why']}" if "why" in line else ""
        lines.append(f"{line['event']}{why}")
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[keep])
    try:
        yield lines
    finally:
        structlog.configure(**before)
