"""The command line. Commands import what they need when they run, so that help appears at once."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click
from click.core import ParameterSource

from gateway import __version__
from gateway.completion import completion, route_list, routes
from gateway.initcommand import init
from gateway.local.command import local
from gateway.local.options import PORT, SECONDS

if TYPE_CHECKING:
    from gateway.config import Configuration, Settings
    from gateway.live.findings import Trial

DEFAULT_FILE = Path("gateway.toml")

config_option = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"Configuration file. Default: {DEFAULT_FILE} in this directory, if it exists.",
)


FAILED, WRONG = 1, 2
"""Exit codes: a failure; a wrong command or configuration, which is also click's code for usage."""


def fail(text: str, code: int = FAILED) -> click.exceptions.Exit:
    """Print why, and return the exception that exits with this code."""
    click.echo(text, err=True)
    return click.exceptions.Exit(code)


def configured(path: Path | None, flags: dict[str, Any] | None = None) -> "Configuration":
    """Read the configuration; exit if it is not valid."""
    from gateway.config import EXAMPLE, ConfigError, read  # noqa: PLC0415

    path = path or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)
    if path is None and not any(name.upper().startswith("GATEWAY_ROUTES") for name in os.environ):
        raise fail(
            f"session-gateway: no configuration found. Run `session-gateway init` to write "
            f"{DEFAULT_FILE} step by step, name a file with --config, or start from this example:"
            f"\n\n{EXAMPLE}\nTo try the gateway without AWS, run `session-gateway demo`.",
            WRONG,
        )
    try:
        return read(path, {"server": flags or {}})
    except ConfigError as error:
        raise fail(str(error), WRONG) from None


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on uvloop; print an error of the operating system as one line."""
    import uvloop  # noqa: PLC0415

    try:
        uvloop.run(main)
    except OSError as error:
        raise fail(f"session-gateway: {error.strerror or error}") from None
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None


def announce(what: str) -> Callable[[str], None]:
    """Return a function that prints the address, for people and for programs that parse it."""

    def ready(url: str) -> None:
        click.echo(f"{what} listening on {url}")

    return ready


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 success, 1 failure, 2 wrong usage or configuration, 130 interrupted by "
    "Ctrl-C.",
)
@click.version_option(__version__, prog_name="session-gateway")
def main() -> None:
    """A WebSocket gateway for stateful models on Amazon SageMaker."""


@main.command()
@config_option
@click.option(
    "--host", help="Address to listen on. Without [auth], it has to be a loopback address."
)
@click.option("--port", type=PORT, help="Port to listen on; 0 picks a free one.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Number of processes that share the port. More than one needs a shared [store].",
)
@click.option(
    "--log-level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]),
    help="Least severe lines to log.",
)
def serve(path: Path | None, **server: object) -> None:
    """Run the gateway until SIGINT or SIGTERM.

    The options override the [server] section of the configuration.
    """
    from gateway.config import ConfigError  # noqa: PLC0415

    flags = {key: value for key, value in server.items() if value is not None}
    settings = configured(path, flags).settings
    try:
        run(_serve(settings))
    except ConfigError as error:
        raise fail(str(error), WRONG) from None


async def _serve(settings: "Settings") -> None:
    on_ready = announce("session-gateway")
    if settings.server.workers == 1:
        from gateway.serving import serve as serve_here  # noqa: PLC0415

        await serve_here(settings, on_ready=on_ready)
    else:
        from gateway.workers import supervise  # noqa: PLC0415

        if not await supervise(settings, on_ready=on_ready):
            raise click.exceptions.Exit(FAILED)


@main.command()
@config_option
@click.option(
    "--offline", is_flag=True, help="Do not contact other machines for credentials or keys."
)
@click.option(
    "--live",
    is_flag=True,
    help="Also hold a short conversation on each route. This invokes the models.",
)
@click.option(
    "--route",
    "names",
    multiple=True,
    shell_complete=routes,
    help="With --live: try only this route. Can be repeated.",
)
@click.option(
    "--message",
    help="With --live: the message to send; JSON for a route that takes only JSON, @FILE for the "
    "content of a file.",
)
@click.option(
    "--timeout",
    type=SECONDS,
    default=120.0,
    show_default=True,
    help="With --live: how long to wait for a reply, in seconds.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def check(path: Path | None, offline: bool, live: bool, as_json: bool, **options: Any) -> None:
    """Validate the configuration, and try the routes with --live.

    Run it on the machine and as the user that will run `serve`, since it looks for the same files
    and credentials. Exit code 2 means that the gateway can't run with this configuration; warnings
    do not change the exit code.

    With --live it opens a session on each route, sends a few short messages, tests whether replies
    stream and whether the model remembers the conversation, and closes the session. For each
    failure it prints what to do, and the exit code is 1.
    """
    from gateway.checks import findings, summary  # noqa: PLC0415

    _refuse_without_live(live, offline)
    configuration = configured(path)
    for sdk in ("botocore", "aiobotocore"):  # they log tracebacks of problems printed below
        logging.getLogger(sdk).addHandler(logging.NullHandler())
    found = asyncio.run(findings(configuration, offline=offline))
    for finding in found:
        click.echo(finding.text, err=True)
    wrong = any(finding.certain for finding in found)
    settings, tried = configuration.settings, []
    if not (wrong or as_json):
        for line in summary(settings):
            click.echo(line)
    if live and not wrong:
        tried = _tried(settings, quiet=as_json, **options)
    failed = [trial.route for trial in tried if not trial.ok]
    if as_json:
        told = [finding._asdict() for finding in found]
        click.echo(_json({"ok": not (wrong or failed), "findings": told, "live": tried}))
    if wrong:
        raise click.exceptions.Exit(WRONG)
    if failed:
        plural = "s" if len(failed) > 1 else ""
        raise fail(f"session-gateway: check failed on route{plural} {', '.join(failed)}")
    if not as_json:
        click.echo("ok")


def _refuse_without_live(live: bool, offline: bool) -> None:
    given = click.get_current_context().get_parameter_source
    for name, option in (("names", "route"), ("message", "message"), ("timeout", "timeout")):
        if given(name) is ParameterSource.COMMANDLINE and not live:
            raise click.UsageError(f"--{option} needs --live.")
    if live and offline:
        raise click.UsageError("--offline can't be combined with --live.")


def _tried(
    settings: "Settings",
    *,
    names: tuple[str, ...],
    message: str | None,
    timeout: float,
    quiet: bool,
) -> "list[Trial]":
    from gateway.config import ConfigError  # noqa: PLC0415
    from gateway.live.command import WrongUse  # noqa: PLC0415
    from gateway.live.command import live as run_live  # noqa: PLC0415

    tried: list[Trial] = []

    async def trying() -> None:
        tried.extend(
            await run_live(settings, asked=names, message=message, seconds=timeout, quiet=quiet)
        )

    try:
        run(trying())
    except (ConfigError, WrongUse) as error:
        raise fail(f"session-gateway: {error}", WRONG) from None
    return tried


def _json(value: object) -> str:
    import msgspec  # noqa: PLC0415

    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


@main.group()
def key() -> None:
    """Manage API keys for `[auth.keys]`."""


@key.command()
@click.argument("name")
@click.option(
    "--file",
    "path",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with the names and digests of keys; created if it does not exist.",
)
@click.option(
    "--routes",
    shell_complete=route_list,
    help="Routes that the key may use, separated by commas. Default: all.",
)
@click.option(
    "--operator",
    is_flag=True,
    help="Allow the key to use /operator: see and close everybody's sessions, drain replicas.",
)
def add(name: str, path: Path, routes: str | None, operator: bool) -> None:
    """Create an API key for NAME and print it.

    The key is printed only once: the file stores its digest. A running gateway accepts the key
    within seconds. To revoke a key, remove its table from the file.
    """
    from gateway.security import keys  # noqa: PLC0415

    try:
        of_routes = None if routes is None else routes.split(",")
        click.echo(keys.add(path, name, of_routes, operator=operator))
    except keys.KeyFileError as error:
        raise fail(f"session-gateway: {error}", WRONG) from None


@main.command()
@click.option(
    "--port",
    default=8080,
    type=PORT,
    show_default=True,
    help="Port of the gateway; 0 picks a free one.",
)
@click.option(
    "--model",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A GGUF file to use in place of SmolLM2.",
)
@click.option("--builtin", is_flag=True, help="Start without the language model.")
@click.option(
    "--replicas",
    type=click.IntRange(min=1),
    default=1,
    help="Number of gateways. More than one share a Valkey, which is started with them.",
)
@click.option("--open", "browse", is_flag=True, help="Open the chat page in a browser.")
def demo(port: int, model: Path | None, builtin: bool, replicas: int, browse: bool) -> None:
    """Run a demonstration without AWS: the gateway, a local SageMaker and models.

    The chat page is at http://127.0.0.1:8080. Nothing of this machine's AWS configuration is used.
    """
    from gateway.config import ConfigError  # noqa: PLC0415
    from gateway.demo import demo as run_demo  # noqa: PLC0415
    from gateway.local.llama import LanguageModelUnavailable  # noqa: PLC0415
    from gateway.local.valkey import ValkeyUnavailable  # noqa: PLC0415

    def ready(url: str) -> None:
        announce("session-gateway demo")(url)
        click.echo(f"Open {url} and say: My name is Ada.  Then: What is my name?")
        click.echo("Ctrl-C stops everything.")
        if browse:
            click.launch(url)

    try:
        run(
            run_demo(
                port=port,
                model=model,
                builtin_only=builtin,
                replicas=replicas,
                say=click.echo,
                on_ready=ready,
            )
        )
    except (ConfigError, LanguageModelUnavailable, ValkeyUnavailable) as error:
        raise fail(str(error), WRONG) from None


@main.command()
@click.argument("address", default="http://127.0.0.1:8080")
@click.option(
    "--route", shell_complete=routes, help="Route to chat on. Default: the gateway's first."
)
@click.option(
    "--token-file",
    type=click.File(encoding="utf-8"),
    help="File with your API key or token, if the gateway requires one. Default: the variable "
    "SESSION_GATEWAY_TOKEN.",
)
def chat(address: str, route: str | None, token_file: TextIO | None) -> None:
    """Chat with a model in the terminal, or send lines from a pipe.

    ADDRESS is the gateway's address, by default http://127.0.0.1:8080. Include the path prefix if
    a proxy adds one. A WebSocket address works too, such as wss://gateway.example.com/ws/chat.

    In the terminal, /help lists the commands. Ctrl-C stops a reply or clears the line; Ctrl-D
    quits. If the session is lost, a new one is opened, and you are asked before a message that you
    typed for the old one is sent to it.

    From a pipe, each line is sent as a message, and only replies are written to the standard
    output. If the session is lost, the remaining lines are not sent and the exit code is 1. The
    exit code is also 1 if a message failed.
    """
    from gateway.client import ConnectionFailed  # noqa: PLC0415
    from gateway.client.chat import chat as run_chat  # noqa: PLC0415

    token = os.environ.get("SESSION_GATEWAY_TOKEN") if token_file is None else token_file.read()

    async def talk() -> None:
        if not await run_chat(address, route, token=token and token.strip()):
            raise click.exceptions.Exit(1)

    if sys.stdin.isatty():
        # A shell without job control starts programs with SIGINT ignored (POSIX, 2.11), so Ctrl-C
        # would do nothing until the chat has its session and handles the signal itself.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run(talk())
    except ConnectionFailed as error:
        hint = ""
        if error.code is None:
            hint = ". Start a gateway with `session-gateway serve` or `session-gateway demo`"
        raise fail(f"session-gateway: {error}{hint}") from None
    except ValueError as error:
        raise fail(f"session-gateway: {error}", WRONG) from None


main.add_command(completion)
main.add_command(init)
main.add_command(local)
