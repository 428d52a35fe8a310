"""Text in JSON, found by JMESPath expressions as JMESPath itself finds it."""

import json
from typing import Any

import jmespath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.formats.presets import FORMATS
from gateway.formats.text import Text, finder, from_json
from gateway.protocol.structure import MAX_VALUES

CONTENT = Text("content")


@pytest.mark.parametrize("expression", ["", "a(", "a(b)", "length()", "[", "a ||"])
def test_what_is_no_expression(expression: str) -> None:
    with pytest.raises(ValueError, match="no JMESPath expression"):
        Text(expression)


@pytest.mark.parametrize(
    "expression", ["join(', ', a)", "ceil(a)", "a[::0]", "to_string(a)", "max_by(@, &a)"]
)
def test_a_function_that_meets_what_it_cannot_take(expression: str) -> None:
    deep: Any = []
    for _ in range(2_000):
        deep = [deep]
    for value in ({}, {"a": float("inf")}, {"a": [1]}, {"a": deep}, [{"a": 1}, {"a": "b"}]):
        found = Text(expression).of(value)
        assert found is None or expression.startswith("to_string")


def test_a_body_that_is_no_json_has_no_text() -> None:
    assert CONTENT.of_body(b"<html>") is None
    assert CONTENT.of_body(b"\xff") is None
    assert CONTENT.of_body(b'{"content": ""}') == ""


def test_a_body_that_would_take_long_to_build_has_no_text() -> None:
    """25 MB of empty lists would hold up everyone for ten seconds."""
    few, many = (b'{"content":"x","a":[' + b"[]," * n + b"0]}" for n in (1000, MAX_VALUES))
    assert CONTENT.of_body(few) == "x"
    assert CONTENT.of_body(many) is None
    with pytest.raises(ValueError, match="too many values"):
        from_json(many)
    with pytest.raises(ValueError, match="too many values"):
        from_json(many[:-1])


_KEYS = st.sampled_from(["a", "b", "token", "text", "special", "generated_text", "choices"])
_PATHS = st.recursive(
    _KEYS | st.sampled_from(["[0]", "[-1]", "[7]", "@"]),
    lambda inner: st.one_of(
        st.builds("{}.{}".format, inner, _KEYS),
        st.builds("{}[{}]".format, _KEYS, st.integers(-2, 2)),
        st.builds("({} || {})".format, inner, inner),
        st.builds("({} && {})".format, inner, inner),
        st.builds("!{}".format, inner),
        st.builds("({} | {})".format, inner, inner),
        st.builds("[{}][?{}]".format, inner, inner),
        st.builds("({} == {})".format, inner, inner),
    ),
    max_leaves=6,
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.sampled_from([0, 0.0, -0.0, 1, 2.5, "", "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=10,
)


@given(_PATHS, _VALUES)
def test_what_is_found_is_what_jmespath_finds(expression: str, value: object) -> None:
    assert repr(finder(expression)(value)) == repr(jmespath.search(expression, value))


@pytest.mark.parametrize("name", [name for name in FORMATS if FORMATS[name].text])
@given(value=_VALUES)
def test_the_formats_find_what_jmespath_finds(name: str, value: object) -> None:
    expression = FORMATS[name].text
    assert expression is not None
    assert repr(finder(expression)(value)) == repr(jmespath.search(expression, value))


_TOKENS = st.sampled_from(
    [
        *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"u", b"d800", b"0", b"1", b"-", b"."),
        *(b"e", b" ", b"\n", b"\x00", b"\xff", b"\xc3\xa9", b"true", b"null", b"NaN", b"-Infinity"),
        *(b'"a"', b'"\\ud800"', b"1e999", b"123456789012345678901234567890"),
    ]
)


@given(st.lists(_TOKENS, max_size=8).map(b"".join) | _VALUES.map(lambda v: json.dumps(v).encode()))
def test_json_is_read_as_python_reads_it(data: bytes) -> None:
    def outcome(read: Any) -> str:
        try:
            return repr(read())
        except ValueError:
            return "no JSON"

    assert outcome(lambda: from_json(data)) == outcome(lambda: json.loads(data.decode()))
