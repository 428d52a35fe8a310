"""Why sessions end, as the protocol has it, and in words for people."""

import re

import pytest

from gateway.errors import CloseCode, ErrorCode
from gateway.protocol.messages import ClosedReason, Status
from gateway.session.endings import DRAINED, ENDINGS, Ending


@pytest.mark.parametrize(
    ("reason", "status", "code", "close"),
    [
        ("client", "cancelled", ErrorCode.SESSION_LOST, CloseCode.NORMAL),
        ("expired", "failed", ErrorCode.SESSION_LOST, CloseCode.GONE),
        ("lost", "failed", ErrorCode.SESSION_LOST, CloseCode.GONE),
        ("idle", "failed", ErrorCode.SESSION_LOST, CloseCode.GONE),
        ("model", "failed", ErrorCode.SESSION_LOST, CloseCode.GONE),
        ("operator", "failed", ErrorCode.SESSION_LOST, CloseCode.GONE),
    ],
)
def test_what_a_reason_means(
    reason: ClosedReason, status: Status, code: ErrorCode, close: CloseCode
) -> None:
    ending = ENDINGS[reason]
    assert (ending.reason, ending.status, ending.code) == (reason, status, code)
    assert ending.close is close
    assert ending.close_reason == ("" if close is CloseCode.NORMAL else code.value)


def test_a_gateway_that_goes_has_its_clients_come_back() -> None:
    assert (DRAINED.reason, DRAINED.status) == ("operator", "failed")
    assert (DRAINED.code, DRAINED.close) == (ErrorCode.UNAVAILABLE, CloseCode.RESTARTING)


@pytest.mark.parametrize("ending", [*ENDINGS.values(), DRAINED])
def test_a_message_is_a_sentence_that_says_what_to_do(ending: Ending) -> None:
    assert re.fullmatch(r"[A-Z][a-z' ]+(; (open a new one|connect again))?\.", ending.message)


def test_there_are_no_others() -> None:
    assert len(ENDINGS) == 6
