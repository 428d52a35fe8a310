"""A session as a value, without its event log, to be stored and restored in another process.

Times are in seconds since the epoch, since another process has another clock. The clients and the
turn at the model are those of the old process: after `restore`, send the session `Adopted` to say
which clients are still there.
"""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import structs

from gateway.protocol.discretion import Discreet
from gateway.protocol.messages import ClosedReason
from gateway.session import effects as do
from gateway.session.endings import DRAINED, ENDINGS
from gateway.session.events import ClientId, Timer
from gateway.session.keys import ResumeKeys
from gateway.session.policy import Policy
from gateway.session.ports import ModelRequest, ModelSession
from gateway.session.session import Session
from gateway.session.table import State
from gateway.session.transcript import Exchange
from gateway.session.turn_queue import Turn
from gateway.session.upstream import Renewal
from gateway.session.upstream_table import Life

_NAMES = {timer: timer.value for timer in Timer}  # `Enum.value` is a slow descriptor
_NO_BODY = {is_: ModelRequest(body=b"", content_type="", stream=is_) for is_ in (False, True)}


class Snapshot(Discreet, frozen=True, kw_only=True, omit_defaults=True):
    """The state of a session: the attributes of `Session` and its parts."""

    id: str
    principal: str
    route: str
    state: State
    announced: bool
    ending: ClosedReason | None = None
    drained: bool = False
    used_at: float
    last: int
    timers: Mapping[str, float]
    owner: ClientId | None = None
    readers: tuple[ClientId, ...] = ()
    absent_since: float | None = None
    connectionless: bool = False
    shared: bool = False
    keys: tuple[bytes, ...] | None
    calls: int
    waiting: Sequence[Turn] = ()
    running: Turn | None = None
    ended: Sequence[tuple[str, bytes]] = ()
    exchanges: tuple[Exchange, ...] = ()
    dropped: int = 0
    whole: bool = True
    life: Life
    model: ModelSession | None = None
    ends_at: float
    use_until: float
    renewal: Renewal | None = None
    retries: int = 0
    closing: frozenset[str] = frozenset()
    sure_until: int | None = None
    inherited: bool = False

    @property
    def at_model(self) -> frozenset[str]:
        """See `Session.at_model`."""
        return self.closing | ({self.model.id} if self.model else set())

    def encode(self) -> bytes:
        """Encode it for a store. It contains the conversation and the model session's id, which are
        secret.
        """
        return msgspec.json.encode(self)  # JSON, since a reply's JSON is kept unchanged

    @classmethod
    def decode(cls, data: bytes) -> "Snapshot":
        """Decode what `encode` returned.

        Raises:
            msgspec.DecodeError: The data is not a snapshot.
        """
        return msgspec.json.decode(data, type=cls)


def take(session: Session, now: float, wall: float) -> Snapshot:
    """Take a snapshot. It shares values with the session, so use it before the next event.

    Args:
        session: The session.
        now: The time, by the session's clock.
        wall: The same in seconds since the epoch.
    """
    turns, shift = session.turns.queue, wall - now
    return structs.replace(
        head(session, now, wall),
        waiting=[_turn_moved(turn, shift) for turn in turns.waiting],
        running=turns.running and _turn_moved(turns.running, shift),
        ended=turns.ended,
        exchanges=session.history.transcript.exchanges,
        renewal=session.upstream.renewal and _renewal_moved(session.upstream.renewal, shift),
    )


