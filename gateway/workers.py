"""Several worker processes on one port, and the parent that starts and restarts them.

Each worker has its own listening socket (SO_REUSEPORT), and Linux distributes connections among
them by address. With two workers and 200 consecutive connections, the busier one got 100 to 107;
with one inherited socket it got up to 142, and up to 670 of 1000 simultaneous ones, since there the
first idle worker accepts them. Connections last for hours, so an even distribution matters more
than fast acceptance.

A worker binds its own socket, and listens when it is ready. So no connection waits for a worker
that is starting; those queued at a worker that dies are reset, and new ones go to the others
immediately. (Sockets kept by the parent would queue them until the next worker is ready: for
seconds, in which probes time out.) The parent's own socket does not listen; it reserves the port.

Workers run in sessions of their own: Ctrl-C in a terminal reaches only the parent, which forwards
it, once. Parent and worker are connected by pipes, which close when the parent dies in any way.
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
"""Commands for a worker: the equivalents of SIGTERM and SIGHUP, and a request for its metrics."""

SIZE_BYTES = 4
"""Size of the length prefix of the settings, in bytes."""

STEADY_SECONDS = 10.0
"""A worker that has served for this long is restarted immediately when it dies."""

FIRST_PAUSE_SECONDS = 0.5
"""Initial delay of a restart otherwise; doubled each time."""

MAX_PAUSE_SECONDS = 30.0

ALIVE = b"\n"
"""Sent by a worker every `ALIVE_SECONDS`."""

ALIVE_SECONDS = 5.0

SILENT_SECONDS = 60.0
"""A worker that sends nothing for this long is considered hung."""

ANSWER_BYTES = 16_777_216
"""Maximum length of a worker's line; metrics have about 2 KB for each route."""

MEASURE_SECONDS = 2.0
"""Seconds that a worker may take to send its metrics."""

log = structlog.stdlib.get_logger("gateway.workers")


class Ready(msgspec.Struct, tag="ready"):
    """A worker accepts connections.

    Attributes:
        url: Its URL.
    """

    url: str


class CantStart(msgspec.Struct, tag="cant_start"):
    """A worker can't serve, and ends.

    Attributes:
        why: The reason, for people.
        wrong: Whether it is an error in the configuration.
    """

    why: str
    wrong: bool


class Measured(msgspec.Struct, tag="measured"):
    """A worker's metrics, sent on request and before it ends.

    Attributes:
        reading: The values.
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
    """Run workers until told to stop, and until they have drained; see `gateway.serving.serve`.

    Args:
        settings: The configuration.
        on_ready: Called with the URL when all workers accept connections.
        on_worker: Called with the id of each process that accepts connections.
        signals: The caller's signals, if it handles them; one received before counts.

    Returns:
        Whether all workers that were told to stop have done so without an error.

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
        listen(server.host, port).close()  # fails if anyone listens, even with SO_REUSEPORT
        server = server.model_copy(update={"port": port})
        metrics = settings.metrics
        alone = metrics.model_copy(update={"port": None})  # served by the parent
        settings = settings.model_copy(update={"server": server, "metrics": alone})
        crew = _Crew(settings, on_ready, on_worker)
        if metrics.port is not None:
            from gateway.metricsport import metrics_port  # noqa: PLC0415 - slow to import

            await stack.enter_async_context(metrics_port(metrics, crew.read))
        async with crew:
            signals.handle, signals.reload = crew.stop, crew.reload
            if signals.received:
                crew.stop()
            return await crew.work()


class _Crew:
    """All workers.

    Args:
        settings: The configuration of the workers.
        on_ready: See `supervise`.
        on_worker: See `supervise`.

    Attributes:
        started: Whether all have been ready.
        stopping: Set when they are told to stop.
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
        """Drain all workers; the second call stops them immediately."""
        self.stopping.set()
        for worker in self._workers:
            worker.tell(STOP)

    def reload(self) -> None:
        """Make all workers reload their files."""
        for worker in self._workers:
            worker.tell(RELOAD)

    async def read(self) -> Reading:
        """Return the total of all processes' metrics, including the counters of ended ones."""
        await asyncio.gather(*[worker.measure() for worker in self._workers])
        # Without awaiting: a process that ends meanwhile must count here or as departed, not twice.
        return total([self._departed, *[worker.reading for worker in self._workers]])

    def departed(self, last: Reading) -> None:
        """Keep the last known counters of a process that has ended."""
        self._departed = total([self._departed, last.lasting()])

    def serves(self, pid: int, url: str) -> None:
        """Record that a worker accepts connections."""
        self._on_worker(pid)
        if not self.started and all(worker.is_ready for worker in self._workers):
            self.started = True
            self._on_ready(url)


class _Worker:
    """A worker process, which is restarted when it dies.

    Args:
        crew: All workers.
        settings: The configuration of the workers.

    Attributes:
        is_ready: Whether its process is running and accepts connections.
        reading: Last known values of its metrics.
    """

    def __init__(self, crew: _Crew, settings: Settings) -> None:
        self.is_ready = False
        self._crew = crew
        self._settings = settings
        self._orders: asyncio.StreamWriter | None = None
        self.reading = Reading()
        self._measured: asyncio.Future[None] | None = None

    async def live(self) -> bool:
        """Run a process until told to stop, restarting it; returns whether the last one ended well.

        Raises:
            ConfigError: It can't serve with these settings, before all workers have started.
            OSError: It can't serve for another reason, likewise.
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
            "-P",  # don't import modules from the working directory
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
        """Read a process's reports until it ends: why it can't serve, or since when it has."""
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
                break  # it has ended, possibly in the middle of a line
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
        """Update the values of its metrics. If the process does not answer, counters keep their
        last known values, and gauges are dropped.
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
        """Send a command to the process, if there is one."""
        if self._orders is not None:
            with contextlib.suppress(OSError, RuntimeError):  # it has died, as `_follow` notices
                self._orders.write(order)


def _longer(pause: float) -> float:
    return min(max(FIRST_PAUSE_SECONDS, 2 * pause), MAX_PAUSE_SECONDS)


def _log_end(pid: int, code: int, pause: float) -> None:
    if code:
        log.error("a worker has died", pid=pid, of=_cause(code), again_in=pause)
    else:
        log.info("a worker has ended", pid=pid, again_in=pause)


def _cause(code: int) -> str:
    """Describe what has ended a process."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
