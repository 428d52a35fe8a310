"""Counting, adding up and showing: what metrics say of turns, and how several processes are one."""

import asyncio
import re
from pathlib import Path

import httpx
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from gateway import tally
from gateway.errors import ErrorCode, Outcome
from gateway.measures import Histogram
from gateway.protocol.messages import (
    ErrorObject,
    Event,
    MessageAccepted,
    MessageDelta,
    MessageDone,
    SessionClosed,
    SessionOpened,
    SessionRenewed,
)
from gateway.session.effects import Invoke
from gateway.session.ports import ModelRequest, ModelSession
from gateway.session.turn_queue import Turn
from gateway.tally import COUNTED, RouteMeasures, Tally, TurnTimes
from gateway.telemetry import exposition
from gateway.telemetry.exposition import rendered
from gateway.telemetry.families import FAMILIES
from gateway.telemetry.metrics import LOOK_SECONDS, Metrics
from gateway.telemetry.reading import Reading, total
from tests.support.timing import UNIT

DOCUMENT = Path(__file__).parents[2] / "docs" / "observability.md"

MODEL = ModelSession("m")
FAILED = ErrorObject(
    code=ErrorCode.THROTTLED, message="", retryable=True, outcome=Outcome.NOT_INVOKED
)


def accepted(message_id: str) -> MessageAccepted:
    return MessageAccepted(event=1, id=message_id, queued=0)


def part(message_id: str, index: int) -> MessageDelta:
    return MessageDelta(event=2, id=message_id, index=index, text="a")


def done(message_id: str, status: str = "completed", **fields: object) -> MessageDone:
    said = {"event": 3, "id": message_id, "status": status, "deltas": 0, "duration_ms": 0}
    return MessageDone(**{**said, **fields})  # type: ignore[arg-type]


def turn(message_id: str, started: float) -> Turn:
    request = ModelRequest(body=b"", content_type="a")
    return Turn(1, message_id, b"", None, request, started=started)


class TestHistogram:
    def test_a_value_is_in_the_first_bucket_that_is_no_less(self) -> None:
        histogram = Histogram((1.0, 2.0))
        histogram.observe_all([])
        histogram.observe(2.5)
        histogram.observe(2.0)
        histogram.observe_all([1.5, 0.0, 1.0])
        assert histogram.counts == [2, 2, 1]
        assert histogram.sum == 7.0
        assert repr(histogram) == "<Histogram of 5>"


class Clock:
    """One that is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(tally, "monotonic", clock)
    return clock


class Turns:
    """A session's, as its runner tells of them; the loop's clock is ahead by 100.

    Args:
        clock: The other one.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.measures = RouteMeasures()
        self.tally = Tally("s", self.measures)

    def say(self, at: float, *events: Event) -> None:
        """Something has come in that leads to this."""
        self.tally.said(events, at + 100, at)

    def send(self, at: float, started: float) -> None:
        self.clock.now = at
        sent = turn("a", started + 100)
        invoke = Invoke(1, sent.request, MODEL)
        assert self.tally.sent(sent, invoke) is invoke

    def tell(self, at: float, event: Event) -> TurnTimes | None:
        self.clock.now = at
        times = self.tally.told(event)
        self.measures.count()
        return times


