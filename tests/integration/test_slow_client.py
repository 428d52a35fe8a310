"""A client that does not read: it costs itself its connection, and nobody else anything."""

import asyncio
from pathlib import Path

from websockets.frames import Frame, Opcode

from tests.integration.conftest import Start
from tests.support.client import Client, client, in_time
from tests.support.processes import Process
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
        await pour(slow, Frame(Opcode.PING, b"x" * 125), 300_000)
        assert resident(process) - before < 10_000_000
        slow.socket.transport.resume_reading()
        assert (await slow.ask("hi"))["status"] == "completed"
        await in_time(await slow.socket.ping())


async def test_a_message_in_very_many_frames(start_local: Start, start_gateway: Start) -> None:
    process = start_gateway(start_local().url, ROUTE)
    async with client(process.websocket) as slow:
        await slow.open()
        before = resident(process)
        start = b'{"type":"message.send","id":"a","text":"'
        slow.socket.transport.write(Frame(Opcode.TEXT, start, fin=False).serialize(mask=True))
        await pour(slow, Frame(Opcode.CONT, b"xy", fin=False), 600_000)
        await in_time(await slow.socket.ping())
        assert resident(process) - before < 15_000_000
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
