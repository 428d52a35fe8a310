"""Sessions that wait for their next request for a chat completion, found by their history.

A request contains a whole conversation. The session that has the start of it is on a warm instance;
it is therefore kept under a digest of its history, for the first request that continues it. Records
of these sessions may be lost: a new session works as well, only more slowly.
"""

from collections import OrderedDict

import msgspec

from gateway.admission import Refused
from gateway.errors import ErrorCode
from gateway.protocol.discretion import Discreet
from gateway.protocol.messages import EventAck, SessionClose, SessionClosed
from gateway.route import Route
from gateway.session.events import Words
from gateway.session.keys import digest
from gateway.session.storage import RecordStore, StoreUnavailable
from gateway.sessions import Sessions, TooManySessions
from gateway.transports.listener import Ended, Listener
from gateway.transports.openai.ids import Handle, new_key

FULL_SECONDS = 5.0
"""``retry_after`` in seconds when the gateway has reached its limit of sessions."""

MOST_CLOSED = 3
"""Maximum number of waiting sessions that are closed to make room for a new one."""


class _Kept(Discreet, frozen=True):
    """The record of a session that waits, or of an alias of one.

    Attributes:
        handle: Newest turn of the session; None in an alias.
        name: Name that an alias stands for; empty in others.
    """

    handle: Handle | None
    name: str = ""

    def __repr__(self) -> str:
        return f"<_Kept {self.handle!r}>"


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Kept).decode


class WarmSessions:
    """Opens sessions for conversations, and keeps them for the next request.

    Args:
        sessions: The replica's sessions.
        store: Stores their handles, for all replicas.
    """

    def __init__(self, sessions: Sessions, store: RecordStore) -> None:
        self._sessions = sessions
        self._store = store
        # Principals and handles of the sessions kept by this replica, by name, longest wait first.
        self._waiting: OrderedDict[str, tuple[str, Handle]] = OrderedDict()

    async def take(self, name: str | None, alias: str | None) -> Handle | None:
        """Take the session that is kept under a name, so that no other request gets it.

        Args:
            name: Digest of the history; None if there is no history.
            alias: Another name, tried if there is no session under the first.

        Returns:
            Newest turn of the session; None if there is none.
        """
        found = None if name is None else await self._take(name)
        if found is None and alias is not None:
            other = await self._take(alias)
            found = None if other is None else await self._take(other.name)
        return None if found is None else found.handle

    async def _take(self, name: str) -> _Kept | None:
        self._waiting.pop(name, None)
        try:
            data = await self._store.take_record(_record(name))
            return None if data is None else _decode(data)
        except (StoreUnavailable, msgspec.DecodeError):
            return None

    async def keep(
        self, route: Route, owner: str, handle: Handle, name: str, alias: str | None
    ) -> bool:
        """Keep a session until a request continues it, or its idle timeout.

        Args:
            route: Route of the session.
            owner: Principal that it belongs to.
            handle: Newest turn of the session.
            name: Digest of its history.
            alias: Another name for it.

        Returns:
            Whether it is kept, or another reader of its turn has kept it and it may have been
            continued. False if another session with the same history is kept, or the store is
            unavailable.
        """
        seconds = route.policy.idle_seconds
        try:
            kept = _encode(_Kept(handle))
            if not await self._store.add_record(_record(name), kept, seconds):
                there = await self._store.get_record(_record(name))
                return there in {None, kept}
            if alias is not None:
                await self._store.put_record(_record(alias), _encode(_Kept(None, name)), seconds)
        except StoreUnavailable:
            return False
        self._waiting[name] = owner, handle
        while len(self._waiting) > len(self._sessions):  # the others have ended
            self._waiting.popitem(last=False)
        return True

    async def open(self, route: Route, owner: str, told: tuple[Words, ...]) -> Handle:
        """Open a session, and close sessions that wait if a limit is reached.

        Args:
            route: Route of the session.
            owner: Principal that it belongs to.
            told: Its history.

        Returns:
            Handle of its first turn.

        Raises:
            Refused: A limit is reached.
        """
        for _ in range(MOST_CLOSED):
            try:
                return await self._open(route, owner, told)
            except TooManySessions:
                if not await self._make_room(None):
                    break
            except Refused as refused:
                if refused.code is not ErrorCode.RATE_LIMITED or not await self._make_room(owner):
                    raise
        try:
            return await self._open(route, owner, told)
        except TooManySessions:
            text = "The gateway has reached its limit of sessions."
            raise Refused(ErrorCode.UNAVAILABLE, text, FULL_SECONDS) from None

    async def _open(self, route: Route, owner: str, told: tuple[Words, ...]) -> Handle:
        runner = await self._sessions.open(route, owner)
        key = new_key()
        runner.start(digest(key), told=told)
        return Handle(runner.id, key, 1)

    async def _make_room(self, owner: str | None) -> bool:
        """Close the session that has waited the longest; return whether there was one.

        Args:
            owner: Principal that it must belong to; None for any.
        """
        for name, (whose, handle) in [*self._waiting.items()]:
            if not self._sessions.has(handle.session_id):
                self._waiting.pop(name, None)  # it has ended, or is at another replica
            elif owner in {None, whose} and await self._take(name) is not None:
                await self._close(whose, handle)
                return True
        return False

    def close(self, owner: str, handle: Handle) -> None:
        """Close a session, at the model too, without retaining its log."""
        self._sessions.spawn(self._close(owner, handle))

    async def _close(self, owner: str, handle: Handle) -> None:
        if not self._sessions.has(handle.session_id):
            return  # it ends by its idle timeout at another replica
        runner = self._sessions.find(
            handle.session_id, digest(handle.key), route=None, principal=owner
        )
        if runner is None:
            return
        listener = Listener()
        listener.begin(runner, runner.subscribe(listener, None))
        try:
            runner.handle(SessionClose())
            while True:
                for message in await listener.next():
                    if isinstance(message, SessionClosed):
                        runner.handle(EventAck(event=message.event))  # no client will resume it
        except Ended:
            pass
        finally:
            listener.leave()


def _record(name: str) -> str:
    return f"chat:{name}"
