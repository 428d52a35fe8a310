"""What operators can see and do at this process."""

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic

from gateway.admin import questions as ask
from gateway.admin.views import EndedTurn, LiveTurn, SessionDetail, SessionEntry
from gateway.runner import SessionRunner
from gateway.session import events as on
from gateway.session.dates import rfc3339
from gateway.session.turn_queue import Turn
from gateway.sessions import Sessions
from gateway.telemetry.reading import Reading

AT_ONCE = 1000
"""Sessions examined in one turn of the event loop."""

LATEST = 20
"""Maximum number of ended turns shown for a session."""

LIVE = 100
"""Maximum number of waiting turns shown for a session."""

FRESH_SECONDS = 0.5
"""Seconds that a reading of metrics is reused: several operators may watch, each at another
replica."""


class Console:
    """Answers operators' questions about this process.

    Args:
        name: Name of this replica.
        sessions: Sessions of this process.
        read: Reads the metrics.

    Attributes:
        on_drain: Drains the process and stops it; None if the gateway is part of an application.
    """

    def __init__(
        self, name: str, sessions: Sessions, read: Callable[[], Awaitable[Reading]]
    ) -> None:
        self.name = name
        self.on_drain: Callable[[], None] | None = None
        self._sessions = sessions
        self._read = read
        self._reading = Reading()
        self._read_at = float("-inf")
        self._one_at_a_time = asyncio.Lock()

    @property
    def is_over(self) -> bool:
        """Whether this process has drained, so nothing changes any more."""
        return self._sessions.draining and not len(self._sessions)

    async def answer(self, question: bytes) -> bytes:
        """Answer a question; the type of each answer is stated there.

        Raises:
            ValueError: The question is of another version.
        """
        return ask.encode(await self._answer(ask.decode(question)))

    async def _answer(self, question: ask.Question) -> object:
        match question:
            case ask.ReadMetrics():
                return await self.reading()
            case ask.ListSessions():
                return await self.list(question)
            case ask.LookAt():
                return self.look(question.session_id)
            case ask.CloseSession():
                return self.close(question.session_id)
            case ask.Drain():
                return self.drain()

    async def reading(self) -> Reading:
        """Return the current metrics, or those of a moment ago."""
        async with self._one_at_a_time:
            if monotonic() - self._read_at > FRESH_SECONDS:
                self._reading = await self._read()
                self._read_at = monotonic()
            return self._reading

    async def list(self, asked: ask.ListSessions) -> Sequence[SessionEntry]:
        """See `ListSessions`."""
        most = asked.limit + 1
        found: list[tuple[str, SessionRunner]] = []
        runners = self._sessions.runners
        for start in range(0, len(runners), AT_ONCE):
            found += [
                (runner.id, runner)
                for runner in runners[start : start + AT_ONCE]
                if _is_asked_for(runner, asked)
            ]
            found = heapq.nsmallest(most, found, key=_id)
            await asyncio.sleep(0)
        return [_entry(runner, self.name) for _, runner in found]

    def look(self, session_id: str) -> SessionDetail | None:
        """See `LookAt`."""
        runner = self._sessions.runner(session_id)
        return None if runner is None else _detail(runner, self.name)

    def close(self, session_id: str) -> ask.Closing:
        """See `CloseSession`."""
        runner = self._sessions.runner(session_id)
        if runner is None:
            return False
        if runner.session.is_over:
            return ask.ENDED
        runner.handle(on.Evict())
        return True

    def drain(self) -> bool:
        """See `Drain`."""
        if self.on_drain is None:
            return False
        self.on_drain()
        return True


def _id(found: tuple[str, SessionRunner]) -> str:
    return found[0]


def _is_asked_for(runner: SessionRunner, asked: ask.ListSessions) -> bool:
    session = runner.session
    return (
        not runner.is_gone  # the session is now at another replica
        and session.id > asked.after
        and session.id.startswith(asked.prefix)
        and asked.route in {None, session.policy.route}
        and asked.state in {None, session.state}
        and asked.principal in session.principal
    )


def _entry(runner: SessionRunner, replica: str) -> SessionEntry:
    session, log = runner.session, runner.log
    expires_at = None if session.model is None else session.model.expires_at
    return SessionEntry(
        session_id=session.id,
        route=session.policy.route,
        principal=session.principal,
        replica=replica,
        state=session.state,
        attached=session.clients.owner is not None,
        running=session.turns.running is not None,
        queued=len(session.turns.queue.waiting),
        events=log.last - log.first + 1,
        expires_at=None if expires_at is None else rfc3339(expires_at),
    )


def _detail(runner: SessionRunner, replica: str) -> SessionDetail:
    session, log, queue = runner.session, runner.log, runner.session.turns.queue
    live = [*([] if queue.running is None else [queue.running]), *queue.waiting[:LIVE]]
    entry = _entry(runner, replica)
    return SessionDetail(
        **{name: getattr(entry, name) for name in entry.__struct_fields__},
        sagemaker_session=None if session.model is None else session.model.id,
        readers=len(session.clients.readers),
        last_event=log.last,
        log_bytes=log.held,
        turns=[_live(turn, runner) for turn in live],
        latest=[
            EndedTurn(id=message_id, status=status)
            for message_id, status in reversed(queue.latest(LATEST))
        ],
        ended=queue.ended_count,
    )


def _live(turn: Turn, runner: SessionRunner) -> LiveTurn:
    accepted = runner.accepted_at(turn.id)
    return LiveTurn(
        number=turn.number,
        id=turn.id,
        status=turn.status,
        age_seconds=None if accepted is None else round(monotonic() - accepted, 3),
        deltas=turn.deltas,
        retries=turn.retries,
    )