class TestTally:
    def test_the_parts_of_a_turn_are_all_of_it(self, clock: Clock) -> None:
        turns = Turns(clock)
        turns.say(10.0, accepted("a"))
        turns.send(11.5, started=11.0)
        turns.say(13.0, part("a", 0), part("a", 1))
        turns.say(14.0, part("a", 2))
        turns.send(15.0, started=11.0)  # once more; it had not arrived
        turns.say(17.0, done("a"))
        times = turns.tell(17.25, done("a", deltas=3))
        assert times is not None
        assert times.model is MODEL
        assert (times.queued, times.upstream, times.own) == (1.0, 5.5, 0.75)
        measures = turns.measures
        assert measures.duration.sum == 7.25
        assert measures.queued.sum + measures.upstream.sum + measures.own.sum == 7.25
        assert measures.first_delta.sum == 3.0
        assert measures.deltas == 3
        assert measures.turns == {("completed", "", ""): 1}

    def test_one_that_was_never_sent_has_waited_all_the_time(self, clock: Clock) -> None:
        turns = Turns(clock)
        turns.say(10.0, accepted("a"))
        turns.say(12.0, done("a", "cancelled"))
        turns.tell(12.5, done("a", "cancelled", outcome=Outcome.NOT_INVOKED))
        measures = turns.measures
        assert (measures.queued.sum, measures.own.sum) == (2.0, 0.5)
        assert sum(measures.upstream.counts) == sum(measures.first_delta.counts) == 0
        assert measures.turns == {("cancelled", "", "not_invoked"): 1}

    def test_one_that_another_process_has_accepted_is_counted_without_times(
        self, clock: Clock
    ) -> None:
        turns = Turns(clock)
        turns.say(1.0, part("a", 0))
        turns.send(1.0, started=0.0)
        turns.say(2.0, done("a"))
        assert turns.tell(3.0, done("a", "failed", error=FAILED)) is None
        assert turns.measures.turns == {("failed", "throttled", "not_invoked"): 1}
        assert sum(turns.measures.duration.counts) == 0

    def test_they_are_counted_by_themselves_when_there_are_many(self, clock: Clock) -> None:
        turns = Turns(clock)
        for number in range(tally.COUNTED_AT_ONCE):
            assert not turns.measures.turns
            turns.say(10.0, accepted(str(number)))
            turns.tally.told(done(str(number)))
        assert turns.measures.turns.total() == tally.COUNTED_AT_ONCE

    def test_what_becomes_of_sessions(self) -> None:
        turns = Turns(Clock())
        renewed = SessionRenewed(event=1, reason="lost", context="replayed", expires_at=None)
        turns.tally.told(renewed)
        turns.tally.told(SessionClosed(event=2, reason="idle"))
        assert turns.measures.renewed == {("lost", "replayed"): 1}
        assert turns.measures.ended == {"idle": 1}
        assert {MessageDone, SessionOpened, SessionRenewed, SessionClosed} == COUNTED


def reading(connections: float, turns: float, *counts: int) -> Reading:
    made = Reading()
    made.set("connections", connections, "chat", "raw")
    made.set("turns", turns, "chat", "completed", "", "")
    histogram = Histogram(next(f.bounds for f in FAMILIES if f.name == "turn_duration_seconds"))
    for number, count in enumerate(counts):
        histogram.counts[number] = count
        histogram.sum += count
    made.spread("turn_duration_seconds", histogram, "chat")
    return made


class TestReading:
    def test_processes_add_up(self) -> None:
        one, other = reading(1, 10, 1, 2), reading(2, 20, 3)
        other.set("turns", 5, "other", "completed", "", "")
        both = total([one, other, Reading()])
        assert both.numbers["connections"] == [(("chat", "raw"), 3)]
        assert both.numbers["turns"] == [
            (("chat", "completed", "", ""), 30),
            (("other", "completed", "", ""), 5),
        ]
        ((_, spread),) = both.spreads["turn_duration_seconds"]
        assert spread.counts[:3] == [4, 2, 0]
        assert spread.sum == 6
        assert one.spreads["turn_duration_seconds"][0][1].counts[:2] == [1, 2], "as it was"

    def test_of_one_that_is_gone_counters_stay(self) -> None:
        last = reading(1, 10, 1).lasting()
        assert "connections" not in last.numbers
        assert last.numbers["turns"][0][1] == 10
        assert last.spreads

    def test_it_can_be_sent(self) -> None:
        one = reading(1, 10, 1, 2)
        assert msgspec.json.decode(msgspec.json.encode(one), type=Reading) == one

    def test_labels_are_as_the_table_says(self) -> None:
        with pytest.raises(AssertionError):
            Reading().set("connections", 1, "chat")


