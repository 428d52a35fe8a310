"""The command ``session-gateway local``."""

import asyncio
import contextlib
import errno
import math
import os
import re
import shlex
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from gateway.local.containers import Container
    from gateway.local.faults import Action, BreakMode, ErrorName
    from gateway.local.llama import Llama
    from gateway.local.platform import Endpoint
    from gateway.local.stateful import Dialect, Expires

# The help has these; they are written out because the modules that define them are slow to import.
DIALECTS = ("container-standards", "torchserve", "first-message", "stateless")
EXPIRES = ("standard", "absent", "naive")
ERRORS = (
    "ThrottlingException",
    "ModelNotReadyException",
    "ServiceUnavailable",
    "InternalFailure",
    "InternalDependencyException",
    "ExpiredTokenException",
    "ModelError",
)
ACTIONS = ("InvokeEndpoint", "InvokeEndpointAsync", "InvokeEndpointWithResponseStream")
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


class _Whole(click.IntRange):
    """click calls it an "integer range", also where it says what a value is not."""

    name = "whole number"


PORT = _Whole(0, 65_535)
COUNT = _Whole(1, 1_000_000)


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
        return self.fail(f"{value!r} is no time.", param, ctx) if math.isnan(seconds) else seconds


SECONDS = _Seconds(zero=False)


