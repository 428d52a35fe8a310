"""Finds the text in a model's JSON with a JMESPath expression.

JMESPath's own interpreter is created anew for each search and walks the expression's tree. Streams
are searched once for each event, so the tree is compiled to functions once: fields, indices and
boolean operators, which cover the formats in use. JMESPath evaluates the rest.
"""

import json
from collections.abc import Callable
from typing import Any

import jmespath
import msgspec
from jmespath.visitor import TreeInterpreter

from gateway.protocol.structure import may_be_built

Find = Callable[[Any], Any]
"""Finds a value in JSON; None if it is missing."""

_INTERPRETER = TreeInterpreter()
_decode = msgspec.json.Decoder().decode


class Text:
    """A JMESPath expression that finds the text in a JSON value.

    One expression serves both a stream's events and complete replies.

    Raises:
        ValueError: The expression is not valid, or calls an unknown function.
    """

    def __init__(self, expression: str) -> None:
        try:
            parsed = jmespath.compile(expression)
            # Unknown functions are detected only when they are called.
            parsed.search(None)
        except jmespath.exceptions.JMESPathTypeError:
            pass  # a valid expression that does not apply to `None`
        except jmespath.exceptions.JMESPathError as error:
            raise ValueError(f"no JMESPath expression: {error}") from None
        self._find = finder(expression)

    def of(self, value: object) -> str | None:
        """Return the text in a decoded JSON value; None if there is none."""
        try:
            found = self._find(value)
        except (ArithmeticError, RecursionError, TypeError, ValueError):
            return None  # a function does not accept its argument
        return _repaired(found) if isinstance(found, str) else None

    def of_body(self, body: bytes) -> str | None:
        """Return the text in a body; None if there is none, or the body is not JSON."""
        try:
            return self.of(from_json(body))
        except ValueError:
            return None


def from_json(data: bytes) -> Any:
    """Decode JSON more leniently than the standard: Python's servers write ``NaN``.

    Raises:
        ValueError: It is not JSON, nested too deeply, or has more values than may be built at once.
    """
    if not may_be_built(data):
        raise ValueError("too many values")
    try:
        return _decode(data)  # several times as fast as `json`, but strict
    except (msgspec.DecodeError, ValueError, RecursionError):
        pass
    try:
        return json.loads(data.decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None


def finder(expression: str) -> Find:
    """Compile a JMESPath expression to a function."""
    return _finder(jmespath.compile(expression).parsed)


def _finder(node: Any) -> Find:
    """Compile a node of an expression's tree; the result is as that of JMESPath's interpreter."""
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
    """Return the steps of a path like ``a.b[0].c``; None if the node is not a path."""
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
    """Whether JMESPath considers a value false: unlike in Python, zero is true."""
    return not value and (value is False or not isinstance(value, int | float))


def _repaired(text: str) -> str:
    """Replace lone surrogates, which can't be encoded; JSON may contain ``"\\ud800"``."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
