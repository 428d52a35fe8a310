"""One pipelined connection to Valkey.

valkey-py connects, encrypts and authenticates it; then `Line` takes its transport over. With the
client's own commands each write of a session would go through a pool, a timer, a task and several
iterations of the event loop, which takes ten times as long as everything here.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any

import structlog
from libvalkey import Reader, ReplyError, pack_command
from valkey.asyncio import ConnectionPool
from valkey.exceptions import ConnectionError as ValkeyConnectionError
from valkey.exceptions import ResponseError, ValkeyError

from gateway.measures import StoreMeasures
from gateway.session.storage import StoreUnavailable

Command = tuple[Any, ...]

TIMEOUT_SECONDS = 2.0
"""Seconds that the store may take to reply."""

READ_SECONDS = 0.05
"""Seconds that reading a reply that has already arrived may take."""

AT_ONCE = 16
"""Replies that are processed in one iteration of the event loop."""

GONE = ("READONLY", "LOADING", "MASTERDOWN")
"""Errors of a server that is not the primary, or is not ready."""

log = structlog.stdlib.get_logger("gateway.store")


def unavailable(error: Exception) -> StoreUnavailable:
    """Convert an error, without quoting what was sent."""
    if isinstance(error, ReplyError | ResponseError):  # such as NOPERM, OOM or READONLY
        why = str(error).partition(" ")[0]
        return StoreUnavailable(f"it answers {why}" if why.isupper() else type(error).__name__)
    if isinstance(error, OSError | ValkeyConnectionError):
        return StoreUnavailable(str(error) or type(error).__name__)
    return StoreUnavailable(type(error).__name__)


class Reply:
    """The future reply to commands; as `asyncio.Future`, but its callbacks run immediately.

    Args:
        commands: Sent together, in this order. The last one's reply counts, unless one has failed.
        read: Converts the reply, or raises.
    """

    __slots__ = (
        "_calls",
        "_error",
        "_is_done",
        "_read",
        "_value",
        "commands",
        "is_to_be_sent_again",
        "left",
        "packed",
        "sent_at",
    )

    def __init__(self, commands: Sequence[Command], read: Callable[[Any], Any] | None) -> None:
        self.pack(commands)
        self.is_to_be_sent_again = False
        self.sent_at = 0.0
        self._read = read
        self._calls: list[Callable[[Reply], object]] = []
        self._is_done = False
        self._value: Any = None
        self._error: Exception | None = None

    def pack(self, commands: Sequence[Command]) -> None:
        self.commands = commands
        self.left = len(commands)
        self.packed = b"".join(map(pack_command, commands))

    def take(self, reply: Any) -> bool:
        """Process the next reply; returns whether it was the last one."""
        self.left -= 1
        if isinstance(reply, ReplyError):
            self.is_to_be_sent_again |= self._error is None and str(reply).startswith("NOSCRIPT")
            self._error = self._error or unavailable(reply)
        elif not self.left:
            self._value = reply
        return not self.left

    def begin_again(self, scripts: Sequence[str]) -> None:
        """Load the scripts and retry: the server didn't know one, and so has not run it."""
        loads = [("SCRIPT", "LOAD", script) for script in scripts]
        self.pack([*loads, *self.commands])
        self.is_to_be_sent_again, self._error = False, None

    def fail(self, error: Exception) -> None:
        """Set an error, instead of a reply."""
        self._error = error

    def finish(self) -> None:
        """Mark it as done, and run its callbacks."""
        if self._error is None and self._read is not None:
            try:
                self._value = self._read(self._value)
            except Exception as error:  # noqa: BLE001 - raised to the caller
                self._error = error
        self._is_done = True
        for call in self._calls:
            call(self)

    def add_done_callback(self, call: "Callable[[Reply], object]", /) -> None:
        """See `Pending`."""
        self._calls.append(call)

    def exception(self) -> BaseException | None:
        """See `Pending`."""
        return self._error

    def result(self) -> Any:
        """See `Pending`."""
        if self._error is not None:
            raise self._error
        return self._value

    def __await__(self) -> Generator[Any, None, Any]:
        if not self._is_done:
            waiter = asyncio.get_running_loop().create_future()
            self._calls.append(partial(_wake, waiter))
            yield from waiter
        return self.result()


def _wake(waiter: asyncio.Future[None], _reply: Reply) -> None:
    if not waiter.done():
        waiter.set_result(None)


