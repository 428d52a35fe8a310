"""The command ``session-gateway check --live``: its options, and what it prints."""

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
    """An option with a wrong value; the text says which, and what is expected."""


def message_of(text: str | None, settings: Settings, names: Sequence[str]) -> Given | None:
    """The message that was given; None where there is none.

    Args:
        text: As given on the command line; ``@FILE`` stands for the content of a file.
        settings: All of them.
        names: The routes that will get it.

    Raises:
        WrongUse: It can't be sent to one of them.
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
    """The routes to try: the ones that were asked for, else all.

    Raises:
        WrongUse: The route does not exist.
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
    """Try routes, and print what is found.

    Args:
        settings: All of them.
        asked: Names of routes; empty for all.
        message: What to send, as given on the command line.
        seconds: How long a whole reply may take.
        quiet: Print nothing but the notice.

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
