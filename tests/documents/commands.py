"""``docs/commands.md``, from the commands themselves."""

import inspect
import re
import textwrap
from collections.abc import Iterator

import click

from gateway.cli import main
from tests.documents.tables import table

HEAD = """\
# Commands

`session-gateway COMMAND --help` prints the same. Exit codes: 0 success, 1 failure, 2 wrong usage or
configuration, 130 interrupted by Ctrl-C.
"""


def commands(
    group: click.Group, context: click.Context
) -> Iterator[tuple[click.Command, click.Context]]:
    """All commands that are not groups, by name."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context)
        if isinstance(command, click.Group):
            yield from commands(command, inner)
        else:
            yield command, inner


def options(command: click.Command, context: click.Context) -> Iterator[tuple[str, str, str, str]]:
    """For each option its names, what it takes, its default and its meaning."""
    for option in command.get_params(context):
        if not isinstance(option, click.Option) or option.hidden or "--help" in option.opts:
            continue
        names = ", ".join(f"`{name}`" for name in option.opts)
        if option.is_flag:
            takes = ""
        elif isinstance(option.type, click.Choice):
            takes = ", ".join(f"`{choice}`" for choice in option.type.choices)
        else:
            takes = option.make_metavar(context).lower()
        value = option.get_default(context)
        default = f"`{value}`" if option.show_default and value is not None else ""
        default = "required" if option.required else default
        yield names, takes, default, option.help or ""


def written(_document: str) -> str:
    """The document as it should be."""
    parts = [HEAD]
    for command, context in commands(
        main, click.Context(main, info_name="session-gateway", **main.context_settings)
    ):
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        about = re.sub(
            r"\x08\n((?: .*\n?)+)",
            lambda part: f"```text\n{textwrap.dedent(part[1]).rstrip()}\n```\n",
            inspect.cleandoc(command.help or ""),
        ).rstrip()
        parts.append(f"\n## `{context.command_path}`\n\n```text\n{usage}\n```\n\n{about}\n")
        rows = list(options(command, context))
        if rows:
            parts.append("\n" + table(("option", "takes", "default", "meaning"), rows))
    return "".join(parts)
