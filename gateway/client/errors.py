"""What can go wrong for a user of the client.

::

    SessionError
    ├── ConnectionFailed    no session could be opened
    ├── SessionClosed       the session is over, and so are sends
    ├── MessageFailed       this message was refused, failed, or nobody knows what became of it
    └── ReplyTooLarge       this reply is larger than the client holds
"""

from gateway.errors import ErrorCode, Outcome


class SessionError(Exception):
    """Base of all that the client raises for what the gateway, the model or the network did.

    A wrong argument raises `ValueError` or `TypeError`, as everywhere.
    """


class ConnectionFailed(SessionError):
    """No session could be opened.

    Attributes:
        code: The close code of the gateway's answer; None where there was none.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class SessionClosed(SessionError):
    """The session is over; open another.

    Attributes:
        code: The close code of the last connection; None where it was lost, or never was.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class MessageFailed(SessionError):
    """A message was refused, or its turn failed, or nobody can know any more what became of it.

    Attributes:
        code: What went wrong.
        outcome: Whether the model saw the message.
        retryable: Whether the same message may succeed when sent again; never true where the
            model may have seen it.
        retry_after: Seconds to wait before that; None where it was not said.
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
    """A reply is larger than ``max_reply_bytes``; its turn has been cancelled at the gateway.

    Iterate over a turn to take a reply of any size.
    """
