"""What goes wrong with a call on its way to the platform and back.

.. code-block:: text

    CallError
    ├── NotSent                the server has seen nothing of the request
    │   ├── InvalidParameters  they can't be sent as they are
    │   ├── NoCredentials      there are none to sign it with
    │   ├── NotSentInTime      the call's time was over before
    │   └── ConnectError       no connection can be made
    │       ├── ConnectTimeout
    │       └── TlsError
    ├── ReplyTimeout           no reply in time, or it fell silent
    ├── ConnectionLost         the connection broke
    ├── MalformedReply         what came is no HTTP, or larger than it may be
    └── ReplyFailed            any of these, or another, after the head of a good reply

Only `NotSent` is certain not to have reached the model, and only `ReplyFailed` is certain to have.
`gateway.sagemaker.errors` says what each means to a client.
"""


class CallError(Exception):
    """A call has failed.

    Args:
        cause: What the operating system or a library has raised.
    """

    def __init__(self, cause: Exception | None = None) -> None:
        super().__init__()
        self.cause = cause


class NotSent(CallError):
    """Nothing of the request was sent."""


class InvalidParameters(NotSent):
    """A header can't carry them: it holds nothing but printable ASCII; or the body is no bytes."""


class NoCredentials(NotSent):
    """There are no credentials to sign the request with."""


class NotSentInTime(NotSent):
    """The call's time was over before the request was sent.

    It may have waited for credentials, for a place in the pool, or for a connection.
    """


class ConnectError(NotSent):
    """No connection can be made: the name is unknown, or the host refuses or is not there."""


class ConnectTimeout(ConnectError):
    """No connection was made in time."""


class TlsError(ConnectError):
    """TLS can't be agreed on: the certificate is not trusted, or is another host's."""


class ReplyTimeout(CallError):
    """The reply has not come in time, or fell silent."""


class ConnectionLost(CallError):
    """The connection was reset, or closed before the reply was whole."""


class MalformedReply(CallError):
    """What the server has sent is no HTTP/1.1, or its head is larger than it may be."""


class ReplyFailed(CallError):
    """A call failed after the head of a good reply, when the model had seen it.

    Attributes:
        error: What happened.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error
