"""``docs/events.md``: its tables, as far as the code knows what is in them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from msgspec import UNSET, UnsetType, inspect

from gateway.errors import ERRORS, CloseCode
from gateway.protocol import messages as wire
from gateway.transports.problems import STATUS
from tests.documents.tables import merged

ROOT = Path(__file__).parents[2]
OWN = {"verbatim"}
"""The gateway's own fields, which no client may set; see the codecs."""
STRUCTS: dict[str, type] = {
    **{message.__struct_config__.tag: message for message in get_args(wire.ClientMessage)},
    **{message.__struct_config__.tag: message for message in get_args(wire.ServerMessage)},
    "the error object": wire.ErrorObject,
    "limits": wire.Limits,
}
COME_BACK = {
    "no": "no",
    "now": "at once",
    "later": "after a wait",
    "new": "with a new session",
}


def kind(of: inspect.Type) -> str:  # noqa: PLR0911 - one for each kind of value
    """What a value is called in JSON."""
    match of:
        case inspect.Metadata(type=inner):
            return kind(inner)
        case inspect.UnionType(types=types):
            names = [kind(each) for each in types if kind(each) != "absent"]
            return " or ".join(dict.fromkeys(names))
        case inspect.LiteralType(values=values):
            return ", ".join(f"`{value}`" for value in values)
        case inspect.EnumType(cls=cls):
            return f"[{cls.__name__}]"
        case inspect.StructType(cls=cls):
            return "object" if cls is not wire.ErrorObject else "[error object](#the-error-object)"
        case inspect.TupleType():
            return "two numbers"
        case inspect.CustomType(cls=cls) if cls is UnsetType:
            return "absent"
    return {
        inspect.StrType: "string",
        inspect.IntType: "whole number",
        inspect.FloatType: "number",
        inspect.BoolType: "boolean",
        inspect.NoneType: "null",
        inspect.RawType: "any JSON",
        inspect.BytesType: "binary",
    }.get(type(of), "absent")


NAMED = {
    "[ErrorCode]": "[error code](#error-codes)",
    "[Outcome]": "`not_invoked`, `unknown`, `invoked`",
}


def fields(struct: type) -> Iterator[tuple[str, str]]:
    """What a message has, and of which kind; with a question mark what may be absent."""
    described: Any = inspect.type_info(struct)
    for field in described.fields:
        if field.encode_name in OWN:
            continue
        optional = "?" if field.default is UNSET or not field.required else ""
        text = kind(field.type)
        for name, words in NAMED.items():
            text = text.replace(name, words)
        if field.encode_name == "base64":
            text = "string"
        yield f"`{field.encode_name}`{optional}", text


def closings() -> Iterator[tuple[str, str, str]]:
    """Close codes as the browser's client has them: code, whether to come back, words."""
    source = (ROOT / "static" / "client" / "closing.js").read_text()
    source = source.partition("CLOSE_CODES")[2].partition("]);")[0]
    entry = re.compile(r'\[\s*(\d+),\s*\{ words: "([^"]+)", reconnect: "(\w+)"')
    for code, words, back in entry.findall(source):
        again = "with a new token" if int(code) == CloseCode.UNAUTHENTICATED else COME_BACK[back]
        yield code, again, words


def written(document: str) -> str:
    """The document with its tables as the code has them; what people wrote in them stays."""
    for name, struct in STRUCTS.items():
        document = merged(document, name, ("field", "is", "meaning"), fields(struct))
    errors = [
        (
            f"`{code.value}`",
            "yes" if rule.retryable else "no",
            str(STATUS[code]),
            str(rule.close.value),
        )
        for code, rule in ERRORS.items()
    ]
    head = ("code", "may succeed later", "HTTP", "closes a raw connection with", "what to show")
    document = merged(document, "errors", head, errors)
    columns = ("code", "come back?", "in words", "what to do")
    return merged(document, "closings", columns, closings())
