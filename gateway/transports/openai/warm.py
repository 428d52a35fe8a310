"""Sessions between two requests for chat completions: found by what was said in them.

A request has all of a conversation. The session that has heard the beginning of it is the one whose
instance is warm, so it is kept under a digest of that, for whoever goes on with it first. Whatever
is kept here may be gone: another session does as well, if more slowly.
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
"""What is told to wait who finds as many sessions as there may be."""

MOST_CLOSED = 3
"""How many that wait are closed at most to make room for one."""


class _Kept(Discreet, frozen=True):
    """Where a conversation goes on.

    Attributes:
        handle: The newest turn of its session.
        name: Empty; or under which name that is kept, where this is another name for it.
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
        sessions: All of them.
        store: Where they are found again, at any replica.
    """

    def __init__(self, sessions: Sessions, store: RecordStore) -> None:
        self._sessions = sessions
        self._store = store
        # Those that were kept here, by name, with whose they are; the one that waits longest first.
        self._waiting: OrderedDict[str, tuple[str, Handle]] = OrderedDict()

    async def take(self, name: str | None, alias: str | None) -> Handle | None:
        """The session that is kept under a name; nobody else gets it then.

        Args:
            name: A digest of what was said; None where nothing was.
            alias: Another name, for when there is none under the first.
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
        """Keep a session until somebody goes on with it, or it is idle for too long.

        Args:
            route: Its route.
            owner: Whose it is.
            handle: Its newest turn.
            name: A digest of what was said in it.
            alias: Another name for it.

        Returns:
            Whether somebody goes on with it, or may: not where there is another that knows the
            same. It may have been kept before, by who waits for the same answer.
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
        while len(self._waiting) > len(self._sessions):  # the others have ended by themselves
            self._waiting.popitem(last=False)
        return True

    async def open(self, route: Route, owner: str, told: tuple[Words, ...]) -> Handle:
        """Open a session, and make room for it where that is needed.

        Args:
            route: Its route.
            owner: Whose it is to be.
            told: What it is told first.

        Returns:
            What leads to its first turn.

        Raises:
            Refused: There can't be another.
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
        """Close the session that waits longest; whether there was one.

        Args:
            owner: Whose; None for anybody's.
        """
        for name, (whose, handle) in [*self._waiting.items()]:
            if not self._sessions.has(handle.session_id):
                self._waiting.pop(name, None)  # it is over, or at another replica
            elif owner in {None, whose} and await self._take(name) is not None:
                await self._close(whose, handle)
                return True
        return False

    def close(self, owner: str, handle: Handle) -> None:
        """Close a session, at the model too, and keep nothing of it."""
        self._sessions.spawn(self._close(owner, handle))

    async def _close(self, owner: str, handle: Handle) -> None:
        if not self._sessions.has(handle.session_id):
            return  # it is idle for too long where it is
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
                        runner.handle(EventAck(event=message.event))  # nobody comes back for it
        except Ended:
            pass
        finally:
            listener.leave()


def _record(name: str) -> str:
    return f"chat:{name}"
