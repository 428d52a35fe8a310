"""``docs/python.md``, from the docstrings of what may be imported."""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any, get_type_hints

import gateway
import gateway.client
from gateway.client.sending import Options
from gateway.embedding import Gateway
from tests.documents.docstrings import markdown
from tests.documents.tables import table

HEAD = """\
# Python

The package is `session-gateway`. All of it has types. What is not on this page may change with any
release.
"""
CLIENT = """
## `gateway.client`

A session with a model, over connections that come and go. The [README](../README.md#clients)
has an example.
"""
SERVER = """
## `gateway`

The gateway as an ASGI application; see [In an application of your own](embedding.md).
"""
OPTIONS = """
### Options

What `send` takes beside a body, all of it optional. The last six are there for clients only where
the route [allows](configuration.md#routesname) them.

"""
INNER = re.compile("self$|cls$|_")
INTERNAL = {"start", "add", "end"}
"""Of the client's classes: what one of them does for another."""


def signature(of: Any) -> str:
    """How it is called, without the module names of types."""
    shown = inspect.signature(of)
    kept = [each for each in shown.parameters.values() if not INNER.match(each.name)]
    text = str(shown.replace(parameters=kept))
    text = re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Za-z_])", "", text)  # modules, which say little
    text = re.sub(r" at 0x[0-9a-f]+>", ">", text)
    text = re.sub(r"\*<class '(\w+)'>", r"\1", text)
    return re.sub(r"<function (\w+)>", r"\1", text)


def block(name: str, of: Any) -> str:
    """How it is called, as code."""
    call = f"{name}{signature(of)}"
    if len(call) > 90:
        head, _, rest = call.partition("(")
        inner, _, result = rest.rpartition(")")
        arguments = re.split(r", (?=[\w*/]+(?::|,|$| =))", inner)
        call = f"{head}(\n    " + ",\n    ".join(arguments) + f",\n){result}"
    return f"```python\n{call}\n```"


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """Its public methods and properties, in the order of the source."""
    for name, member in vars(cls).items():
        if name.startswith("_") or name in INTERNAL:
            continue
        if isinstance(member, property | classmethod | staticmethod) or inspect.isfunction(member):
            yield name, member


def class_text(name: str, cls: type) -> Iterator[str]:
    """A class's own words, and those of its members."""
    called = f"{block(name, cls)}\n\n" if dataclasses.is_dataclass(cls) else ""
    yield f"\n### `{name}`\n\n{called}{markdown(cls.__doc__)}\n"
    for member_name, member in members(cls):
        if isinstance(member, property):
            yield f"\n#### `{name}.{member_name}`\n\n{markdown(member.__doc__)}\n"
            continue
        of = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        prefix = "await " if inspect.iscoroutinefunction(of) else ""
        called = block(f"{prefix}{member_name}", of)
        yield f"\n#### `{name}.{member_name}`\n\n{called}\n\n{markdown(of.__doc__)}\n"


def text_of(name: str, of: Any) -> str:
    """What is said of one name."""
    if inspect.isclass(of):
        return "".join(class_text(name, of))
    if inspect.isroutine(of):
        return f"\n### `{name}`\n\n{block(name, of)}\n\n{markdown(of.__doc__)}\n"
    return ""


def written(_document: str) -> str:
    """The document as it should be."""
    classes = {name: getattr(gateway.client, name) for name in gateway.client.__all__}
    first = ["connect", "SessionClient", "Turn", "Reply"]
    order = [*first, *(name for name in classes if name not in first)]
    parts = [HEAD, CLIENT, *(text_of(name, classes[name]) for name in order)]
    options = [(f"`{key}`", of.__name__) for key, of in get_type_hints(Options).items()]
    parts += [OPTIONS, table(("option", "is"), options), SERVER]
    parts.append(text_of("create_app", gateway.create_app))
    parts.append(text_of("Gateway", Gateway))
    parts.append(f"\n### `Settings`\n\n{markdown(gateway.Settings.__doc__)}\n")
    load = gateway.Settings.load.__func__  # type: ignore[attr-defined]
    parts.append(f"\n#### `Settings.load`\n\n{block('load', load)}\n\n{markdown(load.__doc__)}\n")
    parts.append(text_of("ConfigError", gateway.ConfigError))
    return "".join(parts)
