"""Each test runs on both transports."""

import pytest

from tests.support import transports


@pytest.fixture(scope="module", params=transports.BOTH)
def transport(request: pytest.FixtureRequest) -> str:
    """Both, in every run."""
    each: str = request.param
    return each


@pytest.fixture(autouse=True)
def chosen(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transport that is chosen unless a test says so."""
    monkeypatch.setattr(transports, "chosen", transport)
