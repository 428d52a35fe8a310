"""What a request says of a conversation that a new session is to go on with."""

import json
from collections.abc import Iterable
from typing import Any

import pytest

from gateway.admission import Refused
from gateway.errors import ErrorCode
from gateway.session.events import Words
from gateway.session.history import History
from gateway.session.policy import Opening, Policy, Recovery
from gateway.transports.told import most_bytes, told_of

TEMPLATE = {"messages": "$messages"}
HISTORY: dict[str, Any] = {"sends_history": True, "template": TEMPLATE}
REPLAY: dict[str, Any] = {"on_lost": Recovery.REPLAY}


def policy(**rules: Any) -> Policy:
    return Policy(route="chat", **(rules or HISTORY))


def history(*lines: tuple[str, str]) -> bytes:
    messages = [{"role": role, "content": content} for role, content in lines]
    return json.dumps({"history": messages}).encode()


def refusal(body: bytes, rules: Policy) -> tuple[ErrorCode, str]:
    with pytest.raises(Refused) as caught:
        told_of(body, rules)
    return caught.value.code, caught.value.text


SHORT = history(("user", "one"), ("assistant", "1"))


def test_turns() -> None:
    lines = [("assistant", "a"), ("user", "b"), ("user", "c"), ("assistant", ""), ("user", "d")]
    body = history(*lines, ("assistant", "e"), ("assistant", "f"))
    assert told_of(body, policy()) == (Words("", "a"), Words("b\n\nc", ""), Words("d", "e\n\nf"))


@pytest.mark.parametrize("body", [b"", b"{}", b'{"history": []}'])
def test_nothing_was_said(body: bytes) -> None:
    assert told_of(body, Policy(route="chat")) == ()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"history", "JSON is malformed: invalid character (byte 0)."),
        (b'{"history": [{"role": "user", "content": "\xff"}]}', "a string is not UTF-8."),
        (b'{"history": [{"role": "user", "content": "\\ud800, "}]}', "JSON is malformed: "),
        (b"[" * 10_000, "Expected `object`, got `array`."),
        (b"[]", "Expected `object`, got `array`."),
        (b'{"histery": []}', "Object contains unknown field `histery`."),
        (b'{"history": [{"role": "user"}]}', "Object missing required field `content` - at `$.h"),
        (history(("user", "a"), ("system", "b")), "Invalid enum value 'system' - at `$.history[1]"),
        (history(("x" * 1000, "a")), "Invalid enum value 'xxx"),
        (b'{"history": [{"role": "user", "content": []}]}', "Expected `str`, got `array` - at `$."),
        (
            history(("assistant", "a"), ("user", "b")),
            "`history` must end with the role `assistant`",
        ),
    ],
)
def test_what_is_not_understood(body: bytes, text: str) -> None:
    code, said = refusal(body, policy())
    assert code is ErrorCode.BAD_MESSAGE
    assert said.startswith(text)
    assert len(said) < 250


@pytest.mark.parametrize(
    "rules",
    [
        {"on_lost": Recovery.RENEW},
        {"opening": Opening.NONE},
        {"opening": Opening.NONE, "seed": "$transcript"},
    ],
)
def test_a_model_that_can_not_be_told(rules: dict[str, Any]) -> None:
    code, text = refusal(SHORT, policy(**rules))
    assert code is ErrorCode.VALIDATION_ERROR
    assert text == "This route can't start from an earlier conversation: leave `history` out."


@pytest.mark.parametrize("rules", [HISTORY, REPLAY, {"seed": "$transcript"}])
def test_as_much_as_a_route_keeps(rules: dict[str, Any]) -> None:
    two = history(("user", "oné"), ("assistant", "1"), ("user", "two"), ("assistant", "2"))
    most = 7 if rules is REPLAY else 9  # what is said again is what the user has said
    assert len(told_of(two, policy(**rules, transcript_bytes=most, transcript_turns=2))) == 2
    for bounds in (
        {"transcript_bytes": most - 1, "transcript_turns": 2},
        {"transcript_bytes": most, "transcript_turns": 1},
    ):
        code, text = refusal(two, policy(**rules, **bounds))
        assert code is ErrorCode.TOO_LARGE
        assert text == (
            f"`history` is too long: this route keeps {bounds['transcript_turns']} turns, and "
            f"{bounds['transcript_bytes']} bytes. Leave its oldest messages out."
        )


@pytest.mark.parametrize("letter", ["x", '"', "\n", "é", "я", "語", "😀"])
def test_what_is_kept_is_not_too_large_as_json(letter: str) -> None:
    rules = policy(**HISTORY, transcript_bytes=1200, transcript_turns=10)
    turn = (("user", letter), ("assistant", letter * ((120 // len(letter.encode())) - 1)))
    body = history(*(turn * 10))
    assert len(told_of(body, rules)) == 10
    assert len(json.dumps(json.loads(body), indent=4)) <= most_bytes(rules)


def test_too_many_turns_cost_no_more_than_to_be_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    made = list[Words]()
    begin = History.begin

    def counted(history: History, words: Iterable[Words]) -> bool:
        made.extend(words)
        return begin(history, words)

    monkeypatch.setattr(History, "begin", counted)
    rules = policy(**REPLAY, transcript_turns=2)
    turn = (("user", "a"), ("assistant", "b"))
    code, _ = refusal(history(*(turn * 100)), rules)
    assert (code, made) == (ErrorCode.TOO_LARGE, [])
    told_of(history(*(turn * 2)), rules)
    assert len(made) == 2
