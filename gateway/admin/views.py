"""What operators are shown: never what was said, and no key.

The types are those of the HTTP API, and what replicas answer each other; see docs/operator.md.
"""

from typing import Annotated, Literal

import msgspec

from gateway.protocol.discretion import Discreet
from gateway.protocol.messages import Status
from gateway.session.table import State

Share = Annotated[int, msgspec.Meta(ge=0)]
"""How many of something."""


class SessionEntry(Discreet, frozen=True, kw_only=True):
    """A session, in a list.

    Attributes:
        session_id: The gateway's own id of it.
        route: The name of its route.
        principal: Whose it is.
        replica: Where it is.
        state: Of its life at the model.
        attached: Whether its client is connected.
        running: Whether a turn is at the model.
        queued: How many turns wait.
        events: How many events are kept for its client.
        expires_at: When it ends at the model (RFC 3339); null where the model has not said.
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

    Attributes:
        number: Counts the calls of the session, from 1; each further try has another.
        id: What its client calls it.
        status: Whether it waits, or is at the model.
        age_seconds: How long ago it was accepted; null where another replica has accepted it.
        deltas: How many parts of its reply have come.
        retries: How often it was sent again, since the model had not seen it.
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
        id: What its client has called it.
        status: How it has ended.
    """

    id: str
    status: Status


class SessionDetail(SessionEntry, frozen=True, kw_only=True):
    """A session, as far as an operator may know it.

    Attributes:
        sagemaker_session: SageMaker's own id of it, as in the container's log; null where there is
            none. It is a secret: whoever may call the endpoint can speak in that session.
        readers: How many connections and requests read what it says.
        last_event: The number of its newest event.
        log_bytes: How much the events hold that are kept.
        turns: Those that have not ended: the one at the model, then those that wait, in order.
        latest: The last that have ended, the newest first.
        ended: How many are remembered, and were before.
    """

    sagemaker_session: str | None
    readers: Share
    last_event: Share
    log_bytes: Share
    turns: list[LiveTurn]
    latest: list[EndedTurn]
    ended: Share


class SessionPage(Discreet, frozen=True, kw_only=True):
    """Some sessions of all replicas, by their ids.

    Attributes:
        sessions: Those.
        next: What to ask for the following with, as ``after``; null where there are none.
        missing: The replicas that have not answered: their sessions are left out.
    """

    sessions: list[SessionEntry]
    next: str | None
    missing: list[str]


class ReplicaState(Discreet, frozen=True, kw_only=True):
    """A process of the gateway.

    Attributes:
        name: Its own, among those that share a store.
        here: Whether it is the one that was asked.
        answers: Whether it has answered; what is not known otherwise is null.
        draining: Whether it takes no new sessions, and ends when those are gone that it has.
        version: Of the gateway.
        sessions: How many it has.
        connections: How many WebSockets.
        turns_in_flight: How many turns are at the model.
        memory_bytes: What the process takes of it.
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
    """All processes that share a store.

    Attributes:
        replicas: By their names.
    """

    replicas: list[ReplicaState]


class Latency(Discreet, frozen=True, kw_only=True):
    """How long something has taken.

    Attributes:
        count: How often it was measured.
        p50: Half of these took no longer, in seconds; null where there are none.
        p95: Nor did 95 of 100.
        counts: How many there were in each bucket; see `Overview.bounds`.
    """

    count: Share
    p50: float | None
    p95: float | None
    counts: list[Share]


class Figures(Discreet, frozen=True, kw_only=True):
    """What goes on, of one route or of all.

    Attributes:
        sessions: How many there are, by state.
        attached: Those of them whose client is connected.
        turns_in_flight: Turns at the model.
        turns_in_flight_limit: How many may be there now; the limit adapts.
        turns_waiting: Turns that wait for a place there.
        turns_queued: Turns that wait for others of their session.
        turns_awaited: Turns that were submitted, whose reply comes later.
        breakers_open: At how many replicas the circuit breaker keeps turns from the endpoint.
        turns: How many have ended, by status, since the replicas have started.
        per_second: How many of them in a second, lately.
        first_part: From a turn's acceptance to the first part of its reply, lately.
        whole: From there to its end.
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
        route: Its name.
        endpoint: SageMaker's name of what it leads to.
        breaker: Whether the circuit breaker keeps turns from there: at no replica, at some, at all.
    """

    route: str
    endpoint: str
    breaker: Literal["closed", "partly open", "open"]


class Routes(Discreet, frozen=True, kw_only=True):
    """All routes.

    Attributes:
        routes: As the configuration has them.
        missing: The replicas that have not answered, whose part is left out.
    """

    routes: list[RouteState]
    missing: list[str]


class Overview(Discreet, frozen=True, kw_only=True):
    """What goes on at one moment.

    Attributes:
        at: When (RFC 3339).
        window_seconds: Over what time latencies are measured.
        bounds: The greatest value of each bucket of a latency, in seconds; greater ones have one
            of their own.
        replicas: All of them.
        routes: All of them.
        total: Of all routes together.
    """

    at: str
    window_seconds: float
    bounds: list[float]
    replicas: list[ReplicaState]
    routes: list[RouteState]
    total: Figures
