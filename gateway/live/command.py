"""What ``session-gateway check --live`` does with what it is given."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from gateway.config import AwsSettings, Settings
from gateway.live.findings import Trial
from gateway.live.report import NOTICE, Report, console
from gateway.live.routes import Audience, Nobody, trials
from gateway.live.speaker import Given
from gateway.sagemaker.checks import default_region


class WrongUse(Exception):
    """An option that can't be; the text says which, and what would be one."""


def message_of(text: str | None, settings: Settings, names: Sequence[str]) -> Given | None:
    """The message that was given; None where there is none.

    Args:
        text: As it stands on the command line: ``@FILE`` is what a file holds.
        settings: All of them.
        names: The routes that are to get it.

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
                    f"--message: route {name} takes JSON, and this is none: {text}"
                ) from None
    return Given(text=text)


def routes_of(asked: Sequence[str], settings: Settings) -> list[str]:
    """The routes to try: those that are asked for, else all.

    Raises:
        WrongUse: The route does not exist.
    """
    for name in asked:
        if name not in settings.routes:
            raise WrongUse(
                f"--route: no route is called {name}; there are {', '.join(settings.routes)}"
            )
    return list(asked or settings.routes)


def _where(aws: AwsSettings) -> str:
    region = aws.region or default_region(aws.profile)
    return f" in {region}" + ("" if aws.endpoint_url is None else f", at {aws.endpoint_url}")


async def live(
    settings: Settings,
    *,
    asked: Sequence[str],
    message: str | None,
    seconds: float,
    quiet: bool,
) -> list[Trial]:
    """Try routes, and show what is found.

    Args:
        settings: All of them.
        asked: Names of routes; nothing for all.
        message: What to send, as it stands on the command line.
        seconds: How long a reply may take in all.
        quiet: Print nothing but the notice.

    Raises:
        WrongUse: See `message_of` and `routes_of`.
        ConfigError: The platform can't be called with these settings.
    """
    names = routes_of(asked, settings)
    given = message_of(message, settings, names)
    click.echo(NOTICE, err=True)
    report = None if quiet else Report(console(), _where(settings.aws))
    audience: Audience = report or Nobody()
    try:
        return await trials(settings, names, given=given, seconds=seconds, audience=audience)
    finally:
        if report is not None:
            report.end()