class Line(asyncio.Protocol):
    """See the module. Connects when there is something to send, and again after a failure.

    Args:
        pool: Makes connections.
        scripts: Lua scripts that are loaded into the server.
        measures: Counts commands and failures.

    Attributes:
        breaks: How many connections were lost.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        scripts: Sequence[str],
        measures: StoreMeasures | None = None,
    ) -> None:
        self.breaks = 0
        self._measures = measures or StoreMeasures()
        self._written_at = 0.0
        self._pool = pool
        self._scripts = scripts
        self._loop = asyncio.get_running_loop()
        self._writer: Any = None
        self._transport: asyncio.Transport | None = None
        self._reader = Reader()
        self._unsent: list[Reply] = []
        self._sent: deque[Reply] = deque()
        self._done: deque[Reply] = deque()
        self._working = self._is_telling = self._is_soon = False
        self._connecting: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self._is_late = False

    def send(self, *commands: Command, read: Callable[[Any], Any] | None = None) -> Reply:
        """Send commands as soon as the previous ones are answered."""
        reply = Reply(commands, read)
        reply.sent_at = self._loop.time()
        self._enqueue(reply)
        return reply

    def _enqueue(self, reply: Reply) -> None:
        self._unsent.append(reply)
        if self._watch is None:
            self._watch = self._loop.call_later(TIMEOUT_SECONDS, self._look)
        if not self._is_soon:
            self._is_soon = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send what is queued, unless replies are pending: a write to a socket takes as long as all
        other processing of a command, and so does a wake-up for its reply. So commands that
        accumulate in the meantime, or in one iteration of the event loop, are sent together.
        """
        self._is_soon = False
        if self._sent or self._is_telling or not self._unsent:
            return
        if self._transport is None:
            if self._connecting is None:
                self._connecting = self._loop.create_task(self._connect())
            return
        unsent, self._unsent = self._unsent, []
        self._sent += unsent
        self._measures.commands += sum(len(reply.commands) for reply in unsent)
        self._written_at = self._loop.time()
        self._transport.write(b"".join([reply.packed for reply in unsent]))

    async def _connect(self) -> None:
        connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await connection.connect()
                for script in self._scripts:
                    await connection.send_command("SCRIPT", "LOAD", script)
                    await connection.read_response()
        except (ValkeyError, OSError) as error:
            await connection.disconnect(nowait=True)
            self._fail(error)
            return
        finally:
            self._connecting = None
        # The client offers no public access to its streams. From Python 3.13 on, a writer closes
        # its transport when it is garbage-collected.
        self._writer, connection._writer = connection._writer, None  # noqa: SLF001
        self._transport = self._writer.transport
        self._reader = Reader()
        self._transport.set_protocol(self)
        self._flush()

    # Receiving

    def data_received(self, data: bytes) -> None:
        """Parse replies."""
        self._heard_at, self._is_late = self._loop.time(), False
        reader = self._reader
        reader.feed(data)
        while (reply := reader.gets()) is not False:
            if isinstance(reply, ReplyError) and str(reply).startswith(GONE):
                self._break(reply)
                return
            if self._sent[0].take(reply):
                done = self._sent.popleft()
                if done.is_to_be_sent_again:
                    done.begin_again(self._scripts)
                    self._enqueue(done)
                else:
                    self._done.append(done)
        if not self._sent:
            self._measures.trips.observe(self._heard_at - self._written_at)
        if self._working:
            self._flush()
        else:
            self._work()

    def _work(self) -> None:
        """Complete replies, a few in each iteration of the event loop."""
        self._working = False
        self._is_telling = True
        for _ in range(min(AT_ONCE, len(self._done))):
            try:
                self._done.popleft().finish()
            except Exception:
                log.exception("a store callback failed")
        self._is_telling = False
        self._flush()
        if self._done:
            self._working = True
            self._loop.call_soon(self._work)

    # Failures

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail pending commands."""
        self.breaks += 1
        self._transport = self._writer = None
        self._fail(exc or ConnectionResetError("the store has closed the connection"))

    def _look(self) -> None:
        """Close a connection that has not replied for too long."""
        self._watch = None
        oldest = self._sent[0] if self._sent else self._unsent[0] if self._unsent else None
        if oldest is None:
            return
        left = max(oldest.sent_at, self._heard_at) + TIMEOUT_SECONDS - self._loop.time()
        if left > 0:
            self._watch = self._loop.call_later(left, self._look)
        elif not self._is_late:  # the process may have been paused, and the reply be in the buffer
            self._is_late = True
            self._watch = self._loop.call_later(READ_SECONDS, self._look)
        else:
            self._break(TimeoutError("it takes too long"))

    def _break(self, error: Exception) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        self._writer = None
        self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._measures.failures += sum(reply.left for reply in self._sent)
        for reply in (*self._sent, *self._unsent):
            reply.fail(unavailable(error))
            self._done.append(reply)
        self._sent.clear()
        self._unsent.clear()
        if not self._working:
            self._work()

    async def aclose(self) -> None:
        """Close the connection, and fail pending commands."""
        if self._watch is not None:
            self._watch.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        self._break(ConnectionResetError("it is closed"))
