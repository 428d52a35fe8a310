"""The event log: numbers without gaps, and bounds."""

import sys

import pytest
from msgspec import Raw

from gateway.protocol.messages import Event, MessageAccepted, MessageDelta, MessageDone
from gateway.session.log import OVERHEAD_BYTES, EventLog, size_of
from gateway.session.ports import LogBounds


def accepted(number: int) -> Event:
    return MessageAccepted(event=number, id="a", queued=0)


def filled(count: int, *, max_events: int = 100, max_bytes: int = 1_000_000) -> EventLog:
    log = EventLog(LogBounds(max_events=max_events, max_bytes=max_bytes, max_age=60.0))
    for number in range(1, count + 1):
        log.append(accepted(number), float(number))
    return log


def number_at(log: EventLog, number: int) -> int | None:
    event = log.get(number)
    return None if event is None else event.event


def test_an_empty_log() -> None:
    log = filled(0)
    assert (log.first, log.last, log.bytes_after(0)) == (1, 0, 0)
    assert log.get(1) is None


def test_events_by_number() -> None:
    log = filled(3)
    assert [number_at(log, number) for number in range(5)] == [None, 1, 2, 3, None]


def test_a_gap_is_refused() -> None:
    with pytest.raises(ValueError, match="event 3 does not follow 1"):
        filled(1).append(accepted(3), 3.0)


def test_the_oldest_go_when_there_are_too_many() -> None:
    log = filled(5, max_events=2)
    assert (log.first, log.last) == (4, 5)


def test_the_oldest_go_when_they_hold_too_much() -> None:
    log = filled(5, max_bytes=2 * OVERHEAD_BYTES)
    assert (log.first, log.last) == (4, 5)


def test_the_oldest_go_when_they_are_too_old() -> None:
    log = filled(3)
    log.append(accepted(4), 63.0)
    assert (log.first, log.last) == (3, 4)


def test_the_newest_is_kept_whatever_its_size() -> None:
    log = filled(2, max_bytes=1)
    assert (log.first, log.last) == (2, 2)


def test_trimming() -> None:
    log = filled(3)
    log.trim(2)
    assert (log.first, log.last) == (3, 3)
    log.trim(9)
    assert (log.first, log.last) == (4, 3)
    log.append(accepted(4), 4.0)
    assert number_at(log, 4) == 4


def test_what_waits_for_a_reader() -> None:
    log = filled(4)
    log.trim(1)
    assert log.bytes_after(0) == 3 * OVERHEAD_BYTES
    assert log.bytes_after(2) == 2 * OVERHEAD_BYTES
    assert log.bytes_after(4) == 0


def test_a_long_log_cut_from_the_front() -> None:
    log = filled(0, max_events=300)
    for number in range(1, 2001):
        log.append(accepted(number), float(number) / 1000)
        if number % 7 == 0:
            log.trim(number - 200 if number % 2 else number - 310)
        assert log.last == number
        assert log.last - log.first < 300
        assert [number_at(log, n) for n in (log.first, number)] == [log.first, number]
        assert log.bytes_after(log.first) == (number - log.first) * OVERHEAD_BYTES


def test_a_long_log_in_which_the_oldest_are_too_old() -> None:
    log = filled(0, max_events=1000)
    for number in range(1, 501):
        log.append(accepted(number), float(number))
        assert log.first == max(1, number - 60)


def test_what_is_dropped_is_kept_nowhere() -> None:
    log = filled(3)
    event = accepted(4)
    references = sys.getrefcount(event)
    log.append(event, 4.0)
    log.trim(4)
    assert sys.getrefcount(event) == references
    for number in range(5, 1005):
        log.append(accepted(number), 4.0)
        log.trim(number)
    assert len(log._events) == len(log._times) == len(log._totals) <= 16


def test_what_an_event_takes_is_counted_when_it_is_added() -> None:
    log = filled(0, max_bytes=3 * OVERHEAD_BYTES)
    for number in (1, 2):
        delta = MessageDelta(event=number, id="a", index=0, text="x" * OVERHEAD_BYTES)
        log.append(delta, 0.0)
    assert (log.first, log.bytes_after(0)) == (2, 2 * OVERHEAD_BYTES)


