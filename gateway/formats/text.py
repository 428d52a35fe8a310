"""Where the text is in what a model answers: JSON, and a JMESPath expression that finds it.

JMESPath's own interpreter builds itself anew for each search and walks the expression's tree. A
stream is searched once an event, so the tree is turned into functions once: fields, indices and
what combines them, which is what the formats that are in use need. The rest stays JMESPath's.
"""

import json
from collections.abc import Callable
from typing import Any

import jmespath
import msgspec
from jmespath.visitor import TreeInterpreter

from gateway.protocol.structure import may_be_built

Find = Callable[[Any], Any]
"""Finds something in a JSON value; None where it is not there."""

_INTERPRETER = TreeInterpreter()
_decode = msgspec.json.Decoder().decode


class Text:
    """Where the text is in a JSON value: a JMESPath expression that gives a string.

    One expression serves a stream's events and a reply in one piece.

    Raises:
        ValueError: The expression is none, or calls a function that there is not.
    """

    def __init__(self, expression: str) -> None:
        try:
            parsed = jmespath.compile(expression)
            # Functions are looked up only when they are called.
            parsed.search(None)
        except jmespath.exceptions.JMESPathTypeError:
            pass  # `None` is not what it is made for
        except jmespath.exceptions.JMESPathError as error:
            raise ValueError(f"no JMESPath expression: {error}") from None
        self._find = finder(expression)

    def of(self, value: object) -> str | None:
        """The text in a value that was JSON; None where there is none."""
        try:
            found = self._find(value)
        except (ArithmeticError, RecursionError, TypeError, ValueError):
            return None  # a function met what it can't take
        return _repaired(found) if isinstance(found, str) else None

    def of_body(self, body: bytes) -> str | None:
        """The text in a body; None where there is none, or the body is no JSON."""
        try:
            return self.of(from_json(body))
        except ValueError:
            return None


def from_json(data: bytes) -> Any:
    """Read more leniently than the standard is: Python's servers write ``NaN``.

    Raises:
        ValueError: It is no JSON, nested deeper than can be read, or has more values than are to
            be built at once.
    """
    if not may_be_built(data):
        raise ValueError("too many values")
    try:
        return _decode(data)  # several times as fast, but strict
    except (msgspec.DecodeError, ValueError, RecursionError):
        pass
    try:
        return json.loads(data.decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None


def finder(expression: str) -> Find:
    """What finds in JSON values what a JMESPath expression does."""
    return _finder(jmespath.compile(expression).parsed)


def _finder(node: Any) -> Find:
    """What does the same as JMESPath's interpreter with a node of an expression's tree."""
    kind, children = node["type"], node["children"]
    if (steps := _path(node)) is not None:
        return lambda value: _follow(value, steps)
    if kind == "or_expression":
        first, second = map(_finder, children)
        return lambda value: second(value) if _is_false(found := first(value)) else found
    if kind == "and_expression":
        first, second = map(_finder, children)
        return lambda value: found if _is_false(found := first(value)) else second(value)
    if kind == "not_expression":
        (only,) = map(_finder, children)
        return lambda value: _is_false(only(value))
    return lambda value: _INTERPRETER.visit(node, value)


def _path(node: Any) -> tuple[str | int, ...] | None:
    """The fields and indices of a path like ``a.b[0].c``; None where the node is none."""
    match node["type"]:
        case "field" | "index":
            return (node["value"],)
        case "identity":
            return ()
        case "subexpression" | "index_expression":
            steps: tuple[str | int, ...] = ()
            for child in node["children"]:
                path = _path(child)
                if path is None:
                    return None
                steps += path
            return steps
    return None


def _follow(value: Any, steps: tuple[str | int, ...]) -> Any:
    for step in steps:
        if isinstance(step, str):
            if not isinstance(value, dict):
                return None
            value = value.get(step)
        elif isinstance(value, list) and -len(value) <= step < len(value):
            value = value[step]
        else:
            return None
    return value


def _is_false(value: Any) -> bool:
    """JMESPath's truth: of what Python takes for false, zero is true."""
    return not value and (value is False or not isinstance(value, int | float))


def _repaired(text: str) -> str:
    """Text that can be encoded: JSON may name half a character, as ``"\\ud800"``."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
