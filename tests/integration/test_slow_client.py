"""A client that does not read: it costs itself its connection, and nobody else anything.

Run as a module, this prints how much memory a gateway takes whose client has stopped reading.
"""

import asyncio
import contextlib
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from tests.integration.conftest import AWS, Start
from tests.support.client import Client, client, in_time
from tests.support.processes import Container, Process, gateway, local
from tests.support.timing import UNIT

ROUTE = """
reply_bytes = 1000000
[server]
heartbeat_seconds = 3600
[routes.chat]
endpoint_name = "my-endpoint"
content_type = "text/plain"
log_bytes = 4000000
"""


def resident(process: Process) -> int:
    """Bytes of memory."""
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


async def test_replies_that_nobody_reads(start_local: Start, start_gateway: Start) -> None:
    process = start_gateway(start_local().url, ROUTE)
    async with client(process.websocket, max_queue=1) as slow, client(process.websocket) as other:
        await slow.open()
        await other.open()
        before = resident(process)
        slow.socket.transport.pause_reading()
        for number in range(16):
            await slow.send("message.send", id=f"{number}", text="/bytes 900000")
        done = [await other.ask("hi") for _ in range(10)]
        assert all(message["status"] == "completed" for message in done)
        async with asyncio.timeout(20 * UNIT):
            while "code=4413" not in process.output:  # noqa: ASYNC110
                await asyncio.sleep(0.05 * UNIT)
        assert resident(process) - before < 30_000_000
        slow.socket.transport.resume_reading()
        assert await slow.closed() == (4413, "too slow")


async def test_many_messages_at_once_from_a_client_that_reads(
    start_local: Start, start_gateway: Start
) -> None:
    process = start_gateway(start_local().url, ROUTE)
    async with client(process.websocket) as fast:
        await fast.open()
        fast.send_at_once(*[{"type": "ping", "data": f"{number}"} for number in range(500)])
        await fast.until("pong", data="499")
        assert (await fast.ask("hi"))["status"] == "completed"


