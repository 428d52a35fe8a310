"""A gateway that shares a store with others: claims, releases and relays sessions.

A session moves to its client's replica. When a client resumes on another replica, that one claims
the session; while a turn is at the model, it relays the log and the client's messages instead. The
sessions of a replica that has crashed are distributed among the others.
"""

import asyncio
import contextlib
import itertools
import random
from functools import partial

import structlog

from gateway.admission import Refused
from gateway.conversation import Conversation, Resuming
from gateway.errors import WAIT_SECONDS, CloseCode, ErrorCode
from gateway.replicas import letters
from gateway.replicas.asking import Answerer, Asking
from gateway.replicas.following import FOLLOWED, Follower, Remote
from gateway.replicas.mail import Mail
from gateway.replicas.ownership import Ownership
from gateway.replicas.peers import Peers
from gateway.route import Route
from gateway.session.events import ClientId
from gateway.session.keys import ResumeKeys
from gateway.session.recorder import head_of
from gateway.session.snapshot import Snapshot
from gateway.session.storage import NOBODY, Store, StoreUnavailable, Unreadable
from gateway.sessions import ClientGone, PastNewest, Sessions

RESUME_SECONDS = 30.0
"""How long claiming or joining a session may take; its client waits meanwhile."""

AGAIN_SECONDS = 0.05
"""The pause before a session that is moving between replicas is looked up again."""

JOIN_SECONDS = 1.0
"""How long a session's owner may take to answer; older letters are ignored."""

log = structlog.stdlib.get_logger("gateway.replicas")


