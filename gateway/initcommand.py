"""The command ``session-gateway init``: asks a few questions and writes a configuration."""

import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

LOCAL = "local"
KINDS = {
    "vllm": "vLLM: AWS's image, or another on AWS's container standards",
    "lmi": "LMI (DJL Serving), version 16 or later",
    "tgi": "Text Generation Inference (TGI)",
    "djl": "DJL Serving with your own handler",
    "torchserve": "TorchServe, like AWS's stateful sample",
    "own": "your own container, on AWS's container standards",
    LOCAL: "no endpoint yet: try a model on this machine, without AWS",
}
STDOUT = Path("-")
DEFAULT_FILE = "gateway.toml"


@click.command()
@click.option(
    "--container",
    type=click.Choice(list(KINDS)),
    help="What runs behind the endpoint; local if there is no endpoint yet.",
)
@click.option("--endpoint", help="Name or ARN of the endpoint.")
@click.option("--region", help="AWS region of the endpoint.")
@click.option("--profile", help="Profile in ~/.aws/config. Default: AWS's usual credentials.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    default=DEFAULT_FILE,
    show_default=True,
    help="File to write; - for the standard output.",
)
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def init(  # noqa: PLR0917 - click passes them by name
    container: str | None,
    endpoint: str | None,
    region: str | None,
    profile: str | None,
    output: Path,
    force: bool,
) -> None:
    """Write a first configuration. Asks for what is not given as an option."""
    from gateway import starter  # noqa: PLC0415

    if output != STDOUT and output.exists() and not force:
        raise click.UsageError(f"{output} already exists; --force overwrites it.")
    container = container or _kind()
    is_local = container == LOCAL
    if is_local and endpoint is None:
        endpoint = starter.LOCAL_ENDPOINT
    if endpoint is None:
        endpoint = _asked("--endpoint", "Endpoint (name or ARN)", starter.endpoint_name)
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
        if text.lower() not in KINDS:
            raise ValueError(f"{text} is not one of {', '.join(KINDS)}")
        return text

    return _asked("--container", "Container", known).lower()


def _asked(
    option: str, question: str, check: Callable[[str], str], default: str | None = None
) -> str:
    """Ask until an answer passes the check; return it unchanged."""

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
        raise click.UsageError(
            f"{option} is required, since the input is not a terminal."
        ) from None
    return answer


def _next(container: str, output: Path, elsewhere: str) -> Iterator[str]:
    """Yield what to do next.

    Args:
        container: The chosen kind.
        output: The file that was written.
        elsewhere: Options with which `session-gateway local` matches the file.
    """
    named = "" if output == Path(DEFAULT_FILE) else f" --config {shlex.quote(str(output))}"
    yield f"Wrote {output}. Next:"
    if container == LOCAL:
        keys = "AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local-secret"
        yield f"  session-gateway local{elsewhere}    # in one terminal"
        yield f"  {keys} session-gateway serve{named}    # in another"
        yield "Then open http://127.0.0.1:8080"
        return
    yield f"  session-gateway check --live{named}   # test it; this invokes the model"
    yield f"  session-gateway serve{named}          # then open http://127.0.0.1:8080"
