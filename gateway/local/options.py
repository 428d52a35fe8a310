"""Types and callbacks that validate the options of ``session-gateway local``."""

import math
import re
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import click


class Whole(click.IntRange):
    """An `IntRange` with a name for people: click calls it "integer range" in errors."""

    name = "whole number"


PORT = Whole(0, 65_535)
COUNT = Whole(1, 1_000_000)


class _Seconds(click.FloatRange):
    """A duration of at most a day; click's own type would accept NaN."""

    name = "number of seconds"

    def __init__(self, *, zero: bool) -> None:
        super().__init__(0, 86_400, min_open=not zero)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """See `click.ParamType.convert`."""
        seconds = float(super().convert(value, param, ctx))
        return (
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
            if math.isnan(seconds)
            else seconds
        )


SECONDS = _Seconds(zero=False)
PAUSE = _Seconds(zero=True)
"""A duration, or 0."""


def loopback(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """Accept a loopback address; a click callback."""
    try:
        if value == "localhost" or ip_address(value).is_loopback:
            return value
    except ValueError:
        pass
    raise click.BadParameter(
        "must be a loopback address such as 127.0.0.1, since its keys are publicly known."
    )


def container_urls(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    """Accept HTTP URLs; a click callback."""
    for value in values:
        try:
            parts = urlsplit(value)
            is_one = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        except ValueError:
            is_one = False
        if not is_one:
            likely = (
                f"; did you mean http://{value}?" if re.fullmatch(r"[\w.-]+:\d+", value) else ""
            )
            raise click.BadParameter(
                f"expected an address such as http://127.0.0.1:8080, got {value}{likely}"
            )
    return values


def _matching(pattern: str, expected: str) -> Callable[..., str]:
    """Return a callback that validates an option's value."""

    def check(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise click.BadParameter(f"expected {expected}.")
        return value

    return check


label = _matching(
    r"(?=.{1,63}$)[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?",
    "1 to 63 letters, digits and hyphens, with a letter or a digit at either end",
)
access_key = _matching(r"[!-+.0-~-]+", "printable characters, without spaces, commas and slashes")
secret_key = _matching(r"[!-~]+", "printable characters, without spaces")
