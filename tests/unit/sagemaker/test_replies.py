"""Streamed replies are read in bounded pieces, whatever a container writes."""

import asyncio
from collections.abc import Callable

import pytest

from gateway.errors import ErrorCode
from gateway.formats.streams import Part, Splitter, StreamError, StreamKind, splitter
from gateway.formats.text import Text
from gateway.local.eventstream import payload_part
from gateway.sagemaker.budget import SHARE_COST, TURN_COST, ReadBudget
from gateway.sagemaker.exceptions import ConnectionLost, ReplyFailed
from gateway.sagemaker.replies import PARTS_APART, SLICE_BYTES, UNREAD_BYTES, ReplyReader
from gateway.sagemaker.transport import StreamedReply
from gateway.session.ports import ModelError
from tests.support.timing import UNIT

HEAD = StreamedReply(content_type="text/plain")


class Connection:
    """Where a body comes from; it keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pause_reading(self) -> None:
        self.told.append("pause")

    def resume_reading(self) -> None:
        self.told.append("resume")

    def cancel(self) -> None:
        self.told.append("cancel")


class Reply:
    """A reply that is read, and what came of it."""

    def __init__(
        self,
        budget: ReadBudget,
        cut: Splitter,
        hear: Callable[[list[Part]], object] = lambda _parts: None,
    ) -> None:
        self.parts: list[Part] = []
        self.ends: list[StreamedReply | Exception] = []
        self.source = Connection()
        self._hear = hear
        self.reader = ReplyReader(budget, lambda _: cut, self._take, self.ends.append)
        self.reader.source = self.source
        self.reader.begin(HEAD)

    def _take(self, parts: list[Part]) -> None:
        assert not self.ends, "the end comes last"
        self.parts += parts
        self._hear(parts)

    async def ended(self) -> None:
        async with asyncio.timeout(20 * UNIT):
            while not self.ends:  # noqa: ASYNC110 - each turn of the loop counts
                await asyncio.sleep(0)

    @property
    def text(self) -> str:
        return "".join(part for part in self.parts if isinstance(part, str))


@pytest.fixture
async def budget() -> ReadBudget:
    return ReadBudget(asyncio.get_running_loop())


def lines() -> Splitter:
    return splitter(StreamKind.LINES, text=Text("a"))


def raw() -> Splitter:
    return splitter(StreamKind.RAW, textual=True)


async def work_per_turn(reply: Reply, work: Callable[[], int]) -> list[int]:
    """How much was done in each turn of the event loop until the end."""
    done = [work()]
    async with asyncio.timeout(20 * UNIT):
        while not reply.ends:
            await asyncio.sleep(0)
            done.append(work())
    return [after - before for before, after in zip([0, *done], done, strict=False)]


@pytest.mark.parametrize(
    "body",
    [
        payload_part(b"{}\n" * 5_000),
        payload_part(b"{}\n") * 5_000,
        payload_part(b"\n" * 5_000),
        payload_part(b"{") + payload_part(b" ") * 5_000 + payload_part(b"}"),
        payload_part(b"") * 5_000,
        payload_part(b'{"a": "' + b"x" * 500_000 + b'"}\n') * 3,
    ],
    ids=["lines", "parts", "blank lines", "bytes", "empty parts", "large lines"],
)
async def test_a_turn_of_the_loop_does_so_much_and_no_more(
    budget: ReadBudget, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs: list[int] = []
    read = ReplyReader.read

    def counted(reader: ReplyReader, most: int) -> int:
        costs.append(read(reader, most))
        return costs[-1]

    monkeypatch.setattr(ReplyReader, "read", counted)
    reply = Reply(budget, lines())
    reply.reader.feed(body)
    reply.reader.end()
    turns = await work_per_turn(reply, lambda: sum(costs))
    largest = SLICE_BYTES // 256 + 1  # the step that goes past the end of a turn
    assert max(turns) <= TURN_COST + largest
    assert len(turns) > 4
    assert reply.ends == [HEAD]


async def test_small_replies_are_read_at_once(budget: ReadBudget) -> None:
    for _ in range(3 * TURN_COST):
        reply = Reply(budget, lines())
        reply.reader.feed(payload_part(b'{"a": "x"}\n'))
        reply.reader.end()
        if reply.ends != [HEAD]:
            break  # the budget of this turn is used up
    else:
        pytest.fail("nothing bounds what many do together")
    await reply.ended()
    assert reply.text == "x"


async def test_a_large_reply_leaves_room_for_others(budget: ReadBudget) -> None:
    large, small = Reply(budget, lines()), Reply(budget, lines())
    large.reader.feed(payload_part(b"{}\n" * 50_000))
    small.reader.feed(payload_part(b'{"a": "x"}\n' * SHARE_COST))
    small.reader.end()
    for _ in range(4):
        await asyncio.sleep(0)
    assert small.ends == [HEAD]
    assert small.text == "x" * SHARE_COST
    assert large.reader.unread
    large.reader.cancel()


async def test_a_body_that_comes_faster_than_it_is_read_is_paused(budget: ReadBudget) -> None:
    reply = Reply(budget, lines())
    event = payload_part(b'{"a": "x"}\n' * 1_000)
    fed = 0
    while "pause" not in reply.source.told:
        reply.reader.feed(event)
        fed += 1
    assert fed * len(event) <= UNREAD_BYTES + 2 * len(event)
    async with asyncio.timeout(20 * UNIT):
        while "resume" not in reply.source.told:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
    reply.reader.feed(event)
    reply.reader.end()
    await reply.ended()
    assert reply.text == "x" * 1_000 * (fed + 1)
    assert reply.source.told == ["pause", "resume"]


async def test_few_parts_stay_apart_and_many_are_joined(budget: ReadBudget) -> None:
    few, many = Reply(budget, raw()), Reply(budget, raw())
    few.reader.feed(payload_part(b"x") * PARTS_APART)
    assert few.parts == ["x"] * PARTS_APART
    many.reader.feed(payload_part("é".encode()) * (PARTS_APART + 1) + payload_part(b"\xff") * 3)
    assert many.parts == ["é" * (PARTS_APART + 1), b"\xff\xff\xff"]


async def test_records_are_never_joined(budget: ReadBudget) -> None:
    reply = Reply(budget, splitter(StreamKind.LINES))
    reply.reader.feed(payload_part(b'{"a": 1}\n' * 1_000))
    reply.reader.end()
    await reply.ended()
    assert reply.parts == ['{"a": 1}'] * 1_000


@pytest.mark.parametrize("error", [None, ConnectionLost()])
async def test_what_has_come_counts_before_the_end(
    budget: ReadBudget, error: Exception | None
) -> None:
    reply = Reply(budget, lines())
    reply.reader.feed(payload_part(b'{"a": "x"}\n' * 2_000))
    reply.reader.end(error)
    assert reply.ends == []
    await reply.ended()
    assert reply.text == "x" * 2_000
    assert reply.ends == [error or HEAD]


async def test_a_fault_closes_the_connection(budget: ReadBudget) -> None:
    reply = Reply(budget, lines())
    reply.reader.feed(payload_part(b'{"a": "x"}\n' * 2_000 + b"nonsense\n" + b"{}\n" * 2_000))
    await reply.ended()
    (error,) = reply.ends
    assert isinstance(error, ReplyFailed)
    assert isinstance(error.error, StreamError)
    assert error.error.failure.code is ErrorCode.STREAM_BROKEN
    assert (reply.text, reply.source.told) == ("x" * 2_000, ["cancel"])
    reply.reader.feed(payload_part(b"{}\n"))
    reply.reader.end()
    reply.reader.cancel()
    assert len(reply.ends) == 1


async def test_a_body_that_ends_in_the_middle_of_an_event(budget: ReadBudget) -> None:
    reply = Reply(budget, lines())
    reply.reader.feed(payload_part(b'{"a": "x"}\n') + payload_part(b"{}\n")[:-1])
    reply.reader.end()
    (error,) = reply.ends
    assert isinstance(error, ReplyFailed)
    assert isinstance(error.error, ModelError)
    assert reply.text == "x"


async def test_a_listener_that_fails(budget: ReadBudget) -> None:
    def fails(_parts: object) -> None:
        raise ZeroDivisionError

    reply = Reply(budget, raw(), fails)
    reply.reader.feed(payload_part(b"x"))
    (error,) = reply.ends
    assert isinstance(error, ReplyFailed)
    assert isinstance(error.error, ZeroDivisionError)
    assert reply.source.told == ["cancel"]


@pytest.mark.parametrize("whole", [False, True])
async def test_nothing_is_heard_of_a_cancelled_call(budget: ReadBudget, whole: bool) -> None:
    reply = Reply(budget, lines())
    reply.reader.feed(payload_part(b'{"a": "x"}\n' * 5_000))
    if whole:
        reply.reader.end()
    told = len(reply.parts)
    reply.reader.cancel()
    reply.reader.end(ConnectionLost())
    for _ in range(10):
        await asyncio.sleep(0)
    assert (len(reply.parts), reply.ends, reply.source.told) == (told, [], ["cancel"])


async def test_a_listener_that_cancels(budget: ReadBudget) -> None:
    reply = Reply(budget, lines(), lambda _parts: reply.reader.cancel())
    reply.reader.feed(payload_part(b'{"a": "x"}\n' * 5_000))
    reply.reader.end()
    for _ in range(10):
        await asyncio.sleep(0)
    assert 0 < len(reply.text) <= SHARE_COST
    assert (reply.ends, reply.source.told) == ([], ["cancel"])


async def test_an_end_that_goes_wrong_holds_up_no_other(budget: ReadBudget) -> None:
    def fails(_result: object) -> None:
        raise ZeroDivisionError

    bad = ReplyReader(budget, lambda _: lines(), lambda _parts: None, fails)
    bad.begin(HEAD)
    bad.feed(payload_part(b"{}\n" * 2 * TURN_COST))
    other = Reply(budget, lines())
    other.reader.feed(payload_part(b'{"a": "x"}\n' * 2 * TURN_COST))
    other.reader.end()
    bad.end()
    failures: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failures.append(context["exception"]))
    await other.ended()
    assert (other.text, len(failures)) == ("x" * 2 * TURN_COST, 1)
