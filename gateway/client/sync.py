"""The Python client for programs that do not use asyncio, or run a loop of their own.

::

    from gateway.client.sync import connect

    with connect("ws://127.0.0.1:8080/ws") as session:
        for part in session.send("My name is Ada."):
            print(part, end="")
        reply = session.send("What is my name?").result()
        print(reply.text)

It is the asynchronous client, `gateway.client`, in a thread that lasts as long as the block. Names,
arguments and errors are the same; what is awaited there waits here. All of it may be used by
several threads at once.
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
    """A message that was sent, and its reply: iterate over it, ask for its `result`, or both.

    ::

        for part in turn:           # as the model says it
            print(part, end="")
        reply = turn.result()       # the whole, and what else is known

    For the rest it is as `gateway.client.Turn`.
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
        """Whether nothing more will come, so that `result` does not wait."""
        return self._turn.ended

    def result(self, timeout: float | None = None) -> Reply:
        """Wait for the end of the turn.

        Args:
            timeout: Seconds to wait; None for as long as it takes.

        Raises:
            TimeoutError: It has not ended by then. It goes on; `cancel` stops it.
            MessageFailed: The message was refused, or its turn has failed.
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
        """Ask for the turn to be stopped, and wait for its end; a turn that has ended stays so.

        `result` then gives a reply whose status is ``cancelled``, or ``completed`` where the model
        was faster.
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
    """A conversation with a model. `connect` makes one.

    For what it does without being asked, see `gateway.client.SessionClient`.
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
        """How things stand with the connection."""
        return self._session.state

    @property
    def session_id(self) -> str | None:
        """The gateway's id of the session; None while there is none."""
        return self._session.session_id

    @property
    def route(self) -> str:
        """The route's name."""
        return self._session.route

    @property
    def expires_at(self) -> datetime | None:
        """When the session expires at the model, as far as that is known."""
        return self._session.expires_at

    @property
    def resumed(self) -> Mapping[str, Turn]:
        """The turns that were under way when the session was saved, by their messages' ids.

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

        It does not wait: the message is sent from now on, whether or not anybody asks for its
        reply. For the arguments and errors see `gateway.client.SessionClient.send`.
        """
        send = partial(self._session.send, body, json=json, id=id, **options)
        return Turn(self._portal.call(send), self._portal)

    def refresh(self, token: str) -> None:
        """Show a new token before the one in use runs out; further connections use it too."""
        self._wait(partial(self._session.refresh, token))

    def save(self) -> SavedSession:
        """The session as a text, for `connect` in another process to go on with.

        It is a secret. See `gateway.client.SessionClient.save`.

        Raises:
            SessionClosed: There is no session, or not yet the one that takes its place.
        """
        return self._portal.call(self._session.save)

    def detach(self) -> SavedSession:
        """Leave the session as it is, for `connect` in another process to go on with: see `save`.

        Turns go on at the gateway. Here they fail, those that may have been sent with the outcome
        ``unknown``.

        Raises:
            SessionClosed: See `save`.
        """
        return self._wait(self._session.detach)

    def close(self) -> None:
        """Close the session, at the model too; turns under way are cancelled.

        The end of `connect`'s block does it. Closing again does nothing.
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

    Arguments and errors are those of `gateway.client.connect`, but for these:

    Args:
        token: Shown as a bearer token. A function is asked for one at each connection, in a thread
            of its own, and may take its time.
        on_notice: Called with each notice, in order, from the session's thread. It must not wait:
            it may send, and not ask for the result.
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
