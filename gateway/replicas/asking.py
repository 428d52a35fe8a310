"""Requests between replicas on behalf of operators, each answered at most once."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any

import structlog
from msgspec import Raw

from gateway.replicas import letters
from gateway.replicas.peers import Peers
from gateway.session.storage import SessionStore, StoreUnavailable, Unreadable

MOST_ASKED = 32
"""How many questions are answered concurrently; further ones are dropped."""

LOOK_SECONDS = 0.5
"""How long the store may take to list the replicas."""

Answerer = Callable[[bytes], Awaitable[bytes]]
"""Answers a question; both are JSON."""

log = structlog.stdlib.get_logger("gateway.replicas")


class Asking:
    """Asks other replicas, and answers them; implements `gateway.admin.fleet.Others`.

    Args:
        name: This replica's name.
        peers: The other replicas.
        store: The shared store.
        post: Sends a letter; see `gateway.replicas.following.Links`.
        spawn: Runs work in the background.
        answerer: Answers questions of the others.
    """

    def __init__(
        self,
        name: str,
        peers: Peers,
        store: SessionStore,
        post: Callable[[str, letters.Letter], None],
        spawn: Callable[[Coroutine[Any, Any, object]], object],
        *,
        answerer: Answerer,
    ) -> None:
        self._answerer = answerer
        self._name = name
        self._peers = peers
        self._store = store
        self._post = post
        self._spawn = spawn
        self._number = 0
        self._waiting: dict[str, asyncio.Future[bytes]] = {}
        self._asked = 0

    async def others(self) -> Mapping[str, Callable[[bytes, float], Awaitable[bytes | None]]]:
        """Return a function to ask each of the other live replicas, by name."""
        with contextlib.suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await self._peers.beat()  # to include replicas that have started since the last one
        return {name: partial(self.ask, name) for name in self._peers.others()}

    async def knows(self, session_id: str) -> bool:
        """Whether the store has such a session, or can't tell."""
        try:
            with self._peers.health.call():
                return await self._store.glimpse(session_id) is not None
        except (StoreUnavailable, Unreadable):
            return True

    async def ask(self, replica: str, question: bytes, seconds: float) -> bytes | None:
        """Ask another replica; return None if it doesn't answer in time."""
        self._number += 1
        link = f"{self._name}?{self._number}"
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[link] = answer
        until = self._now() + seconds
        asked = letters.Ask(link=link, replica=self._name, question=Raw(question), until=until)
        self._post(replica, asked)
        try:
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            return None
        finally:
            del self._waiting[link]

    def take(self, letter: letters.Ask | letters.Answer) -> None:
        """Handle a question or an answer."""
        if isinstance(letter, letters.Answer):
            waiting = self._waiting.get(letter.link)
            if waiting is not None and not waiting.done():
                waiting.set_result(bytes(letter.answer))
        elif self._asked < MOST_ASKED and self._now() < letter.until:
            self._asked += 1
            self._spawn(self._answer(letter))

    def _now(self) -> float:
        """The estimated time of the store's clock."""
        return asyncio.get_running_loop().time() + self._peers.ahead

    async def _answer(self, letter: letters.Ask) -> None:
        try:
            answer = await self._answerer(bytes(letter.question))
        except ValueError:
            log.debug("a request from another version is not answered", of=letter.replica)
        else:
            self._post(letter.replica, letters.Answer(link=letter.link, answer=Raw(answer)))
        finally:
            self._asked -= 1
