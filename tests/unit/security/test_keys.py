"""API keys: the file, who they are, and what is wrong with it."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli import main
from gateway.security.keys import KeyFileError, Keys, add, digest, read
from gateway.security.principals import PrincipalLimits

LIMITS = PrincipalLimits(
    connections=100, sessions=200, messages_per_second=20.0, bytes_per_second=4e6
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def test_a_key_is_recognised_by_what_the_file_has_of_it(path: Path) -> None:
    ada, bob = add(path, "ada", ["chat", "games"]), add(path, "bob", None)
    assert ada not in path.read_text()
    assert digest(ada) in path.read_text()
    keys = Keys(path, LIMITS)
    assert len(keys) == 2
    known = keys.find(ada)
    assert known is not None
    assert (known.name, known.routes) == ("key:ada", frozenset({"chat", "games"}))
    assert (known.may_use("chat"), known.may_use("other")) == (True, False)
    known = keys.find(bob)
    assert known is not None
    assert (known.name, known.routes, known.limits) == ("key:bob", None, None)
    assert known.may_use("other")
    assert keys.find(ada[:-1]) is None
    assert keys.find("") is None
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_entry_may_have_limits_of_its_own(path: Path) -> None:
    key = add(path, "ada", None)
    path.chmod(0o640)
    with path.open("a") as file:
        file.write("messages_per_second = 50  # by contract\n")
    add(path, "bob", None)
    assert "# by contract" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o640
    known = Keys(path, LIMITS).find(key)
    assert known is not None
    assert known.limits == PrincipalLimits(
        connections=100, sessions=200, messages_per_second=50, bytes_per_second=4e6
    )


def test_what_was_read_before_stays_where_the_file_is_no_longer_good(path: Path) -> None:
    key = add(path, "ada", None)
    keys = Keys(path, LIMITS)
    good = path.read_text()
    path.write_text("[ada")
    with pytest.raises(KeyFileError):
        keys.reload()
    assert keys.find(key) is not None
    path.write_text(good.replace("[ada]", "[bob]"))
    keys.reload()
    known = keys.find(key)
    assert known is not None
    assert known.name == "key:bob"
    path.write_text("")
    keys.reload()
    assert keys.find(key) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("\n[ada", r"keys\.toml:2: not TOML: "),
        ("\nx = 5", r"keys\.toml:2: \[x\]"),
        ('["a b"]\nsha256 = ""', r"keys\.toml:1: .*letters, digits"),
        ("# ada\n\n[ada]", r"keys\.toml:3: \[ada\]: .*`sha256`"),
        ('[ada]\nsha256 = "12"', "`sha256` is no digest"),
        (f'[ada]\nsha256 = "{"0" * 64}"\nroute = ["x"]', "unknown key; known are sha256, routes"),
        (f'[ada]\nsha256 = "{"0" * 64}"\nsessions = 0', "`sessions` must be more than 0"),
        (
            f'[b-2]\nsha256 = "{"1" * 64}"\n'
            f'["a"]\nsha256 = "{"0" * 64}"\n[b]\nsha256 = "{"0" * 64}"',
            r"keys\.toml:5: \[b\] and \[a\] have the same key",
        ),
    ],
)
def test_what_is_wrong_with_a_file(path: Path, text: str, why: str) -> None:
    path.write_text(text)
    with pytest.raises(KeyFileError, match=why):
        read(path)


def test_a_file_that_is_not_there(path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"keys\.toml: No such file or directory"):
        read(path)
    with pytest.raises(KeyFileError, match="No such file or directory"):
        add(path.parent / "none" / "keys.toml", "ada", None)


def test_the_file_stays_its_owners(path: Path) -> None:
    add(path, "ada", None)
    if os.geteuid() == 0:
        os.chown(path, 12345, 23456)
    before = path.stat()
    key = add(path, "bob", None)
    after = path.stat()
    assert after.st_ino != before.st_ino, "it is replaced whole"
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
    assert Keys(path, LIMITS).find(key) is not None


def test_who_may_not_keep_its_owner_leaves_it_as_it_is(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(path, "ada", None)
    before = path.read_bytes()
    real = os.fstat

    def another(number: int) -> os.stat_result:
        """The file is another's, as it seems; what takes its place is one's own."""
        stat = real(number)
        if stat.st_ino != path.stat().st_ino:
            return stat
        return os.stat_result([*stat[:4], stat.st_uid + 1, *stat[5:]])

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("gateway.security.keys.os.fstat", another)
    monkeypatch.setattr("gateway.security.keys.os.fchown", refuse)
    with pytest.raises(KeyFileError, match=r"keys\.toml: its owner and group can't be kept; run"):
        add(path, "bob", None)
    assert path.read_bytes() == before
    assert [*path.parent.iterdir()] == [path]


def test_what_a_link_points_at_is_written(path: Path) -> None:
    add(path, "ada", None)
    link = path.parent / "link" / "keys.toml"
    link.parent.mkdir()
    link.symlink_to("../keys.toml")
    add(link, "bob", None)
    assert link.is_symlink()
    assert set(read(path)) == {"ada", "bob"}
    link.unlink()
    link.symlink_to("../new.toml")
    add(link, "ada", None)
    assert set(read(path.parent / "new.toml")) == {"ada"}


def test_keys_that_are_added_at_once_are_all_kept(path: Path) -> None:
    names = {f"n{number}" for number in range(24)}
    with ThreadPoolExecutor(8) as pool:
        added = dict(zip(names, pool.map(lambda name: add(path, name, None), names), strict=True))
    keys = Keys(path, LIMITS)
    assert {known.name for key in added.values() if (known := keys.find(key))} == {
        f"key:{name}" for name in names
    }
    assert [*path.parent.iterdir()] == [path]


def test_the_command_prints_a_key_once(path: Path) -> None:
    run = CliRunner().invoke
    done = run(main, ["key", "add", "ada", "--file", str(path), "--routes", "chat"])
    assert done.exit_code == 0, done.output
    known = Keys(path, LIMITS).find(done.output.strip())
    assert known is not None
    assert known.routes == frozenset({"chat"})
    again = run(main, ["key", "add", "ada", "--file", str(path)])
    assert again.exit_code == 2
    assert "there is a key of ada already" in again.output
    wrong = run(main, ["key", "add", "a b", "--file", str(path)])
    assert wrong.exit_code == 2
    assert "letters, digits" in wrong.output
