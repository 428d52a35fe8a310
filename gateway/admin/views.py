"""What operators are shown: no content of messages, and no keys.

These are the types of the HTTP API, and of the answers between replicas; see docs/operator.md.
"""

from typing import Annotated, Literal

import msgspec

from gateway.protocol.discretion import Discreet
from gateway.protocol.messages import Status
from gateway.session.table import State

Share = Annotated[int, msgspec.Meta(ge=0)]
"""A number of things."""


class SessionEntry(Discreet, frozen=True, kw_only=True):
    """A session in a list.

    Attributes:
        session_id: The gateway's id of the session.
        route: Name of its route.
        principal: Principal that owns it.
        replica: Replica that it is at.
        state: Its state at the model.
        attached: Whether its client is connected.
        running: Whether a turn is at the model.
        queued: Number of waiting turns.
        events: Number of events kept for its client.
        expires_at: When it expires at the model (RFC 3339); null if the model has not said.
    """

    session_id: str
    route: str
    principal: str
    replica: str
    state: State
    attached: bool
    running: bool
    queued: Share
    events: Share
    expires_at: str | None


class LiveTurn(Discreet, frozen=True, kw_only=True):
    """A turn that has not ended.

    number: Number of its current call in the session, from 1; each retry has another.
    id: The client's id of the message.
    status: Whether it is queued, or at the model.
    age_seconds: Seconds since it was accepted; null if another replica accepted it.
    deltas: Number of parts of its reply so far.
    retries: How often it was sent again, because the model had not seen it.
    """

    number: Share
    id: str
    status: Literal["queued", "running"]
    age_seconds: float | None
    deltas: Share
    retries: Share


class EndedTurn(Discreet, frozen=True, kw_only=True):
    """A turn that has ended.

    Attributes:
        id: The client's id of the message.
        status: How it ended.
    """

    id: str
    status: Status


class SessionDetail(SessionEntry, frozen=True, kw_only=True):
    """A session, as far as an operator may see it.

    Attributes:
        sagemaker_session: SageMaker's id of the session, as in the container's log; null if there
            is none. It is a secret: whoever may invoke the endpoint can use the session with it.
        readers: Number of connections and requests that read its events.
        last_event: Number of its newest event.
        log_bytes: Size of the events that are kept.
        turns: Turns that have not ended: the running one, then the queued ones, in order.
        latest: The turns that ended last, newest first.
        ended: Number of ended turns that it remembers.
    """

    sagemaker_session: str | None
    readers: Share
    last_event: Share
    log_bytes: Share
    turns: list[LiveTurn]
    latest: list[EndedTurn]
    ended: Share


class SessionPage(Discreet, frozen=True, kw_only=True):
    """Some sessions of all replicas, ordered by id.

    Attributes:
        sessions: The sessions.
        next: Value of ``after`` for the next page; null on the last page.
        missing: Replicas that have not answered; their sessions are left out.
    """

    sessions: list[SessionEntry]
    next: str | None
    missing: list[str]


class ReplicaState(Discreet, frozen=True, kw_only=True):
    """A replica of the gateway.

    Attributes:
        name: Name of the replica.
        here: Whether it is the replica that serves this request.
        answers: Whether it has answered; if not, the fields below are null.
        draining: Whether it accepts no new sessions, and stops when its sessions have gone.
        version: Version of the gateway.
        sessions: Number of its sessions.
        connections: Number of its WebSockets.
        turns_in_flight: Number of its turns at the model.
        memory_bytes: Resident memory of the process.
    """

    name: str
    here: bool
    answers: bool
    draining: bool | None = None
    version: str | None = None
    sessions: Share | None = None
    connections: Share | None = None
    turns_in_flight: Share | None = None
    memory_bytes: Share | None = None


class Replicas(Discreet, frozen=True, kw_only=True):
    """All replicas that share a store.

    Attributes:
        replicas: The replicas, ordered by name.
    """

    replicas: list[ReplicaState]


class Latency(Discreet, frozen=True, kw_only=True):
    """A distribution of durations.

    Attributes:
        count: Number of measurements.
        p50: Median in seconds; null if there are no measurements.
        p95: 95th percentile in seconds; null if there are no measurements.
        counts: Number of measurements in each bucket; see `Overview.bounds`.
    """

    count: Share
    p50: float | None
    p95: float | None
    counts: list[Share]


class Figures(Discreet, frozen=True, kw_only=True):
    """Figures of one route, or of all.

    Attributes:
        sessions: Number of sessions, by state.
        attached: Number of sessions whose client is connected.
        turns_in_flight: Number of turns at the model.
        turns_in_flight_limit: Current maximum of these; the limit adapts.
        turns_waiting: Number of turns that wait for a place at the model.
        turns_queued: Number of turns that wait for other turns of their session.
        turns_awaited: Number of turns that were submitted, and whose reply comes later.
        breakers_open: Number of replicas whose circuit breaker is open.
        turns: Number of turns that have ended since the replicas started, by status.
        per_second: Turns that end per second, recently.
        first_part: Time from accepting a turn to the first part of its reply, recently.
        whole: Time from accepting a turn to its end, recently.
    """

    sessions: dict[str, Share]
    attached: Share
    turns_in_flight: Share
    turns_in_flight_limit: Share
    turns_waiting: Share
    turns_queued: Share
    turns_awaited: Share
    breakers_open: Share
    turns: dict[str, Share]
    per_second: float
    first_part: Latency
    whole: Latency


class RouteState(Figures, frozen=True, kw_only=True):
    """A route.

    Attributes:
        route: Name of the route.
        endpoint: SageMaker's name of its endpoint.
        breaker: Whether the circuit breaker is open: at no replica, at some, or at all.
    """

    route: str
    endpoint: str
    breaker: Literal["closed", "partly open", "open"]


class Routes(Discreet, frozen=True, kw_only=True):
    """All routes.

    Attributes:
        routes: The routes, in the order of the configuration.
        missing: Replicas that have not answered; their part is left out.
    """

    routes: list[RouteState]
    missing: list[str]


class Overview(Discreet, frozen=True, kw_only=True):
    """The state of all replicas at one moment.

    Attributes:
        at: The time (RFC 3339).
        window_seconds: Length of the period that latencies are from.
        bounds: Upper bound of each bucket of a latency, in seconds; one more bucket holds greater
            values.
        replicas: All replicas.
        routes: All routes.
        total: Figures of all routes together.
    """

    at: str
    window_seconds: float
    bounds: list[float]
    replicas: list[ReplicaState]
    routes: list[RouteState]
    total: Figures
