"""The command ``session-gateway local``."""

import asyncio
import errno
import shlex
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from gateway.local.environment import apart_from_aws
from gateway.local.options import (
    COUNT,
    PAUSE,
    PORT,
    SECONDS,
    Whole,
    access_key,
    container_urls,
    label,
    loopback,
    secret_key,
)

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


@click.command()
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    callback=loopback,
    help="Loopback address to listen on.",
)
@click.option(
    "--port",
    default=9000,
    type=PORT,
    show_default=True,
    help="Port to listen on; 0 picks a free one.",
)
@click.option(
    "--endpoint",
    "name",
    default="my-endpoint",
    show_default=True,
    callback=label,
    help="Name of the endpoint.",
)
@click.option(
    "--instances",
    default=2,
    show_default=True,
    type=Whole(1, 100),
    help="Number of instances of the endpoint.",
)
@click.option(
    "--container",
    "urls",
    multiple=True,
    callback=container_urls,
    help="URL of your own container. Repeat it for more instances.",
)
@click.option(
    "--model",
    type=click.Choice(["builtin", "language", "voice"]),
    default="builtin",
    show_default=True,
    help="Model to run if there is no --container.",
)
@click.option(
    "--model-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --model language: a GGUF file to use in place of SmolLM2.",
)
@click.option(
    "--forgets",
    is_flag=True,
    help="The model keeps no history, like vLLM: it expects OpenAI's `messages`.",
)
@click.option(
    "--dialect",
    type=click.Choice(DIALECTS),
    default="container-standards",
    show_default=True,
    help="How the built-in model opens and closes sessions.",
)
@click.option(
    "--session-seconds",
    default=1200.0,
    type=SECONDS,
    show_default=True,
    help="Lifetime of a session of the built-in model.",
)
@click.option(
    "--max-sessions",
    default=1000,
    type=COUNT,
    show_default=True,
    help="Sessions that an instance of the built-in model has room for.",
)
@click.option(
    "--expires",
    type=click.Choice(EXPIRES),
    default="standard",
    show_default=True,
    help="How the built-in model reports the expiry of a session.",
)
@click.option(
    "--access-key",
    default=KEYS["access_key"],
    show_default=True,
    callback=access_key,
    help="Access key that callers have to use.",
)
@click.option(
    "--secret-key",
    default=KEYS["secret_key"],
    show_default=True,
    callback=secret_key,
    help="Secret key that callers have to use.",
)
@click.option(
    "--region",
    default=KEYS["region"],
    show_default=True,
    callback=label,
    help="Region that calls have to be signed for.",
)
@click.option("--fail", type=click.Choice(ERRORS), help="Fail the next calls with this error.")
@click.option(
    "--fail-times",
    default=1,
    type=COUNT,
    show_default=True,
    help="With --fail or --break-after-parts: how often.",
)
@click.option("--delay", default=0.0, type=PAUSE, help="Delay of every call, in seconds.")
@click.option(
    "--asynchronous",
    is_flag=True,
    help="Be an asynchronous endpoint, with a local S3 for replies and SQS for notifications.",
)
@click.option(
    "--delay-work",
    default=0.0,
    type=PAUSE,
    help="With --asynchronous: how much longer the model works on a call, in seconds.",
)
@click.option(
    "--break-after-parts", type=Whole(0), help="Break the next streams after this many parts."
)
@click.option(
    "--break-mode",
    type=click.Choice(BREAK_MODES),
    default="exception",
    show_default=True,
    help="With --break-after-parts: how streams break.",
)
@click.option("--part-bytes", type=Whole(0), help="Size of the parts of a stream.")
@click.option("--part-seed", type=int, help="Seed for random sizes of parts, up to --part-bytes.")
@click.option(
    "--delay-parts",
    default=0.0,
    type=PAUSE,
    help="Delay of every part of a stream, in seconds.",
)
@click.option(
    "--deny", multiple=True, type=click.Choice(ACTIONS), help="Action to deny, as IAM would."
)
@click.option(
    "--clock",
    default=0,
    type=Whole(-86_400, 86_400),
    help="How far ahead the clock is that signatures are checked against, in seconds.",
)
@click.option("--lose", multiple=True, help="Start with this instance lost, such as i-1.")
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
    """Run a local SageMaker, with a built-in model or your containers.

    It checks signatures and routes calls by session, like SageMaker Runtime. While it runs, GET
    /_local/ENDPOINT shows the calls and sessions of each instance. To simulate failures, POST to
    /_local/ENDPOINT/faults, /_local/ENDPOINT/expire or /_local/ENDPOINT/instances/NAME/lose.
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
            text = f"there is no instance {lost}; the instances are {', '.join(names)}."
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
    errno.EADDRINUSE: ". Stop what listens there, or choose another with --port (0: any free)",
    errno.EACCES: ". Choose one from 1024 on with --port (0: any free)",
}

_BUILTIN = ("dialect", "session_seconds", "max_sessions", "expires")


def _refuse_what_does_nothing(context: click.Context) -> None:
    """Refuse options that mean nothing beside the others, which would pass unnoticed."""
    given = context.params
    containers, language = bool(given["urls"]), given["model"] == "language"
    builtin = given["model"] == "builtin" and not containers
    breaks = given["break_after_parts"] is not None
    for names, means_something, text in (
        (("instances", "model", "forgets"), not containers, "can't be combined with --container"),
        (("forgets",), given["model"] != "voice", "can't be combined with --model voice"),
        (("model_file",), language and not containers, "needs --model language"),
        (_BUILTIN, builtin, "needs the built-in model"),
        (("delay_work",), given["asynchronous"], "needs --asynchronous"),
        (("fail_times",), breaks or given["fail"], "needs --fail or --break-after-parts"),
        (("break_mode",), breaks, "needs --break-after-parts"),
        (("part_seed",), given["part_bytes"], "needs --part-bytes"),
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
    yield f'In another terminal, start a gateway with a route to endpoint_name = "{endpoint.name}":'
    access, secret = shlex.quote(keys["access_key"]), shlex.quote(keys["secret_key"])
    yield f"  export AWS_ACCESS_KEY_ID={access} AWS_SECRET_ACCESS_KEY={secret}"
    yield f"  export GATEWAY_AWS__ENDPOINT_URL={url} GATEWAY_AWS__REGION={keys['region']}"
    if endpoint.asynchronous is not None:
        yield f"  export GATEWAY_AWS__S3_ENDPOINT_URL={url}/_s3"
        yield f"  export GATEWAY_AWS__SQS_ENDPOINT_URL={url}/_sqs"
    yield "  session-gateway serve"
    if endpoint.asynchronous is not None:
        yield 'The route needs mode = "async" and may have'
        yield f'  notification_queue_url = "{url}/_sqs"     # notifications, in place of polling'
        yield '  input_location = "s3://local/inputs/"     # inputs larger than a call may have'
