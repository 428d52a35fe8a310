"""The exceptions that the client raises.

::

    SessionError
    ├── ConnectionFailed    no session could be opened
    ├── SessionClosed       the session has ended; nothing more can be sent
    ├── MessageFailed       a message was refused, or its turn failed or has an unknown result
    └── ReplyTooLarge       a reply is larger than the client keeps
"""

from gateway.errors import ErrorCode, Outcome


class SessionError(Exception):
    """Base class of the errors that the gateway, the model or the network cause.

    Invalid arguments raise `ValueError` or `TypeError`.
    """


class ConnectionFailed(SessionError):
    """No session could be opened.

    Attributes:
        code: The WebSocket close code; None if the gateway sent none.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class SessionClosed(SessionError):
    """The session has ended. To continue, open another.

    Attributes:
        code: The close code of the last connection; None if it was lost or never made.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class MessageFailed(SessionError):
    """A message was refused, or its turn failed, or its result can't be determined.

    Attributes:
        code: The error code.
        outcome: Whether the model saw the message: ``not_invoked``, ``unknown`` or ``invoked``.
        retryable: Whether the same message may succeed if it is sent again. Never true if the
            model may have seen it.
        retry_after: Seconds to wait before sending it again; None if not known.
    """

    def __init__(
        self,
        message: str,
        *,
        code: ErrorCode,
        outcome: Outcome,
        retryable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.outcome = outcome
        self.retryable = retryable and outcome is Outcome.NOT_INVOKED
        self.retry_after = retry_after


class ReplyTooLarge(SessionError):
    """A reply is larger than ``max_reply_bytes``, and the client cancelled its turn.

    To receive replies of any size, iterate over the turn.
    """
