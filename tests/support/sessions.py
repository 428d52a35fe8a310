"""All sessions of a gateway, with a model, a store and clients that do as a test tells them.

They stand for what no real one can be made to do.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from gateway.budget import ByteBudget
from gateway.conversation import Conversation, Resuming
from gateway.errors import CloseCode, ErrorCode, Failure
from gateway.health import Health
from gateway.protocol import messages as wire
from gateway.route import Route
from gateway.runner import SessionRunner
from gateway.session.events import ClientId
from gateway.session.keys import digest
from gateway.session.policy import Policy
from gateway.session.ports import (
    Call,
    ModelError,
    ModelReply,
    ModelRequest,
    ModelSession,
    OnEnd,
    OnParts,
    Receipt,
)
from gateway.session.reader import LogReader
from gateway.session.recorder import head_of
from gateway.session.snapshot import Snapshot
from gateway.session.storage import Change, SessionStore, StoreUnavailable, Title
from gateway.sessions import Elsewhere, Sessions
from gateway.stores.memory import MemoryStore
from tests.support.timing import UNIT


class Wait:
    """For a reply that comes later."""

    def __init__(self, on_end: OnEnd) -> None:
        self.on_end = on_end
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Model:
    """Answers until it is told to do something else."""

    def __init__(self) -> None:
        self.opens: Callable[[], ModelSession] = lambda: ModelSession("m")
        self.waits = asyncio.Event()
        self.waits.set()
        self.closed: list[str] = []
        self.closes: Callable[[], object] = lambda: None
        self.waits_to_close = asyncio.Event()
        self.waits_to_close.set()
        self.gave_up_closing = False
        self.answers: ModelReply | Failure | Receipt = ModelReply(body=b"hi")
        self.awaited: list[Receipt] = []
        self.waits_for: list[Wait] = []
        self.parts: list[str | bytes] = []
        self.calls: list[asyncio.Task[None]] = []
        self.streams: list[OnParts] = []
        self.asked: list[tuple[ModelRequest, ModelSession | None, str]] = []

    @property
    def invoked(self) -> int:
        """How many turns it has been sent."""
        return len(self.calls)

    async def open(self, principal: str) -> ModelSession:  # noqa: ARG002
        return self.opens()

    def invoke(
        self,
        request: ModelRequest,
        session: ModelSession | None,
        *,
        affinity: str,
        principal: str,  # noqa: ARG002 - nobody's in particular
        until: float | None,  # noqa: ARG002 - it is sent at once
        on_parts: OnParts,
        on_end: OnEnd,
    ) -> Call:
        self.asked.append((request, session, affinity))
        self.streams.append(on_parts)
        self.calls.append(asyncio.create_task(self._answer(on_parts, on_end)))
        return self.calls[-1]

    def wait(self, receipt: Receipt, *, affinity: str, on_end: OnEnd) -> Call:  # noqa: ARG002
        self.awaited.append(receipt)
        wait = Wait(on_end)
        self.waits_for.append(wait)
        return wait

    async def _answer(self, on_parts: OnParts, on_end: OnEnd) -> None:
        await self.waits.wait()
        if self.parts:
            on_parts(self.parts)
        on_end(self.answers)

    async def close(self, session: ModelSession) -> None:
        self.closed.append(session.id)
        self.closes()
        try:
            await self.waits_to_close.wait()
        except asyncio.CancelledError:
            self.gave_up_closing = True
            raise


class Connection:
    """Reads nothing by itself, and keeps what it is told."""

    is_open = True

    def __init__(self) -> None:
        self.reader = LogReader(secrets.token_urlsafe())
        self.client = 0
        self.notices: list[wire.Notice] = []
        self.ended: list[tuple[CloseCode, str]] = []
        self.aborted = False
        self.woken = asyncio.Event()
        self.news: list[str] = []

    @property
    def key(self) -> bytes:
        """The digest of what its client has to show when it comes back."""
        return digest(self.reader.resume_key)

    def resuming(self, session_id: str, shown: bytes, last_event: int, route: Route) -> Resuming:
        """Its client, which has come back."""
        return Resuming(self, session_id, shown, self.key, last_event, route, "anonymous")

    def wake(self, *, soon: bool) -> None:
        self.news.append({True: "soon", False: "later"}[soon])
        self.woken.set()

    def flush(self) -> None:
        self.news.append("now")
        self.woken.set()

    def read(self) -> None:
        """Take all that there is."""
        while self.reader.take() is not None:
            pass

    def go_on(self, conversation: Conversation, client: ClientId) -> None:
        self.reader.move(conversation.log)
        self.client = client

    def tell(self, notice: wire.Notice) -> None:
        self.notices.append(notice)

    def close(self, code: CloseCode, reason: str) -> None:
        self.ended.append((code, reason))

    def abort(self, code: CloseCode, reason: str) -> None:
        self.ended.append((code, reason))
        self.aborted = True


class BrokenStore(MemoryStore):
    """Does not answer whatever it is told of a session."""

    def save(
        self,
        session_id: str,
        title: Title,  # noqa: ARG002
        number: int,  # noqa: ARG002
        change: Change,  # noqa: ARG002
        *,
        seconds: float,  # noqa: ARG002
        release: bool = False,  # noqa: ARG002
    ) -> asyncio.Future[None]:
        answer = asyncio.get_running_loop().create_future()
        answer.set_exception(StoreUnavailable(session_id))
        return answer

    async def delete(self, session_id: str, title: Title) -> None:  # noqa: ARG002
        raise StoreUnavailable(session_id)


class WatchedStore(MemoryStore):
    """Takes its time, and notes what is done: the heads it is given, and the ids it deletes."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = asyncio.Event()
        self.waits.set()
        self.done: list[Snapshot | str] = []
        self.titles: list[tuple[Title, int, float]] = []
        self._kept: set[str] = set()

    def __len__(self) -> int:
        """How many sessions it has that are not over."""
        return len(self._kept)

    def save(
        self,
        session_id: str,
        title: Title,
        number: int,
        change: Change,
        *,
        seconds: float,
        release: bool = False,
    ) -> asyncio.Future[None]:
        waits = self.waits

        async def save() -> None:
            await waits.wait()
            await super(WatchedStore, self).save(
                session_id, title, number, change, seconds=seconds, release=release
            )
            self.done.append(head_of(change.head))
            self.titles.append((title, number, seconds))
            self._kept.add(session_id)

        return asyncio.get_running_loop().create_task(save())

    def let_through(self) -> None:
        """Let the writes that wait be done, and none after them."""
        self.waits.set()
        self.waits = asyncio.Event()

    async def delete(self, session_id: str, title: Title) -> None:
        await super().delete(session_id, title)
        self.done.append(session_id)
        self._kept.discard(session_id)


