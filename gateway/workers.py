"""Several processes on one port, and the parent that starts them, and starts them again.

Each worker has a listening socket of its own (SO_REUSEPORT), among which Linux deals connections
out by their addresses. With two workers and 200 connections one after the other, the one with more
got 100 to 107; where both listened on one socket that they had inherited, it was up to 142, and up
to 670 of 1000 that came at once: there whoever is idle first takes them. A connection stays where
it is for hours, so that matters more than who is quickest to take it.

A worker makes its socket itself, and listens when it is ready. So no connection waits at a worker
that starts; those that wait at one that dies are reset, and new ones go to the others at once.
(Sockets that the parent kept would let them wait until there is another worker: seconds, in which a
probe gives up.) The parent's own socket does not listen. It keeps the port.

Workers are in sessions of their own: Ctrl-C in a terminal is for the parent, which passes it on,
once. What connects the two is a pipe. It closes when the parent dies, however that comes.
"""

import asyncio
import contextlib
import pickle
import signal
import sys
from collections.abc import Callable
from typing import Self, cast

import msgspec
import structlog

from gateway.config import ConfigError, Settings
from gateway.logconfig import configure_logging
from gateway.process import Signals, listen, share
from gateway.telemetry.reading import Reading, total

STOP, RELOAD, MEASURE = b"s", b"r", b"m"
"""What a worker is told: what SIGTERM and SIGHUP tell other programs, and to say what its metrics
stand at."""

SIZE_BYTES = 4
"""How long the settings are comes before them, in so many bytes."""

STEADY_SECONDS = 10.0
"""A worker that has served for so long is replaced at once when it dies."""

FIRST_PAUSE_SECONDS = 0.5
"""How long it takes otherwise; each time twice as long as before."""

MAX_PAUSE_SECONDS = 30.0

ALIVE = b"\n"
"""What a worker says each `ALIVE_SECONDS`."""

ALIVE_SECONDS = 5.0

SILENT_SECONDS = 60.0
"""A worker that says nothing for so long hangs."""

ANSWER_BYTES = 16_777_216
"""The longest line that a worker says: of a route it has some 2 KB of metrics."""

MEASURE_SECONDS = 2.0
"""How long a worker may take to say what its metrics stand at."""

log = structlog.stdlib.get_logger("gateway.workers")


class Ready(msgspec.Struct, tag="ready"):
    """What a worker says when it takes connections.

    Attributes:
        url: Where.
    """

    url: str


class CantStart(msgspec.Struct, tag="cant_start"):
    """What a worker says before it ends, where it can't serve.

    Attributes:
        why: As people are told.
        wrong: Whether the configuration is; otherwise something has failed.
    """

    why: str
    wrong: bool


class Measured(msgspec.Struct, tag="measured"):
    """What a worker says when it is asked for it, and before it ends.

    Attributes:
        reading: What its metrics stand at.
    """

    reading: Reading


_answers = msgspec.json.Decoder[Ready | CantStart | Measured](Ready | CantStart | Measured)


async def supervise(
    settings: Settings,
    *,
    on_ready: Callable[[str], None],
    on_worker: Callable[[int], None] = lambda _: None,
    signals: Signals | None = None,
) -> bool:
    """Run workers until they are told to stop, and have drained; see `gateway.serving.serve`.

    Args:
        settings: All of them.
        on_ready: Called with the address when all of them take connections.
        on_worker: Called with the id of each process that takes connections.
        signals: Those of whoever does more than this; one that was received before counts.

    Returns:
        Whether all that were told to stop have done so without a failure.

    Raises:
        ConfigError: Workers can't serve with these settings.
        OSError: The address can't be listened on.
    """
    server = settings.server
    configure_logging(server.log_level, server.log_format)
    async with contextlib.AsyncExitStack() as stack:
        if signals is None:
            signals = stack.enter_context(Signals())
        kept = stack.enter_context(share(server.host, server.port))
        port = kept.getsockname()[1]
        listen(server.host, port).close()  # which nobody else may do, not even with SO_REUSEPORT
        server = server.model_copy(update={"port": port})
        metrics = settings.metrics
        alone = metrics.model_copy(update={"port": None})  # the port is the parent's
        settings = settings.model_copy(update={"server": server, "metrics": alone})
        crew = _Crew(settings, on_ready, on_worker)
        if metrics.port is not None:
            from gateway.metricsport import metrics_port  # noqa: PLC0415 - it takes time to import

            await stack.enter_async_context(metrics_port(metrics, crew.read))
        async with crew:
            signals.handle, signals.reload = crew.stop, crew.reload
            if signals.received:
                crew.stop()
            return await crew.work()


class _Crew:
    """All workers.

    Args:
        settings: Theirs.
        on_ready: See `supervise`.
        on_worker: See `supervise`.

    Attributes:
        started: Whether all have been ready.
        stopping: Set when they are to end.
    """

    def __init__(
        self, settings: Settings, on_ready: Callable[[str], None], on_worker: Callable[[int], None]
    ) -> None:
        self.started = False
        self.stopping = asyncio.Event()
        self._workers = [_Worker(self, settings) for _ in range(settings.server.workers)]
        self._on_ready = on_ready
        self._on_worker = on_worker
        self._departed = Reading()
        self._tasks: list[asyncio.Task[bool]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(worker.live()) for worker in self._workers]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def work(self) -> bool:
        """See `supervise`."""
        return all(await asyncio.gather(*self._tasks))

    def stop(self) -> None:
        """Have all of them drain; the second time, end at once."""
        self.stopping.set()
        for worker in self._workers:
            worker.tell(STOP)

    def reload(self) -> None:
        """Have all of them read their files again."""
        for worker in self._workers:
            worker.tell(RELOAD)

    async def read(self) -> Reading:
        """What the metrics of all processes stand at together, with what counters of those stood at
        that are gone.
        """
        await asyncio.gather(*[worker.measure() for worker in self._workers])
        # In one moment: one that dies meanwhile is among these or among the departed, not in both.
        return total([self._departed, *[worker.reading for worker in self._workers]])

    def departed(self, last: Reading) -> None:
        """A process is gone, of whose metrics that was heard last."""
        self._departed = total([self._departed, last.lasting()])

    def serves(self, pid: int, url: str) -> None:
        """A worker does."""
        self._on_worker(pid)
        if not self.started and all(worker.is_ready for worker in self._workers):
            self.started = True
            self._on_ready(url)


