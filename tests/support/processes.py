"""The real programs as processes: the gateway, the local SageMaker, whatever serves HTTP."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from math import ceil
from pathlib import Path
from typing import Any

import httpx

from tests.support import secrets
from tests.support.forks import Fork
from tests.support.timing import UNIT

MARGIN = 30
"""How many seconds before a container ends a session a gateway leaves it: no call takes as long."""

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local-secret",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
"""Credentials for nobody, and none of this machine's settings."""

ADDRESS = re.compile(r"(?i:listening|running) (?:on|at:) (https?://\S+?:\d+)")


class Process:
    """A program that says where it listens, and all that it has written."""

    def __init__(self, command: Sequence[str], cwd: Path | None = None) -> None:
        self.popen = self._start(command, cwd)
        self.lines: list[str] = []
        self.url = ""
        self._found = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        if not self._found.wait(30 * UNIT) or not self.url:
            self.popen.kill()
            raise AssertionError(f"{command} did not start:\n{self.output}")

    def _start(self, command: Sequence[str], cwd: Path | None) -> Fork | subprocess.Popen[str]:
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=cwd
        )

    def _read(self) -> None:
        assert self.popen.stdout is not None
        with self.popen.stdout as output:
            for line in output:
                self.lines.append(line)
                match = ADDRESS.search(line)
                if match and not self.url:
                    self.url = match[1]
                    self._found.set()
        self._found.set()

    @property
    def output(self) -> str:
        """Everything that it has written."""
        return "".join(self.lines)

    async def says(self, text: str, times: int = 1) -> None:
        """Wait until it has written that so often."""
        async with asyncio.timeout(20 * UNIT):
            while self.output.count(text) < times:  # noqa: ASYNC110 - a thread reads it
                await asyncio.sleep(0.01)

    async def hang_up(self, text: str) -> None:
        """Have it read its files again, and wait for what it says of that."""
        before = self.output.count(text)
        self.popen.send_signal(signal.SIGHUP)
        await self.says(text, before + 1)

    @property
    def websocket(self) -> str:
        """The address for WebSockets."""
        return self.url.replace("http", "ws", 1)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop; returns its exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(how)
        try:
            return self.wait()
        finally:
            self.popen.kill()

    def wait(self) -> int:
        """Wait for its end; returns its exit code.

        Raises:
            AssertionError: It does not end, or has written a secret.
        """
        try:
            code = self.popen.wait(30 * UNIT)
        except (TimeoutError, subprocess.TimeoutExpired):
            self.popen.send_signal(signal.SIGABRT)  # the commands say then where they are
            self.popen.wait(30 * UNIT)
            self._reader.join()
            raise AssertionError(f"It does not end:\n{self.output}") from None
        self._reader.join()
        secrets.check(self.output)
        return code


def lifetime(seconds: float) -> str:
    """How many seconds a container gives a session that the gateway uses for so many units."""
    return str(MARGIN + 1 + ceil(seconds * UNIT))


class Container(Process):
    """A stateful container, as `tests.support.container` is one.

    Args:
        folder: Of its own, for sessions.
        module: Of `tests.support`, to run.
        port: To listen on; 0 takes a free one.
        variables: Of its environment.
    """

    def __init__(
        self, folder: Path, *, module: str = "container", port: str = "0", **variables: str
    ) -> None:
        folder.mkdir()
        environment = {
            "SAGEMAKER_ENABLE_STATEFUL_SESSIONS": "true",
            "SAGEMAKER_SESSIONS_PATH": str(folder),
            "SAGEMAKER_CONTAINER_LOG_LEVEL": "INFO",
            **variables,
        }
        pairs = [f"{name}={value}" for name, value in environment.items()]
        super().__init__(["env", *pairs, sys.executable, "-m", f"tests.support.{module}", port])


class Forgetful(Container):
    """A container that keeps sessions and remembers nothing of them, `tests.support.forgetful`.

    Args:
        folder: Of its own, for sessions.
        module: Of `tests.support`, to run: that one, or `toolbox`, which calls functions too.
        port: To listen on; 0 takes a free one.
        variables: Of its environment.
    """

    def __init__(
        self, folder: Path, *, module: str = "forgetful", port: str = "0", **variables: str
    ) -> None:
        super().__init__(folder, module=module, port=port, **variables)

    def received(self) -> list[Any]:
        """Every turn that has reached it, in order: ``{"session", "body"}``."""
        response = httpx.get(f"{self.url}/requests", verify=False, timeout=20 * UNIT)
        response.raise_for_status()
        turns: list[Any] = response.json()
        return turns


class Command(Process):
    """``session-gateway`` with these arguments."""

    def _start(self, command: Sequence[str], cwd: Path | None) -> Fork:
        return Fork(command, cwd)


@contextmanager
def command(*arguments: str, cwd: Path | None = None) -> Iterator[Process]:
    """``session-gateway`` with these arguments."""
    process = Command(arguments, cwd)
    try:
        yield process
    finally:
        process.stop()


@contextmanager
def local(*arguments: str) -> Iterator[Process]:
    """``session-gateway local``."""
    with command("local", "--port", "0", *arguments) as process:
        yield process


@contextmanager
def gateway(config: Path, *arguments: str) -> Iterator[Process]:
    """``session-gateway serve``."""
    with command("serve", "--config", str(config), "--port", "0", *arguments) as process:
        yield process


@asynccontextmanager
async def aside(program: AbstractContextManager[Process]) -> AsyncIterator[Process]:
    """The same, with the test's own servers at work while it starts and stops."""
    process = await asyncio.to_thread(program.__enter__)
    try:
        yield process
    finally:
        await asyncio.to_thread(program.__exit__, None, None, None)


def admin(process: Process, path: str = "", **fault: object) -> Any:
    """Call the admin side of a local SageMaker: its state, or what is to go wrong."""
    url = f"{process.url}/_local/my-endpoint{path}"
    # Nothing is verified on plain HTTP, but the certificates for it would be loaded each time.
    response = (
        httpx.post(url, json=fault, verify=False, timeout=20 * UNIT)
        if path
        else httpx.get(url, verify=False, timeout=20 * UNIT)
    )
    response.raise_for_status()
    return response.json() if response.content else None
