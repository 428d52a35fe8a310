"""Times as clients are given them."""

import time

import pytest

from gateway.session.dates import rfc3339


def test_they_are_in_utc_wherever_the_gateway_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        with monkeypatch.context() as patch:
            patch.setenv("TZ", "Asia/Tokyo")
            time.tzset()
            assert rfc3339(1_800_000_000.9) == "2027-01-15T08:00:00Z"
    finally:
        time.tzset()
