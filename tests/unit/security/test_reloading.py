"""Files that are read again."""

from pathlib import Path

from structlog.testing import capture_logs

from gateway.security.reloading import Reloader


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
    reloader.load()
    assert read == ["123", "123", "b"], "the operator has said so"


def test_what_can_not_be_read_is_told_once(tmp_path: Path) -> None:
    file = tmp_path / "a"
    reloader = Reloader()
    why = ["wrong"]

    def fails() -> None:
        raise ValueError(*why)

    def told(times: int) -> list[str]:
        with capture_logs() as logs:
            for _ in range(times):
                reloader.load(changed=True)
        assert {line["event"] for line in logs} <= {
            "files can't be read again; what was read before stays"
        }
        return [line["why"] for line in logs]

    reloader.add([file], fails)
    file.write_text("1")
    assert told(4) == ["wrong"]
    why[0] = "wrong in another way"
    assert told(3) == ["wrong in another way"]
    file.write_text("12")
    assert told(3) == ["wrong in another way"], "of another file"
    with capture_logs() as logs:
        reloader.load()
    assert len(logs) == 1, "the operator has asked"


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
