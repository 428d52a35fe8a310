"""One client's place in a session's log: all that a connection knows of a session.

A WebSocket, a stream of server-sent events and a request that waits for its answer are readers
alike, so a slow one, a new one and one that takes over are the same to the session.
"""

from msgspec import structs

from gateway.protocol.messages import Notice, ServerMessage, SessionOpened, SessionResumed
from gateway.session.ports import Log

MAX_NOTICES = 64
"""How many answers may wait for a client that sends and does not read."""


class LogReader:
    """Takes a session's events in their order, and each notice where it was said.

    Args:
        resume_key: What the client has to show when it comes back. It is put into what it is told;
            empty where it can't come back, or is told by another reader.

    Attributes:
        position: The newest event that has been taken.
        owns: Whether the session is the client's, and the log trimmed as it acknowledges; False for
            one that reads along.
        lost: The first and the last of the numbers that could no longer be had when it began; None
            where all could.
    """

    __slots__ = ("_backlog", "_log", "_notices", "lost", "owns", "position", "resume_key")

    _backlog: int

    def __init__(self, resume_key: str = "") -> None:
        self.position = 0
        self.resume_key = resume_key
        self.owns = False
        self.lost: tuple[int, int] | None = None
        self._log: Log | None = None
        self._notices: list[tuple[int, Notice]] = []

    def begin(self, log: Log, after: int, *, owns: bool) -> None:
        """Read a log.

        Args:
            log: A session's.
            after: The event to begin with, exclusive.
            owns: Whether the session is the client's.
        """
        self._log = log
        self.owns = owns
        # What is dropped, and was to be held back, is not to be spoken of yet either.
        self.position = max(after, min(log.first - 1, log.told))
        self.lost = (after + 1, self.position) if self.position > after else None
        self._backlog = log.last

    def resume(self, log: Log, after: int, resumed: SessionResumed) -> None:
        """Read a log again, and say so first: what is lost of it too.

        Args:
            log: As for `begin`.
            after: The newest event that the client has.
            resumed: What to say, but for the key and the numbers that are gone.
        """
        self.begin(log, after, owns=True)
        resumed = structs.replace(resumed, resume_key=self.resume_key, lost=self.lost)
        self._notices.append((self.position, resumed))

    def move(self, log: Log) -> None:
        """Go on in another copy of the same log."""
        self._log = log
        self._backlog = log.last

    @property
    def has_begun(self) -> bool:
        """Whether there is a log to read."""
        return self._log is not None

    @property
    def is_behind(self) -> bool:
        """Whether the log has what has not been taken."""
        return self._log is not None and self.position != self._log.told

    @property
    def is_full(self) -> bool:
        """Whether there is no room for one more notice."""
        return len(self._notices) >= MAX_NOTICES

    @property
    def lags(self) -> bool:
        """Whether what has not been taken, but for the newest event, fills half of the log.

        The other half is for what happens before the client comes back.
        """
        log, position = self._log, self.position
        if log is None or (log.told - position <= 1 and self.owns):
            return False
        if position + 1 < log.first and not (self.owns and log.trimmed + 1 >= log.first):
            return True  # what has been neither taken nor acknowledged is no longer kept
        if position < self._backlog:
            return False  # it has come back, and is still taking what it missed
        bounds = log.bounds
        if (log.told - position) * 2 > bounds.max_events:
            return True
        if log.held * 2 <= bounds.max_bytes:
            return False
        waiting = log.bytes_after(position) - log.bytes_after(log.told - 1)
        return waiting * 2 > bounds.max_bytes

    def tell(self, notice: Notice) -> None:
        """Say this after the events that are in the log now."""
        self._notices.append((self._log.told if self._log else 0, notice))

    def take(self) -> ServerMessage | None:
        """The next message for the client; None where there is none yet."""
        log, notices = self._log, self._notices
        if log is None:
            return notices.pop(0)[1] if notices else None
        if self.owns and self.position < log.trimmed:
            self.position = log.trimmed
        if notices and notices[0][0] <= self.position:
            return notices.pop(0)[1]
        number = self.position + 1
        event = log.get(number)
        if event is None:
            return None  # where it has been dropped, this lags, and is closed for it
        self.position = number
        if type(event) is SessionOpened:
            return structs.replace(event, resume_key=self.resume_key)
        return event
