"""All metrics, in one table, from which the documentation is generated.

No label is a principal, a session or anything that a client chooses: labels are names of routes,
which the configuration defines, and words of this code. Close codes, which clients may make up, are
counted by their known values, see `gateway.transports.open`.
"""

from typing import Literal, NamedTuple

from gateway.measures import MOMENTS, TURNS

PREFIX = "session_gateway_"


class Family(NamedTuple):
    """A metric.

    Attributes:
        name: Its name without `PREFIX`, and without the ``_total`` of a counter.
        kind: Its type.
        help: Its description.
        labels: Names of its labels.
        bounds: Upper bounds of a histogram's buckets.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        """The exposed name; a histogram's samples have suffixes such as ``_bucket``."""
        plain = self.name if self.name.startswith("process_") else PREFIX + self.name
        return f"{plain}_total" if self.kind == "counter" else plain


_ROUTE = ("route",)

FAMILIES = (
    Family("build_info", "gauge", "Processes that answered this scrape, by version.", ("version",)),
    # Connections
    Family(
        "connections",
        "gauge",
        "Open WebSockets. Those of OpenAI's API have no route.",
        ("route", "protocol"),
    ),
    Family(
        "connections_closed",
        "counter",
        'Closed WebSockets, by close code; "other" for codes that clients made up.',
        ("route", "code"),
    ),
    Family("http_requests", "counter", "Responses of the HTTP API, by status.", ("status",)),
    Family(
        "messages_refused",
        "counter",
        "Messages, openings and handshakes answered with an error, by its code.",
        ("route", "code"),
    ),
    Family(
        "limits_hit",
        "counter",
        "How often a limit was hit, by the name of its setting.",
        ("limit",),
    ),
    # Sessions
    Family(
        "sessions",
        "gauge",
        "Sessions, by state and by whether their client is connected.",
        ("route", "state", "attached"),
    ),
    Family("sessions_opened", "counter", "Sessions opened for clients.", _ROUTE),
    Family("sessions_ended", "counter", "Sessions ended, by reason.", ("route", "reason")),
    Family(
        "sessions_renewed",
        "counter",
        "Sessions at the model that were replaced, by reason and by what the new one "
        "knows of the conversation: nothing (lost), all (replayed) or the newest part "
        "(partial).",
        ("route", "reason", "context"),
    ),
    Family("log_bytes", "gauge", "Bytes in the event logs of sessions.", _ROUTE),
    Family("buffer_bytes", "gauge", "Bytes that count towards server.buffer_bytes."),
    Family("buffer_limit_bytes", "gauge", "The setting server.buffer_bytes."),
    # Turns
    Family(
        "turns",
        "counter",
        "Turns ended, by status; failed ones by error code, and all that did not complete "
        "by whether the model saw them.",
        ("route", "status", "error", "outcome"),
    ),
    Family(
        "deltas",
        "counter",
        "Parts of streamed replies passed on, counted when their turn ends.",
        _ROUTE,
    ),
    Family(
        "turn_duration_seconds",
        "histogram",
        "Time from accepting a message until its message.done can be read. The sum of the "
        "next three.",
        _ROUTE,
        TURNS,
    ),
    Family(
        "turn_queued_seconds",
        "histogram",
        "Part of turn_duration_seconds: waiting for earlier turns of the session and for the "
        "session to be opened.",
        _ROUTE,
        TURNS,
    ),
    Family(
        "turn_upstream_seconds",
        "histogram",
        "Part of turn_duration_seconds: from the first attempt to send the turn to the end of "
        "the reply, including retries and waiting for a place at the endpoint. Only turns that "
        "were sent.",
        _ROUTE,
        TURNS,
    ),
    Family(
        "turn_gateway_seconds",
        "histogram",
        "Part of turn_duration_seconds: everything else, that is the gateway and its store.",
        _ROUTE,
        MOMENTS,
    ),
    Family(
        "turn_first_delta_seconds",
        "histogram",
        "Time from accepting a message to the first part of a streamed reply.",
        _ROUTE,
        TURNS,
    ),
    Family("turns_queued", "gauge", "Turns waiting in their sessions.", _ROUTE),
    Family(
        "turns_awaited", "gauge", "Turns submitted asynchronously whose reply is awaited.", _ROUTE
    ),
    # The endpoint
    Family("turns_waiting", "gauge", "Turns waiting for a place at the endpoint.", _ROUTE),
    Family("turns_in_flight", "gauge", "Turns at the endpoint.", _ROUTE),
    Family(
        "turns_in_flight_limit",
        "gauge",
        "Current limit of turns at the endpoint; it adapts.",
        _ROUTE,
    ),
    Family(
        "place_wait_seconds",
        "histogram",
        "Time that turns waited for a place at the endpoint; only those that had to, with "
        "or without success.",
        _ROUTE,
        TURNS,
    ),
    Family(
        "breaker_open",
        "gauge",
        "Processes whose circuit breaker is open.",
        _ROUTE,
    ),
    Family(
        "call_failures",
        "counter",
        "Failed calls to AWS: open, turn or close.",
        ("route", "call", "error"),
    ),
    # The store
    Family("store_up", "gauge", "Processes whose store answers. Absent without a store."),
    Family(
        "store_round_trip_seconds",
        "histogram",
        "Round trips to the shared store. Pipelined commands count as one.",
        (),
        MOMENTS,
    ),
    Family("store_commands", "counter", "Commands sent to the store."),
    Family("store_failures", "counter", "Commands that the store did not answer."),
    # The process
    Family(
        "event_loop_delay_seconds",
        "histogram",
        "Lag of the event loop, sampled four times a second. Everything else waits as long.",
        (),
        MOMENTS,
    ),
    Family("draining", "gauge", "Processes that are draining."),
    Family("process_cpu_seconds", "counter", "CPU time."),
    Family("process_resident_memory_bytes", "gauge", "Resident memory."),
    Family("process_open_fds", "gauge", "Open file descriptors; each connection is one."),
)

BY_NAME = {family.name: family for family in FAMILIES}
