"""Times in the format that clients receive."""

from datetime import UTC, datetime


def rfc3339(seconds: float) -> str:
    """Format seconds since the epoch as RFC 3339, in UTC, to the second."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
