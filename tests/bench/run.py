"""Runs the bench: every workload with every contender, in rounds, in an order that a seed shuffles.

Each job starts its contender anew, so that no run inherits another's heap, and what is compared in
a round was measured within the same minutes. The main figure is CPU time, which a busy machine
changes far less than it changes what a clock says.
"""

import importlib.metadata
import os
import platform
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from tests.bench import parsing
from tests.bench.contenders import (
    DIRECT,
    FLOOR,
    FORTY,
    LITELLM,
    LITELLM_PYTHON,
    PLAIN,
    STOCK,
    Contender,
    Started,
    gateways,
    left_out,
    own,
    started,
)
from tests.bench.driver import Run
from tests.bench.processes import CERTIFICATE, REST, Failed, Process

LIBRARIES = ("aiobotocore", "aiohttp", "msgspec", "picows", "starlette", "uvicorn", "uvloop")
WARM_UP = 0.4
PARTS = 200
"""Parts of a streamed reply."""


class Sample(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One measurement.

    Attributes:
        workload: One of `WORKLOADS`.
        contender: Its name.
        round: From 1 on.
        size: Clients, bytes or sessions, as the workload has it.
        flight: Messages under way at once, where that is not `size`.
        messages: How many were answered.
        cpu: CPU time of the contender's process per message, in seconds; for streams per part.
        p50: Median of the time to the whole answer, in seconds.
        p99: Of 99 in 100.
        rate: Messages per second of wall time.
        load: The share of its core that the load generator took.
        bytes: Resident memory per connection.
    """

    workload: str
    contender: str
    round: int
    size: int
    flight: int = 0
    messages: int = 0
    cpu: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    rate: float = 0.0
    load: float = 0.0
    bytes: float = 0.0


class Results(msgspec.Struct, kw_only=True):
    """A whole run.

    Attributes:
        machine: What it ran on, and with which versions.
        options: What was asked for.
        left_out: What was not compared, and why.
        samples: All measurements.
    """

    machine: dict[str, str]
    options: "Options"
    left_out: list[str]
    samples: list[Sample]


class Options(msgspec.Struct, kw_only=True):
    """What a run is to do.

    Attributes:
        rounds: How often each is measured.
        seed: Of the order.
        seconds: Of one measurement.
        clients: Of the workload ``messages``.
        tls: Clients of the workload ``tls``.
        large: Bytes of the bodies of the workload ``large``.
        streams: Clients of the workload ``streams``.
        idle: Connections of the workload ``idle``.
        growth: Sessions of the workload ``growth``.
        only: Workloads; none for all.
        few: Leave out what tells nothing new about whether the bench works.
    """

    rounds: int = 5
    seed: int = 1
    seconds: float = 2.0
    clients: tuple[int, ...] = (1, 64, 512)
    tls: tuple[int, ...] = (1, 64)
    large: tuple[int, ...] = (1_000_000, 5_000_000)
    streams: tuple[int, ...] = (1, 64)
    idle: tuple[int, ...] = (2000,)
    growth: tuple[int, ...] = (1, 100, 1000, 10_000)
    only: tuple[str, ...] = ()
    few: bool = False


QUICK = Options(
    rounds=1,
    seconds=0.15,
    clients=(1, 16),
    tls=(1, 16),
    large=(1_000_000,),
    streams=(4,),
    idle=(60,),
    growth=(1, 30),
    few=True,
)


class Job(msgspec.Struct, frozen=True):
    """One contender in one workload, in one round."""

    workload: str
    contender: Contender
    round: int


class Upstream(NamedTuple):
    """Where the platform's stand-in is, without TLS and with it."""

    http: str
    https: str


Measure = Callable[[Job, Options, Path, Upstream], Iterator[Sample]]


def measured(job: Job, at: Started, size: int, run: Run, per: int = 1) -> Sample:
    """Let it run, and see what it took."""
    before = at.process.cpu()
    result = at.load.run(run)
    cpu = at.process.cpu() - before
    return Sample(
        workload=job.workload,
        contender=job.contender.name,
        round=job.round,
        size=size,
        flight=run.flight or 0,
        messages=result.messages,
        cpu=cpu / result.messages / per,
        p50=result.p50,
        p99=result.p99,
        rate=result.messages / result.seconds,
        load=result.cpu / result.seconds,
    )


def messages(job: Job, options: Options, directory: Path, upstream: Upstream) -> Iterator[Sample]:
    """1 KiB there and back, from few clients and from many."""
    return _messages(job, options, directory, upstream.http, options.clients)


def tls(job: Job, options: Options, directory: Path, upstream: Upstream) -> Iterator[Sample]:
    """The same with the platform called over TLS, as SageMaker always is."""
    return _messages(job, options, directory, upstream.https, options.tls)


def _messages(
    job: Job, options: Options, directory: Path, url: str, sizes: Iterable[int]
) -> Iterator[Sample]:
    at = started(job.contender, upstream=url, endpoint="reply-1024", directory=directory)
    try:
        for clients in sizes:
            at.load.connect(clients)
            at.load.run(Run(min(WARM_UP, options.seconds), clients, clients))
            yield measured(job, at, clients, Run(options.seconds, clients, clients))
    finally:
        at.stop()


def large(job: Job, options: Options, directory: Path, upstream: Upstream) -> Iterator[Sample]:
    """Large bodies there and back, from four clients."""
    for size in options.large:
        at = started(
            job.contender, upstream=upstream.http, endpoint=f"reply-{size}", directory=directory
        )
        try:
            at.load.connect(4)
            at.load.run(Run(0, 4, 8, size))
            run = Run(options.seconds, 4, 16, size)
            yield measured(job, at, size, run)
        finally:
            at.stop()


def streams(job: Job, options: Options, directory: Path, upstream: Upstream) -> Iterator[Sample]:
    """Replies that are streamed: 200 parts of 40 bytes that are all there at once."""
    if job.contender in (PARSING, OWN_PARSING):
        measure = parsing.own_seconds_per_part
        if job.contender == PARSING:
            measure = parsing.seconds_per_part
        yield Sample(
            workload=job.workload,
            contender=job.contender.name,
            round=job.round,
            size=0,
            cpu=measure(options.seconds),
        )
        return
    at = started(
        job.contender, upstream=upstream.http, endpoint="burst-200-40", directory=directory
    )
    try:
        for clients in options.streams:
            at.load.connect(clients)
            at.load.run(Run(min(WARM_UP, options.seconds), clients, clients))
            yield measured(job, at, clients, Run(options.seconds, clients, clients), PARTS)
    finally:
        at.stop()


def idle(job: Job, options: Options, directory: Path, upstream: Upstream) -> Iterator[Sample]:
    """Connections with their session open, and nothing said."""
    at = started(job.contender, upstream=upstream.http, endpoint="reply-1024", directory=directory)
    try:
        first = min(100, *options.idle)
        at.load.connect(first)  # what the first ones make the process load is not theirs
        time.sleep(0.5)
        before = at.process.memory()
        # Each client of the floor has a connection to the platform too.
        room = raise_file_limit() // (2 if job.contender == FLOOR else 1) - first
        for count in sorted({min(count, room) for count in options.idle}):
            at.load.connect(first + count)
            time.sleep(1)  # for what closes behind them
            yield Sample(
                workload=job.workload,
                contender=job.contender.name,
                round=job.round,
                size=count,
                bytes=(at.process.memory() - before) / count,
            )
    finally:
        at.stop()


def growth(job: Job, options: Options, directory: Path, upstream: Upstream) -> Iterator[Sample]:
    """Messages to one session after the other, of few and of many that are open."""
    at = started(job.contender, upstream=upstream.http, endpoint="reply-1024", directory=directory)
    try:
        for sessions in options.growth:
            at.load.connect(sessions)
            for flight in (1, 64):
                if flight > sessions:
                    continue
                at.load.run(Run(min(WARM_UP, options.seconds), flight))
                yield measured(job, at, sessions, Run(options.seconds, flight))
    finally:
        at.stop()


PARSING = Contender(name="aiobotocore's parsing alone", kind="parsing")
OWN_PARSING = Contender(name="this gateway's parsing alone", kind="parsing")

WORKLOADS: dict[str, Measure] = {
    "messages": messages,
    "tls": tls,
    "large": large,
    "streams": streams,
    "idle": idle,
    "growth": growth,
}


def contenders(workload: str, *, few: bool) -> list[Contender]:
    """Who takes part in a workload."""
    match workload:
        case "messages":
            rest = [DIRECT, STOCK] if few else [DIRECT, STOCK, own("json"), own("raw")]
            if LITELLM_PYTHON and not few:
                rest.append(LITELLM)
            return [PLAIN, FORTY, FLOOR, *gateways("json", "msgpack", "raw"), *rest]
        case "tls":
            return [PLAIN, *(each for each in gateways("raw") if each.transport == "lean")]
        case "large":
            rest = [] if few else [FLOOR, *gateways("msgpack", "raw")]
            return [PLAIN, *gateways("json"), *rest]
        case "streams":
            return [PLAIN, PARSING, OWN_PARSING, *gateways("json", "msgpack")[:: 2 if few else 1]]
        case "idle":
            # What is raw opens no session by connecting, so nothing raw compares but the floor.
            return [*gateways("json"), *([] if few else [FORTY, FLOOR])]
        case _:
            return gateways("json")


def processor() -> str:
    """The name of this machine's."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine() -> dict[str, str]:
    """What this runs on."""
    return {
        "processor": processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "python": platform.python_version(),
        "load": f"{os.getloadavg()[0]:.1f}",
        **{library: importlib.metadata.version(library) for library in LIBRARIES},
    }


def raise_file_limit() -> int:
    """As many files as may be; returns how many connections that leaves one process for."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard - 1200  # calls to the platform take some too


def bench(options: Options, into: Path) -> Results:
    """Run all of it; the results so far are written after each job.

    Args:
        options: What to do.
        into: Where the results go, as JSON.
    """
    room = raise_file_limit()
    options.idle = tuple(min(count, room) for count in options.idle)
    options.growth = tuple(min(count, room) for count in options.growth)
    into.parent.mkdir(parents=True, exist_ok=True)
    results = Results(machine=machine(), options=options, left_out=left_out(), samples=[])
    shuffle = random.Random(options.seed)
    os.sched_setaffinity(0, REST)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        log, tls_log = directory / "upstream.log", directory / "upstream-tls.log"
        secured = ["tests.bench.upstream", str(CERTIFICATE)]
        with (
            Process(["tests.bench.upstream"], cores=REST, log=log) as http,
            Process(secured, cores=REST, log=tls_log) as https,
        ):
            upstream = Upstream(http.url(), https.url())
            for number in range(1, options.rounds + 1):
                jobs = [
                    Job(workload, contender, number)
                    for workload in options.only or WORKLOADS
                    for contender in contenders(workload, few=options.few)
                ]
                shuffle.shuffle(jobs)
                for index, job in enumerate(jobs, 1):
                    say(
                        f"{time.monotonic() - begun:5.0f} s  round {number}/{options.rounds}  "
                        f"{index:2}/{len(jobs)}  {job.workload}: {job.contender.name}"
                    )
                    for sample in WORKLOADS[job.workload](job, options, directory, upstream):
                        results.samples.append(sample)
                        say(f"{'':9}{told(sample)}")
                    part = into.with_suffix(".part")
                    part.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1))
                    shutil.move(part, into)
    return results


def told(sample: Sample) -> str:
    """A measurement in a line."""
    if sample.bytes:
        return f"{sample.size:>8}: {sample.bytes / 1024:.1f} KiB a connection"
    under_way = f" ({sample.flight} under way)" if sample.workload == "growth" else ""
    what = "part" if sample.workload == "streams" else "message"
    return (
        f"{sample.size:>8}{under_way}: {sample.cpu * 1e6:.1f} µs a {what}, "
        f"p50 {sample.p50 * 1e3:.2f} ms, p99 {sample.p99 * 1e3:.2f} ms, "
        f"{sample.messages} messages, load {sample.load:.0%}"
    )


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


__all__ = ["QUICK", "Failed", "Options", "Results", "Sample", "bench"]
