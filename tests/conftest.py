"""For all tests: none may be skipped, and AWS's own settings of the machine change nothing.

What Hypothesis tries is the same on every run, so that a failure is the change's; `make long` tries
more of it, and `make search` and `make fuzz` other things.
"""

import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support import npm
from tests.support.botodata import share_data
from tests.support.tables import check_tables
from tests.support.timing import UNIT

settings.register_profile("test", max_examples=100, deadline=None, derandomize=True)
settings.register_profile("long", max_examples=400, deadline=None, derandomize=True)
settings.register_profile("mutants", max_examples=30, deadline=None, derandomize=True)
settings.register_profile("search", max_examples=20_000, deadline=None, print_blob=True)
settings.register_profile(
    "fuzz", max_examples=int(os.environ.get("FUZZ_INPUTS", "200")), deadline=None, print_blob=True
)
settings.load_profile("test")

check_tables()
share_data()

# What a shell starts in the background ignores it, and so would the programs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    """Measured before there are workers, who would measure each other."""
    return f"time-outs: multiples of {UNIT:g} s"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skipped test tests nothing; what it needs is to be installed instead."""
    report = yield
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, which no test may be: {item.nodeid}"
    return report


@pytest.fixture(
    scope="module", params=["lean", pytest.param("aiobotocore", marks=pytest.mark.long)]
)
def transport(request: pytest.FixtureRequest) -> str:
    """The gateway's way to the platform: a test that asks for it, or for a gateway, runs with each.

    With the second in the long run only, but for the contract that both fulfil and for ordinary
    conversations. Tests in a browser are left out, see ``tests/browser/conftest.py``.
    """
    chosen: str = request.param
    return chosen


@pytest.fixture(scope="session", autouse=True)
def aws_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The keys of the local server, and no other; and what crashes says where."""
    nowhere = str(tmp_path_factory.getbasetemp() / "no-such-file")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_REGION"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_CONFIG_FILE", nowhere)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", nowhere)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_ACCESS_KEY_ID", "local")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "local-secret")
        patch.setenv("PYTHONFAULTHANDLER", "1")
        yield


@pytest.fixture(scope="session")
def npm_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The JavaScript client, packed and installed: see `tests.support.npm.packed`."""
    return npm.packed(tmp_path_factory)
