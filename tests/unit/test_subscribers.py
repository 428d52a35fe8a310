"""Who reads a session's log, and who is too slow for it."""

from gateway.errors import CloseCode
from gateway.protocol.messages import MessageDelta
from gateway.session.log import EventLog
from gateway.session.ports import LogBounds
from gateway.subscribers import Subscribers
from tests.support.sessions import Connection


def log_of(max_bytes: int) -> EventLog:
    return EventLog(LogBounds(max_events=100, max_bytes=max_bytes, max_age=60.0))


def say(log: EventLog, size: int) -> None:
    number = log.last + 1
    log.append(MessageDelta(event=number, id="a", index=number, text="x" * size), 1.0)


def reading(log: EventLog, subscribers: Subscribers) -> tuple[int, Connection]:
    connection = Connection()
    connection.reader.begin(log, log.last, owns=True)
    return subscribers.add(connection), connection


def test_who_has_not_taken_what_fills_half_of_the_log_is_closed_with_the_next_event() -> None:
    log = log_of(4000)
    subscribers = Subscribers(log, 1)
    slow, connection = reading(log, subscribers)
    quick, other = reading(log, subscribers)
    say(log, 2000)
    assert subscribers.wake(soon=True) == []
    other.read()
    say(log, 10)
    assert subscribers.wake(soon=True) == [slow]
    assert connection.ended == [(CloseCode.TOO_SLOW, "too slow")]
    assert len(subscribers) == 1
    assert subscribers.get(quick) is other
    assert subscribers.get(slow) is None


def test_who_has_taken_what_may_be_read_is_not_too_slow() -> None:
    log = log_of(4000)
    subscribers = Subscribers(log, 1)
    client, connection = reading(log, subscribers)
    log.holding = True
    say(log, 2000)
    say(log, 10)
    assert subscribers.wake(soon=True) == []
    log.told = log.last
    assert subscribers.wake(soon=True) == [client]
    assert connection.ended == [(CloseCode.TOO_SLOW, "too slow")]


def test_who_is_to_close_is_closed_at_once_where_it_is_too_slow() -> None:
    log = log_of(4000)
    subscribers = Subscribers(log, 7)
    client, connection = reading(log, subscribers)
    say(log, 10)
    say(log, 2000)
    subscribers.close(None, CloseCode.NORMAL, "")
    assert (len(subscribers), subscribers.are_leaving) == (0, True)
    assert subscribers.drop_laggards() == []
    log.shrink(0)
    assert subscribers.drop_laggards() == [], "it has been told before"
    assert not subscribers.are_leaving
    assert connection.ended == [(CloseCode.NORMAL, ""), (CloseCode.TOO_SLOW, "too slow")]
    assert not subscribers.has_left(client)


def test_numbers_are_never_used_again() -> None:
    log = log_of(4000)
    subscribers = Subscribers(log, 7)
    first, connection = reading(log, subscribers)
    assert subscribers.remove(first) is connection
    assert subscribers.remove(first) is None
    second, _ = reading(log, subscribers)
    assert (first, second) == (7, 8)
