"""API keys: a file of names and of what recognises each one's key, which is in no file at all.

::

    [ada]
    sha256 = "0ab3…"          # of the key
    routes = ["chat"]         # those it may use; all where absent
    messages_per_second = 50  # limits of its own, where it has any
    operator = true           # it may also use the paths under ``/v1/admin``

A key is 256 random bits. A fast digest is enough for those: there is nothing to be guessed that
slowness would protect, as there is with passwords.
"""

import contextlib
import fcntl
import json
import os
import re
import secrets
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from gateway.security.principals import Principal, PrincipalLimits

PREFIX = "sgk_"
"""How keys begin, so that they are recognised where they should not be."""

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NAMES = "a name has 1 to 64 letters, digits, `-` and `_`"


class KeyFileError(Exception):
    """The file of keys can't be used; the text names it, and says why."""


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the file; see this module."""

    sha256: str
    routes: list[str] | None = None
    connections: int | None = None
    sessions: int | None = None
    messages_per_second: float | None = None
    bytes_per_second: float | None = None
    operator: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError("`sha256` is no digest")
        for limit in PrincipalLimits.__struct_fields__:
            value = getattr(self, limit)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"`{limit}` must be more than 0")


def digest(key: str) -> str:
    """What recognises a key."""
    return sha256(key.encode()).hexdigest()


def looks_like_a_key(token: str) -> bool:
    """Whether a token claims to be a key of this kind, and not one of another."""
    return token.startswith(PREFIX)


class Keys:
    """The keys of a file.

    Args:
        path: The file.
        limits: Of everybody; an entry may differ.

    Attributes:
        on_change: Called when it has been read again.

    Raises:
        KeyFileError: It can't be read.
    """

    def __init__(self, path: Path, limits: PrincipalLimits) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self._path = path
        self._limits = limits
        self._principals: Mapping[str, Principal] = {}
        self.reload()

    def __len__(self) -> int:
        return len(self._principals)

    def reload(self) -> None:
        """Read the file again. Where it can't be used, what was read before stays.

        Raises:
            KeyFileError: It can't be read.
        """
        entries = read(self._path)
        self._principals = {
            entry.sha256: Principal(
                name=f"key:{name}",
                routes=None if entry.routes is None else frozenset(entry.routes),
                limits=_own(entry, self._limits),
                key=entry.sha256,
                operator=entry.operator,
            )
            for name, entry in entries.items()
        }
        self.on_change()

    def find(self, key: str) -> Principal | None:
        """Whose key this is; None where it is nobody's."""
        # By its digest: how long that takes says nothing of the key.
        return self._principals.get(digest(key))

    def current(self, known: Principal) -> Principal | None:
        """What a key that was shown stands for now; None where its name or routes are others."""
        now = self._principals.get(known.key or "")
        if now is None or (now.name, now.routes) != (known.name, known.routes):
            return None
        return now


def _own(entry: Entry, limits: PrincipalLimits) -> PrincipalLimits | None:
    own = {name: getattr(entry, name) for name in PrincipalLimits.__struct_fields__}
    own = {name: value for name, value in own.items() if value is not None}
    return msgspec.structs.replace(limits, **own) if own else None


def read(path: Path) -> dict[str, Entry]:
    """What is in the file, by name.

    Raises:
        KeyFileError: It can't be read, or has something wrong in it.
    """
    text = ""
    try:
        text = path.read_text(encoding="utf-8")
        tables: dict[str, Any] = tomllib.loads(text)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise KeyFileError(_not_toml(path, text, str(error))) from None
    entries: dict[str, Entry] = {}
    seen: dict[str, str] = {}
    for name, table in tables.items():
        place = f"{path}:{_line(text, name)}"
        if not NAME.fullmatch(name) or looks_like_a_key(name):
            raise KeyFileError(f"{place}: {_NAMES}, and is no key")
        try:
            entry = entries[name] = msgspec.convert(table, Entry)
        except msgspec.ValidationError as error:
            raise KeyFileError(f"{place}: [{name}]: {_wrong(str(error))}") from None
        if entry.sha256 in seen:
            raise KeyFileError(f"{place}: [{name}] and [{seen[entry.sha256]}] have the same key")
        seen[entry.sha256] = name
    return entries


def _not_toml(path: Path, text: str, why: str) -> str:
    place = re.fullmatch(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", why, re.DOTALL)
    if place is None:
        return f"{path}: not TOML"
    what = "a key is in the wrong place" if PREFIX in place[1] else place[1]
    return f"{path}:{place[2] or len(text.splitlines())}: not TOML: {what}"


def _line(text: str, name: str) -> int:
    """The number of the line that a name's table begins in; of the first where it is not found."""
    header = re.compile(rf"\s*\[?\s*[\"']?{re.escape(name)}[\"'\s\].=]")
    lines = enumerate(text.splitlines(), 1)
    return next((number for number, line in lines if header.match(line)), 1)


def _wrong(text: str) -> str:
    """What msgspec says of an entry; but a key that there is none of may be one to come in with."""
    if text.startswith("Object contains unknown field"):
        return f"has an unknown key; known are {', '.join(Entry.__struct_fields__)}"
    return text


def add(path: Path, name: str, routes: Sequence[str] | None, *, operator: bool = False) -> str:
    """Add a name to the file, which is made where there is none; returns its key.

    The key is in no file, and can't be had again.

    Args:
        path: The file.
        name: Whose key it is.
        routes: Those it may use; None for all.
        operator: Whether it is an operator's.

    Raises:
        KeyFileError: The name is taken or is none, or the file can't be used.
    """
    if not NAME.fullmatch(name) or looks_like_a_key(name):
        raise KeyFileError(f"{_NAMES}, and is no key")
    key = PREFIX + secrets.token_urlsafe(32)
    try:
        with _locked(path) as before:
            if name in read(path):
                raise KeyFileError(
                    f"{path}: there is a key of {name} already; to replace it, remove its table "
                    "first"
                )
            text = path.read_text(encoding="utf-8").rstrip("\n")
            if text:
                text += "\n\n"
            text += f'[{name}]\nsha256 = "{digest(key)}"\n'
            if routes is not None:
                text += f"routes = {json.dumps(list(routes))}\n"
            if operator:
                text += "operator = true\n"
            _replace(path, text, before)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from None
    return key


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[os.stat_result]:
    """Wait until nobody else adds to the file, which is made where there is none."""
    while True:
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(number, fcntl.LOCK_EX)
            stat = os.fstat(number)
            if os.path.samestat(stat, path.stat()):  # or else it was replaced meanwhile
                yield stat
                return
        finally:
            os.close(number)


def _replace(path: Path, text: str, before: os.stat_result) -> None:
    """All of it or nothing, since a gateway may read the file at any moment; it stays its owner's.

    Args:
        path: The file, or a link to it.
        text: What is to be in it.
        before: Whose it is, and who may read it.
    """
    target = Path(os.path.realpath(path))
    number, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with open(number, "w", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
            file.write(text)
            file.flush()
            own = os.fstat(number)
            if (own.st_uid, own.st_gid) != (before.st_uid, before.st_gid):
                try:
                    os.fchown(number, before.st_uid, before.st_gid)
                except PermissionError:
                    text = "its owner and group can't be kept; run this as its owner, or as root"
                    raise KeyFileError(f"{path}: {text}") from None
            os.fchmod(number, before.st_mode & 0o777)
            os.fsync(number)
        Path(temporary).replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