def _loopback(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    try:
        if value == "localhost" or ip_address(value).is_loopback:
            return value
    except ValueError:
        pass
    raise click.BadParameter(
        "must be a loopback address such as 127.0.0.1: this server stands in for AWS on one "
        "machine, with keys that everybody knows."
    )


def _container(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
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


_label = _matching(
    r"(?=.{1,63}$)[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?",
    "1 to 63 letters, digits and hyphens, with a letter or a digit at either end",
)
_key = _matching(r"[!-+.0-~-]+", "printable characters, without spaces, commas and slashes")
_secret = _matching(r"[!-~]+", "printable characters, without spaces")


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, callback=_loopback)
@click.option("--port", default=9000, type=PORT, show_default=True, help="0 takes a free one.")
@click.option("--endpoint", "name", default="my-endpoint", show_default=True, callback=_label)
@click.option("--instances", default=2, show_default=True, type=_Whole(1, 100))
@click.option(
    "--container",
    "urls",
    multiple=True,
    callback=_container,
    help="URL of a container, one an instance.",
)
@click.option("--model", type=click.Choice(["builtin", "language", "voice"]), default="builtin")
@click.option(
    "--model-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A GGUF file.",
)
@click.option(
    "--forgets",
    is_flag=True,
    help="Let the model keep no history, as vLLM: it is told all in OpenAI's `messages`.",
)
@click.option("--dialect", type=click.Choice(DIALECTS), default="container-standards")
@click.option("--session-seconds", default=1200.0, type=SECONDS, show_default=True)
@click.option(
    "--max-sessions", default=1000, type=COUNT, show_default=True, help="Of each instance."
)
@click.option("--expires", type=click.Choice(EXPIRES), default="standard")
@click.option("--access-key", default=KEYS["access_key"], show_default=True, callback=_key)
@click.option("--secret-key", default=KEYS["secret_key"], show_default=True, callback=_secret)
@click.option("--region", default=KEYS["region"], show_default=True, callback=_label)
@click.option("--fail", type=click.Choice(ERRORS), help="Let the next calls fail.")
@click.option(
    "--fail-times",
    default=1,
    type=COUNT,
    show_default=True,
    help="Calls, and streams that break.",
)
@click.option(
    "--delay", default=0.0, type=_Seconds(zero=True), help="Seconds that every call waits."
)
@click.option(
    "--asynchronous",
    is_flag=True,
    help="Take InvokeEndpointAsync alone; replies are objects of an S3 here, notices in an SQS.",
)
@click.option(
    "--delay-work",
    default=0.0,
    type=_Seconds(zero=True),
    help="Seconds that every asynchronous call takes longer.",
)
@click.option("--break-after-parts", type=_Whole(0), help="Let the next streams break there.")
@click.option("--break-mode", type=click.Choice(BREAK_MODES), default="exception")
@click.option("--part-bytes", type=_Whole(0), help="Of every part of a stream.")
@click.option("--part-seed", type=int, help="Parts are of random sizes up to that.")
@click.option(
    "--delay-parts",
    default=0.0,
    type=_Seconds(zero=True),
    help="Seconds that every part of a stream waits.",
)
@click.option("--deny", multiple=True, type=click.Choice(ACTIONS), help="What callers may not do.")
@click.option(
    "--clock",
    default=0,
    type=_Whole(-86_400, 86_400),
    help="Seconds that the clock is ahead by which signatures are checked.",
)
@click.option("--lose", multiple=True, help="Name of an instance that is lost, such as i-1.")
@click.pass_context
def local(  # noqa: PLR0917 - click passes them by name
    context: click.Context,
    host: str,
    port: int,
    name: str,
    instances: int,
    urls: tuple[str, ...],
    model: str,
    model_file: Path | None,
    forgets: bool,
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
    asynchronous: bool,
    delay_work: float,
    break_after_parts: int | None,
    break_mode: "BreakMode",
    part_bytes: int | None,
    part_seed: int | None,
    delay_parts: float,
    deny: tuple["Action", ...],
    clock: int,
    lose: tuple[str, ...],
) -> None:
    """Run SageMaker Runtime on this machine, in front of a model of its own or your containers.

    While it runs, GET /_local/ENDPOINT shows what reached the instances; POST
    /_local/ENDPOINT/faults, /_local/ENDPOINT/expire and /_local/ENDPOINT/instances/NAME/lose let
    things go wrong.
    """
    from gateway.local.asynchronous import Asynchronous  # noqa: PLC0415
    from gateway.local.builtin import BuiltinModel  # noqa: PLC0415
    from gateway.local.containers import HttpContainer  # noqa: PLC0415
    from gateway.local.faults import Fault  # noqa: PLC0415
    from gateway.local.language import LanguageModel  # noqa: PLC0415
    from gateway.local.llama import LanguageModelUnavailable, Llama, find_weights  # noqa: PLC0415
    from gateway.local.notices import Queue  # noqa: PLC0415
    from gateway.local.objects import Bucket  # noqa: PLC0415
    from gateway.local.platform import Endpoint  # noqa: PLC0415

    _refuse_what_does_nothing(context)
    containers: Sequence[Container]
    llamas: list[Llama] = []
    if urls:
        containers = [HttpContainer(url) for url in urls]
    elif model == "language":
        try:
            file = find_weights(model_file)
        except LanguageModelUnavailable as missing:
            raise click.ClickException(str(missing)) from None
        llamas = [Llama(file) for _ in range(instances)]
        containers = [
            LanguageModel(llama, f"i-{n}", forgets=forgets) for n, llama in enumerate(llamas, 1)
        ]
    elif model == "voice":
        containers = _voice_models(instances)
    else:
        containers = [
            BuiltinModel(
                f"i-{n}",
                dialect=dialect,
                session_seconds=session_seconds,
                max_sessions=max_sessions,
                expires=expires,
                forgets=forgets,
            )
            for n in range(1, instances + 1)
        ]
    bucket, queue = Bucket(), Queue()
    later = Asynchronous(bucket, queue.publish) if asynchronous else None
    endpoint = Endpoint(name, containers, asynchronous=later)
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
            delay_work_seconds=delay_work,
            denies=frozenset(deny),
        )
    )
    names = [instance.name for instance in endpoint.instances]
    for lost in lose:
        if lost not in names:
            text = f"no instance is called {lost}; there are {', '.join(names)}."
            raise click.BadParameter(text, context, param_hint="'--lose'")
        endpoint.lose(lost)
    keys = {"access_key": access_key, "secret_key": secret_key, "region": region}
    try:
        with apart_from_aws():
            options = {"bucket": bucket, "queue": queue, "clock_seconds": clock}
            asyncio.run(_serve(endpoint, llamas, host, port, keys, **options))
    except OSError as error:
        where = f"can't listen on {host}, port {port}: {error.strerror or error}"
        raise click.ClickException(where + _INSTEAD.get(error.errno or 0, "")) from None
    except LanguageModelUnavailable as broken:
        raise click.BadParameter(str(broken), context, param_hint="'--model-file'") from None