class Replica:
    """This process, as one of those that share a store.

    Args:
        name: Its name, unique among all processes at any time.
        store: The shared store.
        sessions: The sessions that are here.
        lease_seconds: How long its heartbeats may be missing before others take its sessions over.
        answerer: Answers questions of other replicas on behalf of operators.
    """

    def __init__(
        self,
        name: str,
        store: Store,
        sessions: Sessions,
        lease_seconds: float,
        answerer: Answerer,
    ) -> None:
        self.name = name
        self.store = store
        self._loop = asyncio.get_running_loop()
        self._peers = Peers(name, store, lease_seconds, missed=self._missed)
        self.health = self._peers.health
        self._sessions = sessions
        self._followers: dict[str, Follower] = {}
        self._remotes: dict[str, Remote] = {}
        self._ownership = Ownership(
            name, store, sessions, self._peers, lease_seconds, followed=self._followed
        )
        self._mail = Mail(
            name, store, self.health, sessions.spawn, take=self._take, unheard=self._cut
        )
        self._links = (f"{name}/{number}" for number in itertools.count(1))
        self.asking = Asking(name, self._peers, store, self.post, sessions.spawn, answerer=answerer)

    async def run(self) -> None:
        """Run until this is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for work in (self._peers.live(), self._tend(), self._mail.collect()):
                tasks.create_task(work)

    async def resign(self) -> None:
        """Leave the others, which take over the remaining sessions immediately."""
        self._cut(None)
        self._mail.stop()
        try:
            await self.store.resign(self.name)
        except StoreUnavailable:
            log.warning("other replicas could not be told of the shutdown")

    # Sessions that are here, and those of dead replicas

    async def _tend(self) -> None:
        """Maintain them until this is cancelled."""
        while True:
            await self._peers.word_of(self.name)
            try:
                await self._ownership.write_again()
                await self._ownership.see_to_own()
                self._cut_forgotten()
                for replica in self._peers.silent():
                    self._cut(replica)
                    await self._ownership.inherit(replica)
            except StoreUnavailable as error:
                self.health.failed(error)
            except Exception:
                log.exception("session maintenance failed")

    def _missed(self, was_silent: bool) -> None:
        """Recover after the store may have missed writes, or the others may have considered this
        replica dead, and taken its sessions and dropped its letters.
        """
        if was_silent:
            self._cut(None)
        self._ownership.missed(whole=was_silent)

    def released(self, session_id: str) -> None:
        """See `Elsewhere.released`."""
        self._ownership.released(session_id)

    def _followed(self) -> set[str]:
        """Return the sessions on other replicas whose clients are here."""
        return {follower.id for follower in self._followers.values()}

    # Clients that resume

    async def resume(self, client: Resuming) -> tuple[Conversation, ClientId] | None:
        """See `Sessions.resume`."""
        if not self.health.is_up:
            raise unavailable()
        try:
            async with asyncio.timeout(RESUME_SECONDS):
                asked = False
                while True:
                    try:
                        return await self._try_to_resume(client, asked)
                    except _NotYetError as error:
                        asked = error.asked
                        await asyncio.sleep(AGAIN_SECONDS * random.uniform(0.5, 1))  # noqa: S311
        except (StoreUnavailable, TimeoutError, Unreadable):
            raise unavailable() from None

    async def _try_to_resume(
        self, client: Resuming, asked: bool
    ) -> tuple[Conversation, ClientId] | None:
        with self.health.call():
            glimpse = await self.store.glimpse(client.session_id)
        head = None if glimpse is None else head_of(glimpse.head)
        shown, name = client.shown, client.principal
        if glimpse is None or head is None or not self._fits(head, shown, client.route, name):
            if not await self._peers.vouch():
                raise _NotYetError
            return None
        owner = glimpse.title.owner
        if owner != self.name and self._sessions.knows(client.session_id):
            self._sessions.touch(client.session_id)  # it will find out that it has another owner
            raise _NotYetError
        if owner not in {self.name, NOBODY}:
            if self._peers.is_late(owner):
                await self._peers.word_of(owner)
            if not await self._peers.is_dead(owner):
                return await self._join(owner, client, self._sessions.routes[head.route])
        await self._ownership.claim(client.session_id, glimpse, asked=asked)
        if not self._sessions.has(client.session_id):
            raise _NotYetError
        return self._sessions.attach(client)

    async def look(self, session_id: str, shown: bytes, principal: str) -> Snapshot | None:
        """See `Sessions.look`."""
        try:
            with self.health.call():
                glimpse = await self.store.glimpse(session_id)
            head = None if glimpse is None else head_of(glimpse.head)
        except (StoreUnavailable, Unreadable):
            raise unavailable() from None
        return head if head is not None and self._fits(head, shown, None, principal) else None

    def _fits(self, head: Snapshot, shown: bytes, route: Route | None, principal: str) -> bool:
        """Whether a client may resume the session; see `Resuming`."""
        keys, there = ResumeKeys(head.keys or ()), self._sessions.routes.get(head.route)
        theirs = there is not None and route in {None, there} and head.principal == principal
        return keys.accepts(shown) and theirs

    async def _join(
        self, owner: str, client: Resuming, route: Route
    ) -> tuple[Conversation, ClientId] | None:
        """Ask the owner for the session; follow it there while a turn is at the model."""
        if not client.subscriber.is_open:
            raise ClientGone
        link = next(self._links)
        follower = Follower(link, owner, client, route, self)
        self._followers[link] = follower
        try:
            self.post(
                owner,
                letters.Join(
                    link=link,
                    replica=self.name,
                    session_id=client.session_id,
                    route=None if client.route is None else route.policy.route,
                    principal=client.principal,
                    shown=client.shown,
                    new=client.new,
                    last_event=client.last_event,
                    sent_at=self._loop.time() + self._peers.ahead,
                ),
            )
            async with asyncio.timeout(JOIN_SECONDS):
                answer = await follower.answer
        except TimeoutError:
            if follower.answer.cancelled():
                follower.detach(FOLLOWED)
                await self._peers.word_of(owner)
                raise _NotYetError(asked=True) from None
            answer = follower.answer.result()  # it arrived at the same moment, and was processed
        except BaseException:
            follower.detach(FOLLOWED)
            raise
        if answer is None:
            return follower, FOLLOWED
        if follower.newest is not None:
            raise PastNewest(follower.newest)
        if answer == CloseCode.RESTARTING:
            raise _NotYetError(asked=True)
        return None

    def take_back(self, follower: Follower, client: ClientId | None) -> None:
        """See `Links.take_back`."""
        self._sessions.spawn(self._take_back(follower, client))

    async def _take_back(self, follower: Follower, client: ClientId | None) -> None:
        runner = None
        if client is not None and not self._sessions.draining:
            with contextlib.suppress(StoreUnavailable, Unreadable):
                glimpse = await self.store.glimpse(follower.id)
                if glimpse is not None and glimpse.title.owner == NOBODY:
                    keep = follower.subscriber, client
                    runner = await self._ownership.claim(follower.id, glimpse, keep, asked=True)
        self.forget(follower.link)
        if runner is None or client is None:
            follower.cut()
        else:
            follower.repeat(runner, client)

    # Letters

    def post(self, replica: str, letter: letters.Letter) -> None:
        """See `Links.post`."""
        self._mail.post(replica, letter)

    def _take(self, letter: letters.Letter) -> None:
        match letter:
            case letters.Told() | letters.Shut():
                follower = self._followers.get(letter.link)
                if follower is not None:
                    follower.take(letter)
            case letters.Said() | letters.Left():
                remote = self._remotes.get(letter.link)
                if remote is not None:
                    remote.take(letter)
            case letters.Join():
                self._admit(letter)
            case letters.Ask() | letters.Answer():
                self.asking.take(letter)

    def _admit(self, letter: letters.Join) -> None:
        """Handle a client that resumes on another replica."""
        if self._loop.time() + self._peers.ahead - letter.sent_at > JOIN_SECONDS:
            return
        route = None if letter.route is None else self._sessions.routes.get(letter.route)
        runner = None
        if route is not None or letter.route is None:
            shown, name = letter.shown, letter.principal
            runner = self._sessions.find(letter.session_id, shown, route=route, principal=name)
        if (
            runner is None
            or letter.sent_at - self._peers.ahead
            < runner.attached_at  # it has resumed another way since
        ):
            self._refuse(letter, CloseCode.RESTARTING)
            return
        if not self._sessions.may_know(runner, letter.last_event, owns=letter.new is not None):
            newest = None if runner.session.is_over else runner.log.told
            self._refuse(letter, CloseCode.RESTARTING, newest)
            return
        # A subscriber doesn't take the session away from clients that are connected here.
        follows = letter.new is not None or not runner.session.clients.readers
        if follows:
            runner.leave()
        if runner.is_gone:
            runner.when_moved(runner.displace)
            runner.when_moved(partial(self._refuse, letter, CloseCode.RESTARTING))
            return
        remote = Remote(letter, runner, self, follows=follows)
        self._remotes[letter.link] = remote
        remote.begin(letter)

    def _refuse(self, letter: letters.Join, code: CloseCode, newest: int | None = None) -> None:
        shut = letters.Shut(
            link=letter.link,
            number=1,
            code=code,
            reason=ErrorCode.SESSION_LOST,
            newest=newest,
        )
        self.post(letter.replica, shut)

    def forget(self, link: str) -> None:
        """Remove a link that is no longer used."""
        self._followers.pop(link, None)
        self._remotes.pop(link, None)

    def _cut_forgotten(self) -> None:
        """Cut the links to replicas that others have found dead and taken over."""
        if self._peers.are_certain:
            there = {follower.owner for follower in self._followers.values()}
            there |= {remote.replica for remote in self._remotes.values()}
            for replica in there:
                if replica not in self._peers:
                    self._cut(replica)

    def _cut(self, replica: str | None) -> None:
        """Cut the links to a replica that can't be reached; None for all links."""
        for follower in [*self._followers.values()]:
            if replica in {None, follower.owner}:
                follower.cut()
        for remote in [*self._remotes.values()]:
            if replica in {None, remote.replica}:
                remote.cut()


class _NotYetError(Exception):
    """The session's place is not known yet: it is moving, or its owner may be dead.

    Args:
        asked: Whether its owner has been asked to release it.
    """

    def __init__(self, *, asked: bool = False) -> None:
        self.asked = asked


def unavailable() -> Refused:
    """Return the error for clients while the store is unavailable."""
    text = "Sessions can't be reached at the moment."
    return Refused(ErrorCode.UNAVAILABLE, text, WAIT_SECONDS)
