"""The sessions that a replica owns: claims those that others have released, or left by crashing."""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from gateway.conversation import Traveller
from gateway.replicas.peers import Peers
from gateway.runner import SessionRunner
from gateway.session.events import ClientId
from gateway.session.storage import NOBODY, Glimpse, Store, Title, Unreadable
from gateway.sessions import Sessions

AT_ONCE = 32
"""How many sessions are processed before yielding to the event loop, or claimed concurrently."""

LOOKED_AT = 256
"""How many of the sessions that it owns a replica checks per heartbeat, whether they are here."""

log = structlog.stdlib.get_logger("gateway.replicas")


class Ownership:
    """A replica's ownership of sessions in the store.

    Args:
        name: The replica's name.
        store: The shared store.
        sessions: The sessions that are here.
        peers: The other replicas.
        lease_seconds: How long a released session may have no owner.
        followed: The sessions on other replicas whose clients are here.
    """

    def __init__(
        self,
        name: str,
        store: Store,
        sessions: Sessions,
        peers: Peers,
        lease_seconds: float,
        *,
        followed: Callable[[], set[str]],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._name = name
        self._store = store
        self._sessions = sessions
        self._peers = peers
        self._lease_seconds = lease_seconds
        self._followed = followed
        self._released: dict[str, float] = {}
        self._claiming: set[str] = set()
        self._room = asyncio.Semaphore(AT_ONCE)
        self._is_to_touch = self._all_of_it = False

    def missed(self, *, whole: bool) -> None:
        """Let each session write again what the store may have missed, or the whole session."""
        self._all_of_it = self._all_of_it or whole
        self._is_to_touch = True

    async def write_again(self) -> None:
        """Let all sessions write again what the store may have missed or lost while unavailable."""
        if self._is_to_touch:
            whole = self._all_of_it
            self._is_to_touch = self._all_of_it = False
            for number, runner in enumerate(self._sessions.runners, 1):
                runner.touch(whole=whole)
                if not number % AT_ONCE:
                    await asyncio.sleep(0)

    async def inherit(self, dead: str) -> None:
        """Take over the sessions of a dead replica, until only those for other replicas remain."""
        taken = 0
        while not self._sessions.draining:
            ids = await self._store.owned(dead, AT_ONCE)
            adopted = [self._adopt(session_id, {dead, NOBODY}) for session_id in ids]
            done = await asyncio.gather(*adopted)
            settled = [each for each, is_settled in zip(ids, done, strict=True) if is_settled]
            taken += sum(map(self._sessions.knows, settled))
            await self._peers.beat()
            if not self._peers.is_silent(dead):
                break  # another replica has done it; or it was not dead, and owns some again
            if not ids:
                await self._store.bury(dead)
                break
            await self._store.disown(dead, settled)
            if not settled:
                break
        if taken:
            log.warning("sessions of a dead replica taken over", replica=dead, sessions=taken)

    async def _adopt(self, session_id: str, owners: set[str]) -> bool:
        """Take a session over if it has one of these owners; return whether nothing is left to do,
        since it now has none of them.
        """
        try:
            glimpse = await self._store.glimpse(session_id)
        except Unreadable as error:
            log.warning("a session can't be read", session=session_id, why=str(error))
            return False
        if glimpse is None or glimpse.title.owner not in owners:
            return True
        return await self.claim(session_id, glimpse) is not None

    async def claim(
        self,
        session_id: str,
        glimpse: Glimpse,
        keep: tuple[Traveller, ClientId] | None = None,
        *,
        asked: bool = False,
    ) -> SessionRunner | None:
        """Claim a session, whose owner may just have been asked to release it; return None if that
        is not possible, or another replica was faster.
        """
        async with self._room:
            if session_id in self._claiming or self._sessions.knows(session_id):
                return None
            if not self._sessions.can_run(glimpse):
                return None
            let_go = asked and glimpse.title.owner == NOBODY
            if not let_go and not self._peers.are_certain:
                return None  # the store may have lost its ownership: its owner will write it again
            return await self._claim_now(session_id, glimpse.title, keep)

    async def _claim_now(
        self, session_id: str, title: Title, keep: tuple[Traveller, ClientId] | None
    ) -> SessionRunner | None:
        self._claiming.add(session_id)
        try:
            saved = await self._store.claim(session_id, title, self._name)
            if saved is None:
                return None
            runner = self._sessions.adopt(saved, crashed=title.owner != NOBODY, keep=keep)
        except Unreadable:
            log.exception("a session could not be restored", session=session_id)
            await self._store.delete(session_id, Title(self._name, title.token + 1))
            return None
        finally:
            self._claiming.discard(session_id)
        log.debug("session taken over", session=session_id, of=title.owner or None)
        return runner

    def released(self, session_id: str) -> None:
        """Note that a session was released; if no other replica claims it, this one reclaims it."""
        self._released[session_id] = self._loop.time() + self._lease_seconds

    async def see_to_own(self) -> None:
        """Reclaim sessions that this replica owns but doesn't run: released, but not claimed by
        another, or claimed without receiving the store's reply.
        """
        if self._sessions.draining:
            return  # all sessions are for the others
        now, gone = self._loop.time(), list[str]()
        self._released = {each: until for each, until in self._released.items() if until > now}
        for session_id in await self._store.owned(self._name, LOOKED_AT):
            if self._sessions.knows(session_id) or session_id in self._released:
                continue
            if await self._adopt(session_id, {self._name, NOBODY}):
                gone.append(session_id)
        await self._disown(gone)

    async def _disown(self, session_ids: Sequence[str]) -> None:
        """Disown sessions that have moved, except those that are here again. Meanwhile none can be
        claimed here: its claim would be undone.
        """
        back = self._followed() | self._claiming
        gone = {each for each in session_ids if not self._sessions.knows(each)} - back
        self._claiming |= gone
        try:
            await self._store.disown(self._name, [*gone])
        finally:
            self._claiming -= gone
