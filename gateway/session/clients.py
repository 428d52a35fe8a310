"""The clients of a session: its owner, its readers, and how long there have been none."""

from gateway.errors import ErrorCode
from gateway.protocol.messages import EventAck
from gateway.session import effects as do
from gateway.session import events as on
from gateway.session.events import ClientId, Timer
from gateway.session.keys import ResumeKeys
from gateway.session.output import Output
from gateway.session.policy import Policy


class Clients:
    """The connected clients, and the keys that let one resume.

    Args:
        policy: The route's rules.
        out: Collects effects.

    Attributes:
        owner: The connection that most recently took the session over; None if it is gone.
        readers: All clients that read the log, the owner included.
        absent_since: When a client was last seen, in seconds of the session's clock; None while
            one reads.
        connectionless: Whether the client only sends requests, and has never had a connection
            that could be lost.
        shared: Whether any client but the owner has ever subscribed.
        keys: None until the session has started.
    """

    __slots__ = (
        "_out",
        "_policy",
        "absent_since",
        "connectionless",
        "keys",
        "owner",
        "readers",
        "shared",
    )

    def __init__(self, policy: Policy, out: Output) -> None:
        self._policy = policy
        self._out = out
        self.owner: ClientId | None = None
        self.readers: tuple[ClientId, ...] = ()
        self.absent_since: float | None = None
        self.connectionless = self.shared = False
        self.keys: ResumeKeys | None = None

    def accept(self, shown: bytes) -> bool:
        """Whether a client that presents the key with this digest may resume."""
        return self.keys is not None and self.keys.accepts(shown)

    def start(self, event: on.Start) -> None:
        """Start the session, for a connection or for a client without one."""
        self.keys = ResumeKeys([event.key])
        if event.client is None:
            self.connectionless = True
            self.absent_since = self._out.now
            self.await_one()
            return
        self.owner = event.client
        self.readers = (event.client,)
        self._out.do(do.Attach(event.client, 0, opens=True))

    def take_over(self, event: on.Attached, expires_at: str | None) -> None:
        """Make a connection the session's owner, and displace the previous one.

        Args:
            event: The client that resumes.
            expires_at: When the session expires, as the client is told.
        """
        assert self.keys is not None  # noqa: S101 - a key was accepted
        self.keys.rotate(event.shown, event.new)
        before, self.owner = self.owner, event.client
        self.connectionless = False
        if before is not None:
            self.readers = tuple(reader for reader in self.readers if reader != before)
            self._out.do(do.Displace(before))
        self._out.do(do.Trim(event.last_event))
        self._read(do.Attach(event.client, event.last_event, resumes=True, expires_at=expires_at))

    def subscribe(self, client: ClientId, last_event: int) -> None:
        """Add a reader, starting after the last event that it has."""
        self.shared = True
        self._read(do.Attach(client, last_event))

    def _read(self, attach: do.Attach) -> None:
        self.readers += (attach.client,)
        self.absent_since = None
        self._out.do(attach)

    def confirm(self) -> None:
        """Note that the owner has received the newest key."""
        assert self.keys is not None  # noqa: S101 - there is a client
        self.keys.confirm()

    def acknowledge(self, message: EventAck) -> None:
        """Trim the log up to an event that the client has."""
        if message.event > self._out.last:
            text = f"`event` is past the newest event, {self._out.last}"
            self._out.refuse(ErrorCode.BAD_MESSAGE, text)
        else:
            self._out.do(do.Trim(message.event))

    def written(self, event: on.Written) -> None:
        """Trim the log up to an event that was written, if no client can resume."""
        if not self._policy.resume_seconds:
            self._out.do(do.Trim(event.event))

    def leave(self, client: ClientId) -> None:
        """Remove a client."""
        if client not in self.readers:
            return
        self.readers = tuple(reader for reader in self.readers if reader != client)
        if client == self.owner:
            self.owner = None
        if not self.readers:
            self.absent_since = self._out.now

    def seen(self) -> None:
        """Note a sign of a client, even one that doesn't read."""
        if self.absent_since is not None:
            self.absent_since = self._out.now

    @property
    def have_left(self) -> bool:
        """Whether no client has resumed within the time allowed."""
        absent = self.absent_since
        return absent is not None and self._out.now >= absent + self._patience

    def await_one(self) -> None:
        """If no client is there, set the timer for the end of the time allowed."""
        if self.absent_since is not None and Timer.DETACHED not in self._out.timers:
            self._out.set_timer(Timer.DETACHED, self.absent_since + self._patience)

    @property
    def _patience(self) -> float:
        """Seconds without a client; between two requests, as many as between two turns."""
        policy = self._policy
        if self.connectionless:
            return max(policy.idle_seconds, policy.resume_seconds)
        return policy.resume_seconds
