"""A client's position in a session's log, which is all that a connection has of a session.

A WebSocket, a stream of server-sent events and a request that waits for its reply are all readers,
so the session treats slow, new and resuming clients alike.
"""

from msgspec import structs

from gateway.protocol.messages import Notice, ServerMessage, SessionOpened, SessionResumed
from gateway.session.ports import Log

MAX_NOTICES = 64
"""How many notices may wait for a client that sends but doesn't read."""


class LogReader:
    """Takes a session's events in order, and each notice at its place between them.

    Args:
        resume_key: The client's resume key, added to ``session.opened`` and ``session.resumed``;
            empty if the client can't resume, or has the key from another reader.

    Attributes:
        position: The newest event that was taken.
        owns: Whether the client owns the session, so that its acknowledgements trim the log;
            False for a subscriber.
        lost: The first and last number of the events that were already dropped when it began;
            None if there were none.
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
        """Start reading a log.

        Args:
            log: A session's log.
            after: The event to begin with, exclusive.
            owns: Whether the client owns the session.
        """
        self._log = log
        self.owns = owns
        # Events that are held back must not be reported yet, even if they were dropped.
        self.position = max(after, min(log.first - 1, log.told))
        self.lost = (after + 1, self.position) if self.position > after else None
        self._backlog = log.last

    def resume(self, log: Log, after: int, resumed: SessionResumed) -> None:
        """Start reading a log for a client that resumes; ``session.resumed`` comes first.

        Args:
            log: A session's log.
            after: The newest event that the client has.
            resumed: The message, without the resume key and the lost events.
        """
        self.begin(log, after, owns=True)
        resumed = structs.replace(resumed, resume_key=self.resume_key, lost=self.lost)
        self._notices.append((self.position, resumed))

    def move(self, log: Log) -> None:
        """Continue in another copy of the same log."""
        self._log = log
        self._backlog = log.last

    @property
    def has_begun(self) -> bool:
        """Whether there is a log to read."""
        return self._log is not None

    @property
    def is_behind(self) -> bool:
        """Whether the log has events that were not taken."""
        return self._log is not None and self.position != self._log.told

    @property
    def is_full(self) -> bool:
        """Whether there is no room for one more notice."""
        return len(self._notices) >= MAX_NOTICES

    @property
    def lags(self) -> bool:
        """Whether the events not taken, except the newest, fill half of the log.

        The other half is for what happens until the client resumes.
        """
        log, position = self._log, self.position
        if log is None or (log.told - position <= 1 and self.owns):
            return False
        if position + 1 < log.first and not (self.owns and log.trimmed + 1 >= log.first):
            return True  # events that were neither taken nor acknowledged were dropped
        if position < self._backlog:
            return False  # it has resumed, and is still taking what it missed
        bounds = log.bounds
        if (log.told - position) * 2 > bounds.max_events:
            return True
        if log.held * 2 <= bounds.max_bytes:
            return False
        waiting = log.bytes_after(position) - log.bytes_after(log.told - 1)
        return waiting * 2 > bounds.max_bytes

    def tell(self, notice: Notice) -> None:
        """Add a notice after the events that are in the log now."""
        self._notices.append((self._log.told if self._log else 0, notice))

    def take(self) -> ServerMessage | None:
        """Return the next message for the client; None if there is none yet."""
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
            return None  # if it was dropped, this reader lags, and is closed for it
        self.position = number
        if type(event) is SessionOpened:
            return structs.replace(event, resume_key=self.resume_key)
        return event
