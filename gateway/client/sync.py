"""The Python client for programs that do not use asyncio, or run an event loop of their own.

::

    from gateway.client.sync import connect

    with connect("ws://127.0.0.1:8080/ws") as session:
        for part in session.send("My name is Ada."):
            print(part, end="")
        reply = session.send("What is my name?").result()
        print(reply.text)

It runs the asynchronous client, `gateway.client`, in a thread that lasts as long as the block.
Names, arguments and errors are the same; what you await there blocks here. All of it is
thread-safe.
"""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, TypeVar, Unpack

from msgspec import UNSET

from gateway.client import session as asynchronous
from gateway.client import turns
from gateway.client.closing import backoff
from gateway.client.connections import State
from gateway.client.errors import SessionClosed
from gateway.client.notices import Notice
from gateway.client.portal import Closed, Portal
from gateway.client.saved import SavedSession
from gateway.client.sending import Body, Options
from gateway.client.turns import Reply

__all__ = ["SessionClient", "Turn", "connect"]

T = TypeVar("T")


class Turn:
    """A message that was sent, and its reply: iterate over it, call `result`, or both.

    ::

        for part in turn:           # the parts, as the model generates them
            print(part, end="")
        reply = turn.result()       # the complete reply

    See `gateway.client.Turn` for the rest.
    """

    def __init__(self, turn: turns.Turn, portal: Portal) -> None:
        self._turn = turn
        self._portal = portal
        self._taken = deque[str | bytes]()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return repr(self._turn)

    @property
    def id(self) -> str:
        """The message's id."""
        return self._turn.id

    @property
    def ended(self) -> bool:
        """Whether the turn has ended, so that `result` returns at once."""
        return self._turn.ended

    def result(self, timeout: float | None = None) -> Reply:
        """Wait until the turn has ended, and return its reply.

        Args:
            timeout: Seconds to wait; None to wait as long as the turn takes.

        Raises:
            TimeoutError: The turn has not ended yet. It goes on; call `cancel` to stop it.
            MessageFailed: The message was refused, or its turn failed.
            ReplyTooLarge: See `gateway.client.Turn`.
        """
        self._until_over(self._turn.whole, timeout)
        reply = self._turn.reply()
        if reply is None:
            raise SessionClosed("the session was closed")
        return reply

    def __iter__(self) -> Iterator[str | bytes]:
        while (part := self._next()) is not None:
            yield part
        self.result()

    def cancel(self) -> None:
        """Cancel the turn and wait until it has ended. Has no effect on a turn that has ended.

        The reply's status is then ``cancelled``, or ``completed`` if the model finished first.
        """
        self._until_over(self._turn.cancel, None)

    def _until_over(
        self, function: Callable[[], Coroutine[Any, Any, object]], timeout: float | None
    ) -> None:
        with contextlib.suppress(Closed):  # every turn ends with its session
            if not self._turn.ended:
                self._portal.wait(function, timeout)

    def _next(self) -> str | bytes | None:
        """The next part, which no other thread gets; None where there is none."""
        while True:
            try:
                return self._taken.popleft()
            except IndexError:
                try:
                    more = self._portal.wait(self._take)
                except Closed:
                    with self._lock:
                        return self._turn.take()
                if not more and not self._taken:
                    return None

    async def _take(self) -> bool:
        """Lay the next part down here, whether or not its thread waits for it by then."""
        part = await self._turn.next()
        if part is not None:
            self._taken.append(part)
        return part is not None


