"""The exception with which code that serves a connection closes it."""

from gateway.errors import CloseCode


class CloseWith(Exception):
    """Close the connection once its unsent data has been sent."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
