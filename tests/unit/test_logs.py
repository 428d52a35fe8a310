"""What others have written, in a log."""

import json
import os
import subprocess
import sys

import pytest
import structlog
from structlog.testing import capture_logs

from gateway import logconfig
from gateway.logs import LogLimit, Seldom, log_quickly, printable
from gateway.route import TurnLine


def test_a_short_text_stays_as_it_is() -> None:
    assert printable("https://chat.example.com", 30) == "https://chat.example.com"


def test_a_long_one_is_cut_and_says_so() -> None:
    assert printable("x" * 31, 30) == "x" * 30 + "…"


def test_nothing_that_a_terminal_would_obey() -> None:
    assert printable("a\x1b[2J\r\nb\u202e", 30) == "a\ufffd[2J\ufffd\ufffdb\ufffd"


def test_each_thing_is_said_once_in_a_while_and_only_so_many() -> None:
    now = [1000.0]
    seldom = Seldom(2, 60, clock=lambda: now[0])
    assert seldom.unsaid("a") == 0
    assert seldom.unsaid("a") is None
    assert seldom.unsaid("b") == 1
    assert seldom.unsaid("c") is None, "there is no more room"
    now[0] += 59
    assert seldom.unsaid("a") is None
    now[0] += 1
    assert seldom.unsaid("a") == 2
    assert seldom.unsaid("c") == 0


def test_so_many_lines_of_a_kind_are_logged() -> None:
    now = [0.0]
    limit = LogLimit(2, 60, clock=lambda: now[0])
    assert [limit.suppressed("a") for _ in range(5)] == [0, 0, None, None, None]
    assert limit.suppressed("b") == 0
    now[0] = 59.9
    assert limit.suppressed("a") is None
    now[0] = 60
    assert [limit.suppressed("a") for _ in range(3)] == [4, 0, None]
    assert limit.suppressed("b") == 0
    now[0] = 300
    assert limit.suppressed("a") == 1


def turn_line() -> TurnLine:
    return TurnLine("info", "chat", "s", "m1", "completed", 2, 12, queued_ms=0, gateway_us=7)


SAID = {
    "route": "chat",
    "session": "s",
    "id": "m1",
    "status": "completed",
    "deltas": 2,
    "duration_ms": 12,
    "queued_ms": 0,
    "gateway_us": 7,
}


def test_a_line_that_is_logged_quickly_is_one_like_others_where_there_is_no_quick_way() -> None:
    with capture_logs() as logs:
        log_quickly(structlog.get_logger().bind())(turn_line())
    assert logs == [{"event": "turn", "log_level": "info", **SAID}]


QUICKLY = """
import sys
import structlog
from gateway.logconfig import configure_logging
from gateway.logs import log_quickly
from tests.unit.test_logs import turn_line
configure_logging("INFO", sys.argv[1], "gw-1")
log = structlog.stdlib.get_logger("gateway.sessions")
log_quickly(log.bind())(turn_line())
log.info("other", text="…")
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_both_ways_write_the_same(form: str) -> None:
    done = subprocess.run([sys.executable, "-c", QUICKLY, form], capture_output=True, check=True)
    turn, other = done.stderr.decode().splitlines()
    if form == "console":
        assert turn.split("turn")[1].split() == [
            *("[gateway.sessions]", "deltas=2", "duration_ms=12", "gateway_us=7", "id=m1"),
            *("queued_ms=0", "replica=gw-1", "route=chat", "session=s", "status=completed"),
        ]
        return
    quick, slow = json.loads(turn), json.loads(other)
    assert quick.pop("timestamp")[:14] == slow.pop("timestamp")[:14]
    assert len(json.loads(turn)["timestamp"]) == len(json.loads(other)["timestamp"])
    same = {"level": "info", "logger": "gateway.sessions", "replica": "gw-1"}
    assert quick == {"event": "turn", **same, **SAID}
    assert slow == {"event": "other", **same, "text": "…"}


def test_a_log_that_nobody_reads_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = os.pipe()
    os.close(here)
    monkeypatch.setattr(logconfig, "STDERR", there)
    logger = logconfig._json_logger(20, None)
    logger(logconfig._Lines("a"), [], {}).quick(turn_line())  # type: ignore[call-arg, attr-defined]
    os.close(there)
