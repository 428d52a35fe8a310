"""What replicas promise, under schedules of everything that can go wrong.

`SCHEDULES` and `SEED` in the environment say how many of each kind, and from which seed on; a seed
that fails is named, and replays with `SCHEDULES=1 SEED=n`.
"""

import os
import sys
from collections.abc import Callable, Sequence

import pytest
from msgspec import structs

from gateway import keeping
from gateway.protocol.messages import MessageDone
from gateway.replicas.peers import Peers
from gateway.session import effects as do
from gateway.session import snapshot
from gateway.session.history import History
from gateway.session.policy import Opening, Recovery
from gateway.session.ports import Log, ModelRequest
from gateway.session.reader import LogReader
from gateway.session.recorder import closing, head_of
from gateway.session.session import Session
from gateway.session.storage import Change, Saved, Title
from gateway.session.transcript import Transcript
from gateway.session.turn_queue import Turn
from gateway.session.upstream_table import Life
from gateway.sessions import SPREAD_SECONDS
from gateway.stores.memory import MemoryStore
from tests.simulation import gateways
from tests.simulation.client import Client
from tests.simulation.gateways import LEASE, POLICY, Cluster
from tests.simulation.schedule import Plan, Schedule, deterministic, run

SCHEDULES = int(os.environ.get("SCHEDULES", "10"))
SEED = int(os.environ.get("SEED", "1"))

EVERYTHING = ("cut", "crash", "pause", "drain", "outage")
RENEWING = (*EVERYTHING, "vanish")
STALLING = (*EVERYTHING, "stall", "stall")

RENEWS = structs.replace(POLICY, expiry_margin_seconds=1.0)
REPLAYS = structs.replace(RENEWS, on_expiry=Recovery.REPLAY, on_lost=Recovery.REPLAY)
TELLS = structs.replace(RENEWS, sends_history=True, template="$messages")
FORGETS = structs.replace(POLICY, log_events=4)
BOTH = structs.replace(REPLAYS, log_events=6)

LATER = structs.replace(
    POLICY, opening=Opening.NONE, on_expiry=Recovery.NONE, on_lost=Recovery.NONE
)
LATER_TOLD = structs.replace(LATER, sends_history=True, template="$messages")

PLANS = {
    "crashes": Plan(kinds=("cut", "crash")),
    "pauses": Plan(kinds=("cut", "pause")),
    "restarts": Plan(kinds=("cut", "drain")),
    "outages": Plan(kinds=("cut", "outage")),
    "failovers": Plan(kinds=("cut", "outage", "failover"), faults=8),
    "everything": Plan(kinds=EVERYTHING, faults=8),
    "lost and late": Plan(kinds=EVERYTHING, faults=8, loses=0.02, late=0.02),
    "clients that leave": Plan(kinds=EVERYTHING, faults=8, leaves=0.3),
    "a store far away": Plan(kinds=EVERYTHING, faults=8, latency=0.2),
    "standing still": Plan(kinds=("cut", "pause"), clients=8, messages=20, faults=60, latency=0.05),
    "many replicas": Plan(kinds=EVERYTHING, replicas=6, clients=6, faults=12),
    "failovers and crashes": Plan(kinds=(*EVERYTHING, "failover", "failover"), faults=12),
    "raw connections": Plan(kinds=EVERYTHING, clients=1, raw=4, messages=6, faults=8),
    "renewals": Plan(kinds=RENEWING, messages=8, faults=8, lifetime=6, policy=RENEWS),
    "replays": Plan(kinds=RENEWING, messages=8, faults=8, lifetime=6, policy=REPLAYS),
    "histories": Plan(kinds=RENEWING, messages=8, faults=8, lifetime=6, policy=TELLS),
    "branches": Plan(kinds=RENEWING, messages=6, faults=8, lifetime=6, policy=REPLAYS, told=3),
    "branches of histories": Plan(kinds=RENEWING, faults=8, lifetime=6, policy=TELLS, told=3),
    "small logs": Plan(kinds=STALLING, messages=8, faults=12, policy=FORGETS),
    "replies that come later": Plan(kinds=EVERYTHING, messages=6, faults=8, policy=LATER),
    "histories of these": Plan(
        kinds=(*STALLING, "drain"), messages=6, faults=14, latency=0.1, policy=LATER_TOLD
    ),
    "these, with failovers": Plan(
        kinds=(*EVERYTHING, "failover"), messages=6, faults=12, policy=LATER
    ),
    "all of it": Plan(
        kinds=(*STALLING, "vanish"),
        messages=8,
        faults=14,
        latency=0.1,
        leaves=0.1,
        lifetime=6,
        policy=BOTH,
    ),
}


