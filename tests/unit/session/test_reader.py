"""A client's place in a log, and what it is told besides."""

import pytest
from msgspec import structs

from gateway.protocol import messages as wire
from gateway.session.log import OVERHEAD_BYTES, EventLog
from gateway.session.ports import LogBounds
from gateway.session.reader import MAX_NOTICES, LogReader

PONG = wire.Pong()
RESUMED = wire.SessionResumed(
    session_id="s", resume_key="", expires_at=None, last_event=4, lost=None
)


def filled(count: int, max_events: int = 100, max_bytes: int = 1_000_000) -> EventLog:
    log = EventLog(LogBounds(max_events=max_events, max_bytes=max_bytes, max_age=60.0))
    add(log, count)
    return log


def add(log: EventLog, count: int) -> None:
    for number in range(log.last + 1, log.last + count + 1):
        log.append(wire.MessageAccepted(event=number, id="a", queued=0), 0.0)


def taken(reader: LogReader) -> list[object]:
    """All that it has: the numbers of events, and notices."""
    messages: list[object] = []
    while (message := reader.take()) is not None:
        messages.append(message.event if isinstance(message, wire.MessageAccepted) else message)
    return messages


def test_events_in_their_order_and_notices_where_they_were_said() -> None:
    log, reader = filled(2), LogReader()
    assert (reader.position, reader.resume_key, reader.owns) == (0, "", False)
    reader.tell(PONG)
    assert taken(reader) == [PONG], "also before there is a session"
    reader.tell(PONG)
    reader.begin(log, 0, owns=True)
    assert reader.take() is PONG, "ahead of all events"
    reader.tell(PONG)
    add(log, 1)
    assert taken(reader) == [1, 2, PONG, 3]


def test_a_key_is_put_in_where_the_client_is_told_of_it() -> None:
    log, reader = filled(0), LogReader("key")
    opened = wire.SessionOpened(
        event=1,
        session_id="s",
        resume_key="",
        expires_at=None,
        route="chat",
        limits=wire.Limits(message_bytes=1, queued_messages=1, resume_seconds=1),
        heartbeat_seconds=1,
    )
    log.append(opened, 0.0)
    reader.resume(log, 0, RESUMED)
    assert taken(reader) == [
        structs.replace(RESUMED, resume_key="key"),
        structs.replace(opened, resume_key="key"),
    ]
    assert log.get(1) is opened, "which the log does not keep"


def test_what_is_lost_is_said_when_it_comes_back() -> None:
    log, reader = filled(4, max_events=2), LogReader()
    reader.resume(log, 0, RESUMED)
    assert reader.owns
    first, *events = taken(reader)
    assert isinstance(first, wire.SessionResumed)
    assert first.lost == (1, 2)
    assert events == [3, 4]
    reader.resume(log, 2, RESUMED)
    assert taken(reader) == [RESUMED, 3, 4]


def test_nothing_is_said_of_what_is_lost_before_it_may_be_read() -> None:
    log, reader = filled(2, max_events=2), LogReader()
    log.holding = True
    add(log, 4)
    reader.resume(log, 1, RESUMED)
    (first,) = taken(reader)
    assert isinstance(first, wire.SessionResumed)
    assert first.lost == (2, 2)
    log.told = log.last
    assert reader.lags, "it comes back, and is told of the others"
    reader.resume(log, 2, RESUMED)
    assert reader.lost == (3, 4)


def test_what_nobody_needs_any_more_is_passed_over() -> None:
    log, reader = filled(3), LogReader()
    reader.begin(log, 0, owns=True)
    log.trim(2)
    assert taken(reader) == [3]


def test_a_reader_lags_when_what_it_has_not_taken_fills_half_of_the_log() -> None:
    reader = LogReader()
    lags = [reader.lags]
    log = filled(4, max_events=8)
    reader.begin(log, 4, owns=True)
    for count in (4, 1):
        add(log, count)
        lags.append(reader.lags)
    assert taken(reader)
    assert [*lags, reader.lags] == [False, False, True, False]


def test_what_may_not_be_read_yet_is_not_behind() -> None:
    log, reader = filled(4, max_events=8), LogReader()
    reader.begin(log, 4, owns=True)
    add(log, 2)
    log.holding = True
    lags = []
    for _ in range(3):
        add(log, 1)
        lags.append(reader.lags)
    log.told = log.last
    assert [*lags, reader.lags] == [False, False, False, True]


