"""An accepted WebSocket with callbacks, without a queue, task or coroutine in between."""

from collections.abc import Callable, Iterable
from typing import Protocol

LINK = "session-gateway.link"
"""Name of the ASGI extension that provides a `Link`."""


class Link(Protocol):
    """One client's WebSocket, for code that is called when frames arrive."""

    @property
    def is_open(self) -> bool:
        """Whether the connection is not known to have ended."""
        ...

    @property
    def can_write(self) -> bool:
        """Whether there is room for more; `take_frames` has a callback for when there is again."""
        ...

    def take_frames(
        self,
        on_frame: Callable[[str | bytes], None],
        on_writable: Callable[[], None],
        on_end: Callable[[int], None],
    ) -> None:
        """Receive frames by callback; ASGI's ``receive`` returns nothing more from then on.

        The connection outlives the application's call, which should return: the state of a
        handshake takes more memory than the rest of an idle connection and its session.

        Args:
            on_frame: Called for each frame, immediately for those already received. Must not raise.
            on_writable: Called when there is room to write again.
            on_end: Called once, with the close code, when no more frames can arrive.
        """
        ...

    def write_frames(self, frames: Iterable[str | bytes], *, text: bool) -> None:
        """Write frames, joined unless they are large.

        Args:
            frames: The frames; strings are text.
            text: Whether bytes are text as well, in UTF-8.
        """
        ...

    def admit(self) -> None:
        """Mark the client as authenticated: its buffers count with those of other clients."""
        ...

    def finish(self) -> None:
        """Announce a close: a server that stops waits for it."""
        ...

    def close(self, code: int, reason: str, on_answer: Callable[[], None] | None = None) -> None:
        """Close once everything written has been sent.

        Args:
            code: The close code.
            reason: The reason, for people.
            on_answer: Called when the peer answers, and so has received everything. This may take
                long, or never happen.
        """
        ...

    def abandon(self, code: int, reason: str) -> None:
        """Close without waiting for unsent data."""
        ...
