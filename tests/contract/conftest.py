"""Each test runs on both transports."""

import pytest

from tests.support import transports


@pytest.fixture(autouse=True)
def chosen(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transport that is chosen unless a test says so."""
    monkeypatch.setattr(transports, "chosen", transport)
