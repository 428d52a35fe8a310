"""Files that are read again."""

import asyncio
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.security import reloading
from gateway.security.reloading import Reloader
from tests.support.timing import UNIT


def test_what_has_changed_is_read_once_it_has_settled(tmp_path: Path) -> None:
    file, other = tmp_path / "a", tmp_path / "b"
    file.write_text("1")
    read: list[str] = []
    reloader = Reloader()
    reloader.add([file], lambda: read.append(file.read_text()))
    reloader.add([other], lambda: read.append("b"))
    for _ in range(3):
        reloader.load(changed=True)
    assert read == []
    for half in ("12", "123"):
        file.write_text(half)
        reloader.load(changed=True)
        assert read == [], "it may be half written"
    for _ in range(3):
        reloader.load(changed=True)
    assert read == ["123"]
    with capture_logs() as logs:
        reloader.load()
    assert read == ["123", "123", "b"], "the operator has said so"
    assert logs == [
        {"event": "files reloaded", "log_level": "info", "files": [str(each)]}
        for each in (file, other)
    ]


def test_what_can_not_be_read_is_told_once(tmp_path: Path) -> None:
    file, other = tmp_path / "a", tmp_path / "b"
    reloader = Reloader()
    why = ["wrong"]

    def fails() -> None:
        raise ValueError(*why)

    def told(times: int) -> list[str]:
        with capture_logs() as logs:
            for _ in range(times):
                reloader.load(changed=True)
        whys = [line.pop("why") for line in logs]
        assert logs == [
            {
                "event": "files could not be reloaded",
                "log_level": "warning",
                "files": [str(file), str(other)],
            }
            for _ in whys
        ]
        return whys

    reloader.add([file, other], fails)
    file.write_text("1")
    assert told(4) == ["wrong"]
    why[0] = "wrong in another way"
    assert told(3) == ["wrong in another way"]
    file.write_text("12")
    assert told(3) == ["wrong in another way"], "of another file"
    with capture_logs() as logs:
        reloader.load()
    assert len(logs) == 1, "the operator has asked"


def test_what_is_wrong_again_after_it_was_good_is_told_again(tmp_path: Path) -> None:
    file = tmp_path / "a"
    reloader = Reloader()

    def load() -> None:
        int(file.read_text())

    reloader.add([file], load)
    for text, event in (("x", "could not be"), ("1", "files reloaded"), ("x", "could not be")):
        file.write_text(text)
        with capture_logs() as logs:
            for _ in range(3):
                reloader.load(changed=True)
        (line,) = logs
        assert event in line["event"]


def test_one_that_has_not_changed_holds_up_no_other(tmp_path: Path) -> None:
    read: list[str] = []
    reloader = Reloader()
    for name in ("a", "b"):
        reloader.add([tmp_path / name], partial(read.append, name))
    (tmp_path / "b").write_text("1")
    for _ in range(2):
        reloader.load(changed=True)
    assert read == ["b"]


async def test_it_looks_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reloading, "LOOK_SECONDS", reloading.LOOK_SECONDS / 500)
    file, read = tmp_path / "a", asyncio.Queue[str]()
    reloader = Reloader()
    reloader.add([file], lambda: read.put_nowait(file.read_text()))
    looking = asyncio.create_task(reloader.run())
    async with asyncio.timeout(5 * UNIT):
        for text in ("1", "12"):
            file.write_text(text)
            assert await read.get() == text
        await asyncio.sleep(10 * reloading.LOOK_SECONDS)
    assert read.empty(), "nothing has changed"
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking


def test_what_could_not_be_read_is_read_once_it_can_be(tmp_path: Path) -> None:
    """As where the machine had no file descriptor left: nothing of the file changes after that."""
    file = tmp_path / "a"
    read: list[str] = []
    fails = True

    def load() -> None:
        if fails:
            raise OSError("too many open files")
        read.append(file.read_text())

    reloader = Reloader()
    reloader.add([file], load)
    file.write_text("1")
    for _ in range(3):
        reloader.load(changed=True)
    fails = False
    for _ in range(3):
        reloader.load(changed=True)
    assert read == ["1"], "once"


def test_a_file_that_gets_another_mode_is_read(tmp_path: Path) -> None:
    """As where somebody else has replaced it, and its reader may not read it at first."""
    file = tmp_path / "a"
    file.write_text("1")
    read: list[str] = []
    reloader = Reloader()
    reloader.add([file], lambda: read.append(file.read_text()))
    file.chmod(0o400)
    for _ in range(3):
        reloader.load(changed=True)
    assert read == ["1"]
