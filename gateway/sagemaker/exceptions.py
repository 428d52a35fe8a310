"""The exceptions of calls to the platform.

.. code-block:: text

    CallError
    ├── NotSent                nothing of the request was sent
    │   ├── InvalidParameters  parameters that can't be sent
    │   ├── NoCredentials      no credentials to sign it with
    │   ├── NotSentInTime      the call timed out before it was sent
    │   └── ConnectError       no connection could be made
    │       ├── ConnectTimeout
    │       └── TlsError
    ├── ReplyTimeout           no reply in time, or it stalled
    ├── ConnectionLost         the connection broke
    ├── MalformedReply         the reply is not HTTP, or too large
    └── ReplyFailed            any error after the head of a successful reply

With `NotSent` the model has certainly not seen the call, with `ReplyFailed` it certainly has.
`gateway.sagemaker.errors` maps them to failures.
"""


class CallError(Exception):
    """A call has failed.

    Args:
        cause: The exception of the operating system or a library.
    """

    def __init__(self, cause: Exception | None = None) -> None:
        super().__init__()
        self.cause = cause


class NotSent(CallError):
    """Nothing of the request was sent."""


class InvalidParameters(NotSent):
    """A value is not printable ASCII, which a header requires, or the body is not bytes."""


class NoCredentials(NotSent):
    """There are no credentials to sign the request with."""


class NotSentInTime(NotSent):
    """The call timed out before the request was sent.

    It may have waited for credentials, the pool, or a connection.
    """


class ConnectError(NotSent):
    """No connection can be made: the name is unknown, or the host unreachable or refusing."""


class ConnectTimeout(ConnectError):
    """No connection was made in time."""


class TlsError(ConnectError):
    """The TLS handshake failed: the certificate is not trusted, or another host's."""


class ReplyTimeout(CallError):
    """The reply was not received in time, or stalled."""


class ConnectionLost(CallError):
    """The connection was reset, or closed before the reply was complete."""


class MalformedReply(CallError):
    """The server's reply is not HTTP/1.1, or its head is too large."""


class ReplyFailed(CallError):
    """A call failed after the head of a successful reply, so the model has seen it.

    Attributes:
        error: The underlying error.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error
