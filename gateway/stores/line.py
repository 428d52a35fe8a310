"""One connection to Valkey, over which commands follow each other without waiting.

The client, valkey-py, connects, encrypts and authenticates it; then this takes its transport over.
With the client's own commands each write of a session would pass through a pool, a timer and a
task, and several turns of the event loop: that takes ten times as long as all that is here.
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
"""How long the store may take to answer."""

READ_SECONDS = 0.05
"""How long what has come already may take to be read."""

AT_ONCE = 16
"""How many replies are worked on in one turn of the event loop."""

GONE = ("READONLY", "LOADING", "MASTERDOWN")
"""What a server says that is not the one to ask, or not yet."""

log = structlog.stdlib.get_logger("gateway.store")


def unavailable(error: Exception) -> StoreUnavailable:
    """What has gone wrong, in words that quote nothing of what was sent."""
    if isinstance(error, ReplyError | ResponseError):  # such as NOPERM, OOM or READONLY
        why = str(error).partition(" ")[0]
        return StoreUnavailable(f"it answers {why}" if why.isupper() else type(error).__name__)
    if isinstance(error, OSError | ValkeyConnectionError):
        return StoreUnavailable(str(error) or type(error).__name__)
    return StoreUnavailable(type(error).__name__)


class Reply:
    """What becomes of commands; as `asyncio.Future`, but whoever waits is called at once.

    Args:
        commands: Together, in this order. The reply to the last counts, unless one has failed.
        read: Makes of it what was asked for, or raises.
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
        """Take the next reply; whether it was the last."""
        self.left -= 1
        if isinstance(reply, ReplyError):
            self.is_to_be_sent_again |= self._error is None and str(reply).startswith("NOSCRIPT")
            self._error = self._error or unavailable(reply)
        elif not self.left:
            self._value = reply
        return not self.left

    def begin_again(self, scripts: Sequence[str]) -> None:
        """Its script was not known, and was not run: make it known first."""
        loads = [("SCRIPT", "LOAD", script) for script in scripts]
        self.pack([*loads, *self.commands])
        self.is_to_be_sent_again, self._error = False, None

    def fail(self, error: Exception) -> None:
        """There is none."""
        self._error = error

    def finish(self) -> None:
        """Call whoever waits."""
        if self._error is None and self._read is not None:
            try:
                self._value = self._read(self._value)
            except Exception as error:  # noqa: BLE001 - it is for whoever waits
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
    """See the module. It connects when there is something to send, and again after it has broken.

    Args:
        pool: Makes connections.
        scripts: What has to be known before a command can name it.
        measures: Counts what goes over it.

    Attributes:
        breaks: How often it has broken.
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
        """Send commands, as soon as those are answered that were sent before."""
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
        """Send what there is, unless something is under way: to write to a socket takes as long as
        all else that is done for a command, and so does to be woken for its reply. What comes
        meanwhile goes together, and so does what one turn of the event loop leads to.
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
        # The client keeps what it reads and writes with to itself. A writer closes its transport
        # when it is collected, from Python 3.13 on.
        self._writer, connection._writer = connection._writer, None  # noqa: SLF001
        self._transport = self._writer.transport
        self._reader = Reader()
        self._transport.set_protocol(self)
        self._flush()

    # What comes

    def data_received(self, data: bytes) -> None:
        """Take replies in."""
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
        """Tell those whose replies are there, a few in each turn of the event loop."""
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

    # Trouble

    def connection_lost(self, exc: Exception | None) -> None:
        """What is under way has no answer."""
        self.breaks += 1
        self._transport = self._writer = None
        self._fail(exc or ConnectionResetError("the store has closed the connection"))

    def _look(self) -> None:
        """Break a connection that has not answered for too long."""
        self._watch = None
        oldest = self._sent[0] if self._sent else self._unsent[0] if self._unsent else None
        if oldest is None:
            return
        left = max(oldest.sent_at, self._heard_at) + TIMEOUT_SECONDS - self._loop.time()
        if left > 0:
            self._watch = self._loop.call_later(left, self._look)
        elif not self._is_late:  # the process may have been stopped, and the answer may have come
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
        """Close it; what is under way has no answer."""
        if self._watch is not None:
            self._watch.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        self._break(ConnectionResetError("it is closed"))
