"""Shell completion: the command that prints it, and what completes names of routes."""

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
"""What click looks for in the environment of a program of that name."""

INSTALL = {
    "bash": f'eval "$({PROGRAM} completion bash)"    # put this line into ~/.bashrc',
    "zsh": f'eval "$({PROGRAM} completion zsh)"    # put this line into ~/.zshrc, behind compinit',
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
    """Print what completes commands, options and names of routes in a shell.

    SHELL is that of your login unless given. To have it in each terminal:

    \b
      bash  eval "$(session-gateway completion bash)"    in ~/.bashrc
      zsh   eval "$(session-gateway completion zsh)"     in ~/.zshrc
      fish  session-gateway completion fish > ~/.config/fish/completions/session-gateway.fish
    """
    shell = shell or Path(os.environ.get("SHELL", "")).name
    if shell not in INSTALL:
        raise click.UsageError(f"Name the shell: {', '.join(INSTALL)}.")
    root = click.get_current_context().find_root().command
    source = _CLASSES[shell](root, {}, PROGRAM, VARIABLE).source()
    click.echo(source)
    if sys.stdout.isatty():
        click.echo(f"To have it in each terminal: {INSTALL[shell]}", err=True)


def routes(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The names of routes that begin so, from the configuration that the command line names."""
    names = _routes(context.params.get("path") or Path("gateway.toml"))
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def route_list(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The same of the last one in a list with commas."""
    before, comma, last = incomplete.rpartition(",")
    taken = before.split(",")
    items = routes(context, parameter, last)
    return [
        CompletionItem(f"{before}{comma}{item.value}") for item in items if item.value not in taken
    ]


def _routes(path: Path) -> list[str]:
    """Those of a file, as far as it can be read: whoever completes is not told of mistakes."""
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))["routes"]
    except (OSError, ValueError, KeyError):
        return []
    return list(said) if isinstance(said, dict) else []
