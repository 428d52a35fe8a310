"""What a route says of its asynchronous calls: a module of its own, which is quick to import."""

from gateway.protocol.discretion import Discreet

ID_CHARACTERS = 31
"""The longest inference id that may be given: of the platform's 64, 33 are the gateway's."""


INLINE_BYTES = 128_000
"""The largest input that a call itself can carry."""


LATE_SECONDS = 60.0
"""How much later than it may a reply is still waited for: clocks differ, and it has to be written.
"""


class AsyncOptions(Discreet, frozen=True, kw_only=True):
    """What a route says of its asynchronous calls. Times are in seconds.

    Attributes:
        request_ttl_seconds: How long a call may wait for an instance.
        invocation_timeout_seconds: How long the model may then work on it.
        input_location: Where inputs are put, ``s3://BUCKET/PREFIX/``; None for inline ones.
        s3_output_path_extension: Where below its own path the endpoint puts outputs, with ``$id``
            and ``$session`` in it; None for nowhere else.
        filename: What outputs are called, with ``$id`` in it; None for what the platform calls
            them.
        notification_queue_url: The queue of the endpoint's notices; None for none.
        poll_seconds: How long after the first look for a reply the second is; it doubles.
        poll_max_seconds: The longest time between two.
        max_turns_awaited: How many turns may be submitted or waited for; further ones are turned
            away, but for those of other processes.
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
