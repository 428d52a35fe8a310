"""The store as a replica far away finds it: slow, away for seconds, or of another opinion."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from gateway.errors import ErrorCode
from gateway.session.recorder import head_of, snapshot_of
from gateway.session.snapshot import Snapshot
from gateway.session.storage import (
    NOBODY,
    Beats,
    Change,
    Count,
    Glimpse,
    Saved,
    StoreUnavailable,
    Title,
    Use,
)
from gateway.session.upstream_table import Life
from gateway.stores.memory import MemoryStore
from tests.simulation.world import Process, World

TIMEOUT = 2.0

Future = asyncio.Future[Any]


class Server:
    """The one store that all replicas share.

    Attributes:
        memory: What it has.
        is_down: Whether it answers nothing.
        latency: How long a request or a reply may take on its way.
        loses: How often one of the two is lost.
        late: How often a request arrives when nobody waits for it any more.
        missed_at: When it has last not got a request of a process.
        models: The sessions at the model that it has ever been told of, and whose they are.
        behind: The sessions of which it has lost what it had acknowledged, until they are written
            again; each with its owner.
        harmed: Those that another has gone on with before that, as the store then had them, since
            their owner was not there to write them.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.memory = MemoryStore(clock=world.wall)
        self.is_down = False
        self.latency = 0.002
        self.loses = self.late = 0.0
        self.cuts = 0
        self.was_late, self.missed_at = False, defaultdict[Process, float](float)
        self.models: dict[str, str] = {}
        self.behind: dict[str, str] = {}
        self.harmed: defaultdict[str, list[Snapshot]] = defaultdict(list)
        self.pending: dict[Future, Process] = {}
        self._readers: dict[str, tuple[Process, Future]] = {}
        self._spare: dict[str, Any] | None = None

    def has_at_model(self, session_id: str, owner: str, message_id: str) -> bool:
        """Whether a session has that turn at the model, unless it is not that owner's any more."""
        kept = self.memory._sessions.get(session_id)
        if session_id in self.behind or kept is None or kept.saved is None:
            return True
        head = head_of(kept.saved.head)
        if kept.title.owner != owner or _is_raw(head):
            return True
        if head.running is None:
            return head.life is Life.REPLAYING
        return head.running.id == message_id

    def has_receipt(self, session_id: str, owner: str, message_id: str) -> bool:
        """The same of a turn whose reply comes later."""
        kept = self.memory._sessions.get(session_id)
        if session_id in self.behind or kept is None or kept.saved is None:
            return True
        running = head_of(kept.saved.head).running
        if kept.title.owner != owner:
            return True
        return running is not None and running.id == message_id and running.receipt is not None

    def has_ended(self, session_id: str | None, message_id: str) -> bool:
        """Whether a turn has ended, as far as the store has been told."""
        kept = self.memory._sessions.get(session_id or "")
        if self.may_lack(session_id) or kept is None or kept.saved is None:
            return True
        head = head_of(kept.saved.head)
        turns = [*head.waiting, head.running] if head.running else head.waiting
        return message_id not in [turn.id for turn in turns]

    def may_lack(self, session_id: str | None) -> bool:
        """Whether something of a session is lost, or may be."""
        return session_id in self.behind or session_id in self.harmed

    def wake(self, replica: str) -> None:
        """A letter has come for a replica."""
        reader = self._readers.pop(replica, None)
        if reader is not None:
            process, news = reader
            process.soon(_succeed, news)

    def wait(self, replica: str, process: Process, news: Future) -> None:
        """Have this done when a letter comes."""
        self._readers[replica] = process, news

    def cut(self) -> None:
        """Close all connections: whoever waits for an answer gets none."""
        for answer, process in [
            *self.pending.items(),
            *((n, p) for p, n in self._readers.values()),
        ]:
            process.soon(_fail, answer)
        self.cuts += 1
        self.pending.clear()
        self._readers.clear()

    def forget(self) -> None:
        """End and begin again with nothing."""
        self.behind |= {each: kept.title.owner for each, kept in self.memory._sessions.items()}
        self.memory = MemoryStore(clock=self.world.wall)
        self.cut()

    def copy(self) -> None:
        """From now on, what is written is not copied to the spare server."""
        memory = self.memory
        self._spare = {
            "_sessions": list(memory._sessions.items()),
            "_owned": {name: dict(ids) for name, ids in memory._owned.items()},
            "_beats": dict(memory._beats),
            "_inboxes": {name: list(letters) for name, letters in memory._inboxes.items()},
        }

    def fail_over(self) -> None:
        """The spare server takes over, without what was written since."""
        if self._spare is None:
            return
        had = self.memory._sessions
        memory = self.memory = MemoryStore(clock=self.world.wall)
        for session_id, kept in self._spare["_sessions"]:
            memory._sessions[session_id] = kept
        for each, kept in had.items():
            if memory._sessions.get(each) != kept:
                self.behind.setdefault(each, kept.title.owner)
        memory._owned.update(self._spare["_owned"])
        memory._beats.update(self._spare["_beats"])
        memory._inboxes.update(self._spare["_inboxes"])
        self._spare = None
        self.cut()

    def is_forsaken(self, session_id: str | None) -> bool:
        """Whether something of a session is lost that nobody is there to write again."""
        away = {NOBODY, *(each.name for each in self.world.processes if each.disturbed)}
        return self.behind.get(session_id or "") in away

    def claimed(self, session_id: str, by: str, saved: Saved) -> None:
        """A session has another owner, which knows no more of it than this."""
        if self.is_forsaken(session_id):
            self.written(session_id, by, saved)
        self.behind.pop(session_id, None)

    def written(self, session_id: str, by: str, saved: Saved) -> None:
        """Somebody goes on with a session of which it knows no more than this."""
        if self.behind.pop(session_id, by) != by:
            self.harmed[session_id].append(snapshot_of(saved)[0])

    def may_repeat(
        self, session_id: str | None, message_id: str, code: ErrorCode | None = None
    ) -> bool:
        """Whether a turn may go to the model again, or end again: the store had lost that it was.

        Args:
            session_id: Whose.
            message_id: The turn's.
            code: It only ends again, with this.
        """
        for had in self.harmed.get(session_id or "", ()):
            running = had.running
            if running is not None and running.id == message_id:
                if code is ErrorCode.SESSION_LOST:
                    return True
                if code is ErrorCode.GATEWAY_LOST and running.request.stream:
                    return True
            elif message_id not in [ended for ended, _ in had.ended]:
                return True
        return False