class TestExposition:
    def test_a_histogram_is_cumulative(self) -> None:
        body, kind = rendered(reading(1, 10, 1, 2), "")
        assert kind.startswith("text/plain; version=0.0.4")
        text = body.decode()
        name = "session_gateway_turn_duration_seconds"
        assert f'{name}_bucket{{le="0.01",route="chat"}} 1.0\n' in text
        assert f'{name}_bucket{{le="0.025",route="chat"}} 3.0\n' in text
        assert f'{name}_bucket{{le="+Inf",route="chat"}} 3.0\n' in text
        assert f'{name}_count{{route="chat"}} 3.0\n' in text

    def test_every_family_is_there_with_its_help_and_its_unit(self) -> None:
        text = rendered(Reading(), "")[0].decode()
        found = {family.name: family for family in text_string_to_metric_families(text)}
        for family in FAMILIES:
            name = family.full_name.removesuffix("_total")
            assert found[name].type == family.kind, name
            assert found[name].documentation == family.help
            assert (family.kind == "histogram") == name.endswith("_seconds") or "process" in name
            assert bool(family.bounds) == (family.kind == "histogram")
        assert len(found) == len(FAMILIES)

    def test_openmetrics(self) -> None:
        body, kind = rendered(reading(1, 10), "application/openmetrics-text; version=1.0.0")
        assert kind.startswith("application/openmetrics-text; version=1.0.0")
        assert body.endswith(b"# EOF\n")


def test_a_loop_that_stands_still_is_late_for_all_that_it_misses() -> None:
    metrics = Metrics(None)  # type: ignore[arg-type]
    metrics._see(-0.001)
    metrics._see(10.0)
    assert sum(metrics._delay.counts) == 1 + 10 / LOOK_SECONDS
    assert metrics._delay.counts[-1] == 9 / LOOK_SECONDS, "those of more than a second"
    assert metrics._delay.counts[0] == 1


async def test_the_event_loop_goes_on_while_a_scrape_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop, writing = asyncio.get_running_loop(), 0
    seen: list[int] = []

    def write(now: Reading, accept: str) -> tuple[bytes, str]:
        nonlocal writing
        writing += 1
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(10 * UNIT)
        seen.append(writing)
        writing -= 1
        return rendered(now, accept)

    async def read() -> Reading:
        return reading(1, 10)

    monkeypatch.setattr(exposition, "rendered", write)
    transport = httpx.ASGITransport(Starlette(routes=[exposition.metrics_path(read)]))
    async with httpx.AsyncClient(transport=transport, base_url="http://a", verify=False) as http:
        answers = await asyncio.gather(*(http.get("/metrics") for _ in range(3)))
    assert {answer.status_code for answer in answers} == {200}
    assert seen == [1, 1, 1], "one at a time"


def printed() -> str:
    """The table of metrics, for the document."""
    rows = ["| metric | kind | labels | meaning |\n| --- | --- | --- | --- |\n"]
    for family in FAMILIES:
        labels = ", ".join(f"`{label}`" for label in family.labels)
        rows.append(f"| `{family.full_name}` | {family.kind} | {labels} | {family.help} |\n")
    return "".join(rows)


BEGIN, END = "<!-- metrics, as this table is printed -->\n", "<!-- end of metrics -->\n"


def test_the_document_has_every_metric() -> None:
    assert DOCUMENT.read_text().partition(BEGIN)[2].partition(END)[0] == printed()


def test_no_label_is_anybodys_choice() -> None:
    labels = {label for family in FAMILIES for label in family.labels}
    assert labels == {
        *("route", "protocol", "code", "status", "error", "outcome", "call", "reason", "context"),
        *("state", "attached", "limit", "version"),
    }
    assert all(re.fullmatch(r"[a-z_]+", family.full_name) for family in FAMILIES)


if __name__ == "__main__":
    text = DOCUMENT.read_text()
    before, _, rest = text.partition(BEGIN)
    DOCUMENT.write_text(f"{before}{BEGIN}{printed()}{END}{rest.partition(END)[2]}")
