"""An accepted WebSocket without a queue, a task and a coroutine between it and its user."""

from collections.abc import Callable, Iterable
from typing import Protocol

LINK = "session-gateway.link"
"""The name of the ASGI extension that gives a `Link`."""


class Link(Protocol):
    """One client's WebSocket, as code sees it that is called for what comes."""

    @property
    def is_open(self) -> bool:
        """Whether it is not known to have ended."""
        ...

    @property
    def can_write(self) -> bool:
        """Whether it takes more now; `take_frames` says when it does again."""
        ...

    def take_frames(
        self,
        on_frame: Callable[[str | bytes], None],
        on_writable: Callable[[], None],
        on_end: Callable[[int], None],
    ) -> None:
        """Have frames handed over in place of ASGI's ``receive``, which then tells nothing more.

        The connection outlives the application's call, which is to return: what is needed for a
        handshake takes more memory than all else of an idle connection and its session.

        Args:
            on_frame: Takes each, at once for those that have come already. It does not raise.
            on_writable: Called when there is room to write again.
            on_end: Called once with the close code, when no frame comes any more.
        """
        ...

    def write_frames(self, frames: Iterable[str | bytes], *, text: bool) -> None:
        """Write frames, together where they are not large.

        Args:
            frames: Strings are text.
            text: Whether bytes are text too, in UTF-8.
        """
        ...

    def admit(self) -> None:
        """It is known who this is: what it sends counts among what the others do."""
        ...

    def finish(self) -> None:
        """It is about to be closed: a server that stops waits until it is."""
        ...

    def close(self, code: int, reason: str, on_answer: Callable[[], None] | None = None) -> None:
        """Close once what has been written is gone.

        Args:
            code: The close code.
            reason: Why, for people.
            on_answer: Called when the peer answers: it has then received all that was written. It
                may not be called, nor soon.
        """
        ...

    def abandon(self, code: int, reason: str) -> None:
        """Close without waiting for what is unsent."""
        ...
