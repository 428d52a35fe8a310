"""Asks all replicas for what operators see and do, from whichever replica serves the request."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from gateway.admin import questions as ask
from gateway.admin.console import Console
from gateway.admin.summary import Readings, Summary, replica_state
from gateway.admin.views import (
    Replicas,
    ReplicaState,
    Routes,
    SessionDetail,
    SessionEntry,
    SessionPage,
)
from gateway.telemetry.reading import Reading

ANSWER_SECONDS = 3.0
"""Seconds that a replica has to answer."""


Ask = Callable[[bytes, float], Awaitable[bytes | None]]
"""Asks a replica a question; returns the answer, or None if there is none within these seconds."""


class Others(Protocol):
    """The other replicas."""

    async def others(self) -> Mapping[str, Ask]:
        """Return the replicas that are believed to be alive, by name."""
        ...

    async def knows(self, session_id: str) -> bool:
        """Return whether this session exists at any replica."""
        ...


class Alone:
    """`Others` of a process without a shared store."""

    async def others(self) -> Mapping[str, Ask]:
        """See `Others.others`."""
        return {}

    async def knows(self, session_id: str) -> bool:  # noqa: ARG002
        """See `Others.knows`."""
        return False


class Fleet:
    """All replicas.

    Args:
        console: Console of this process.
        others: The other replicas.
        endpoints: Endpoint of each route, by the route's name.
    """

    def __init__(self, console: Console, others: Others, endpoints: Mapping[str, str]) -> None:
        self.console = console
        self.endpoints = endpoints
        self._others = others

    async def read(self, seconds: float = ANSWER_SECONDS) -> tuple[Readings, list[str]]:
        """Read the metrics of all replicas; also return the replicas that haven't answered in time,
        or whose answer is of an unknown version.
        """
        found, missing = await self._ask_all(ask.ReadMetrics(), Reading, seconds)
        readings = {name: reading for name, reading in found.items() if reading.is_familiar}
        return readings, [*missing, *(found.keys() - readings.keys())]

    def states(self, readings: Readings, missing: Sequence[str]) -> list[ReplicaState]:
        """Return each replica's state, sorted by name; see `read`."""
        here = self.console.name
        return [
            replica_state(name, readings.get(name), here=name == here)
            for name in sorted([*readings, *missing])
        ]

    async def sessions(self, asked: ask.ListSessions) -> SessionPage:
        """List sessions of all replicas."""
        found, missing = await self._ask_all(asked, list[SessionEntry])
        # A session that is moving may be listed by two replicas.
        entries = {entry.session_id: entry for each in found.values() for entry in each}
        page = [entries[key] for key in sorted(entries)]
        has_more = len(page) > asked.limit
        page = page[: asked.limit]
        return SessionPage(
            sessions=page, next=page[-1].session_id if has_more else None, missing=missing
        )

    async def look(self, session_id: str) -> SessionDetail:
        """Describe one session.

        Raises:
            NotFound: The session does not exist.
            NotReached: The session can't be located at the moment.
        """
        question = ask.LookAt(session_id)
        answers, missing = await self._ask_all(question, SessionDetail | None, until=bool)
        for found in answers.values():
            if isinstance(found, SessionDetail):
                return found
        raise await self._absent(session_id, missing)

    async def close(self, session_id: str) -> str:
        """Close a session; return the replica that it was at.

        Raises:
            NotFound: The session does not exist, or has ended.
            NotReached: The session can't be closed at the moment.
        """
        question = ask.CloseSession(session_id)
        answers, missing = await self._ask_all(question, ask.Closing, until=bool)
        for replica, closing in answers.items():
            if closing == ask.ENDED:
                raise NotFound
            if closing:
                return replica
        raise await self._absent(session_id, missing)

    async def _absent(self, session_id: str, missing: list[str]) -> "NotFound | NotReached":
        if missing:
            return NotReached(f"The session may be at {missing[0]}, which does not answer.")
        if await self._others.knows(session_id):
            return NotReached("The session is moving from one replica to another.")
        return NotFound()

    async def replicas(self) -> Replicas:
        """List all replicas."""
        return Replicas(replicas=self.states(*await self.read()))

    async def routes(self) -> Routes:
        """List all routes, with latencies of all turns since the replicas started."""
        readings, missing = await self.read()
        return Routes(routes=Summary(self.endpoints, readings).routes(), missing=missing)

    async def drain(self, replica: str) -> bool:
        """Drain a replica; return whether it can stop itself.

        Raises:
            NotFound: The replica does not exist.
            NotReached: The replica does not answer.
        """
        there = (await self._replicas()).get(replica)
        if there is None:
            raise NotFound
        told = await there(ask.encode(ask.Drain()), ANSWER_SECONDS)
        if told is None:
            raise NotReached("The replica does not answer; it may or may not drain.")
        return msgspec.json.decode(told, type=bool)

    async def _ask_all(
        self,
        question: ask.Question,
        answer: Any,
        seconds: float = ANSWER_SECONDS,
        *,
        until: Callable[[Any], bool] = lambda _: False,
    ) -> tuple[dict[str, Any], list[str]]:
        """Ask all replicas; return answers by replica, and the replicas that haven't answered.

        Args:
            question: The question.
            answer: Type of the answers.
            seconds: Maximum time for an answer.
            until: Whether an answer is sufficient, so that the others need not be awaited.
        """
        replicas, asked = await self._replicas(), ask.encode(question)
        waiting = {
            asyncio.ensure_future(replica(asked, seconds)): name
            for name, replica in replicas.items()
        }
        found = dict[str, Any]()
        try:
            while waiting and not any(map(until, found.values())):
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for each in done:
                    name = waiting.pop(each)
                    with contextlib.suppress(msgspec.DecodeError):  # no answer, or unknown version
                        found[name] = msgspec.json.decode(each.result() or b"", type=answer)
        finally:
            for each in waiting:
                each.cancel()
        return found, [name for name in replicas if name not in found]

    async def _replicas(self) -> dict[str, Ask]:
        """Return how to ask each replica, by name."""
        return {self.console.name: self._ask_here, **await self._others.others()}

    async def _ask_here(self, question: bytes, _seconds: float) -> bytes:
        return await self.console.answer(question)


class NotFound(Exception):
    """The session or the replica does not exist."""


class NotReached(Exception):
    """A replica can't be asked at the moment; the text says why."""
