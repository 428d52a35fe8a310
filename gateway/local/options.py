"""What the options of ``session-gateway local`` take, beyond what click knows."""

import math
import re
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import click


class Whole(click.IntRange):
    """click calls it an "integer range", also where it says what a value is not."""

    name = "whole number"


PORT = Whole(0, 65_535)
COUNT = Whole(1, 1_000_000)


class _Seconds(click.FloatRange):
    """A time up to a day; click would take what is not a number."""

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
"""A time, or none."""


def loopback(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """A callback that takes an address of this machine alone."""
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
    """A callback that takes addresses of HTTP servers."""
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
    """A callback that holds a text to that pattern."""

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