def _voice_models(count: int) -> "Sequence[Container]":
    from gateway.local.voice import (  # noqa: PLC0415
        VoiceModel,
        VoiceModelUnavailable,
        check_installed,
    )

    try:
        check_installed()
    except VoiceModelUnavailable as missing:
        raise click.ClickException(str(missing)) from None
    return [VoiceModel(f"i-{n}") for n in range(1, count + 1)]


_INSTEAD = {
    errno.EADDRINUSE: ". Stop what listens there, or choose another with --port; 0 takes any free",
    errno.EACCES: ". Choose one from 1024 on with --port; 0 takes any free",
}

_BUILTIN = ("dialect", "session_seconds", "max_sessions", "expires")


def _refuse_what_does_nothing(context: click.Context) -> None:
    """Refuse options that mean nothing beside the others, which would pass unnoticed."""
    given = context.params
    containers, language = bool(given["urls"]), given["model"] == "language"
    builtin = given["model"] == "builtin" and not containers
    breaks = given["break_after_parts"] is not None
    for names, means_something, text in (
        (("instances", "model", "forgets"), not containers, "does not go with --container"),
        (("forgets",), given["model"] != "voice", "does not go with --model voice"),
        (("model_file",), language and not containers, "goes with --model language"),
        (_BUILTIN, builtin, "goes with the built-in model"),
        (("delay_work",), given["asynchronous"], "goes with --asynchronous"),
        (("fail_times",), breaks or given["fail"], "goes with --fail or --break-after-parts"),
        (("break_mode",), breaks, "goes with --break-after-parts"),
        (("part_seed",), given["part_bytes"], "goes with --part-bytes"),
    ):
        for name in names:
            if (
                not means_something
                and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
            ):
                raise click.UsageError(f"--{name.replace('_', '-')} {text}.", context)


async def _load(llamas: Sequence["Llama"]) -> None:
    """Let models read their weights, which all have one file."""
    if not llamas:
        return
    from gateway.local.waiting import waiting  # noqa: PLC0415

    name = llamas[0].path.name
    what = f"Loading {name} into {len(llamas)} instances"
    with waiting(what, len(llamas), f"Loaded {name}") as loaded:
        for llama in llamas:
            await llama.load()
            loaded()


async def _serve(
    endpoint: "Endpoint",
    llamas: Sequence["Llama"],
    host: str,
    port: int,
    keys: dict[str, str],
    **options: Any,
) -> None:
    from gateway.local.server import running  # noqa: PLC0415

    await _load(llamas)
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with running([endpoint], host=host, port=port, **keys, **options) as url:
        for line in _instructions(endpoint, url, keys):
            click.echo(line)
        await stopped.wait()


def _instructions(endpoint: "Endpoint", url: str, keys: dict[str, str]) -> Iterable[str]:
    names = ", ".join(instance.name for instance in endpoint.instances)
    yield f"session-gateway local listening on {url}: endpoint {endpoint.name}, instances {names}"
    yield f'To let a gateway call it, by a route with endpoint_name = "{endpoint.name}":'
    access, secret = shlex.quote(keys["access_key"]), shlex.quote(keys["secret_key"])
    yield f"  export AWS_ACCESS_KEY_ID={access} AWS_SECRET_ACCESS_KEY={secret}"
    yield f"  export GATEWAY_AWS__ENDPOINT_URL={url} GATEWAY_AWS__REGION={keys['region']}"
    if endpoint.asynchronous is not None:
        yield f"  export GATEWAY_AWS__S3_ENDPOINT_URL={url}/_s3"
        yield f"  export GATEWAY_AWS__SQS_ENDPOINT_URL={url}/_sqs"
    yield "  session-gateway serve"
    if endpoint.asynchronous is not None:
        yield f'The route needs mode = "async"; notification_queue_url = "{url}/_sqs" spares polls,'
        yield 'and with input_location = "s3://local/inputs/" inputs are objects too.'
