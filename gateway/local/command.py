"""The command ``session-gateway local``."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from gateway.local.containers import Container
    from gateway.local.faults import BreakMode, ErrorName
    from gateway.local.platform import Endpoint
    from gateway.local.stateful import Dialect, Expires

# The help has these; they are written out because the modules that define them are slow to import.
DIALECTS = ("container-standards", "torchserve", "first-message")
EXPIRES = ("standard", "absent", "naive")
ERRORS = (
    "ThrottlingException",
    "ModelNotReadyException",
    "ServiceUnavailable",
    "InternalFailure",
    "InternalDependencyException",
    "ModelError",
)
BREAK_MODES = ("exception", "time", "internal", "cut")
KEYS = {"access_key": "local", "secret_key": "local-secret", "region": "us-east-1"}


@contextlib.contextmanager
def apart_from_aws(**given: str) -> Iterator[None]:
    """Let nothing that this machine has set for AWS, nor a proxy, change what botocore does.

    Args:
        given: Settings of the environment to have in their place.
    """
    ours = {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "no_proxy": "127.0.0.1,localhost",
        **given,
    }
    theirs = {name: value for name, value in os.environ.items() if _is_about_calls(name)}
    for name in theirs:
        del os.environ[name]
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
        os.environ.update(theirs)


def _is_about_calls(name: str) -> bool:
    name = name.upper()
    return name.startswith(("AWS_", "BOTO")) or name.endswith(("_PROXY", "_CA_BUNDLE"))


def _loopback(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    try:
        if ip_address(value).is_loopback:
            return value
    except ValueError:
        pass
    raise click.BadParameter(
        "must be a loopback address such as 127.0.0.1: this server stands in for AWS on one "
        "machine, with keys that everybody knows."
    )


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, callback=_loopback)
@click.option("--port", default=9000, show_default=True, help="0 takes a free one.")
@click.option("--endpoint", "name", default="my-endpoint", show_default=True)
@click.option("--instances", default=2, show_default=True, type=click.IntRange(1, 100))
@click.option("--container", "urls", multiple=True, help="URL of a container, one an instance.")
@click.option("--model", type=click.Choice(["builtin", "language"]), default="builtin")
@click.option("--model-file", type=click.Path(exists=True, path_type=Path), help="A GGUF file.")
@click.option("--dialect", type=click.Choice(DIALECTS), default="container-standards")
@click.option("--session-seconds", default=1200.0, show_default=True)
@click.option("--max-sessions", default=1000, show_default=True, help="Of each instance.")
@click.option("--expires", type=click.Choice(EXPIRES), default="standard")
@click.option("--access-key", default=KEYS["access_key"], show_default=True)
@click.option("--secret-key", default=KEYS["secret_key"], show_default=True)
@click.option("--region", default=KEYS["region"], show_default=True)
@click.option("--fail", type=click.Choice(ERRORS), help="Let the next calls fail.")
@click.option("--fail-times", default=1, show_default=True, help="Calls, and streams that break.")
@click.option("--delay", default=0.0, help="Seconds that every call waits.")
@click.option(
    "--break-after-parts", type=click.IntRange(0), help="Let the next streams break there."
)
@click.option("--break-mode", type=click.Choice(BREAK_MODES), default="exception")
@click.option("--part-bytes", type=click.IntRange(0), help="Of every part of a stream.")
@click.option("--part-seed", type=int, help="Parts are of random sizes up to that.")
@click.option("--delay-parts", default=0.0, help="Seconds that every part of a stream waits.")
@click.option("--lose", multiple=True, help="Name of an instance that is lost, such as i-1.")
def local(  # noqa: PLR0917 - click passes them by name
    host: str,
    port: int,
    name: str,
    instances: int,
    urls: tuple[str, ...],
    model: str,
    model_file: Path | None,
    dialect: "Dialect",
    session_seconds: float,
    max_sessions: int,
    expires: "Expires",
    access_key: str,
    secret_key: str,
    region: str,
    fail: "ErrorName | None",
    fail_times: int,
    delay: float,
    break_after_parts: int | None,
    break_mode: "BreakMode",
    part_bytes: int | None,
    part_seed: int | None,
    delay_parts: float,
    lose: tuple[str, ...],
) -> None:
    """Run SageMaker Runtime on this machine, in front of a model of its own or your containers.

    While it runs, GET /_local/ENDPOINT shows what reached the instances; POST
    /_local/ENDPOINT/faults, /_local/ENDPOINT/expire and /_local/ENDPOINT/instances/NAME/lose let
    things go wrong.
    """
    from gateway.local.builtin import BuiltinModel  # noqa: PLC0415
    from gateway.local.containers import HttpContainer  # noqa: PLC0415
    from gateway.local.faults import Fault  # noqa: PLC0415
    from gateway.local.language import LanguageModel, LanguageModelUnavailable, load  # noqa: PLC0415
    from gateway.local.platform import Endpoint  # noqa: PLC0415

    containers: Sequence[Container]
    if urls:
        containers = [HttpContainer(url) for url in urls]
    elif model == "language":
        try:
            file = load(model_file)
        except LanguageModelUnavailable as missing:
            raise click.ClickException(str(missing)) from None
        containers = [LanguageModel(file, f"i-{n}") for n in range(1, instances + 1)]
    else:
        containers = [
            BuiltinModel(
                f"i-{n}",
                dialect=dialect,
                session_seconds=session_seconds,
                max_sessions=max_sessions,
                expires=expires,
            )
            for n in range(1, instances + 1)
        ]
    endpoint = Endpoint(name, containers)
    endpoint.faults.add(
        Fault(
            error=fail,
            times=fail_times,
            delay_seconds=delay,
            break_after_parts=break_after_parts,
            break_mode=break_mode,
            part_bytes=part_bytes,
            part_seed=part_seed,
            delay_parts_seconds=delay_parts,
        )
    )
    for lost in lose:
        endpoint.lose(lost)
    keys = {"access_key": access_key, "secret_key": secret_key, "region": region}
    try:
        with apart_from_aws():
            asyncio.run(_serve(endpoint, host, port, keys))
    except OSError as error:
        raise click.ClickException(error.strerror or str(error)) from None


async def _serve(endpoint: "Endpoint", host: str, port: int, keys: dict[str, str]) -> None:
    from gateway.local.server import running  # noqa: PLC0415

    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with running([endpoint], host=host, port=port, **keys) as url:
        for line in _instructions(endpoint, url, keys):
            click.echo(line)
        await stopped.wait()


def _instructions(endpoint: "Endpoint", url: str, keys: dict[str, str]) -> Iterable[str]:
    names = ", ".join(instance.name for instance in endpoint.instances)
    yield f"session-gateway local listening on {url}: endpoint {endpoint.name}, instances {names}"
    yield "Point gateway.toml at it:"
    yield f'  [aws]\n  region = "{keys["region"]}"\n  endpoint_url = "{url}"'
    yield "and give the gateway these keys:"
    yield f"  AWS_ACCESS_KEY_ID={keys['access_key']} AWS_SECRET_ACCESS_KEY={keys['secret_key']}"
