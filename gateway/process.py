"""Signals and listening sockets of a gateway process."""

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Callable
from typing import Self

_ADVICE = {
    errno.EADDRINUSE: ". Stop what listens there, or choose another with {} (0: any free)",
    errno.EACCES: ". Choose one from 1024 on with {} (0: any free)",
}

BACKLOG = 65_535
"""Maximum of pending connections: as many as the system allows, since all connections of a failed
replica arrive at once.
"""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Handles SIGINT, SIGTERM and SIGHUP for as long as the context lasts.

    Attributes:
        received: Whether SIGINT or SIGTERM was received.
        handle: Called for each of these two.
        reload: Called for SIGHUP.
    """

    def __init__(self, handle: Callable[[], None] = lambda: None) -> None:
        self.received = False
        self.handle = handle
        self.reload: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self.hang_up)
        return self

    def __exit__(self, *_: object) -> None:
        for number in (*_SIGNALS, signal.SIGHUP):
            asyncio.get_running_loop().remove_signal_handler(number)

    def hang_up(self) -> None:
        """Handle SIGHUP."""
        self.reload()

    def stop(self) -> None:
        """Handle SIGINT and SIGTERM."""
        self.received = True
        self.handle()


def listen(host: str, port: int, setting: str = "--port") -> socket.socket:
    """Open a listening socket.

    Args:
        host: Host name or address.
        port: The port; 0 for any free one.
        setting: The option that sets the port, for error messages.

    Raises:
        OSError: The address can't be listened on; the message says why, and what to do.
    """
    family, address = _resolved(host, port)
    try:
        return socket.create_server(address, family=family, backlog=BACKLOG)
    except OSError as error:
        raise _refused(host, port, error, setting) from None


def share(host: str, port: int) -> socket.socket:
    """Bind a socket to a port that other processes of this user may share; it does not listen yet.

    Raises:
        OSError: See `listen`.
    """
    family, address = _resolved(host, port)
    shared = socket.socket(family)
    try:
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:  # as `socket.create_server` does
            shared.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        shared.bind(address)
    except OSError as error:
        shared.close()
        raise _refused(host, port, error) from None
    return shared


def _resolved(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return family, (str(address[0]), port)


def _refused(host: str, port: int, error: OSError, setting: str = "--port") -> OSError:
    number = error.errno or 0
    text = f"can't listen on {host}, port {port}: {os.strerror(number)}"
    return OSError(number, text + _ADVICE.get(number, "").format(setting))
