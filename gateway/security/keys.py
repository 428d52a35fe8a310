"""API keys: a file of names and the digests of their keys; the keys themselves are stored nowhere.

::

    [ada]
    sha256 = "0ab3…"          # of the key
    routes = ["chat"]         # routes it may use; all if absent
    messages_per_second = 50  # its own limits, if any
    operator = true           # may also use the paths under ``/v1/admin``

A key is 256 random bits. A fast digest is enough: unlike a password, such a key can't be guessed,
so a slow one would protect nothing.
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
"""Prefix of keys, which makes them recognisable where they have leaked."""

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NAMES = "a name has 1 to 64 letters, digits, `-` and `_`"


class KeyFileError(Exception):
    """The file of keys can't be used; the message names the file and the reason."""


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the file; see the module."""

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
    """Return the digest that a key is stored as."""
    return sha256(key.encode()).hexdigest()


def looks_like_a_key(token: str) -> bool:
    """Whether a token has the format of these keys."""
    return token.startswith(PREFIX)


class Keys:
    """The keys of a file.

    Args:
        path: The file.
        limits: Default limits, which an entry may override.

    Attributes:
        on_change: Called when the file has been reloaded.

    Raises:
        KeyFileError: The file can't be used.
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
        """Read the file again; on an error, the previous keys stay in use.

        Raises:
            KeyFileError: The file can't be used.
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
        """Return the principal of a key; None if the key is unknown."""
        # Looked up by digest, so the time this takes reveals nothing about the key.
        return self._principals.get(digest(key))

    def current(self, known: Principal) -> Principal | None:
        """Return what a principal's key stands for now; None if its name or routes have changed."""
        now = self._principals.get(known.key or "")
        if now is None or (now.name, now.routes) != (known.name, known.routes):
            return None
        return now


def _own(entry: Entry, limits: PrincipalLimits) -> PrincipalLimits | None:
    own = {name: getattr(entry, name) for name in PrincipalLimits.__struct_fields__}
    own = {name: value for name, value in own.items() if value is not None}
    return msgspec.structs.replace(limits, **own) if own else None


def read(path: Path) -> dict[str, Entry]:
    """Read the file's entries, by name.

    Raises:
        KeyFileError: The file can't be read, or is not valid.
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
    """Return the number of the line where a name's table begins; 1 if it is not found."""
    header = re.compile(rf"\s*\[?\s*[\"']?{re.escape(name)}[\"'\s\].=]")
    lines = enumerate(text.splitlines(), 1)
    return next((number for number, line in lines if header.match(line)), 1)


def _wrong(text: str) -> str:
    """Describe msgspec's error, without an unknown field's name: it may be an API key."""
    if text.startswith("Object contains unknown field"):
        return f"has an unknown key; known are {', '.join(Entry.__struct_fields__)}"
    return text


def add(path: Path, name: str, routes: Sequence[str] | None, *, operator: bool = False) -> str:
    """Add an entry to the file, which is created if it does not exist.

    Args:
        path: The file.
        name: Name of the key.
        routes: Routes it may use; None for all.
        operator: Whether its holder is an operator.

    Returns:
        The key. It is stored nowhere, and can't be recovered.

    Raises:
        KeyFileError: The name is taken or not valid, or the file can't be used.
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
    """Lock the file against concurrent additions; it is created if it does not exist."""
    while True:
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(number, fcntl.LOCK_EX)
            stat = os.fstat(number)
            if os.path.samestat(stat, path.stat()):  # else it was replaced in the meantime
                yield stat
                return
        finally:
            os.close(number)


def _replace(path: Path, text: str, before: os.stat_result) -> None:
    """Replace the file atomically, since a gateway may read it at any time, and keep its owner.

    Args:
        path: The file, or a symbolic link to it.
        text: Its new content.
        before: Its owner, group and mode.
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