ANY = PLANS["everything"]
RAW_CRASHES = Plan(kinds=("crash",), clients=0, raw=6, messages=8, faults=8, latency=0.5)


@pytest.mark.schedules
@pytest.mark.parametrize("plan", PLANS)
def test_every_promise_is_kept(plan: str) -> None:
    turns = reconnects = 0
    for seed in range(SEED, SEED + SCHEDULES):
        outcome = run(seed, PLANS[plan])
        turns += outcome.turns
        reconnects += outcome.reconnects
        if outcome.broken:
            told = "\n".join(f"{name}:\n  " + "\n  ".join(n) for name, n in outcome.notes.items())
            pytest.fail(f"SEED={seed}, {plan}: {outcome.broken}\n{told}")
    sys.stderr.write(f"\n{plan}: {SCHEDULES} schedules, {turns} turns, {reconnects} reconnects\n")
    assert turns > 2 * SCHEDULES, "most of what is said is answered"


def test_a_seed_is_a_schedule() -> None:
    first, second = run(SEED, PLANS["everything"]), run(SEED, PLANS["everything"])
    assert (first.notes, first.faults) == (second.notes, second.faults)


def is_found(*signs: str, plan: Plan = ANY) -> bool:
    """Whether some schedule says that a promise is broken, in one of these words."""
    return any(
        sign in text for seed in range(1, 1000) for text in run(seed, plan).broken for sign in signs
    )


