"""Each test runs on both transports."""

import pytest

from tests.support import transports


@pytest.fixture(params=["lean", "aiobotocore"], autouse=True)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transport that is chosen unless a test says so."""
    monkeypatch.setattr(transports, "chosen", request.param)
