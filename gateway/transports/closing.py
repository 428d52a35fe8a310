"""How code that serves a connection ends it."""

from gateway.errors import CloseCode


class CloseWith(Exception):
    """The connection is to be closed, once what waits for it has been sent."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