def head(session: Session, now: float, wall: float) -> Snapshot:
    """Take a snapshot without what grows with a conversation: turns have no bodies, and ended turns
    and the transcript are left out.
    """
    shift = wall - now
    turns, clients, upstream = session.turns.queue, session.clients, session.upstream
    transcript = session.history.transcript
    renewal = upstream.renewal and _renewal_moved(upstream.renewal, shift)
    return Snapshot(
        id=session.id,
        principal=session.principal,
        route=session.policy.route,
        state=session.state,
        announced=session.announced,
        ending=None if session.ending is None else session.ending.reason,
        drained=session.ending is DRAINED,
        used_at=session.used_at + shift,
        last=session.out.last,
        timers={_NAMES[timer]: at + shift for timer, at in session.out.timers.items()},
        owner=clients.owner,
        readers=clients.readers,
        absent_since=_moved(clients.absent_since, shift),
        connectionless=clients.connectionless,
        shared=clients.shared,
        keys=None if clients.keys is None else clients.keys.digests,
        calls=turns.count,
        waiting=[_without_body(turn, shift) for turn in turns.waiting],
        running=turns.running and _without_body(turns.running, shift),
        dropped=transcript.dropped,
        whole=transcript.whole,
        life=upstream.state,
        model=upstream.model,
        ends_at=upstream.ends_at,
        use_until=upstream.use_until + shift,
        renewal=None if renewal is None else structs.replace(renewal, steps=None),
        retries=upstream.retries,
        closing=upstream.closing,
        sure_until=session.sure_until,
        inherited=session.inherited,
    )


def restore(
    snapshot: Snapshot, policy: Policy, now: float, wall: float
) -> tuple[Session, list[do.SetTimer]]:
    """Restore a session, and return it with its timers.

    Args:
        snapshot: A decoded snapshot, whose values the session reuses.
        policy: The route's rules.
        now: The time, by the session's clock.
        wall: The same in seconds since the epoch.
    """
    shift = now - wall
    session = Session(session_id=snapshot.id, principal=snapshot.principal, policy=policy)
    session.state = snapshot.state
    session.announced = snapshot.announced
    session.drained = snapshot.drained
    if snapshot.ending is not None:
        session.ending = DRAINED if snapshot.drained else ENDINGS[snapshot.ending]
    session.used_at = snapshot.used_at + shift
    session.out.last = snapshot.last
    session.out.timers = {Timer(name): at + shift for name, at in snapshot.timers.items()}
    clients = session.clients
    clients.owner, clients.readers = snapshot.owner, snapshot.readers
    clients.absent_since = _moved(snapshot.absent_since, shift)
    clients.connectionless = snapshot.connectionless
    clients.shared = snapshot.shared
    clients.keys = None if snapshot.keys is None else ResumeKeys(snapshot.keys)
    session.turns.queue.restore(
        count=snapshot.calls,
        waiting=[_turn_moved(turn, shift) for turn in snapshot.waiting],
        running=snapshot.running and _turn_moved(snapshot.running, shift),
        ended=snapshot.ended,
    )
    transcript = session.history.transcript
    for exchange in snapshot.exchanges:
        transcript.add(exchange)
    transcript.dropped, transcript.whole = snapshot.dropped, snapshot.whole
    upstream = session.upstream
    upstream.state, upstream.model = snapshot.life, snapshot.model
    upstream.ends_at, upstream.use_until = snapshot.ends_at, snapshot.use_until + shift
    upstream.renewal = snapshot.renewal and _renewal_moved(snapshot.renewal, shift)
    upstream.retries, upstream.closing = snapshot.retries, snapshot.closing
    session.sure_until, session.inherited = snapshot.sure_until, snapshot.inherited
    return session, [do.SetTimer(timer, at) for timer, at in session.out.timers.items()]


def _moved(time: float | None, shift: float) -> float | None:
    return None if time is None else time + shift


def _turn_moved(turn: Turn, shift: float) -> Turn:
    return structs.replace(turn, started=_moved(turn.started, shift))


def _without_body(turn: Turn, shift: float) -> Turn:
    started = _moved(turn.started, shift)
    request = _NO_BODY[turn.request.stream]
    return structs.replace(turn, request=request, said=None, heard=None, started=started)


def _renewal_moved(renewal: Renewal, shift: float) -> Renewal:
    return structs.replace(renewal, expires_at=_moved(renewal.expires_at, shift))
