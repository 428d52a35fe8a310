"""Times as clients are given them."""

from datetime import UTC, datetime


def rfc3339(seconds: float) -> str:
    """A time in seconds since the epoch as RFC 3339 has it, in UTC, to the second."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
