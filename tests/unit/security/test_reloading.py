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

    def fails() -> None:
        raise ValueError("wrong")

    reloader.add([file], fails)
    file.write_text("1")
    with capture_logs() as logs:
        for _ in range(4):
            reloader.load(changed=True)
    (line,) = logs
    assert line["event"] == "files can't be read again; what was read before stays"
