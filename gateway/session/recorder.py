"""Tracks what the store has of a session, so that each write contains only what has changed.

The log, the bodies of turns, the remembered message ids and the transcript grow with a
conversation; the rest, the head, is small and part of each write. Everything is JSON, since a
reply's JSON is kept unchanged.
"""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import structs

from gateway.protocol.discretion import Discreet
from gateway.protocol.messages import Event
from gateway.session.ports import Log, ModelRequest
from gateway.session.session import Session
from gateway.session.snapshot import Snapshot, head
from gateway.session.storage import Change, Saved, Unreadable
from gateway.session.table import State
from gateway.session.transcript import Exchange
from gateway.session.turn_queue import Turn, TurnQueue
from gateway.session.upstream_table import Life


class _Body(Discreet, frozen=True, gc=False, omit_defaults=True):
    """The large part of a turn. A body made from a template is made again when it is sent."""

    request: ModelRequest
    said: str | None = None


_NOTHING: Mapping[str, bytes] = {}

_encode = msgspec.json.Encoder().encode
_head_of = msgspec.json.Decoder(Snapshot).decode
_body_of = msgspec.json.Decoder(_Body).decode
_ended_of = msgspec.json.Decoder(tuple[str, bytes]).decode
_exchange_of = msgspec.json.Decoder(Exchange).decode
_events_of = msgspec.json.Decoder(list[Event]).decode


class Recorder:
    """Tracks how much of a session is stored.

    Args:
        session: The session.
        log: Its log.
        stored: Whether the store has all of its current state.
    """

    __slots__ = ("_ended", "_events", "_log", "_said", "_session", "_turns", "_whole")

    def __init__(self, session: Session, log: Log, *, stored: bool) -> None:
        self._session = session
        self._log = log
        self._whole = not stored
        queue = session.turns.queue
        self._events = log.last
        self._turns: Mapping[str, bytes] = {turn.id: turn.digest for turn in _with_bodies(queue)}
        self._ended, self._said = queue.ended_count, session.history.transcript.count

    def reset(self) -> None:
        """Make the next change the whole session, since it is unknown what the store has."""
        self._whole = True

    def take(self, now: float, wall: float) -> Change:
        """Return what to write now. If the write fails, call `reset`.

        Args:
            now: The time, by the session's clock.
            wall: The same in seconds since the epoch.
        """
        session, log, whole = self._session, self._log, self._whole
        queue, transcript = session.turns.queue, session.history.transcript
        live = _with_bodies(queue)
        known = _NOTHING if whole else self._turns
        self._turns = turns = {turn.id: turn.digest for turn in live} if live else _NOTHING
        ended, said = queue.ended_count, transcript.count
        newly_ended = queue.newest_ended(ended if whole else ended - self._ended)
        newly_said = transcript.newest(said if whole else said - self._said)
        news = log.since(0 if whole else self._events)
        change = Change(
            whole=whole,
            head=_encode(head(session, now, wall)),
            turns={
                turn.id: _encode(_Body(turn.request, turn.said))
                for turn in live
                if known.get(turn.id) != turn.digest
            }
            if live
            else _NOTHING,
            gone=[message_id for message_id in known if message_id not in turns] if known else [],
            ended=[_encode(each) for each in newly_ended] if newly_ended else [],
            max_ended=queue.remembered,
            said=[_encode(each) for each in newly_said] if newly_said else [],
            max_said=transcript.kept,
            events=_encode(news) if news else None,
            last=log.last,
            first=log.first,
        )
        self._events, self._ended, self._said, self._whole = log.last, ended, said, False
        return change


def _with_bodies(queue: TurnQueue) -> Sequence[Turn]:
    """Return the turns whose bodies are stored: those that wait. Another process never sends a turn
    again that is at the model; of that, only the user's text is stored, if it is kept.
    """
    running = queue.running
    if running is None or running.said is None:
        return queue.waiting
    return [running, *queue.waiting]


def closing(session: Session, now: float, wall: float) -> Change:
    """Return what is needed to close the model session of a session that nobody can resume: an
    empty session that its client has left.
    """
    bare = structs.replace(
        head(session, now, wall),
        state=State.READY,
        ending=None,
        last=0,
        timers={},
        owner=None,
        readers=(),
        absent_since=0.0,
        keys=(),
        waiting=(),
        running=None,
        life=Life.ABSENT if session.model is None else Life.OPEN,
        renewal=None,
    )
    return Change(
        whole=True,
        head=_encode(bare),
        turns=_NOTHING,
        gone=[],
        ended=[],
        max_ended=0,
        said=[],
        max_said=0,
        events=None,
        last=0,
        first=1,
    )


def head_of(data: bytes) -> Snapshot:
    """Decode a session's head: its turns have no bodies, and it has no ended turns or transcript.

    Raises:
        Unreadable: This version can't decode it.
    """
    try:
        return _head_of(data)
    except msgspec.DecodeError as error:
        raise Unreadable(str(error)) from None


def snapshot_of(saved: Saved) -> tuple[Snapshot, Sequence[Event]]:
    """Decode a saved session, and the events of its log.

    Raises:
        Unreadable: This version can't decode it, or a part of it is missing.
    """
    bare = head_of(saved.head)
    try:
        return structs.replace(
            bare,
            waiting=[_with_body(turn, saved) for turn in bare.waiting],
            running=bare.running and _with_body(bare.running, saved, is_needed=False),
            ended=[_ended_of(each) for each in saved.ended],
            exchanges=tuple(_exchange_of(each) for each in saved.said),
        ), [event for piece in saved.events for event in _events_of(piece)]
    except (msgspec.DecodeError, KeyError) as error:
        raise Unreadable(type(error).__name__) from None


def _with_body(turn: Turn, saved: Saved, *, is_needed: bool = True) -> Turn:
    if turn.id not in saved.turns and not is_needed:
        return turn
    body = _body_of(saved.turns[turn.id])
    return structs.replace(turn, request=body.request, said=body.said)
