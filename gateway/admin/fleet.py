"""What an operator sees and does of all replicas, from whichever one is asked."""

import asyncio
from collections.abc import Mapping, Sequence
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
"""How long a replica may take to answer."""


class Others(Protocol):
    """The other replicas."""

    async def others(self) -> Sequence[str]:
        """The names of those that live, as far as is known."""
        ...

    async def ask(self, replica: str, question: bytes, seconds: float) -> bytes | None:
        """What one of them answers; None where it does not, in time."""
        ...

    async def knows(self, session_id: str) -> bool:
        """Whether there is such a session, wherever it is."""
        ...


class Alone:
    """`Others` of a process that shares no store."""

    async def others(self) -> Sequence[str]:
        """See `Others.others`."""
        return ()

    async def ask(self, replica: str, question: bytes, seconds: float) -> bytes | None:
        """See `Others.ask`."""
        raise NotImplementedError(replica, question, seconds)

    async def knows(self, session_id: str) -> bool:  # noqa: ARG002
        """See `Others.knows`."""
        return False


class Fleet:
    """All replicas.

    Args:
        console: Of this one.
        others: The others.
        endpoints: What each route leads to, by their names.
    """

    def __init__(self, console: Console, others: Others, endpoints: Mapping[str, str]) -> None:
        self.console = console
        self.endpoints = endpoints
        self._others = others

    async def read(self, seconds: float = ANSWER_SECONDS) -> tuple[Readings, list[str]]:
        """What metrics stand at everywhere, and which replicas have not answered in time, or say
        what is not understood here.
        """
        found, missing = await self._ask_all(ask.ReadMetrics(), Reading, seconds)
        readings = {name: reading for name, reading in found.items() if reading.is_familiar}
        return readings, [*missing, *(found.keys() - readings.keys())]

    def states(self, readings: Readings, missing: Sequence[str]) -> list[ReplicaState]:
        """What is known of each replica, by their names; see `read`."""
        here = self.console.name
        return [
            replica_state(name, readings.get(name), here=name == here)
            for name in sorted([*readings, *missing])
        ]

    async def sessions(self, asked: ask.ListSessions) -> SessionPage:
        """Some sessions of all replicas."""
        found, missing = await self._ask_all(asked, list[SessionEntry])
        # One that moves just now may be at two.
        entries = {entry.session_id: entry for each in found.values() for entry in each}
        page = [entries[key] for key in sorted(entries)]
        has_more = len(page) > asked.limit
        page = page[: asked.limit]
        return SessionPage(
            sessions=page, next=page[-1].session_id if has_more else None, missing=missing
        )

    async def look(self, session_id: str) -> SessionDetail:
        """One session.

        Raises:
            NotFound: There is none.
            NotReached: It can't be found out at the moment.
        """
        answers, missing = await self._ask_all(ask.LookAt(session_id), SessionDetail | None)
        for found in answers.values():
            if isinstance(found, SessionDetail):
                return found
        raise await self._absent(session_id, missing)

    async def close(self, session_id: str) -> str:
        """Close a session; returns where it was.

        Raises:
            NotFound: There is none.
            NotReached: It can't be done at the moment.
        """
        answers, missing = await self._ask_all(ask.CloseSession(session_id), bool)
        for replica, was_there in answers.items():
            if was_there:
                return replica
        raise await self._absent(session_id, missing)

    async def _absent(self, session_id: str, missing: list[str]) -> "NotFound | NotReached":
        if missing:
            return NotReached(f"It may be at {missing[0]}, which does not answer.")
        if await self._others.knows(session_id):
            return NotReached("It is on its way from one replica to another.")
        return NotFound()

    async def replicas(self) -> Replicas:
        """All of them."""
        return Replicas(replicas=self.states(*await self.read()))

    async def routes(self) -> Routes:
        """All of them; latencies are of all turns since the replicas have started."""
        readings, missing = await self.read()
        return Routes(routes=Summary(self.endpoints, readings).routes(), missing=missing)

    async def drain(self, replica: str) -> bool:
        """Have a replica drain; whether it can.

        Raises:
            NotFound: There is none of that name.
            NotReached: It does not answer.
        """
        if replica not in {self.console.name, *await self._others.others()}:
            raise NotFound
        told = await self._ask(replica, ask.encode(ask.Drain()), ANSWER_SECONDS)
        if told is None:
            raise NotReached("It does not answer; whether it drains is not known.")
        return msgspec.json.decode(told, type=bool)

    async def _ask_all(
        self, question: ask.Question, answer: Any, seconds: float = ANSWER_SECONDS
    ) -> tuple[dict[str, Any], list[str]]:
        """What replicas have answered, by their names; and those that have not."""
        names, asked = [self.console.name, *await self._others.others()], ask.encode(question)
        told = await asyncio.gather(*[self._ask(name, asked, seconds) for name in names])
        found, missing = dict[str, Any](), list[str]()
        for name, each in zip(names, told, strict=True):
            try:
                found[name] = msgspec.json.decode(each or b"", type=answer)
            except msgspec.DecodeError:  # nothing, or of another version
                missing.append(name)
        return found, missing

    async def _ask(self, replica: str, question: bytes, seconds: float) -> bytes | None:
        if replica == self.console.name:
            return await self.console.answer(question)
        return await self._others.ask(replica, question, seconds)


class NotFound(Exception):
    """There is no such session, or replica."""


class NotReached(Exception):
    """It can't be found out, or done, at the moment; the text says why."""