async def pour(slow: Client, frame: Frame, count: int) -> None:
    """Send a frame that often, without waiting for more than the socket."""
    transport = slow.socket.transport
    for _ in range(count // 10_000):
        transport.write(frame.serialize(mask=True) * 10_000)
        async with asyncio.timeout(20 * UNIT):
            while transport.get_write_buffer_size() > 100_000:  # noqa: ASYNC110
                await asyncio.sleep(0.001 * UNIT)


async def test_pongs_that_nobody_reads(start_local: Start, start_gateway: Start) -> None:
    process = start_gateway(start_local().url, ROUTE)
    async with client(process.websocket) as slow:
        await slow.open()
        before = resident(process)
        slow.socket.transport.pause_reading()
        await pour(slow, Frame(Opcode.PING, b"x" * 125), 150_000)
        assert resident(process) - before < 6_000_000, "so many pongs are 19 MB"
        slow.socket.transport.resume_reading()
        done = await slow.ask("hi")
        assert done["status"] == "completed", (done, process.output)
        await in_time(await slow.socket.ping())


async def test_a_message_in_very_many_frames(start_local: Start, start_gateway: Start) -> None:
    process = start_gateway(start_local().url, ROUTE)
    async with client(process.websocket) as slow:
        await slow.open()
        before = resident(process)
        start = b'{"type":"message.send","id":"a","text":"'
        slow.socket.transport.write(Frame(Opcode.TEXT, start, fin=False).serialize(mask=True))
        for _ in range(15):
            await pour(slow, Frame(Opcode.CONT, b"xy", fin=False), 10_000)
            await in_time(await slow.socket.ping())  # at the gateway's pace, whatever that is
        assert resident(process) - before < 3_000_000, "kept apart, so many frames take 8 MB"
        slow.socket.transport.write(Frame(Opcode.CONT, b'"}').serialize(mask=True))
        assert (await slow.until("message.done"))["status"] == "completed"


async def test_answers_that_nobody_reads(start_local: Start, start_gateway: Start) -> None:
    process = start_gateway(start_local().url, ROUTE)
    async with client(process.websocket, max_queue=1) as slow:
        await slow.open()
        slow.socket.transport.pause_reading()
        ping = '{"type":"ping","data":"%s"}' % ("x" * 125)

        async def flood() -> None:
            while True:
                await slow.socket.send(ping)

        flooding = asyncio.create_task(flood())
        async with asyncio.timeout(20 * UNIT):
            while "connection closed" not in process.output:  # noqa: ASYNC110
                await asyncio.sleep(0.05 * UNIT)
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
        slow.socket.transport.resume_reading()
        await in_time(slow.socket.wait_closed())


STREAM = """
reply_bytes = 1000000
[server]
heartbeat_seconds = 3600
[routes.chat]
endpoint_name = "my-endpoint"
content_type = "application/json"
stream = "raw"
log_bytes = 8000000
"""
PART_BYTES = 64_000
PARTS = 1500
"""Together 96 MB, a dozen times what the log holds."""


class Figures(NamedTuple):
    """Bytes of memory of a gateway whose client has stopped reading, and what came of that."""

    before: int
    most: int
    streamed: int
    parts: int
    lost: int
    delay: float

    def __str__(self) -> str:
        """For people."""
        return (
            f"{self.before / 1e6:.0f} MB before, {self.most / 1e6:.0f} MB at most, while "
            f"{self.streamed / 1e6:.0f} MB were streamed to a client that did not read; "
            f"{self.lost} of {self.parts} parts were dropped, and said to be; "
            f"others waited {self.delay * 1000:.0f} ms for a turn, at most"
        )


async def stop_reading(process: Process) -> Figures:
    """Stop reading a long stream, while others are answered; then come back for what is left."""
    async with client(process.websocket, max_queue=1) as slow, client(process.websocket) as other:
        opened = await slow.open()
        await other.open()
        await other.send("message.send", id="first", json={})
        await other.until("message.done", id="first")
        before = most = resident(process)
        delays = []
        slow.socket.transport.pause_reading()
        await slow.send("message.send", id="a", json={"parts": PARTS, "bytes": PART_BYTES})
        number = 0
        while "code=4413" not in process.output or number < 20:  # the others wait for nobody
            begin = time.monotonic()
            await other.send("message.send", id=f"{number}", json={}, stream=False)
            assert (await other.until("message.done", id=f"{number}"))["status"] == "completed"
            delays.append(time.monotonic() - begin)
            most = max(most, resident(process))
            number += 1
        slow.socket.transport.resume_reading()
        assert await slow.closed() == (4413, "too slow")
    events = [message for message in slow.messages if "event" in message]
    gone: list[int] = []
    key = {"session_id": opened["session_id"], "resume_key": opened["resume_key"]}
    while events[-1]["type"] != "message.done":  # it may be too slow once more for what is left
        last = events[-1]["event"]
        async with client(process.websocket) as back:
            await back.send("session.open", **key, last_event=last)
            resumed = await back.until("session.resumed")
            key["resume_key"] = resumed["resume_key"]
            with contextlib.suppress(ConnectionClosed):
                await back.until("message.done", id="a")
            most = max(most, resident(process))
        first, end = resumed["lost"] or (last + 1, last)
        assert first == last + 1, "what is lost begins where the client had come to"
        gone += range(first, end + 1)
        events += [message for message in back.messages if "event" in message]
    done = events[-1]
    assert done["status"] == "completed"
    numbers = [event["event"] for event in events]
    assert sorted(numbers + gone) == [*range(1, done["event"] + 1)], "each once"
    assert numbers == sorted(numbers), "in order"
    got = [event for event in events if event["type"] == "message.delta"]
    lost = len(gone)
    assert done["deltas"] - len(got) == lost, "what is missing is what was said to be"
    whole = "".join(f"{number} ".ljust(PART_BYTES, "x") for number in range(PARTS))
    before_gap = [delta["text"] for delta in got if delta["event"] < min(gone, default=0)]
    after_gap = [delta["text"] for delta in got if delta["event"] > max(gone, default=0)]
    assert whole.startswith("".join(before_gap))
    assert whole.endswith("".join(after_gap))
    return Figures(before, most, PARTS * PART_BYTES, done["deltas"], lost, max(delays))


async def test_a_stream_that_nobody_reads(
    stack: ExitStack, tmp_path: Path, start_local: Start, start_gateway: Start
) -> None:
    container = Container(tmp_path / "sessions")
    stack.callback(container.stop)
    platform = start_local(f"--container={container.url}")
    figures = await stop_reading(start_gateway(platform.url, STREAM))
    assert figures.lost > 0, "more than the log holds"
    # The log, what asyncio and aiohttp hold of one message each, and what the allocator keeps.
    assert figures.most - figures.before < 3 * 8_000_000, figures


async def _measure() -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        container = Container(folder / "sessions")
        stack.callback(container.stop)
        platform = stack.enter_context(local(f"--container={container.url}"))
        config = folder / "gateway.toml"
        config.write_text(AWS.format(url=platform.url, transport="lean") + STREAM)
        figures = await stop_reading(stack.enter_context(gateway(config)))
    sys.stdout.write(f"{figures}\n")


if __name__ == "__main__":
    os.environ.update(AWS_ACCESS_KEY_ID="local", AWS_SECRET_ACCESS_KEY="local-secret")
    asyncio.run(_measure())
