"""What must hold in the end, from what clients have seen and what the model has counted."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct, field

from tests.chaos.fleet import NEAR_SECONDS, Trouble
from tests.chaos.witness import Session, Turn, Witness

MOVING_SECONDS = 0.5
"""How long a session may go on moving when its client has left again."""

HELD_SECONDS = 3.0
"""For how long a session may be known to nobody but the process that opens it."""

AWAY = {"kill", "pause", "term"}
"""What takes a process away from its sessions."""


class Verdict(Struct):
    """What has come of it.

    Attributes:
        broken: Promises that were not kept.
        inherent: What nothing can be done about, and how often it was seen.
        doubled: How many turns have come to the model more than once.
        left_open: How many sessions stay open at the model, and may.
    """

    broken: list[str] = field(default_factory=list)
    inherent: Counter[str] = field(default_factory=Counter)
    doubled: int = 0
    left_open: Counter[str] = field(default_factory=Counter)


def _near(one: Trouble, other: Trouble) -> bool:
    return one.began - NEAR_SECONDS < other.ended and other.began < one.ended + NEAR_SECONDS


def was_moving(session: Session, at: float, troubles: Sequence[Trouble]) -> bool:
    """Whether a session may be gone: it was on its way from one process to another, which none of
    them had, when the store lost it.
    """
    return any(
        asked < loss.ended and loss.began < until + MOVING_SECONDS and loss.began < at
        for loss in troubles
        if loss.kind == "empty"
        for asked, until in session.asked
    )


def is_inherent(session: Session, at: float, troubles: Sequence[Trouble]) -> bool:
    """Whether a session may be gone: the store has lost it while its owner was away."""
    return any(
        _near(loss, other)
        for loss in troubles
        if loss.kind == "empty" and session.opened_at - 1 < loss.ended and loss.began < at
        for other in troubles
        if other.kind in AWAY
    )


def judge(
    witnesses: Iterable[Witness], counted: dict[str, Any], troubles: Sequence[Trouble]
) -> Verdict:
    """Judge it all.

    Args:
        witnesses: Of all clients.
        counted: By the model.
        troubles: What was done.
    """
    verdict = Verdict()
    seen: dict[str, list[tuple[Session, Turn]]] = {}
    excused: dict[str, Session] = {}
    for witness in witnesses:
        verdict.broken += witness.broken
        for at, session, how in witness.gone:
            what = how.partition(" after")[0]
            if is_inherent(session, at, troubles):
                verdict.inherent[what] += 1
                excused[session.id] = session
            elif was_moving(session, at, troubles):
                verdict.inherent[f"{what} as it moved"] += 1
                excused[session.id] = session
            else:
                verdict.broken.append(f"{session}: {how}")
        for session in witness.sessions:
            for turn in session.turns.values():
                seen.setdefault(turn.text, []).append((session, turn))
            unended = session.over == "closed" or not (session.over or session.left)
            for message_id, turn in session.turns.items():
                if unended and turn.accepted is not None and turn.status is None and not turn.gap:
                    said = f"{session}: {message_id} has not ended"
                    verdict.broken.append(said)
    _judge_turns(verdict, seen, counted)
    _judge_sessions(verdict, seen, excused, counted, troubles)
    return verdict


def _judge_turns(
    verdict: Verdict, seen: dict[str, list[tuple[Session, Turn]]], counted: dict[str, Any]
) -> None:
    came: dict[str, list[Any]] = counted["turns"]
    for text, times in came.items():
        if len(times) > 1:
            verdict.doubled += 1
            verdict.broken.append(f"{text!r} has come to the model {len(times)} times: {times}")
        if text not in seen:
            verdict.broken.append(f"{text!r} has come to the model, and nobody has said it")
    for text, places in seen.items():
        often = len(came.get(text, ()))
        for session, turn in places:
            where = f"{session}: {text!r}"
            if turn.status == "completed" and often != 1:
                verdict.broken.append(f"{where} was answered, and has come {often} times")
            elif turn.outcome == "invoked" and often != 1:
                verdict.broken.append(f"{where} was invoked, and has come {often} times")
            elif turn.outcome == "not_invoked" and often:
                verdict.broken.append(f"{where} was not invoked, and has come {often} times")
            elif turn.refused and turn.accepted is None and often and len(places) == 1:
                verdict.broken.append(f"{where} was refused, and has come {often} times")
    sessions = {session.id: session for places in seen.values() for session, _ in places}
    for session in sessions.values():
        # One that its replica was about to send when it stood still comes late, and is unknown.
        accepted = [
            turn
            for turn in session.turns.values()
            if turn.accepted is not None and turn.outcome != "unknown" and not turn.gap
        ]
        accepted.sort(key=lambda turn: turn.accepted or 0)
        arrived = [came[turn.text][0][0] for turn in accepted if turn.text in came]
        if arrived != sorted(arrived):
            verdict.broken.append(f"{session}: its turns have come in another order")


def _judge_sessions(
    verdict: Verdict,
    seen: dict[str, list[tuple[Session, Turn]]],
    excused: dict[str, Session],
    counted: dict[str, Any],
    troubles: Sequence[Trouble],
) -> None:
    whose: dict[str, Session] = {}
    for text, times in counted["turns"].items():
        for _, name, _ in times:
            for session, turn in seen.get(text, ()):
                if turn.accepted is not None or len(seen[text]) == 1:
                    whose[name] = session
    for text, name, who in counted["strays"]:
        verdict.broken.append(f"{text!r} has come from {who} in {name}, which is closed")
    silent = Counter(each.places[0] for each in excused.values() if each not in whose.values())
    end = max((trouble.ended for trouble in troubles), default=0.0)
    for name, model in counted["sessions"].items():
        if model["closed"]:
            continue
        owner = whose.get(name)
        opened, who = model["opened"], model["by"]
        if owner is None:
            if _unstored(opened, who, troubles):
                verdict.left_open["opened by a process that has died at once"] += 1
                continue
            if any(
                loss.kind == "empty"
                and opened < loss.ended
                and any(_near(loss, other) for other in troubles if other.kind in AWAY)
                for loss in troubles
            ):
                verdict.left_open["lost with the store"] += 1
                continue
            if silent[who] > 0:  # of one that is gone, and has said nothing
                silent[who] -= 1
                verdict.left_open["lost with the store"] += 1
                continue
        elif owner.id in excused or is_inherent(owner, max(end, opened) + 1, troubles):
            verdict.left_open["lost with the store"] += 1
            continue
        by = owner or "nobody known"
        verdict.broken.append(f"{by}: {name} is open at the model; {who} opened it at {opened:.3f}")


def _unstored(opened: float, who: str, troubles: Sequence[Trouble]) -> bool:
    """Whether a process may have died before it could store what it has opened."""
    away = [each for each in troubles if each.who == who and each.kind in {"kill", "pause"}]
    down = [each for each in troubles if each.kind in {"stop", "empty"}]
    for death in away:
        since = min(
            (each.began for each in down if each.began - 1 < opened < each.ended + HELD_SECONDS),
            default=opened,
        )
        held = max([each.ended for each in down if each.began < death.began], default=0.0)
        if death.ended >= since and death.began < max(opened, held) + HELD_SECONDS:
            return True
    return False