class SessionClient:
    """A conversation with a model. Use `connect` to create one.

    See `gateway.client.SessionClient` for how it reconnects.
    """

    def __init__(self, session: asynchronous.SessionClient, portal: Portal) -> None:
        self._session = session
        self._portal = portal
        resumed = {name: Turn(turn, portal) for name, turn in session.resumed.items()}
        self._resumed = MappingProxyType(resumed)

    def __repr__(self) -> str:
        return repr(self._session)

    @property
    def state(self) -> State:
        """The state of the connection: ``connecting``, ``open``, ``waiting`` or ``closed``."""
        return self._session.state

    @property
    def session_id(self) -> str | None:
        """The gateway's id of the session; None while there is no session."""
        return self._session.session_id

    @property
    def route(self) -> str:
        """The route's name."""
        return self._session.route

    @property
    def expires_at(self) -> datetime | None:
        """When the session expires at the model; None if not known."""
        return self._session.expires_at

    @property
    def resumed(self) -> Mapping[str, Turn]:
        """The turns that were running when the session was saved, by message id.

        See `gateway.client.SessionClient.resumed`.
        """
        return self._resumed

    def send(
        self,
        body: Body | None = None,
        /,
        *,
        json: Any = UNSET,
        id: str | None = None,  # noqa: A002 - the protocol's name
        **options: Unpack[Options],
    ) -> Turn:
        """Send a message: text, bytes, or JSON.

        Returns at once. For the arguments and errors, see `gateway.client.SessionClient.send`.
        """
        send = partial(self._session.send, body, json=json, id=id, **options)
        return Turn(self._portal.call(send), self._portal)

    def refresh(self, token: str) -> None:
        """Send a new token before the current one expires. Later connections use it too."""
        self._wait(partial(self._session.refresh, token))

    def save(self) -> SavedSession:
        """Return the session as a string, with which another process can resume it.

        It is a secret. See `gateway.client.SessionClient.save`.

        Raises:
            SessionClosed: There is no session, or its replacement is not open yet.
        """
        return self._portal.call(self._session.save)

    def detach(self) -> SavedSession:
        """Disconnect without closing the session, for another process to resume: see `save`.

        Running turns go on at the gateway. Here they fail; those that may have been sent have the
        outcome ``unknown``.

        Raises:
            SessionClosed: See `save`.
        """
        return self._wait(self._session.detach)

    def close(self) -> None:
        """Close the session, at the model too. Running turns are cancelled.

        The end of `connect`'s block does this. Closing again has no effect.
        """
        with contextlib.suppress(Closed):
            self._portal.wait(self._session.close)

    def _wait(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            return self._portal.wait(function)
        except Closed:
            raise SessionClosed("the session was closed") from None


@contextmanager
def connect(
    url: str,
    *,
    token: str | Callable[[], str] | None = None,
    origin: str | None = None,
    codec: Literal["json", "msgpack"] = "json",
    on_notice: Callable[[Notice], None] | None = None,
    reopen: bool = True,
    carry_over: bool = True,
    resume: str | None = None,
    open_timeout: float = 60.0,
    reconnect_timeout: float = 300.0,
    close_timeout: float = 5.0,
    max_turns: int = 64,
    max_reply_bytes: int = 16 * 2**20,
    delays: Callable[[], Iterator[float]] = backoff,
    **options: Any,
) -> Iterator[SessionClient]:
    """Open a session, and close it at the end of the block, at the model too.

    Arguments and errors are those of `gateway.client.connect`, except for these:

    Args:
        token: An API key or token, or a function that returns one. It is called for each
            connection, in a thread of its own, so it may block.
        on_notice: Called with each `Notice`, in order, from the session's thread. It must not
            block: it can send messages, but can't wait for their results.
    """
    opening = asynchronous.connect(
        url,
        token=partial(asyncio.to_thread, token) if callable(token) else token,
        origin=origin,
        codec=codec,
        on_notice=on_notice,
        reopen=reopen,
        carry_over=carry_over,
        resume=resume,
        open_timeout=open_timeout,
        reconnect_timeout=reconnect_timeout,
        close_timeout=close_timeout,
        max_turns=max_turns,
        max_reply_bytes=max_reply_bytes,
        delays=delays,
        **options,
    )
    with Portal() as portal:
        session = portal.wait(opening.__aenter__)
        try:
            yield SessionClient(session, portal)
        finally:
            with contextlib.suppress(Closed):
                portal.wait(partial(opening.__aexit__, None, None, None))
