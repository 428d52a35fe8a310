"""Shell completion: the command that prints the script, and the completion of route names."""

import os
import sys
import tomllib
from pathlib import Path

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
)

PROGRAM = "session-gateway"
VARIABLE = "_SESSION_GATEWAY_COMPLETE"
"""The environment variable that click reads for a program of that name."""

INSTALL = {
    "bash": f'eval "$({PROGRAM} completion bash)"    # add this line to ~/.bashrc',
    "zsh": f'eval "$({PROGRAM} completion zsh)"    # add this line to ~/.zshrc, after compinit',
    "fish": f"{PROGRAM} completion fish > ~/.config/fish/completions/{PROGRAM}.fish",
}

_CLASSES: dict[str, type[ShellComplete]] = {
    "bash": BashComplete,
    "zsh": ZshComplete,
    "fish": FishComplete,
}


@click.command()
@click.argument("shell", type=click.Choice(list(INSTALL)), required=False)
def completion(shell: str | None) -> None:
    """Print a script that completes commands, options and names of routes in a shell.

    SHELL is your login shell unless given. To have completion in each terminal:

    \b
      bash  eval "$(session-gateway completion bash)"    to ~/.bashrc
      zsh   eval "$(session-gateway completion zsh)"     to ~/.zshrc, after compinit
      fish  session-gateway completion fish > ~/.config/fish/completions/session-gateway.fish
    """
    shell = shell or Path(os.environ.get("SHELL", "")).name
    if shell not in INSTALL:
        raise click.UsageError(f"Which shell? One of {', '.join(INSTALL)}.")
    root = click.get_current_context().find_root().command
    source = _CLASSES[shell](root, {}, PROGRAM, VARIABLE).source()
    click.echo(source)
    if sys.stdout.isatty():
        click.echo(f"To enable completion in every terminal: {INSTALL[shell]}", err=True)


def routes(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the name of a route in the configuration that the command line names."""
    names = _routes(context.params.get("path") or Path("gateway.toml"))
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def route_list(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the last name in a comma-separated list of routes."""
    before, comma, last = incomplete.rpartition(",")
    taken = before.split(",")
    items = routes(context, parameter, last)
    return [
        CompletionItem(f"{before}{comma}{item.value}") for item in items if item.value not in taken
    ]


def _routes(path: Path) -> list[str]:
    """Return a file's routes, as far as it can be read: completion reports no errors."""
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))["routes"]
    except (OSError, ValueError, KeyError):
        return []
    return list(said) if isinstance(said, dict) else []
