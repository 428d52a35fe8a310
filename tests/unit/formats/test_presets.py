"""Formats: the ready-made ones, and what a route may spell out."""

import json

import msgspec
import pytest

from gateway.formats.presets import FORMATS, Format
from gateway.formats.streams import StreamKind


def test_the_ready_made_ones() -> None:
    assert list(FORMATS) == ["openai-chat", "lmi", "tgi", "plain"]
    for name, form in FORMATS.items():
        plain = name == "plain"
        assert (form.request is None) is plain
        assert (form.text is None) is plain
        assert (form.stream is StreamKind.RAW) is plain
        if not plain:
            written = json.dumps(form.request)
            assert written.count('"$messages"') == written.count('"$stream"') == 1


def test_a_format_of_a_routes_own() -> None:
    given = {"stream": "lines", "text": "a.b", "request": ["$text"], "accept": "a/b"}
    assert msgspec.convert(given, Format) == Format(
        stream=StreamKind.LINES, text="a.b", request=["$text"], accept="a/b"
    )


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"stream": "words"}, "words"),
        ({"stream": "lines", "text": "a("}, "`text` is no JMESPath expression"),
        ({"stream": "lines", "text": "what(a)"}, "what"),
        ({"stream": "raw", "text": "a"}, "raw"),
        ({"extra": 1}, "extra"),
    ],
)
def test_formats_that_cannot_be(given: object, says: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=says):
        msgspec.convert(given, Format)
