"""The command ``session-gateway check --live``."""

import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import click

from gateway.addresses import is_loopback
from gateway.config import AwsSettings, Settings
from gateway.live.findings import Trial
from gateway.live.report import CHARGED, NOTICE, Report, console
from gateway.live.routes import Audience, Nobody, trials
from gateway.live.speaker import Given
from gateway.sagemaker.checks import default_region


class WrongUse(Exception):
    """An option is not valid; the message says which one, and what is valid."""


def message_of(text: str | None, settings: Settings, names: Sequence[str]) -> Given | None:
    """Parse the message to send; None if none is given.

    Args:
        text: The value on the command line; ``@FILE`` reads a file.
        settings: The configuration.
        names: The routes to send it to.

    Raises:
        WrongUse: It can't be read, or not be sent on one of the routes.
    """
    if text is None:
        return None
    if text.startswith("@"):
        try:
            return Given(data=Path(text[1:]).read_bytes())
        except OSError as error:
            raise WrongUse(f"--message: {error.strerror}: {text[1:]}") from None
    for name in names:
        if settings.routes[name].takes_json_only:
            try:
                json.loads(text)
            except ValueError:
                raise WrongUse(
                    f"--message: route {name} takes only JSON, and this is not JSON: {text}"
                ) from None
    return Given(text=text)


def routes_of(asked: Sequence[str], settings: Settings) -> list[str]:
    """Return the routes to try: the requested ones, or all.

    Raises:
        WrongUse: A route does not exist.
    """
    for name in asked:
        if name not in settings.routes:
            raise WrongUse(
                f"--route: there is no route {name}; the routes are {', '.join(settings.routes)}"
            )
    return list(asked or settings.routes)


def _where(aws: AwsSettings) -> str:
    region = aws.region or default_region(aws.profile)
    return f" in {region}" + ("" if aws.endpoint_url is None else f", at {aws.endpoint_url}")


def _notice(aws: AwsSettings) -> str:
    host = urlsplit(aws.endpoint_url or "").hostname
    return NOTICE if host and is_loopback(host) else f"{NOTICE} {CHARGED}"


async def live(
    settings: Settings,
    *,
    asked: Sequence[str],
    message: str | None,
    seconds: float,
    quiet: bool,
) -> list[Trial]:
    """Try routes, and print the results.

    Args:
        settings: The configuration.
        asked: Names of routes; empty for all.
        message: The message to send, as on the command line.
        seconds: Maximum duration of a reply.
        quiet: Print only the notice.

    Raises:
        WrongUse: See `message_of` and `routes_of`.
        ConfigError: The platform can't be called with these settings.
    """
    names = routes_of(asked, settings)
    given = message_of(message, settings, names)
    click.echo(_notice(settings.aws), err=True)
    report = None if quiet else Report(console(), _where(settings.aws))
    audience: Audience = report or Nobody()
    try:
        return await trials(settings, names, given=given, seconds=seconds, audience=audience)
    finally:
        if report is not None:
            report.end()
