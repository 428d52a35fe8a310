"""API keys: the file, who they are, and what is wrong with it."""

import errno
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli import main
from gateway.security.keys import KeyFileError, Keys, add, digest, read
from gateway.security.principals import Principal, PrincipalLimits

LIMITS = PrincipalLimits(
    connections=100, sessions=200, messages_per_second=20.0, bytes_per_second=4e6
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def test_a_key_is_recognised_by_what_the_file_has_of_it(path: Path) -> None:
    ada, bob = add(path, "ada", ["chat", "games"]), add(path, "bob", None)
    assert re.fullmatch(r"sgk_[A-Za-z0-9_-]{43,}", ada)
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


def test_a_key_that_was_shown_stands_for_the_same_name_and_routes_or_for_nobody(path: Path) -> None:
    key = add(path, "ada", ["chat"])
    keys = Keys(path, LIMITS)
    known = keys.find(key)
    assert known is not None
    assert keys.current(known) == known
    good = path.read_text()
    path.write_text(good + "sessions = 3\n")
    keys.reload()
    now = keys.current(known)
    assert now == keys.find(key)
    assert now is not None
    assert now.limits is not None
    assert now.limits.sessions == 3
    for other in (good.replace("[ada]", "[bob]"), good.replace("chat", "games"), ""):
        path.write_text(other)
        keys.reload()
        assert keys.current(known) is None
    assert keys.current(Principal(name="jwt:ada")) is None


DIGEST = f'sha256 = "{"0" * 64}"'
NAMES = "a name has 1 to 64 letters, digits, `-` and `_`, and is no key"
UNKNOWN = (
    "[ada]: has an unknown key; known are sha256, routes, connections, sessions, "
    "messages_per_second, bytes_per_second, operator"
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("\n[ada", r":2: not TOML: Expected .*\w"),
        ("[ada]\nx = \n\n# more\n", r":2: not TOML: Invalid value"),
        ("[ada]\n[sgk_x]\n[sgk_x]", ":3: not TOML: a key is in the wrong place"),
        ("\ufeff\ud800", ": not TOML"),
        ("x = " + "[" * 10_000, ": not TOML"),
        ("\nx = 5", r":2: \[x\]: Expected `object`, got `int`"),
        ('["a b"]\nsha256 = ""', f":1: {NAMES}"),
        ("[sgk_a]", f":1: {NAMES}"),
        (f"[{'a' * 65}]", f":1: {NAMES}"),
        ('[""]', f":1: {NAMES}"),
        ("# ada\n\n[ada]", r":3: \[ada\]: Object missing required field `sha256`"),
        ('[ada]\nsha256 = "12"', r":1: \[ada\]: `sha256` is no digest"),
        ('\n["\\u0061da"]\nsha256 = "12"', r":1: \[ada\]: `sha256` is no digest"),
        (f'[ada]\n{DIGEST}\nroute = ["x"]', f":1: {re.escape(UNKNOWN)}"),
        (f"[ada]\n{DIGEST}\nsessions = 0", r":1: \[ada\]: `sessions` must be more than 0"),
        (f"[ada]\n{DIGEST}\nbytes_per_second = inf", r":1: \[ada\]: `bytes_per_second` must .*"),
        (f"[ada]\n{DIGEST}\nbytes_per_second = nan", r":1: \[ada\]: `bytes_per_second` must .*"),
        (
            f'[b-2]\nsha256 = "{"1" * 64}"\n["a"]\n{DIGEST}\n[b]\n{DIGEST}',
            r":5: \[b\] and \[a\] have the same key",
        ),
    ],
    ids=lambda value: None if len(value) > 60 else repr(value),
)
def test_what_is_wrong_with_a_file(path: Path, text: str, why: str) -> None:
    path.write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(KeyFileError) as error:
        read(path)
    assert re.fullmatch(re.escape(str(path)) + why, str(error.value))


@pytest.mark.parametrize("name", ["Ada", "a-b_0", "Z" * 64])
def test_names(path: Path, name: str) -> None:
    add(path, name, None)
    assert list(read(path)) == [name]


@pytest.mark.parametrize("name", ["", "a" * 65, "a b", "ä", "a\n", "sgk_a"])
def test_what_is_no_name(path: Path, name: str) -> None:
    with pytest.raises(KeyFileError) as error:
        add(path, name, None)
    assert str(error.value) == NAMES
    assert not path.exists()


def test_a_limit_may_be_less_than_one(path: Path) -> None:
    path.write_text(f"[ada]\n{DIGEST}\nmessages_per_second = 0.1")
    assert read(path)["ada"].messages_per_second == 0.1


def test_a_file_that_is_not_there(path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"keys\.toml: No such file or directory"):
        read(path)
    with pytest.raises(KeyFileError, match="No such file or directory"):
        add(path.parent / "none" / "keys.toml", "ada", None)


@pytest.mark.parametrize("end", ["# X", "# ours ", "\t"])
def test_what_is_in_the_file_stays_as_it_is(path: Path, end: str) -> None:
    first = add(path, "ada", None)
    table = f'[ada]\nsha256 = "{digest(first)}"\n'
    assert path.read_text() == table
    path.write_text(f"\n{table}{end}\n\n\n")
    second = add(path, "bob", ["chat", "games"])
    added = f'[bob]\nsha256 = "{digest(second)}"\nroutes = ["chat", "games"]\n'
    assert path.read_text() == f"\n{table}{end}\n\n{added}"


def test_a_name_that_is_taken(path: Path) -> None:
    add(path, "ada", None)
    before = path.read_bytes()
    why = "there is a key of ada already; to replace it, remove its table first"
    with pytest.raises(KeyFileError, match=f"^{re.escape(f'{path}: {why}')}$"):
        add(path, "ada", None)
    assert path.read_bytes() == before


def test_all_is_on_the_disk_beside_the_file_before_it_takes_its_place(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(path, "ada", None)
    before = path.read_text()
    written: list[str] = []

    def sync(_number: int) -> None:
        (new,) = path.parent.glob(".keys.toml.*")
        written.append(new.read_text())
        assert path.read_text() == before

    monkeypatch.setattr("gateway.security.keys.os.fsync", sync)
    add(path, "bob", None)
    assert written == [path.read_text()]


@pytest.mark.parametrize("gone", [False, True], ids=["there", "gone"])
def test_a_disk_that_is_full_leaves_the_file_as_it_is(
    gone: bool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(path, "ada", None)
    before = path.read_bytes()

    def sync(_number: int) -> None:
        (new,) = path.parent.glob(".keys.toml.*")
        if gone:
            new.unlink()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("gateway.security.keys.os.fsync", sync)
    with pytest.raises(KeyFileError, match=r"keys\.toml: No space left on device$"):
        add(path, "bob", None)
    assert path.read_bytes() == before
    assert [*path.parent.iterdir()] == [path]


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


def test_who_is_its_owner_need_not_be_allowed_to_give_it_away(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(path, "ada", None)
    monkeypatch.delattr("gateway.security.keys.os.fchown")
    add(path, "bob", None)
    assert set(read(path)) == {"ada", "bob"}


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
    done = run(main, ["key", "add", "olga", "--file", str(path), "--operator"])
    operator = Keys(path, LIMITS).find(done.output.strip())
    assert operator is not None
    assert (operator.operator, known.operator) == (True, False)
    wrong = run(main, ["key", "add", "a b", "--file", str(path)])
    assert wrong.exit_code == 2
    assert "letters, digits" in wrong.output
