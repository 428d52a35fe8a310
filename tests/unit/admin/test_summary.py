"""What metrics say to people."""

import pytest

from gateway.admin.summary import Change, Summary, Window, quantile, replica_state
from gateway.measures import TURNS, Histogram
from gateway.telemetry.reading import Reading

ENDPOINTS = {"chat": "one", "other": "two"}
DONE = ("completed", "", "")


def reading(*times: float, route: str = "chat", failed: int = 0, breaker: bool = False) -> Reading:
    """Of a replica whose turns have taken these times, beside those that have failed at once."""
    histogram = Histogram(TURNS)
    histogram.observe_all(times)
    made = Reading()
    made.set("turns", len(times), route, *DONE)
    made.set("turns", failed, route, "failed", "timeout", "unknown")
    made.spread("turn_duration_seconds", histogram, route)
    made.spread("turn_first_delta_seconds", Histogram(TURNS), route)
    made.set("sessions", 2, route, "ready", "true")
    made.set("sessions", 1, route, "running", "false")
    made.set("turns_in_flight", 1, route)
    made.set("breaker_open", breaker, route)
    made.set("build_info", 1, "1.2.3")
    made.set("draining", 0)
    return made


def bucket(*places: int) -> list[int]:
    counts = [0] * (len(TURNS) + 1)
    for place in places:
        counts[place] += 1
    return counts


@pytest.mark.parametrize(
    ("counts", "share", "seconds"),
    [
        (bucket(), 0.5, None),
        (bucket(0), 0.5, TURNS[0] / 2),
        (bucket(1), 1.0, TURNS[1]),
        (bucket(0, 1), 0.5, TURNS[0]),
        (bucket(3, 3, 3, 3), 0.5, (TURNS[2] + TURNS[3]) / 2),
        (bucket(0, len(TURNS)), 0.95, TURNS[-1]),
    ],
)
def test_quantiles(counts: list[int], share: float, seconds: float | None) -> None:
    assert quantile(counts, share) == (None if seconds is None else pytest.approx(seconds))


def test_no_counts_are_none() -> None:
    assert quantile([], 0.5) is None


def test_all_and_each_route() -> None:
    readings = {"a": reading(0.3, 0.3), "b": reading(2.0, route="other", failed=1)}
    summary = Summary(ENDPOINTS, readings)
    total = summary.figures()
    assert total.sessions == {"ready": 4, "running": 2}
    assert (total.attached, total.turns_in_flight, total.per_second) == (4, 2, 0.0)
    assert total.turns == {"completed": 3, "cancelled": 0, "failed": 1}
    assert (total.whole.count, total.first_part.count, total.first_part.p50) == (3, 0, None)
    chat, other = summary.routes()
    assert (chat.route, chat.endpoint, chat.whole.count) == ("chat", "one", 2)
    assert chat.whole.p50 is not None
    assert 0.25 < chat.whole.p50 <= 0.5
    assert (other.turns["failed"], other.whole.count) == (1, 1)


@pytest.mark.parametrize(
    ("open_at", "breaker"), [((), "closed"), ("a", "partly open"), ("ab", "open")]
)
def test_a_breaker_is_of_each_replica(open_at: str, breaker: str) -> None:
    readings = {name: reading(breaker=name in open_at) for name in "ab"}
    assert Summary(ENDPOINTS, readings).routes()[0].breaker == breaker


def test_where_nobody_answers_there_is_nothing() -> None:
    (route, _) = Summary(ENDPOINTS, {}).routes()
    assert (route.sessions, route.breaker, route.whole.p95) == ({}, "closed", None)


class TestWindow:
    def test_what_was_before_does_not_count(self) -> None:
        window, newest = Window(3), dict[str, Reading]()
        for now, times in enumerate([[0.3] * 5, [0.3] * 6, [0.3] * 9, [0.3] * 13]):
            window.add(float(now), newest := {"a": reading(*times)})
        figures = Summary(ENDPOINTS, newest, window).figures()
        assert figures.whole.count == 13 - 6, "since the oldest that is kept"
        assert figures.per_second == 4.0, "since the one before"
        assert figures.turns["completed"] == 13, "since the start"

    def test_a_replica_counts_from_its_first_answer(self) -> None:
        window = Window(9)
        window.add(0.0, {"a": reading(0.3)})
        window.add(1.0, {"a": reading(0.3), "b": reading(*[0.3] * 100)})
        assert Summary(ENDPOINTS, window_last(window), window).figures().whole.count == 0
        window.add(2.0, {"b": reading(*[0.3] * 103)})
        figures = Summary(ENDPOINTS, window_last(window), window).figures()
        assert (figures.whole.count, figures.per_second) == (3, 3.0)

    def test_nothing_is_known_before_anybody_has_answered(self) -> None:
        change, seconds = Window(3).changed("turns")
        assert (change.numbers, change.counts, seconds) == ({}, {}, 0.0)
        assert isinstance(change, Change)


def window_last(window: Window) -> dict[str, Reading]:
    return dict(window._kept[-1][1])


def test_what_is_known_of_a_replica() -> None:
    known = replica_state("a", reading(), here=True)
    assert (known.answers, known.here, known.version, known.sessions) == (True, True, "1.2.3", 3)
    silent = replica_state("b", None, here=False)
    assert (silent.answers, silent.sessions, silent.draining) == (False, None, None)
