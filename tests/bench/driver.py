"""How the bench's processes are driven: a command a line on standard input, an answer a line out.

The load generator and the contenders that are no servers (the plain SDK call) take the same two
commands, so one piece of code runs them all.
"""

import asyncio
import os
import sys
import time
from typing import Protocol

import msgspec


class Connect(msgspec.Struct, tag="connect"):
    """Have that many clients, each with its session open.

    Attributes:
        clients: How many in all, with those that there are already.
    """

    clients: int


class Run(msgspec.Struct, tag="run"):
    """Send messages, each client its next one when the last has been answered.

    Attributes:
        seconds: How long; what is under way then is waited for.
        flight: How many messages are under way at once; the clients take turns. None for one of
            each client.
        least: How many messages there are to be at least, however long that takes.
        body: Bytes of a message's body.
    """

    seconds: float
    flight: int | None = None
    least: int = 0
    body: int = 1024


Command = Connect | Run


class Result(msgspec.Struct):
    """What a run has come to.

    Attributes:
        messages: Answered, all of them.
        seconds: From the first sent to the last answered.
        p50: Median time from sending to the whole answer, in seconds.
        p99: The same of 99 in 100.
        cpu: CPU time of this process meanwhile, in seconds.
    """

    messages: int
    seconds: float
    p50: float
    p99: float
    cpu: float


class Timer:
    """Takes the times of a run's messages."""

    def __init__(self, run: Run) -> None:
        self.taken: list[float] = []
        self.run = run
        self.begun = time.perf_counter()
        self._cpu = time.process_time()
        self._until = self.begun + run.seconds

    def goes_on(self, now: float) -> bool:
        """Whether another message is to be sent."""
        return now < self._until or len(self.taken) < self.run.least

    def result(self) -> Result:
        """After the last answer."""
        taken = sorted(self.taken)
        return Result(
            messages=len(taken),
            seconds=time.perf_counter() - self.begun,
            p50=taken[len(taken) // 2],
            p99=taken[len(taken) * 99 // 100],
            cpu=time.process_time() - self._cpu,
        )


class Driven(Protocol):
    """Does what is commanded."""

    async def connect(self, clients: int) -> None:
        """See `Connect`."""
        ...

    async def run(self, run: Run) -> Result:
        """See `Run`."""
        ...


async def obey(driven: Driven) -> None:
    """Take commands from standard input until it ends."""
    commands = msgspec.json.Decoder[Command](Command)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.buffer.readline):
        command = commands.decode(line)
        answer = None
        if isinstance(command, Connect):
            await driven.connect(command.clients)
        else:
            answer = await driven.run(command)
        os.write(1, msgspec.json.encode(answer) + b"\n")
