"""What is thought of the suite's reports, and what it is run on; none of it needs Python 2.7."""

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.autobahn import suite
from tests.autobahn.__main__ import MISSING, echoing, main
from tests.autobahn.verdicts import Verdict, judge, remarks, table
from tests.support.client import raw
from tests.support.processes import aside


def row(behaviour: str, closing: str = "OK", code: int | None = 1000) -> dict[str, Any]:
    return {"behavior": behaviour, "behaviorClose": closing, "remoteCloseCode": code}


@pytest.mark.parametrize(
    ("name", "of_suite", "verdict"),
    [
        ("1.1.1", row("OK"), Verdict.OK),
        ("1.1.1", row("FAILED"), Verdict.FAILED),
        ("1.1.1", row("OK", "WRONG CODE"), Verdict.FAILED),
        ("1.1.1", row("OK", "UNCLEAN", None), Verdict.FAILED),
        ("1.1.1", row("SOMETHING NEW"), Verdict.FAILED),
        ("3.2", row("NON-STRICT", code=1002), Verdict.NON_STRICT),
        ("3.2", row("NON-STRICT", "WRONG CODE", 1011), Verdict.FAILED),
        ("6.4.3", row("NON-STRICT", code=1007), Verdict.FAILED),
        ("7.1.6", row("INFORMATIONAL", "INFORMATIONAL"), Verdict.INFORMATIONAL),
        ("12.1.1", row("UNIMPLEMENTED"), Verdict.UNIMPLEMENTED),
        ("9.1.5", row("FAILED", "FAILED", 1009), Verdict.EXPECTED),
        ("9.1.5", row("FAILED", "FAILED", 1011), Verdict.FAILED),
        ("9.1.5", row("OK"), Verdict.FAILED),
    ],
)
def test_what_is_thought_of_a_case(name: str, of_suite: dict[str, Any], verdict: Verdict) -> None:
    assert judge(name, of_suite).verdict is verdict


def test_the_table_counts_and_what_has_not_passed_is_explained() -> None:
    rows = {
        "10.1.1": row("OK"),
        "9.2.5": row("FAILED", "FAILED", 1009),
        "9.1.5": row("FAILED", "FAILED", 1009),
        "9.1.1": row("OK", "WRONG CODE", 1011),
        "3.3": row("NON-STRICT", code=1002),
    }
    cases = [judge(name, of_suite) for name, of_suite in rows.items()]
    assert [line.split() for line in table(cases).splitlines()] == [
        ["cases", "OK", "non-strict", "informational", "unimplemented", "expected", "failed"],
        ["3.x", "reserved", "bits", "1", "·", "1", "·", "·", "·", "·"],
        ["9.x", "limits", "and", "performance", "3", "·", "·", "·", "·", "2", "1"],
        ["10.x", "automatic", "fragmentation", "1", "1", "·", "·", "·", "·", "·"],
        ["all", "5", "1", "1", "·", "·", "2", "1"],
    ]
    non_strict, failed, expected = remarks(cases).splitlines()
    assert non_strict.endswith("(3.3)")
    assert failed == "failed: OK, its close WRONG CODE, with 1011 (9.1.1)"
    assert expected.startswith("expected, closed with 1009: ")
    assert expected.endswith("(9.1.5, 9.2.5)")


@pytest.mark.parametrize("named", [sys.executable, "/nowhere/python2.7"])
def test_another_python_is_refused(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOBAHN_PYTHON", named)
    with pytest.raises(suite.SuiteError, match=named):
        suite.find_python()


@pytest.mark.parametrize(("short", "code"), [(True, 0), (False, 1)])
def test_where_there_is_no_python_2_that_is_said(
    short: bool,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    wrapper = tmp_path / "python2.7"
    wrapper.write_text("#!/bin/sh\nexit 127\n")
    wrapper.chmod(0o755)
    monkeypatch.delenv("AUTOBAHN_PYTHON", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert main(short=short) == code
    assert capsys.readouterr().out == f"{MISSING}\n"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 1", "wstest failed"),
        ("echo Ok, will run 2 test cases", "wstest failed"),
        ("echo Ok, will run 2 test cases; echo {} > index.json", "0 of 2 cases"),
        (
            "echo Ok, will run 2 test cases\n"
            """echo '{"session-gateway": {"1.1.1": {}}}' > index.json""",
            "1 of 2 cases",
        ),
    ],
    ids=["fails", "no-report", "nothing-run", "not-all-run"],
)
def test_a_suite_that_does_not_come_to_its_end_has_failed(
    script: str, said: str, tmp_path: Path
) -> None:
    program = tmp_path / "wstest"
    program.write_text(f"#!/bin/sh\ncd {tmp_path}\n{script}\n")
    program.chmod(0o755)
    with pytest.raises(suite.SuiteError, match=said):
        suite.run(program, "ws://127.0.0.1/ws", ["*"], (), tmp_path)


async def test_the_gateway_that_is_tested_echoes(tmp_path: Path) -> None:
    async with aside(echoing(tmp_path)) as gateway, raw(gateway.websocket, "echo") as device:
        for message in ("été", b"\xff\0", ""):
            await device.send(message)
            assert await device.recv() == message
    assert "connection closed" in (tmp_path / "gateway.log").read_text()
