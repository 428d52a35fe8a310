"""Streams as containers write them, cut everywhere."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ErrorCode, Outcome
from gateway.formats.presets import FORMATS
from gateway.formats.streams import Part, Splitter, StreamError, StreamKind, splitter
from gateway.formats.text import Text

Parts = list[Part]

CONTENT = Text("content")
WORDS = ["Grüß", " dich,", ' "Welt"', "\n", "🙂", " fertig…"]
WHOLE = "".join(WORDS)


def lines(*values: object, ascii_only: bool = False) -> bytes:
    return b"".join(json.dumps(value, ensure_ascii=ascii_only).encode() + b"\n" for value in values)


def events(*values: object, prefix: bytes = b"data: ", end: bytes = b"\n") -> bytes:
    return b"".join(
        prefix + json.dumps(value, ensure_ascii=False).encode() + end + end for value in values
    )


def chunk(delta: dict[str, object], finish_reason: str | None = None) -> dict[str, object]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_760_000_000,
        "model": "m",
        "choices": [choice],
    }


CHUNKS = [
    chunk({"role": "assistant", "content": ""}),
    *(chunk({"content": word}) for word in WORDS),
    chunk({}, "stop"),
    {**chunk({}), "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 6}},
]
LMI = [
    *(
        {"token": {"id": number, "text": word, "log_prob": -0.5}}
        for number, word in enumerate(WORDS)
    ),
    {
        "token": {"id": 2, "text": "", "log_prob": float("-inf"), "special_token": True},
        "generated_text": WHOLE,
        "details": {"finish_reason": "eos_token", "generated_tokens": 7, "inputs": None},
    },
]
TGI = [
    *(
        {
            "index": number,
            "token": {"id": number, "text": word, "logprob": -0.5, "special": False},
            "generated_text": None,
            "details": None,
        }
        for number, word in enumerate(WORDS, 1)
    ),
    {
        "index": 7,
        "token": {"id": 2, "text": "</s>", "logprob": -0.1, "special": True},
        "generated_text": WHOLE,
        "details": None,
    },
]

RECORDED: list[tuple[str, str, bytes]] = [
    ("lmi", "JSON lines", lines(*LMI)),
    ("lmi", "JSON lines in ASCII", lines(*LMI, ascii_only=True)),
    ("lmi", "server-sent events", events(*LMI)),
    ("lmi", "server-sent events without a space", events(*LMI, prefix=b"data:")),
    ("openai-chat", "LMI, without data:", lines(*CHUNKS)),
    ("openai-chat", "vLLM", events(*CHUNKS) + b"data: [DONE]\n\n"),
    ("openai-chat", "CRLF", events(*CHUNKS, end=b"\r\n") + b"data: [DONE]\r\n\r\n"),
    ("openai-chat", "decorated", b": hi\n\nevent: message\nid: 1\nretry: 5\n" + events(*CHUNKS)),
    ("openai-chat", "no end", events(*CHUNKS).rstrip()),
    ("tgi", "TGI", events(*TGI, prefix=b"data:")),
]


def of_format(name: str) -> Splitter:
    form = FORMATS[name]
    return splitter(form.stream, text=None if form.text is None else Text(form.text))


def run(cut: Splitter, slices: Iterable[bytes]) -> tuple[Parts, ErrorCode | None]:
    """The parts, and the error that ended them."""
    parts: Parts = []

    def take(given: Iterator[Part | None]) -> None:
        for part in given:
            assert part != "", "an empty part tells nothing"
            if part is not None:
                parts.append(part)

    try:
        for data in slices:
            take(cut.feed(data))
        take(cut.end())
    except StreamError as error:
        return parts, error.failure.code
    return parts, None


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def joined(parts: Sequence[str | bytes]) -> Parts:
    """Neighbours of one type as one."""
    result: Parts = []
    for kind, group in groupby(parts, type):
        nothing: Any = kind()
        result.append(nothing.join(group))
    return result


@pytest.mark.parametrize(
    ("name", "data"),
    [pytest.param(name, data, id=f"{name}, {what}") for name, what, data in RECORDED],
)
def test_recorded_streams_cut_anywhere(name: str, data: bytes) -> None:
    assert run(of_format(name), [data]) == (WORDS, None)
    assert run(of_format(name), bytewise(data)) == (WORDS, None)
    for at in range(len(data)):
        assert run(of_format(name), [data[:at], b"", data[at:]]) == (WORDS, None)


@pytest.mark.parametrize(
    ("name", "reply"),
    [
        ("openai-chat", {"choices": [{"message": {"role": "assistant", "content": WHOLE}}]}),
        ("lmi", {"generated_text": WHOLE}),
        ("lmi", [{"generated_text": WHOLE, "details": {"finish_reason": "length"}}]),
        ("tgi", {"generated_text": WHOLE}),
        ("tgi", [{"generated_text": WHOLE}]),
    ],
)
def test_the_same_expression_reads_a_reply_in_one_piece(name: str, reply: object) -> None:
    expression = FORMATS[name].text
    assert expression is not None
    body = json.dumps(reply, indent=1).encode()
    assert Text(expression).of_body(body) == WHOLE
    assert run(of_format(name), [lines(reply)]) == ([WHOLE], None)


FAILURES = [
    {"code": 424, "error": "secret"},
    {"code": 424, "error": ""},
    {"error": {"message": "secret", "type": "InternalServerError", "code": 500}},
    {"object": "error", "message": "secret", "type": "BadRequestError", "code": 400},
    {"error": "secret", "error_type": "generation"},
    {"token": {"text": ""}, "generated_text": "a", "details": {"finish_reason": "error"}},
    chunk({"content": ""}, "error"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=json.dumps)
@pytest.mark.parametrize("text", [None, CONTENT])
@pytest.mark.parametrize(
    ("kind", "written"),
    [
        (StreamKind.LINES, lines),
        (StreamKind.LINES, events),
        (StreamKind.SSE, lines),
        (StreamKind.SSE, events),
    ],
)
def test_a_failure_in_mid_stream(kind: StreamKind, written: Any, text: Any, failure: Any) -> None:
    first = {"content": "a", "error": None}
    data = written(first, failure, {"content": "b"})
    told = "a" if text is CONTENT else json.dumps(first)
    assert run(splitter(kind, text=text), [data]) == ([told], ErrorCode.MODEL_ERROR)
    with pytest.raises(StreamError) as caught:
        list(splitter(kind, text=text).feed(written(failure)))
    assert "secret" not in str(caught.value)
    assert caught.value.failure.outcome is Outcome.INVOKED


@pytest.mark.parametrize(
    "value", [{"error": None}, {"error": ""}, {"error": 0.5, "code": 1}, {"code": 1}, [], None, 1]
)
def test_no_failure(value: object) -> None:
    assert run(splitter(StreamKind.LINES, text=CONTENT), [lines(value)]) == ([], None)


def test_events_of_several_lines() -> None:
    data = b'data: {"content":\ndata:  "a"}\n\ndata\nother: 1\n\ndata:\n\ndata: {"content": "b"}'
    assert run(splitter(StreamKind.SSE, text=CONTENT), bytewise(data)) == (["a", "b"], None)
    data = b"data: a\ndata:\ndata:  b\n\n"
    assert run(splitter(StreamKind.SSE), [data]) == (["a\n\n b"], None)


def test_a_bare_object_ends_the_event_before_it() -> None:
    data = b'data: {"content": "a"}\n{"content": "b"}\n[{"content": "c"}]\n'
    assert run(splitter(StreamKind.SSE, text=CONTENT), bytewise(data)) == (["a", "b"], None)


def test_without_an_expression_records_are_given_as_they_are() -> None:
    data = b'{"a": 1}\r\n\n  \nplain\n: comment\nid: 1\n\xff\n[DONE]\ndata:x\nlast'
    expected: Parts = ['{"a": 1}', "plain", b"\xff", "x", "last"]
    assert run(splitter(StreamKind.LINES), bytewise(data)) == (expected, None)


@pytest.mark.parametrize(
    "line", [b"plain", b'{"content": "a"', b'{"content": "\xff"}', b"[" * 100_000]
)
def test_with_an_expression_records_are_json(line: bytes) -> None:
    data = b'{"content": "a"}\n' + line
    got = run(splitter(StreamKind.LINES, text=CONTENT), [data])
    assert got == (["a"], ErrorCode.STREAM_BROKEN)


@pytest.mark.parametrize("value", [None, "", 1, ["a"], {"content": "a"}])
def test_what_is_no_text_gives_no_part(value: object) -> None:
    data = lines({"content": value}, {}, {"content": "b"})
    assert run(splitter(StreamKind.LINES, text=CONTENT), [data]) == (["b"], None)


def test_halves_of_characters() -> None:
    data = b'{"content": "\\ud83d\\ude42"}\n{"content": "a\\ud83d"}\n{"content": NaN}\n'
    got = run(splitter(StreamKind.LINES, text=CONTENT), [data])
    assert got == (["🙂", "a\ufffd"], None)


@pytest.mark.parametrize("kind", [StreamKind.LINES, StreamKind.SSE])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\r\n\r\n"])
def test_the_longest_line(kind: StreamKind, end: bytes) -> None:
    def of(size: int) -> tuple[Parts, ErrorCode | None]:
        data = b"data:" + b"x" * (size - 5) + end
        whole = run(splitter(kind, line_bytes=100), [data])
        assert whole == run(splitter(kind, line_bytes=100), bytewise(data))
        return whole

    assert of(100) == (["x" * 95], None)
    assert of(102) == ([], ErrorCode.TOO_LARGE)


def test_the_longest_event() -> None:
    data = b"data: 0123456789\n" * 20
    got = run(splitter(StreamKind.SSE, line_bytes=100), [data])
    assert got == ([], ErrorCode.TOO_LARGE)
    assert run(splitter(StreamKind.LINES, line_bytes=100), [data])[1] is None


def test_raw_text_comes_in_whole_characters() -> None:
    data = WHOLE.encode()
    got = run(splitter(StreamKind.RAW, textual=True), bytewise(data))
    assert got == (list(WHOLE), None)
    for at in range(len(data)):
        cut = splitter(StreamKind.RAW, textual=True)
        assert joined(run(cut, [data[:at], data[at:]])[0]) == [WHOLE]


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        (b"caf\xc3\xa9 \xff caf\xc3\xa9", ["café ", b"\xff caf\xc3\xa9"]),
        (b"a\xf0\x9f\x99", ["a", b"\xf0\x9f\x99"]),
        (b"a\xed\xa0\x80b", ["a", b"\xed\xa0\x80b"]),
        (b"", []),
    ],
)
def test_raw_text_that_is_none_goes_on_as_bytes(data: bytes, parts: Parts) -> None:
    for slices in ([data], bytewise(data)):
        got = run(splitter(StreamKind.RAW, textual=True), slices)
        assert (joined(got[0]), got[1]) == (parts, None)


def test_raw_bytes() -> None:
    got = run(splitter(StreamKind.RAW), [b"ab", b"", b"\xc3"])
    assert got == ([b"ab", b"\xc3"], None)


_PIECES = st.sampled_from(
    [
        b"\n",
        b"\r\n",
        b"data:",
        b"data: ",
        b"event: x\n",
        b": x\n",
        b"[DONE]",
        b'{"content": "h\xc3\xa9"}',
        b'{"content": null}',
        b'{"code": 1, "error": "x"}',
        b"\xf0\x9f\x99\x82",
        b"\xf0\x9f",
        b"[[[[",
        b"\x00",
    ]
)


@given(
    st.lists(_PIECES | st.binary(max_size=20), max_size=12).map(b"".join),
    st.lists(st.integers(0, 200), max_size=8),
    st.sampled_from([StreamKind.RAW, StreamKind.LINES, StreamKind.SSE]),
    st.sampled_from([None, CONTENT]),
    st.booleans(),
)
def test_anything_cut_anywhere(
    data: bytes, cuts: list[int], kind: StreamKind, text: Text | None, textual: bool
) -> None:
    def of(slices: list[bytes]) -> tuple[Parts, ErrorCode | None]:
        cut = splitter(kind, text=text, textual=textual, line_bytes=60)
        parts, code = run(cut, slices)
        return (joined(parts) if kind is StreamKind.RAW else parts), code

    ends = [*sorted(min(cut, len(data)) for cut in cuts), len(data)]
    slices = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    assert b"".join(slices) == data
    assert of(slices) == of([data]) == of(bytewise(data))


_KEYS = (
    *("token", "text", "special", "generated_text", "details", "finish_reason"),
    *("choices", "delta", "message", "content", "error", "code", "object"),
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(_KEYS), inner),
    max_leaves=8,
)


@given(_VALUES)
def test_any_value_in_any_format(value: object) -> None:
    for name in ("openai-chat", "lmi", "tgi"):
        parts, code = run(of_format(name), [lines(value)])
        assert code in {None, ErrorCode.MODEL_ERROR}
        assert all(isinstance(part, str) for part in parts)
