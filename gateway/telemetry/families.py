"""Every metric that there is, in one table: the documents are printed from it.

No label is a principal, a session or anything that a client chooses: labels are names of routes,
which the configuration has, and words of this code. What a client may invent (close codes) is
counted by what is known of it, see `gateway.transports.open`.
"""

from typing import Literal, NamedTuple

from gateway.measures import MOMENTS, TURNS

PREFIX = "session_gateway_"


class Family(NamedTuple):
    """A metric.

    Attributes:
        name: Without `PREFIX`, and without the ``_total`` of a counter.
        kind: How it goes.
        help: What it is.
        labels: Their names.
        bounds: Of a histogram's buckets.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        """As it is exposed; a histogram's samples have ``_bucket`` and so on behind it."""
        plain = self.name if self.name.startswith("process_") else PREFIX + self.name
        return f"{plain}_total" if self.kind == "counter" else plain


_ROUTE = ("route",)

FAMILIES = (
    Family("build_info", "gauge", "Processes that were asked, by version.", ("version",)),
    # Connections
    Family(
        "connections",
        "gauge",
        "WebSockets that are open; OpenAI's have no route.",
        ("route", "protocol"),
    ),
    Family(
        "connections_closed",
        "counter",
        'WebSockets that have ended, by close code; "other" for those that clients made up.',
        ("route", "code"),
    ),
    Family("http_requests", "counter", "Answers of the HTTP API, by status.", ("status",)),
    Family(
        "messages_refused",
        "counter",
        "Messages, openings and handshakes that an error was the answer to, by its code.",
        ("route", "code"),
    ),
    Family(
        "limits_hit",
        "counter",
        "How often a setting was in somebody's way, by its name.",
        ("limit",),
    ),
    # Sessions
    Family(
        "sessions",
        "gauge",
        "Sessions by state, and whether their client is connected.",
        ("route", "state", "attached"),
    ),
    Family("sessions_opened", "counter", "Sessions that clients were told of.", _ROUTE),
    Family(
        "sessions_ended", "counter", "Sessions that have ended, by reason.", ("route", "reason")
    ),
    Family(
        "sessions_renewed",
        "counter",
        "Sessions at the model that another has taken the place of, by reason, and by what that "
        "knows: nothing (lost), all (replayed) or the newest (partial).",
        ("route", "reason", "context"),
    ),
    Family("log_bytes", "gauge", "What the event logs of sessions hold.", _ROUTE),
    Family("buffer_bytes", "gauge", "What counts towards server.buffer_bytes."),
    Family("buffer_limit_bytes", "gauge", "server.buffer_bytes."),
    # Turns
    Family(
        "turns",
        "counter",
        "Turns that have ended, by status; by error code where they failed, and by whether the "
        "model has seen them where they did not complete.",
        ("route", "status", "error", "outcome"),
    ),
    Family(
        "deltas",
        "counter",
        "Parts of replies that were passed on, counted when their turn ends.",
        _ROUTE,
    ),
    Family(
        "turn_duration_seconds",
        "histogram",
        "From a message's acceptance until the end of its turn could be read. It is the sum of the "
        "next three.",
        _ROUTE,
        TURNS,
    ),
    Family(
        "turn_queued_seconds",
        "histogram",
        "Of that, waiting for other turns of the session, and for the session to be opened.",
        _ROUTE,
        TURNS,
    ),
    Family(
        "turn_upstream_seconds",
        "histogram",
        "Of that, from when it was to be sent to the model until the end of the reply, waiting for "
        "a place and further tries included; of turns that were sent.",
        _ROUTE,
        TURNS,
    ),
    Family(
        "turn_gateway_seconds",
        "histogram",
        "Of that, all else: what the gateway takes itself, and its store.",
        _ROUTE,
        MOMENTS,
    ),
    Family(
        "turn_first_delta_seconds",
        "histogram",
        "From a message's acceptance to the first part of its reply, where it came in parts.",
        _ROUTE,
        TURNS,
    ),
    Family("turns_queued", "gauge", "Turns that wait in their sessions.", _ROUTE),
    Family(
        "turns_awaited", "gauge", "Turns that were submitted, whose reply is waited for.", _ROUTE
    ),
    # The endpoint
    Family("turns_waiting", "gauge", "Turns that wait for a place at the endpoint.", _ROUTE),
    Family("turns_in_flight", "gauge", "Turns at the endpoint.", _ROUTE),
    Family(
        "turns_in_flight_limit", "gauge", "How many may be there now; the limit adapts.", _ROUTE
    ),
    Family(
        "place_wait_seconds",
        "histogram",
        "How long turns have waited for a place, of those that had to, whether they got one or "
        "not.",
        _ROUTE,
        TURNS,
    ),
    Family(
        "breaker_open",
        "gauge",
        "Breakers that keep turns from the endpoint now: 1 in each process.",
        _ROUTE,
    ),
    Family(
        "call_failures",
        "counter",
        "Calls to the platform that have failed: open, turn or close.",
        ("route", "call", "error"),
    ),
    # The store
    Family("store_up", "gauge", "Stores that answer: 1 in each process, none without a store."),
    Family(
        "store_round_trip_seconds",
        "histogram",
        "Round trips to the store that replicas share; commands that go together are one.",
        (),
        MOMENTS,
    ),
    Family("store_commands", "counter", "Commands that the store was sent."),
    Family("store_failures", "counter", "Commands that the store has not answered."),
    # The process
    Family(
        "event_loop_delay_seconds",
        "histogram",
        "How late the event loop is, four times a second: everything else waits as long.",
        (),
        MOMENTS,
    ),
    Family("draining", "gauge", "Processes that are about to stop."),
    Family("process_cpu_seconds", "counter", "CPU time."),
    Family("process_resident_memory_bytes", "gauge", "Memory."),
    Family("process_open_fds", "gauge", "Open files, of which each connection is one."),
)

BY_NAME = {family.name: family for family in FAMILIES}
