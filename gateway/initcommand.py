"""The command ``session-gateway init``: asks a few questions, and writes a configuration."""

import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

LOCAL = "local"
KINDS = {
    "vllm": "vLLM, in AWS's image or one on its container standards",
    "lmi": "DJL Serving with LMI, 16 or later",
    "tgi": "Text Generation Inference",
    "djl": "DJL Serving with a handler of your own",
    "torchserve": "TorchServe, as in AWS's stateful sample",
    "own": "a container of your own, on AWS's container standards",
    LOCAL: "none yet: a model on this machine, without AWS",
}
STDOUT = Path("-")
DEFAULT_FILE = "gateway.toml"


@click.command()
@click.option(
    "--container",
    type=click.Choice(list(KINDS)),
    help="What runs behind the endpoint; local for none yet.",
)
@click.option("--endpoint", help="The endpoint's name, or its ARN.")
@click.option("--region", help="Where it is.")
@click.option("--profile", help="Of AWS's configuration, where it is not the usual one.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    default=DEFAULT_FILE,
    show_default=True,
    help="The file; - for the standard output.",
)
@click.option("--force", is_flag=True, help="Overwrite the file where there is one.")
def init(  # noqa: PLR0917 - click passes them by name
    container: str | None,
    endpoint: str | None,
    region: str | None,
    profile: str | None,
    output: Path,
    force: bool,
) -> None:
    """Write a configuration, and ask for what the options do not say."""
    from gateway import starter  # noqa: PLC0415

    if output != STDOUT and output.exists() and not force:
        raise click.UsageError(f"{output} is there already; --force overwrites it.")
    container = container or _kind()
    is_local = container == LOCAL
    if is_local and endpoint is None:
        endpoint = starter.LOCAL_ENDPOINT
    if endpoint is None:
        endpoint = _asked("--endpoint", "Endpoint (its name, or its ARN)", starter.endpoint_name)
    region = region or starter.region_of(endpoint) or (starter.LOCAL_REGION if is_local else None)
    if region is None:
        default = starter.default_region(profile)
        region = _asked("--region", "Region", starter.checked_region, default)
    try:
        endpoint, region = starter.endpoint_name(endpoint), starter.checked_region(region)
        profile = starter.checked_profile(profile) if profile else None
    except starter.Wrong as error:
        raise click.UsageError(str(error)) from None
    text = starter.written(container, endpoint, region, profile)
    if output == STDOUT:
        click.echo(text, nl=False)
        return
    try:
        with output.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise click.ClickException(f"{output} can't be written: {error.strerror}") from None
    elsewhere = "" if endpoint == starter.LOCAL_ENDPOINT else f" --endpoint {endpoint}"
    elsewhere += "" if region == starter.LOCAL_REGION else f" --region {region}"
    for line in _next(container, output, elsewhere):
        click.echo(line)


def _kind() -> str:
    click.echo("What runs behind the endpoint?", err=True)
    for kind, meaning in KINDS.items():
        click.echo(f"  {kind:<11} {meaning}", err=True)

    def known(text: str) -> str:
        if text not in KINDS:
            raise ValueError(f"{text} is none of {', '.join(KINDS)}")
        return text

    return _asked("--container", "Container", known)


def _asked(
    option: str, question: str, check: Callable[[str], str], default: str | None = None
) -> str:
    """An answer that passes the check, as it was given."""

    def checked(text: str) -> str:
        try:
            check(text.strip())
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        return text.strip()

    try:
        answer: str = click.prompt(question, default=default, value_proc=checked, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise click.UsageError(f"{option} is needed where nobody can be asked.") from None
    return answer


def _next(container: str, output: Path, elsewhere: str) -> Iterator[str]:
    """What to do with the file.

    Args:
        container: Which was chosen.
        output: Where it is.
        elsewhere: What a local platform has to be told of it.
    """
    named = "" if output == Path(DEFAULT_FILE) else f" --config {shlex.quote(str(output))}"
    yield f"{output} is written. Next:"
    if container == LOCAL:
        keys = "AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local-secret"
        yield f"  session-gateway local{elsewhere}"
        yield f"  {keys} session-gateway serve{named}"
        yield "each in a terminal of its own. Then open http://127.0.0.1:8080"
        return
    yield f"  session-gateway check --live{named}   # is all of it there? It invokes the model"
    yield f"  session-gateway serve{named}          # then open http://127.0.0.1:8080"
