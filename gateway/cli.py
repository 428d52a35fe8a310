"""The command line. What a command needs is imported when it runs, so that help comes at once."""

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
from gateway.local.command import PORT, SECONDS, local

if TYPE_CHECKING:
    from gateway.config import Configuration, Settings
    from gateway.live.findings import Trial

DEFAULT_FILE = Path("gateway.toml")

config_option = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"Configuration file; {DEFAULT_FILE} of this directory where there is one.",
)


FAILED, WRONG = 1, 2
"""Exit codes: something has failed; the command or the configuration is wrong, as click has it."""


def fail(text: str, code: int = FAILED) -> click.exceptions.Exit:
    """Say why, and end with that code."""
    click.echo(text, err=True)
    return click.exceptions.Exit(code)


def configured(path: Path | None, flags: dict[str, Any] | None = None) -> "Configuration":
    """The configuration; its mistakes end the command."""
    from gateway.config import EXAMPLE, ConfigError, read  # noqa: PLC0415

    path = path or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)
    if path is None and not any(name.upper().startswith("GATEWAY_ROUTES") for name in os.environ):
        raise fail(
            f"session-gateway: no configuration. Write {DEFAULT_FILE}, for example:\n\n{EXAMPLE}\n"
            "or let `session-gateway init` ask for what is in it, and run `session-gateway serve` "
            "beside it, or name it with --config. "
            "To try the gateway without AWS, run `session-gateway demo`.",
            WRONG,
        )
    try:
        return read(path, {"server": flags or {}})
    except ConfigError as error:
        raise fail(str(error), WRONG) from None


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on uvloop; what the system refuses is an error of one line."""
    import uvloop  # noqa: PLC0415

    try:
        uvloop.run(main)
    except OSError as error:
        raise fail(f"session-gateway: {error.strerror or error}") from None
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None


def announce(what: str) -> Callable[[str], None]:
    """Says where something listens, to people and to programs that have started it."""

    def ready(url: str) -> None:
        click.echo(f"{what} listening on {url}")

    return ready


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 for success, 1 for failure, 2 for wrong use or a wrong configuration, "
    "130 where Ctrl-C has ended it.",
)
@click.version_option(__version__, prog_name="session-gateway")
def main() -> None:
    """A WebSocket gateway for stateful models on Amazon SageMaker."""


@main.command()
@config_option
@click.option("--host", help="Address to listen on; without [auth], a loopback address.")
@click.option("--port", type=PORT, help="Port to listen on; 0 takes a free one.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Processes that share the port; over one needs a store that they share too.",
)
@click.option("--log-level", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]))
def serve(path: Path | None, **server: object) -> None:
    """Run the gateway until SIGINT or SIGTERM."""
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
@click.option("--offline", is_flag=True, help="Ask no other machine for credentials or keys.")
@click.option(
    "--live",
    is_flag=True,
    help="Hold a short conversation on each route, which invokes its model, and say what shows.",
)
@click.option(
    "--route",
    "names",
    multiple=True,
    shell_complete=routes,
    help="With --live: on this one alone.",
)
@click.option(
    "--message",
    help="With --live: send this; JSON where the route takes that alone, @FILE for a file's bytes.",
)
@click.option(
    "--timeout",
    type=SECONDS,
    default=120.0,
    show_default=True,
    help="With --live: seconds that a reply may take.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(path: Path | None, offline: bool, live: bool, as_json: bool, **options: Any) -> None:
    """Say what is wrong with a configuration, or what it amounts to.

    It looks where `serve` would: run it on the same machine, as the same user. A mistake ends it
    with exit code 2, a warning does not.

    With --live it opens a session on each route, sends a few short messages, sees whether replies
    stream and whether the container remembers, and closes the session. It says of all that fails
    what to do; the exit code is then 1.
    """
    from gateway.checks import findings, summary  # noqa: PLC0415

    _refuse_without_live(live, offline)
    configuration = configured(path)
    for sdk in ("botocore", "aiobotocore"):  # what they log are tracebacks of what is told below
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
        raise fail(f"session-gateway: something fails on {', '.join(failed)}")
    if not as_json:
        click.echo("ok")


def _refuse_without_live(live: bool, offline: bool) -> None:
    given = click.get_current_context().get_parameter_source
    for name, option in (("names", "route"), ("message", "message"), ("timeout", "timeout")):
        if given(name) is ParameterSource.COMMANDLINE and not live:
            raise click.UsageError(f"--{option} goes with --live.")
    if live and offline:
        raise click.UsageError("--offline does not go with --live.")


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
    """API keys, which `[auth.keys]` takes."""


@key.command()
@click.argument("name")
@click.option(
    "--file",
    "path",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where names and digests are kept; it is made where there is none.",
)
@click.option(
    "--routes",
    shell_complete=route_list,
    help="Those it may use, with commas between them; all where absent.",
)
@click.option(
    "--operator",
    is_flag=True,
    help="It may use the page at /operator: see and close everybody's sessions, drain replicas.",
)
def add(name: str, path: Path, routes: str | None, operator: bool) -> None:
    """Make a key for NAME and print it, once: the file can only recognise it.

    A gateway that runs takes it within seconds. To withdraw a key, remove its table from the file.
    """
    from gateway.security import keys  # noqa: PLC0415

    try:
        of_routes = None if routes is None else routes.split(",")
        click.echo(keys.add(path, name, of_routes, operator=operator))
    except keys.KeyFileError as error:
        raise fail(f"session-gateway: {error}", WRONG) from None


@main.command()
@click.option(
    "--port", default=8080, type=PORT, show_default=True, help="Of the page; 0 takes a free one."
)
@click.option(
    "--model",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Another GGUF file.",
)
@click.option("--builtin", is_flag=True, help="Leave the language model out.")
@click.option(
    "--replicas",
    type=click.IntRange(min=1),
    default=1,
    help="Gateways, with a Valkey on this machine that they share; one needs none.",
)
@click.option("--open", "browse", is_flag=True, help="Open the page in a browser.")
def demo(port: int, model: Path | None, builtin: bool, replicas: int, browse: bool) -> None:
    """Run the gateway with a local SageMaker and its models, ready to chat with."""
    from gateway.config import ConfigError  # noqa: PLC0415
    from gateway.demo import demo as run_demo  # noqa: PLC0415
    from gateway.local.llama import LanguageModelUnavailable  # noqa: PLC0415
    from gateway.local.valkey import ValkeyUnavailable  # noqa: PLC0415

    def ready(url: str) -> None:
        announce("session-gateway demo")(url)
        click.echo(f"Open {url} and say: My name is Ada.  Then: What is my name?")
        click.echo(
            "The route builtin shows a session's state plainly; openai-chat keeps no history,"
        )
        click.echo("so that the gateway tells it all of the conversation.")
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
    "--route", shell_complete=routes, help="Its name; the gateway's default route unless given."
)
@click.option(
    "--token-file",
    type=click.File(encoding="utf-8"),
    help="Where your key or token is, if the gateway asks who you are; else it is taken from "
    "SESSION_GATEWAY_TOKEN.",
)
def chat(address: str, route: str | None, token_file: TextIO | None) -> None:
    """Chat with a model in the terminal, or line by line from a pipe.

    ADDRESS is the gateway's, http://127.0.0.1:8080 unless given, with its prefix where a proxy
    has one; or that of a WebSocket, such as wss://gateway.example.com/ws/chat.

    In the terminal /help lists the commands. Ctrl-C stops an answer, and clears the line; Ctrl-D
    leaves. If the session is lost a new one is opened, and what was typed for the old one is not
    sent unless you say so.

    From a pipe each line is a message as it is, and replies alone go to the output. It ends with
    the session: what is left is not sent, and the exit code is 1, as after any failure.
    """
    from gateway.client import ConnectionFailed  # noqa: PLC0415
    from gateway.client.chat import chat as run_chat  # noqa: PLC0415

    token = os.environ.get("SESSION_GATEWAY_TOKEN") if token_file is None else token_file.read()

    async def talk() -> None:
        if not await run_chat(address, route, token=token and token.strip()):
            raise click.exceptions.Exit(1)

    if sys.stdin.isatty():
        # A shell without job control starts programs with SIGINT ignored (POSIX, 2.11), and Ctrl-C
        # would do nothing until the chat has its session and its own way to take it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run(talk())
    except ConnectionFailed as error:
        hint = ". To start one, run `session-gateway demo`" if error.code is None else ""
        raise fail(f"session-gateway: {error}{hint}") from None
    except ValueError as error:
        raise fail(f"session-gateway: {error}", WRONG) from None


main.add_command(completion)
main.add_command(init)
main.add_command(local)
