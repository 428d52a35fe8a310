"""What each process of the gateway has of the system: its signals, and its listening socket."""

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
"""How many connections may wait to be taken: as many as the system allows, as all come at once that
another replica had.
"""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """SIGINT and SIGTERM, and SIGHUP, for as long as this context lasts.

    Attributes:
        received: Whether there has been one of the first two.
        handle: Called for each of those.
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
        """Do what SIGHUP does."""
        self.reload()

    def stop(self) -> None:
        """Do what SIGINT and SIGTERM do."""
        self.received = True
        self.handle()


def listen(host: str, port: int, setting: str = "--port") -> socket.socket:
    """A listening socket; port 0 takes any that is free.

    Args:
        host: Where.
        port: On which.
        setting: What says so, for people.

    Raises:
        OSError: It can't be had; the text says where, why, and what to do.
    """
    family, address = _resolved(host, port)
    try:
        return socket.create_server(address, family=family, backlog=BACKLOG)
    except OSError as error:
        raise _refused(host, port, error, setting) from None


def share(host: str, port: int) -> socket.socket:
    """A socket on a port that other processes of this user have too; it does not listen yet.

    Raises:
        OSError: See `listen`.
    """
    family, address = _resolved(host, port)
    shared = socket.socket(family)
    try:
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:  # as `socket.create_server` has it
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