@pytest.mark.parametrize(
    ("sizes", "lags"),
    [
        ([1, 2], False),  # the newest is under way, however large
        ([2, 1], False),  # exactly half
        ([1, 1, 1], False),
        ([1, 2, 1], True),
        ([3, 1], True),
    ],
)
def test_half_of_the_log_is_half_of_its_bytes_too(sizes: list[int], lags: bool) -> None:
    log, reader = filled(3, max_bytes=4 * OVERHEAD_BYTES), LogReader()
    reader.begin(log, 3, owns=False)
    for size in sizes:
        add_large(log, (size - 1) * OVERHEAD_BYTES)
    assert reader.lags is lags


@pytest.mark.parametrize("owns", [True, False])
def test_however_large_it_is(owns: bool) -> None:
    log, reader = filled(3, max_bytes=4 * OVERHEAD_BYTES), LogReader()
    reader.begin(log, 3, owns=owns)
    log.holding = True
    add_large(log, 2 * OVERHEAD_BYTES)
    add(log, 1)
    lags = [reader.lags]
    log.told = log.last - 1
    lags.append(reader.lags)
    log.told = log.last
    assert [*lags, reader.lags] == [False, False, True]


def add_large(log: EventLog, size: int) -> None:
    """An event with so many bytes beside what each takes."""
    log.append(wire.MessageDelta(event=log.last + 1, id="a", index=0, text="x" * size), 0.0)


def test_the_newest_event_alone_is_no_lag_however_few_are_kept() -> None:
    log, reader = filled(4, max_events=1), LogReader()
    reader.begin(log, 4, owns=True)
    lags = []
    for _ in range(2):
        add(log, 1)
        lags.append(reader.lags)
    assert lags == [False, True]


def test_nor_is_the_newest_that_may_be_read() -> None:
    log, reader = filled(4, max_events=1), LogReader()
    reader.begin(log, 4, owns=True)
    add(log, 1)
    log.holding = True
    add(log, 1)
    lags = [reader.lags]
    log.told = log.last
    assert [*lags, reader.lags] == [False, True]


def test_what_it_missed_while_it_was_away_does_not_count() -> None:
    log, reader = filled(7, max_events=8), LogReader()
    reader.resume(log, 0, RESUMED)
    lags = []
    for _ in range(2):
        add(log, 1)
        lags.append(reader.lags)
    assert lags == [False, True], "the second time, what it has not taken is no longer kept"


def test_what_its_owner_has_acknowledged_was_taken_before() -> None:
    log, owner, other = filled(6), LogReader(), LogReader()
    owner.begin(log, 0, owns=True)
    other.begin(log, 0, owns=False)
    log.trim(4)
    assert [owner.lags, other.lags] == [False, True]


def test_notices_are_bounded() -> None:
    reader = LogReader()
    for _ in range(MAX_NOTICES):
        assert not reader.is_full
        reader.tell(PONG)
    assert reader.is_full


def test_what_could_no_longer_be_had_when_it_began() -> None:
    log, reader = filled(4, max_events=2), LogReader()
    lost = [reader.lost]
    for after in (0, 1, 2):
        reader.begin(log, after, owns=False)
        lost.append(reader.lost)
    assert lost == [None, (1, 2), (2, 2), None]


def test_whether_it_is_behind() -> None:
    log, reader = filled(1), LogReader()
    behind = [reader.is_behind]
    reader.begin(log, 0, owns=True)
    behind.append(reader.is_behind)
    reader.take()
    assert [*behind, reader.is_behind] == [False, True, False]


def test_it_goes_on_in_another_copy_of_the_log() -> None:
    here, there, reader = filled(2), filled(0), LogReader()
    there.begin(1)
    add(there, 2)
    begun = [reader.has_begun]
    reader.begin(here, 0, owns=True)
    begun.append(reader.has_begun)
    assert begun == [False, True]
    assert taken(reader) == [1, 2]
    reader.move(there)
    assert reader.is_behind
    assert taken(reader) == [3]


def test_who_goes_on_in_another_log_is_not_behind_in_it() -> None:
    reader = LogReader()
    reader.begin(filled(1), 0, owns=True)
    assert taken(reader) == [1]
    log = filled(9, max_events=10)
    reader.move(log)
    assert not reader.lags
    add(log, 1)
    assert taken(reader) == [*range(2, 11)]