class Alone:
    """Where sessions are kept while there is no other replica; see `gateway.sessions.Elsewhere`."""

    def __init__(self, store: SessionStore, name: str) -> None:
        self.store = store
        self.name = name
        self.health = Health(asyncio.get_running_loop().time)

    async def resume(self, client: Resuming) -> tuple[Conversation, ClientId] | None:  # noqa: ARG002
        return None

    async def look(self, session_id: str, shown: bytes, principal: str) -> Snapshot | None:  # noqa: ARG002
        return None

    def released(self, session_id: str) -> None:
        pass


class Fixture:
    """A gateway's sessions, their model, and one client.

    Attributes:
        routes: For the sessions that it adopts.
    """

    def __init__(self, sessions: Sessions, routes: dict[str, Route]) -> None:
        self.sessions = sessions
        self.routes = routes
        self.model = Model()
        self.connection = Connection()

    @property
    def shared(self) -> Elsewhere:
        """Where the sessions are kept."""
        shared = self.sessions._elsewhere
        assert shared is not None
        return shared

    def add_route(self, **policy: Any) -> Route:
        route = Route(Policy(**{"route": "chat", "resume_seconds": 0.0, **policy}), self.model)
        self.routes[route.policy.route] = route
        return route

    async def open(self, **policy: Any) -> SessionRunner:
        route = self.add_route(**policy)
        runner = await self.sessions.open(route, "anonymous")
        self.connection.client = runner.start(self.connection.key, self.connection) or 0
        return runner

    async def adopt(self, session_id: str, *, crashed: bool = True) -> SessionRunner:
        """Take a session over, of whoever has it."""
        store = self.shared.store
        glimpse = await store.glimpse(session_id)
        assert glimpse is not None
        saved = await store.claim(session_id, glimpse.title, self.shared.name)
        assert saved is not None
        return self.sessions.adopt(saved, crashed=crashed)

    async def ask(self, runner: SessionRunner, message_id: str) -> None:
        """Send a message, and wait for its end."""
        runner.handle(wire.MessageSend(id=message_id, text="x"))
        await self.until(lambda: done(runner, message_id))

    async def settled(self) -> None:
        """Wait until the store has answered all that it was asked."""
        await self.until(lambda: not self.shared.health._waiting)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10 * UNIT):
            while not condition():
                self.connection.woken.clear()
                await asyncio.sleep(0)


def done(runner: SessionRunner, message_id: str) -> wire.MessageDone | None:
    for number in range(runner.log.first, runner.log.last + 1):
        event = runner.log.get(number)
        if isinstance(event, wire.MessageDone) and event.id == message_id:
            return event
    return None


@asynccontextmanager
async def running(
    store: SessionStore | None = None,
    name: str = "here",
    *,
    budget: int = 1_000_000,
    **options: Any,
) -> AsyncIterator[Fixture]:
    """Sessions, which are kept where there is a store, under that name."""
    given = {"max_sessions": 10, "budget": ByteBudget(budget), "drain_seconds": 10.0, **options}
    routes: dict[str, Route] = {}
    sessions = Sessions(routes, **given)
    if store is not None:
        sessions.share(Alone(store, name))
    async with sessions:
        yield Fixture(sessions, routes)


async def nobody_asks(question: bytes) -> bytes:
    """Answers replicas that ask nothing; see `gateway.replicas.asking.Answerer`."""
    raise AssertionError(question)


def breaks() -> Any:
    raise ZeroDivisionError


def refuses(failure: Failure) -> Callable[[], Any]:
    def refuse() -> Any:
        raise ModelError(failure)

    return refuse


REFUSED = Failure(
    code=ErrorCode.UNAVAILABLE,
    message="Its operator must mend this.",
    retryable=False,
    facts={"status": 403, "message": "ada is not authorized"},
)
BUSY = Failure(code=ErrorCode.THROTTLED, message="Wait a bit.", retry_after=0.01)