class _Worker:
    """A process, and after its death the next one.

    Args:
        crew: All workers.
        settings: Theirs.

    Attributes:
        is_ready: Whether there is a process, and it takes connections.
        reading: What its metrics stand at, as far as that is known.
    """

    def __init__(self, crew: _Crew, settings: Settings) -> None:
        self.is_ready = False
        self._crew = crew
        self._settings = settings
        self._orders: asyncio.StreamWriter | None = None
        self.reading = Reading()
        self._measured: asyncio.Future[None] | None = None

    async def live(self) -> bool:
        """Have a process until all are to stop; returns whether the last one has done so well.

        Raises:
            ConfigError: It can't serve with these settings, and all were about to start.
            OSError: It can't for another reason.
        """
        loop = asyncio.get_running_loop()
        stopping = self._crew.stopping
        pause = 0.0
        while not stopping.is_set():
            try:
                process = await self._start()
            except OSError as error:
                if not self._crew.started:
                    raise
                pause = _longer(pause)
                log.error("a worker can't start", why=error.strerror, again_in=pause)  # noqa: TRY400
                await self._pause(pause)
                continue
            failure, served = await self._follow(process)
            code = await process.wait()
            if stopping.is_set():
                if code:
                    log.error("a worker has died", pid=process.pid, of=_cause(code))
                return code == 0
            if not self._crew.started:
                if failure is not None:
                    raise ConfigError(failure.why) if failure.wrong else OSError(failure.why)
                if code > 0:
                    raise OSError(f"a worker has failed while it started: {_cause(code)}")
            steady = served is not None and loop.time() - served >= STEADY_SECONDS
            pause = 0.0 if steady else _longer(pause)
            if failure is None:
                _log_end(process.pid, code, pause)
            else:
                log.error("a worker can't start", why=failure.why, again_in=pause)
            await self._pause(pause)
        return True

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._crew.stopping.wait(), seconds)

    async def _start(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # what lies in the working directory is not for it to import
            "-m",
            "gateway.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=ANSWER_BYTES,
            start_new_session=True,
        )
        settings = pickle.dumps(self._settings)
        self._orders = cast(asyncio.StreamWriter, process.stdin)
        self.tell(len(settings).to_bytes(SIZE_BYTES) + settings)
        if self._crew.stopping.is_set():
            self.tell(STOP)
        return process

    async def _follow(
        self, process: asyncio.subprocess.Process
    ) -> tuple[CantStart | None, float | None]:
        """Hear what a process says until it ends: why it can't serve, or since when it has."""
        failure = served = None
        answers = cast(asyncio.StreamReader, process.stdout)
        while True:
            try:
                async with asyncio.timeout(SILENT_SECONDS):
                    line = await answers.readline()
            except TimeoutError:
                log.error("a worker hangs and is killed", pid=process.pid)  # noqa: TRY400
                process.kill()
                continue
            if not line.endswith(b"\n"):
                break  # it has ended, maybe in the middle of it
            if line == ALIVE:
                continue
            answer = _answers.decode(line)
            if isinstance(answer, CantStart):
                failure = answer
            elif isinstance(answer, Measured):
                self.reading = answer.reading
                if self._measured is not None and not self._measured.done():
                    self._measured.set_result(None)
            else:
                served = asyncio.get_running_loop().time()
                self.is_ready = True
                self._crew.serves(process.pid, answer.url)
        self._orders = None
        self.is_ready = False
        self._crew.departed(self.reading)
        self.reading = Reading()
        if self._measured is not None and not self._measured.done():
            self._measured.set_result(None)
        return failure, served

    async def measure(self) -> None:
        """Find out what the metrics of its process stand at: of one that does not answer, what they
        stood at but for those that go up and down.
        """
        if not self.is_ready:
            return
        if self._measured is None or self._measured.done():
            self._measured = asyncio.get_running_loop().create_future()
            self.tell(MEASURE)
        try:
            async with asyncio.timeout(MEASURE_SECONDS):
                await asyncio.shield(self._measured)
        except TimeoutError:
            self.reading = self.reading.lasting()

    def tell(self, order: bytes) -> None:
        """Have the process do that; there may be none."""
        if self._orders is not None:
            with contextlib.suppress(OSError, RuntimeError):  # it has died, which is seen elsewhere
                self._orders.write(order)


def _longer(pause: float) -> float:
    return min(max(FIRST_PAUSE_SECONDS, 2 * pause), MAX_PAUSE_SECONDS)


def _log_end(pid: int, code: int, pause: float) -> None:
    if code:
        log.error("a worker has died", pid=pid, of=_cause(code), again_in=pause)
    else:
        log.info("a worker has ended", pid=pid, again_in=pause)


def _cause(code: int) -> str:
    """What has ended a process."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
