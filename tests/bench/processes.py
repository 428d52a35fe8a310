"""The bench's processes: started, kept to their core, driven, measured and stopped."""

import os
import re
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import msgspec

from tests.bench import driver

ADDRESS = re.compile(rb"(?<=listening on )https?://\S+")
START_SECONDS = 60.0
CORES = sorted(os.sched_getaffinity(0))
MEASURED = {CORES[0]}
"""What is measured has a core of its own, where there are two."""
REST = set(CORES[1:]) or MEASURED
"""The core of what sends and what answers."""

CERTIFICATE = Path(__file__).parents[1] / "contract" / "localhost.pem"
"""What ``upstream.py`` shows where it is called over TLS; its own authority."""

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CA_BUNDLE": str(CERTIFICATE),
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
"""Credentials for nobody, trust in `CERTIFICATE`, and none of this machine's settings."""


class Failed(Exception):
    """A process did not do what it was started for; the text says what it has said."""


class Process:
    """A Python module as a process. A context, which ends it.

    Args:
        command: The module and its arguments.
        cores: Where it may run.
        environment: Beside `ENVIRONMENT`.
        python: The interpreter.
        log: Where its standard error goes.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cores: set[int],
        log: Path,
        environment: dict[str, str] | None = None,
        python: str = sys.executable,
    ) -> None:
        self._command = command
        self._log = log
        inherited = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("AWS_", "COVERAGE_", "GATEWAY_"))
        }
        with log.open("wb") as errors:
            self._popen = subprocess.Popen(
                [python, "-m", *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                env=inherited | ENVIRONMENT | (environment or {}),
            )
        self.pid = self._popen.pid
        os.sched_setaffinity(self.pid, cores)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # What it would still do on its way out is of no interest.
        self._popen.kill()
        self._popen.communicate()

    def url(self) -> str:
        """Where it listens, once it says so."""
        match = ADDRESS.search(self._line(START_SECONDS))
        if match is None:
            raise self._failed("said something else")
        return match[0].decode()

    def connect(self, clients: int) -> None:
        """See `driver.Connect`."""
        self.command_it(driver.Connect(clients))

    def run(self, run: driver.Run) -> driver.Result:
        """See `driver.Run`."""
        return msgspec.json.decode(self.command_it(run), type=driver.Result)

    def command_it(self, command: msgspec.Struct) -> bytes:
        """Have that done; what it answers."""
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.write(msgspec.json.encode(command) + b"\n")
        except BrokenPipeError:
            raise self._failed("has ended") from None
        return self._line(300 + 10 * getattr(command, "seconds", 0))

    def _line(self, seconds: float) -> bytes:
        assert self._popen.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._popen.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                raise self._failed(f"said nothing in {seconds:.0f} s")
        line = self._popen.stdout.readline()
        if not line:
            raise self._failed("has ended")
        return line

    def _failed(self, what: str) -> Failed:
        said = self._log.read_text(errors="replace")[-2000:]
        return Failed(f"{' '.join(self._command)} {what}\n{said}")

    def cpu(self) -> float:
        """CPU time so far, user and system, of all its threads, in seconds."""
        # clock_getcpuclockid(3): /proc/PID/stat says the same in hundredths of a second.
        return time.clock_gettime(~self.pid << 3 | 2)

    def memory(self) -> int:
        """Resident set, in bytes."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
