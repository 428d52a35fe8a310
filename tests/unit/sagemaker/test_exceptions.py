"""The tree of exceptions is as it is drawn, and each of them means something."""

import re

import pytest

from gateway.errors import ErrorCode, Outcome
from gateway.sagemaker import exceptions
from gateway.sagemaker.errors import failure_of
from gateway.sagemaker.profiles import PROFILES

assert exceptions.__doc__ is not None
DRAWN = re.findall(r"^    ([│├└─ ]*)(\w+)", exceptions.__doc__, re.MULTILINE)

MEANINGS = {
    "NotSentInTime": (ErrorCode.TIMEOUT, Outcome.NOT_INVOKED),
    "InvalidParameters": (ErrorCode.VALIDATION_ERROR, Outcome.NOT_INVOKED),
    "NoCredentials": (ErrorCode.UNAVAILABLE, Outcome.NOT_INVOKED),
    "ConnectError": (ErrorCode.UNAVAILABLE, Outcome.NOT_INVOKED),
    "ConnectTimeout": (ErrorCode.UNAVAILABLE, Outcome.NOT_INVOKED),
    "TlsError": (ErrorCode.UNAVAILABLE, Outcome.NOT_INVOKED),
    "ReplyTimeout": (ErrorCode.TIMEOUT, Outcome.UNKNOWN),
    "ConnectionLost": (ErrorCode.UNAVAILABLE, Outcome.UNKNOWN),
    "MalformedReply": (ErrorCode.UNAVAILABLE, Outcome.UNKNOWN),
}


def test_the_tree_is_as_it_is_drawn() -> None:
    above: list[str] = []
    drawn = set()
    for lines, name in DRAWN:
        depth = len(lines) // 4
        above[depth:] = [name]
        drawn.add((name, above[depth - 1] if depth else "Exception"))
    there_are = {
        (name, kind.__base__.__name__)
        for name, kind in vars(exceptions).items()
        if isinstance(kind, type) and kind.__base__ is not None
    }
    assert drawn == there_are


@pytest.mark.parametrize("name", MEANINGS)
def test_what_each_means(name: str) -> None:
    error = getattr(exceptions, name)(OSError("secret"))
    failure = failure_of(error, PROFILES["stateless"], in_session=False)
    assert (failure.code, failure.outcome) == MEANINGS[name]
    assert failure.facts == {"raised": name, "cause": "OSError"}
    late = failure_of(exceptions.ReplyFailed(error), PROFILES["stateless"], in_session=False)
    assert late.outcome is Outcome.INVOKED
    assert isinstance(error, exceptions.NotSent) is (failure.outcome is Outcome.NOT_INVOKED)


def test_each_means_something() -> None:
    others = {"CallError", "NotSent", "ReplyFailed"}
    assert {name for _, name in DRAWN} == MEANINGS.keys() | others
