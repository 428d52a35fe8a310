"""A route's options for asynchronous calls; a separate module, since it is quick to import."""

from gateway.protocol.discretion import Discreet

ID_CHARACTERS = 31
"""The longest inference id that may be set: of the platform's 64 characters, 33 are added here."""


INLINE_BYTES = 128_000
"""The largest input in a call's body."""


LATE_SECONDS = 60.0
"""How long after its deadline a reply is still awaited, for clock skew and the time to write it."""


class AsyncOptions(Discreet, frozen=True, kw_only=True):
    """A route's options for asynchronous calls. Times are in seconds.

    Attributes:
        request_ttl_seconds: How long a call may wait for an instance.
        invocation_timeout_seconds: How long the model may then work on it.
        input_location: Where inputs are put, ``s3://BUCKET/PREFIX/``; None for inline ones.
        s3_output_path_extension: A path below the endpoint's output path, which can contain
            ``$id`` and ``$session``; None for no further path.
        filename: The name of outputs, which can contain ``$id``; None for the platform's default.
        notification_queue_url: The queue of the endpoint's notices; None for none.
        poll_seconds: The interval from the first poll for a reply to the second; it doubles.
        poll_max_seconds: The longest interval.
        max_turns_awaited: How many turns may be submitted or awaited; further ones are rejected,
            except those that another process has submitted.
    """

    request_ttl_seconds: int = 21_600
    invocation_timeout_seconds: int = 900
    input_location: str | None = None
    s3_output_path_extension: str | None = None
    filename: str | None = None
    notification_queue_url: str | None = None
    poll_seconds: float = 1.0
    poll_max_seconds: float = 20.0
    max_turns_awaited: int = 1000