class TestPlantedBugs:
    """Each is what would go wrong if one rule were not kept; the schedules have to notice."""

    def test_a_store_that_is_back_is_taken_at_its_word(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Peers, "are_certain", property(lambda peers: peers.health.is_up))
        assert is_found("2 times", "its session is gone", plan=PLANS["these, with failovers"])

    def test_a_write_is_taken_from_whoever_writes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._save_after(monkeypatch, lambda _kept, title, number: (title, number - 1))
        assert is_found("2 times", "twice", "waits for ever", "before that is written")

    def test_an_end_is_told_before_it_is_written(self, monkeypatch: pytest.MonkeyPatch) -> None:
        behind = keeping._WRITTEN_BEHIND | {MessageDone}
        monkeypatch.setattr(keeping, "_WRITTEN_BEHIND", behind)
        assert is_found("has ended before that is written")

    def test_a_turn_is_sent_before_it_is_written(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._at_once(monkeypatch, do.Invoke)
        assert is_found("goes to the model before that is written")

    def test_a_reply_is_waited_for_before_that_is_written(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._at_once(monkeypatch, do.Await)
        assert is_found("waited for before that", plan=PLANS["replies that come later"])

    def test_a_turn_is_given_up_that_is_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        moved = snapshot._turn_moved

        def without_receipt(turn: Turn, shift: float) -> Turn:
            return structs.replace(moved(turn, shift), receipt=None)

        monkeypatch.setattr(snapshot, "_turn_moved", without_receipt)
        assert is_found("is given up", plan=PLANS["replies that come later"])

    def test_two_close_what_a_dead_replica_has_left(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._at_once(monkeypatch, do.CloseSession)

        self._anybody_claims(monkeypatch)
        plan = Plan(kinds=("cut", "crash"), faults=8, latency=0.5, leaves=0.3)
        assert is_found("was closed by", plan=plan)

    def test_two_close_what_a_raw_connection_has_left(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._anybody_claims(monkeypatch)
        assert is_found("was closed by", plan=RAW_CRASHES)

    def test_nobody_closes_what_a_raw_connection_has_left(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def bare(session: Session, now: float, wall: float) -> Change:
            change = closing(session, now, wall)
            head = structs.replace(head_of(change.head), life=Life.ABSENT, model=None)
            return structs.replace(change, head=head.encode())

        monkeypatch.setattr(keeping, "closing", bare)
        assert is_found("stays open at the model", plan=RAW_CRASHES)

    def test_what_was_said_is_not_written(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Transcript, "newest", lambda _self, _count: [])
        assert is_found("the model knows of", plan=PLANS["replays"])
        assert is_found("the model is told", plan=PLANS["histories"])
        assert is_found("the model knows of", plan=PLANS["branches"])

    def test_a_branch_is_not_told_what_was_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(History, "begin", lambda _self, _words: False)
        assert is_found("the model knows of", plan=PLANS["branches"])
        assert is_found("the model is told", plan=PLANS["branches of histories"])

    def test_a_session_is_used_that_knows_half_of_what_was_said(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        to_replay = History.to_replay

        def half(self: History, recovery: Recovery) -> list[ModelRequest]:
            steps = to_replay(self, recovery)
            return steps[len(steps) // 2 :]

        monkeypatch.setattr(History, "to_replay", half)
        assert is_found("the model knows of", plan=PLANS["replays"])

    def test_nobody_says_what_is_lost(self, monkeypatch: pytest.MonkeyPatch) -> None:
        begin = LogReader.begin

        def silently(self: LogReader, log: Log, after: int, *, owns: bool) -> None:
            begin(self, log, after, owns=owns)
            self.lost = None

        monkeypatch.setattr(LogReader, "begin", silently)
        assert is_found(" after ", plan=PLANS["small logs"])

    def test_an_owner_does_not_notice_what_a_store_has_lost(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._save_after(monkeypatch, lambda kept, _title, number: (kept.title, number - 1))
        plan = Plan(kinds=("cut", "cut", "failover"), clients=6, messages=12, faults=20)
        assert is_found("its session is gone", plan=plan)

    def _save_after(
        self,
        monkeypatch: pytest.MonkeyPatch,
        before: Callable[[Saved, Title, int], tuple[Title, int]],
    ) -> None:
        """Let a store take a write for one that follows what it says there was before."""
        save = MemoryStore._save

        def careless(
            self: MemoryStore,
            session_id: str,
            title: Title,
            number: int,
            change: Change,
            seconds: float,
            *,
            release: bool,
        ) -> None:
            kept = self._sessions.get(session_id)
            if kept is not None and kept.saved is not None:
                was, newest = before(kept.saved, title, number)
                saved = structs.replace(kept.saved, title=was, number=newest)
                self._sessions[session_id] = structs.replace(kept, title=was, saved=saved)
            save(self, session_id, title, number, change, seconds, release=release)

        monkeypatch.setattr(MemoryStore, "_save", careless)

    def _anybody_claims(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def claim(
            self: MemoryStore,
            session_id: str,
            before: Title,  # noqa: ARG001 - it is what is not looked at
            replica: str,
        ) -> Saved | None:
            kept = self._sessions.get(session_id)
            if kept is None or kept.saved is None:
                return None
            title = Title(replica, kept.title.token + 1)
            saved = structs.replace(kept.saved, title=title)
            self._owned[replica][session_id] = None
            self._sessions[session_id] = structs.replace(kept, title=title, saved=saved)
            return saved

        monkeypatch.setattr(MemoryStore, "claim", claim)

    def _at_once(self, monkeypatch: pytest.MonkeyPatch, kind: type) -> None:
        take = keeping.Keeper.take

        def hasty(self: keeping.Keeper, effects: Sequence[do.Effect], now: float) -> None:
            self._runner.perform([each for each in effects if isinstance(each, kind)], 0)
            take(self, [each for each in effects if not isinstance(each, kind)], now)

        monkeypatch.setattr(keeping.Keeper, "take", hasty)


def test_what_a_replica_has_let_go_it_does_not_take_back_as_it_drains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sessions = 100
    walk = sessions * SPREAD_SECONDS
    assert walk > LEASE, "it is still at it when it would look after its own"
    monkeypatch.setattr(gateways, "DRAIN", 10 * walk)
    schedule = Schedule(SEED, ANY)
    world = schedule.world
    with deterministic(world):
        schedule.cluster = cluster = Cluster(world, 1)
        clients = [Client(world, cluster, f"c{i}", 100, 0.0) for i in range(sessions)]
        world.run(3)
        cluster.start()
        world.run(4)
        one, other = cluster.gateways
        assert len(one.sessions) == sessions
        for client in clients:
            client.gone = True  # it does not come back
            client.cut()
        one.terminate()
        world.run(4 + walk + 2 * LEASE)
        has_ended, inherited = not one.alive, len(other.sessions)
        schedule._tidy()
    assert has_ended
    assert inherited == sessions


@pytest.mark.parametrize("seed", range(SEED, SEED + 20))
def test_a_session_whose_owner_lives_is_not_gone_with_the_store(seed: int) -> None:
    schedule = Schedule(seed, ANY)
    world = schedule.world
    with deterministic(world):
        schedule.cluster = cluster = Cluster(world, 3)
        client = Client(world, cluster, "client", 100, 0.0)
        world.run(3 * LEASE)
        before = len(client.done)
        cluster.server.forget()
        client._connection = None  # lost, which the owner does not know yet
        client.connect()
        world.run(6 * LEASE)
        schedule._tidy()
    assert not client.gone
    assert len(client.done) > before