def _is_raw(head: Snapshot) -> bool:
    """Whether it is a session to which nobody can come back: no more of it is kept."""
    return head.keys == ()


def _result(work: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


class Connection:
    """One replica's way to the store; see `gateway.session.storage.Store`."""

    def __init__(self, server: Server, process: Process) -> None:
        self._server = server
        self._process = process

    async def _ask(self, operation: Callable[[MemoryStore], Coroutine[Any, Any, Any]]) -> Any:
        server, world, process = self._server, self._server.world, self._process
        answer = process.loop.create_future()
        dead_end = process.loop.call_later(TIMEOUT, _fail, answer)
        server.pending[answer] = process

        def arrive() -> None:
            if server.is_down or world.chance(server.loses):
                server.missed_at[process] = world.now
                return
            try:
                result, error = _result(operation(server.memory)), None
            except Exception as raised:  # noqa: BLE001 - it is the answer
                result, error = None, raised
            if not world.chance(server.loses):
                world.after(world.between(0, server.latency), process.soon, reply, result, error)

        def reply(result: Any, error: Exception | None) -> None:
            dead_end.cancel()
            server.pending.pop(answer, None)
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)

        delay = world.between(0, server.latency)
        if world.chance(server.late):
            server.was_late = True
            delay += world.between(TIMEOUT, 3 * TIMEOUT)
        world.after(delay, arrive)
        return await answer

    def save(
        self,
        session_id: str,
        title: Title,
        number: int,
        change: Change,
        *,
        seconds: float,
        release: bool = False,
    ) -> asyncio.Task[Any]:
        async def save(memory: MemoryStore) -> None:
            memory._save(session_id, title, number, change, seconds, release=release)
            kept = memory._sessions.get(session_id)
            if kept is not None and kept.saved is not None:
                self._server.written(session_id, title.owner, kept.saved)
            for model in head_of(change.head).at_model:
                self._server.models[model] = session_id

        return self._process.loop.create_task(self._ask(save))

    async def glimpse(self, session_id: str) -> Glimpse | None:
        found: Glimpse | None = await self._ask(lambda memory: memory.glimpse(session_id))
        return found

    async def claim(self, session_id: str, before: Title, replica: str) -> Saved | None:
        async def claim(memory: MemoryStore) -> Saved | None:
            saved = await memory.claim(session_id, before, replica)
            if saved is not None:
                self._server.claimed(session_id, replica, saved)
            return saved

        saved: Saved | None = await self._ask(claim)
        return saved

    async def delete(self, session_id: str, title: Title) -> None:
        await self._ask(lambda memory: memory.delete(session_id, title))

    async def owned(self, replica: str, count: int) -> Sequence[str]:
        ids: Sequence[str] = await self._ask(lambda memory: memory.owned(replica, count))
        return ids

    async def disown(self, replica: str, session_ids: Sequence[str]) -> None:
        await self._ask(lambda memory: memory.disown(replica, session_ids))

    async def beat(self, replica: str) -> Beats:
        beats: Beats = await self._ask(lambda memory: memory.beat(replica))
        return beats._replace(breaks=self._server.cuts)

    async def resign(self, replica: str) -> None:
        await self._ask(lambda memory: memory.resign(replica))

    async def bury(self, replica: str) -> None:
        await self._ask(lambda memory: memory.bury(replica))

    async def post(self, replica: str, letters: Sequence[bytes]) -> int:
        count: int = await self._ask(lambda memory: memory.post(replica, letters))
        self._server.wake(replica)
        return count

    async def collect(self, replica: str, seconds: float) -> Sequence[bytes]:
        letters: Sequence[bytes] = await self._ask(lambda memory: _collect(memory, replica))
        if letters:
            return letters
        news = self._process.loop.create_future()
        self._server.wait(replica, self._process, news)
        timer = self._process.loop.call_later(seconds, _succeed, news)
        await news
        timer.cancel()
        return []

    async def add_ticket(self, digest: str, holder: bytes, expires_at: float) -> None:
        await self._ask(lambda memory: memory.add_ticket(digest, holder, expires_at))

    async def take_ticket(self, digest: str) -> bytes | None:
        holder: bytes | None = await self._ask(lambda memory: memory.take_ticket(digest))
        return holder

    async def put_record(self, name: str, record: bytes, seconds: float) -> None:
        await self._ask(lambda memory: memory.put_record(name, record, seconds))

    async def add_record(self, name: str, record: bytes, seconds: float) -> bool:
        added: bool = await self._ask(lambda memory: memory.add_record(name, record, seconds))
        return added

    async def replace_record(self, name: str, record: bytes, seconds: float) -> bool:
        known: bool = await self._ask(lambda memory: memory.replace_record(name, record, seconds))
        return known

    async def get_record(self, name: str, seconds: float | None = None) -> bytes | None:
        record: bytes | None = await self._ask(lambda memory: memory.get_record(name, seconds))
        return record

    async def take_record(self, name: str) -> bytes | None:
        record: bytes | None = await self._ask(lambda memory: memory.take_record(name))
        return record

    async def delete_record(self, name: str) -> bool:
        known: bool = await self._ask(lambda memory: memory.delete_record(name))
        return known

    async def count(
        self, replica: str, counts: Sequence[Count], *, whole: bool, seconds: float
    ) -> Sequence[int]:
        given: Sequence[int] = await self._ask(
            lambda memory: memory.count(replica, counts, whole=whole, seconds=seconds)
        )
        return given

    def use(self, name: str, uses: Sequence[Use]) -> asyncio.Task[Sequence[float]]:
        async def use(memory: MemoryStore) -> Sequence[float]:
            return memory.use(name, uses).result()

        return self._process.spawn(self._ask(use))


async def _collect(memory: MemoryStore, replica: str) -> Sequence[bytes]:
    return memory._inboxes.pop(replica, [])


def _succeed(future: Any) -> None:
    if not future.done():
        future.set_result(None)


def _fail(future: Any) -> None:
    if not future.done():
        future.set_exception(StoreUnavailable("it has taken too long"))
