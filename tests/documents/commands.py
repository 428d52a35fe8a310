"""``docs/commands.md``, from the commands themselves."""

import inspect
from collections.abc import Iterator

import click

from gateway.cli import main
from tests.documents.tables import table

HEAD = """\
# Commands

`session-gateway COMMAND --help` says the same. Exit codes: 0 for success, 1 for failure, 2 for
wrong use or a wrong configuration, 130 where Ctrl-C has ended it.
"""


def commands(
    group: click.Group, context: click.Context
) -> Iterator[tuple[click.Command, click.Context]]:
    """All that do something, in the order of their names."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context)
        if isinstance(command, click.Group):
            yield from commands(command, inner)
        else:
            yield command, inner


def options(command: click.Command, context: click.Context) -> Iterator[tuple[str, str, str, str]]:
    """What an option is called, takes, is without, and means."""
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
        default = "needed" if option.required else default
        yield names, takes, default, option.help or ""


def written(_document: str) -> str:
    """The document as it should be."""
    parts = [HEAD]
    for command, context in commands(main, click.Context(main, info_name="session-gateway")):
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        about = inspect.cleandoc(command.help or "")
        parts.append(f"\n## `{context.command_path}`\n\n```text\n{usage}\n```\n\n{about}\n")
        rows = list(options(command, context))
        if rows:
            parts.append("\n" + table(("option", "takes", "default", "meaning"), rows))
    return "".join(parts)
