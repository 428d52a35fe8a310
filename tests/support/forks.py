"""Starts ``session-gateway`` without its imports, which take most of the time of a test's start.

A process that has imported what the commands need, and read botocore's data, forks for each; what
runs then is the program, from its arguments to its exit code. That it starts by itself is for the
tests of the command line and of the package to show.
"""

import atexit
import contextlib
import faulthandler
import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MAX_REQUEST = 2**20
PID_BYTES = 4
EXIT_CODE_BYTES = 4


class Fork:
    """A program that was started so, with the parts of `subprocess.Popen` that tests use.

    Args:
        arguments: Of the command line.
        cwd: Where it runs.
    """

    def __init__(self, arguments: Sequence[str], cwd: Path | None = None) -> None:
        self.returncode: int | None = None
        output, theirs = os.pipe()
        self.stdout = os.fdopen(output)
        self._status, status = socket.socketpair()
        request = {"arguments": list(arguments), "cwd": str(cwd or Path.cwd())}
        with status:
            body = json.dumps({**request, "environment": dict(os.environ)}).encode()
            socket.send_fds(_server(), [body], [theirs, status.fileno()])
        os.close(theirs)
        self.pid = int.from_bytes(self._status.recv(PID_BYTES))

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        with contextlib.suppress(TimeoutError):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Wait for its exit code.

        Raises:
            TimeoutError: It runs still.
        """
        if self.returncode is None:
            self._status.settimeout(timeout)
            try:
                code = self._status.recv(EXIT_CODE_BYTES)
            except BlockingIOError:
                raise TimeoutError from None
            self._status.close()
            self.returncode = int.from_bytes(code, signed=True)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            # It may have ended since, and its parent, which is another process, have seen it.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


@cache
def _server() -> socket.socket:
    """The way to the process that forks, which ends when this one does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.forks", str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # so that it buffers what it writes, as into a pipe
        cwd=ROOT,
    )
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _serve(requests: socket.socket) -> dict[str, Any]:
    """Fork for each request; returns in the child alone, with what was asked for."""
    running: dict[int, tuple[int, socket.socket]] = {}
    with requests, selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd in running:
                    pid, status = running.pop(key.fd)
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    with status, contextlib.suppress(BrokenPipeError):
                        status.send(code.to_bytes(EXIT_CODE_BYTES, signed=True))
                    continue
                body, fds, _, _ = socket.recv_fds(requests, MAX_REQUEST, 2)
                if not body:
                    sys.exit()  # nobody is left to ask
                pid = os.fork()
                if pid == 0:
                    os.dup2(fds[0], 1)
                    os.dup2(fds[0], 2)
                    for fd in (
                        *fds,
                        *running,
                        *(status.detach() for _, status in running.values()),
                    ):
                        os.close(fd)
                    request: dict[str, Any] = json.loads(body)
                    return request
                os.close(fds[0])
                status = socket.socket(fileno=fds[1])
                status.send(pid.to_bytes(PID_BYTES))
                ended = os.pidfd_open(pid)
                running[ended] = pid, status
                selector.register(ended, selectors.EVENT_READ)


def _run() -> None:
    """Be the server; and in its children, the program."""
    from gateway import serving  # noqa: F401, PLC0415 - what takes its time
    from gateway.cli import main  # noqa: PLC0415
    from gateway.local import server  # noqa: F401, PLC0415
    from tests.support.botodata import read_data, share_data  # noqa: PLC0415
    from tests.support.tables import check_tables  # noqa: PLC0415

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C for the tests is not for this
    check_tables()
    share_data()
    read_data()
    gc.freeze()
    request = _serve(socket.socket(fileno=int(sys.argv[1])))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    faulthandler.enable()  # of one that does not end, SIGABRT shows where it is
    main(request["arguments"], prog_name="session-gateway")


if __name__ == "__main__":
    _run()
