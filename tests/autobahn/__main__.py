"""The Autobahn test suite on a real gateway: ``python -m tests.autobahn [--short] [CASE …]``.

Its cases speak WebSocket's frames, right ones and wrong ones, and want their messages back. So the
gateway serves a raw route, whose container on the local SageMaker echoes; nothing is left out on
the way. The suite needs CPython 2.7, which is all that it runs on.
"""

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.autobahn import suite
from tests.autobahn.verdicts import Verdict, judge, remarks, table
from tests.support.processes import Process

REPORTS = Path(__file__).parents[2] / "artifacts" / "autobahn"

SLOW = ("9.3.*", "9.4.*", "9.5.*", "9.6.*", "9.7.*", "9.8.*", "12.*", "13.*")
"""What the short run leaves out: megabytes in small pieces, thousands of echoes, compression."""

MISSING = (
    "No CPython 2.7 was found, and the Autobahn test suite runs on nothing else: NONE OF ITS CASES "
    "WERE RUN. Put python2.7 on the path, install it with pyenv, or let AUTOBAHN_PYTHON name it."
)

CONFIG = """
[aws]
region = "us-east-1"
endpoint_url = "{url}"
[limits]  # the cases are one client's, and one after the other
messages_per_second = 86400
bytes_per_second = 1e9
[routes.echo]
endpoint_name = "my-endpoint"
session = "stateless"
"""

KEYS = ("AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local-secret")


@contextmanager
def started(log: Path, *command: str) -> Iterator[Process]:
    """One of the programs of the test, as a process; what it has written is logged in the end."""
    process = Process(command)
    try:
        yield process
    finally:
        process.stop()
        log.write_text(process.output)


@contextmanager
def echoing(folder: Path) -> Iterator[Process]:
    """A gateway that gives back what it is sent.

    Args:
        folder: For its configuration and the logs.
    """
    python, config = (sys.executable, "-m"), folder / "gateway.toml"
    echo = (*python, "tests.autobahn.echo")
    local = (*python, "gateway", "local", "--port", "0", "--container")
    serve = ("env", *KEYS, *python, "gateway", "serve", "--port", "0", "--config", str(config))
    with (
        started(folder / "container.log", *echo) as container,
        started(folder / "local.log", *local, container.url) as platform,
    ):
        config.write_text(CONFIG.format(url=platform.url))
        with started(folder / "gateway.log", *serve) as gateway:
            yield gateway


def main(cases: Sequence[str] = (), *, short: bool) -> int:
    """Run cases, and print what came of them; returns the exit code.

    Args:
        cases: Which ones, such as ``6.*``; all of them by default.
        short: Leave out what takes long, and everything where there is no Python 2.7.
    """
    python = suite.find_python()
    if python is None:
        print(MISSING)  # noqa: T201
        return int(not short)
    program = suite.install(python)
    shutil.rmtree(REPORTS, ignore_errors=True)
    REPORTS.mkdir(parents=True)
    with echoing(REPORTS) as gateway:
        url = f"{gateway.websocket}/ws"
        rows = suite.run(program, url, cases or ["*"], SLOW if short else (), REPORTS)
    judged = [judge(name, row) for name, row in rows.items()]
    print(table(judged), "", remarks(judged), sep="\n")  # noqa: T201
    print(f"\nreports: {REPORTS / 'index.html'}")  # noqa: T201
    return int(any(case.verdict is Verdict.FAILED for case in judged))


if __name__ == "__main__":
    try:
        given = sys.argv[1:]
        sys.exit(main([name for name in given if name != "--short"], short="--short" in given))
    except suite.SuiteError as error:
        sys.exit(str(error))