def test_a_body_counts_in_full() -> None:
    def done(**body: object) -> Event:
        fields = {"event": 1, "id": "a", "status": "completed", "deltas": 0, "duration_ms": 0}
        return MessageDone(**fields, **body)  # type: ignore[arg-type]

    for body in ({"text": "x" * 10}, {"json": Raw(b"[1,2,3,45]")}, {"base64": b"x" * 10}):
        assert size_of(done(**body)) == OVERHEAD_BYTES + 10
    assert size_of(done()) == OVERHEAD_BYTES
    assert size_of(done(text="日本語")) == OVERHEAD_BYTES + 9, "bytes, not characters"
    for part in ({"text": "x" * 10}, {"text": "ä" * 5}, {"base64": b"x" * 10}):
        delta = MessageDelta(event=1, id="a", index=0, **part)
        assert size_of(delta) == OVERHEAD_BYTES + 10


def test_what_it_holds() -> None:
    log = filled(4)
    assert log.held == 4 * OVERHEAD_BYTES
    log.trim(1)
    assert log.held == 3 * OVERHEAD_BYTES
    log.trim(4)
    assert log.held == 0
    log.append(accepted(5), 5.0)
    assert log.held == OVERHEAD_BYTES


def test_it_is_shortened_from_the_front_as_far_as_need_be() -> None:
    log = filled(4)
    log.shrink(2 * OVERHEAD_BYTES)
    assert (log.first, log.last, log.trimmed) == (3, 4, 0)
    log.shrink(2 * OVERHEAD_BYTES)
    assert log.first == 3
    log.shrink(0)
    assert (log.first, log.last) == (4, 4), "the newest stays"
    log.trim(4)
    log.shrink(0)
    assert (log.first, log.last) == (5, 4)


def test_a_log_that_goes_on_elsewhere() -> None:
    log = filled(0)
    log.begin(7)
    assert (log.first, log.last, log.told, log.held) == (8, 7, 7, 0)
    assert log.get(7) is None
    log.append(accepted(8), 1.0)
    assert [number_at(log, number) for number in (7, 8, 9)] == [None, 8, None]


def test_one_that_goes_on_after_another_number_holds_nothing_of_before() -> None:
    log = filled(5)
    log.trim(2)
    log.begin(3)
    assert (log.first, log.last, log.told, log.held) == (4, 3, 3, 0)
    log.append(accepted(4), 1.0)
    assert log.held == log.bytes_after(3) == OVERHEAD_BYTES
    assert log.since(0) == [accepted(4)]


def test_what_follows_a_number() -> None:
    log = filled(4)
    log.trim(1)
    assert [event.event for event in log.since(0)] == [2, 3, 4]
    assert [event.event for event in log.since(2)] == [3, 4]
    assert log.since(4) == []
    assert log.since(9) == []


def test_what_follows_a_number_in_a_log_that_was_cut() -> None:
    log = filled(100, max_events=3)
    assert [event.event for event in log.since(0)] == [98, 99, 100]
    assert [event.event for event in log.since(99)] == [100]


def test_what_is_held_back_is_read_when_it_is_told() -> None:
    log = filled(1)
    log.holding = True
    for number in (2, 3):
        log.append(accepted(number), float(number))
    assert (log.last, log.told) == (3, 1)
    assert [number_at(log, number) for number in (1, 2, 3)] == [1, None, None]
    assert [event.event for event in log.since(1)] == [2, 3]
    log.told = 2
    assert [number_at(log, number) for number in (1, 2, 3)] == [1, 2, None]
    log.holding = False
    log.append(accepted(4), 4.0)
    assert log.told == 4


@pytest.mark.parametrize("holding", [False, True])
def test_what_nobody_has_got_may_have_other_numbers(holding: bool) -> None:
    log = filled(5)
    log.holding = holding
    log.renumber(3, 10)
    assert (log.first, log.last, log.held) == (14, 15, 2 * OVERHEAD_BYTES)
    assert log.told == (13 if holding else 15)
    assert [event.event for event in log.since(0)] == [14, 15]
    assert [number_at(log, number) for number in (3, 4, 13)] == [None] * 3
    log.append(accepted(16), 5.0)
    assert log.bytes_after(14) == 2 * OVERHEAD_BYTES


def test_they_are_as_old_as_before() -> None:
    log = filled(5)
    log.renumber(3, 10)
    log.append(accepted(16), 64.5)
    assert log.first == 15, "the fourth was of 4.0"


def test_where_none_follows_the_next_does() -> None:
    log = filled(3)
    log.renumber(3, 10)
    assert (log.first, log.last) == (14, 13)
    log.append(accepted(14), 4.0)
    assert number_at(log, 14) == 14


def test_where_some_that_follow_are_dropped_the_others_keep_their_distance() -> None:
    log = filled(9, max_events=2)
    assert log.first == 8
    log.renumber(3, 10)
    assert (log.first, log.last) == (18, 19)
    assert [event.event for event in log.since(0)] == [18, 19]
