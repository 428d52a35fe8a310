"""A client at one replica whose session is at another: what each end tells the other, and keeps."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from gateway.errors import CloseCode, ErrorCode
from gateway.health import Health
from gateway.protocol import messages as wire
from gateway.replicas import letters
from gateway.replicas.following import FOLLOWED, MAX_UNHEARD, Follower, Remote
from gateway.runner import SessionRunner
from gateway.session.events import ClientId
from tests.support.sessions import Connection, Fixture, running

LINK = "here/1"


class Post:
    """Both replicas' `Links`, and the store between them: letters wait until they are delivered."""

    remote: Remote
    follower: Follower

    def __init__(self) -> None:
        self.health = Health(asyncio.get_running_loop().time)
        self.waiting: deque[bytes] = deque()
        self.posted: list[letters.Letter] = []

    def post(self, replica: str, letter: letters.Letter) -> None:
        assert replica in {"there", "here"}
        self.posted.append(letter)
        self.waiting.append(letters.encode(letter))

    def deliver(self) -> None:
        """Bring all letters, and those that follow from them."""
        while self.waiting:
            letter = letters.decode(self.waiting.popleft())
            if isinstance(letter, letters.Told | letters.Shut):
                self.follower.take(letter)
            elif isinstance(letter, letters.Said | letters.Left):
                self.remote.take(letter)

    def forget(self, link: str) -> None:
        assert link == LINK

    def take_back(self, follower: Follower, client: ClientId | None) -> None:
        raise NotImplementedError

    @property
    def said(self) -> list[letters.Said]:
        """What the session's owner was sent of what the client has said."""
        return [letter for letter in self.posted if isinstance(letter, letters.Said)]


class Followed(Post):
    """A session with the turn ``a`` at the model, and a client that follows it from elsewhere."""

    def __init__(self, f: Fixture, runner: SessionRunner) -> None:
        super().__init__()
        self.f = f
        self.runner = runner
        self.follow(1)

    def follow(self, last_event: int) -> None:
        """Let a client come that has so many events."""
        self.client, runner = Connection(), self.runner
        resuming = self.client.resuming(runner.id, self.f.connection.key, last_event, runner.route)
        self.follower = Follower(LINK, "there", resuming, runner.route, self)
        letter = letters.Join(
            link=LINK,
            replica="here",
            session_id=runner.id,
            route=runner.route.policy.route,
            principal=resuming.principal,
            shown=resuming.shown,
            new=resuming.new,
            last_event=last_event,
            sent_at=0.0,
        )
        self.remote = Remote(letter, runner, self, follows=True)
        self.remote.begin(letter)
        self.deliver()
        assert self.follower.answer.result() is None

    def say(self, event: wire.MessageCancel | wire.EventAck) -> None:
        self.follower.handle(event, FOLLOWED)

    async def told(self, event: int) -> None:
        """Wait until the client can have an event."""
        await self._until(lambda: self.follower.log.last >= event)

    async def heard(self) -> None:
        """Wait until the client knows that all that it has said was taken in."""
        await self._until(lambda: not self.follower._unheard)

    async def _until(self, condition: Callable[[], bool]) -> None:
        def is_true() -> bool:
            self.deliver()
            return condition()

        await self.f.until(is_true)


@asynccontextmanager
async def followed(**policy: Any) -> AsyncIterator[Followed]:
    async with running() as f:
        runner = await f.open(resume_seconds=30.0, streams=True, **policy)
        await f.until(lambda: runner.log.last)
        f.model.waits.clear()
        runner.handle(wire.MessageSend(id="a", text="x"))
        await f.until(lambda: f.model.invoked)
        yield Followed(f, runner)
        f.model.waits.set()


async def test_a_client_reads_what_happens_elsewhere() -> None:
    async with followed() as link:
        link.f.model.streams[0](["one", "two"])
        await link.told(4)
        reader, messages = link.client.reader, []
        while (message := reader.take()) is not None:
            messages.append(message)
        resumed, *events = messages
        assert isinstance(resumed, wire.SessionResumed)
        assert (resumed.resume_key, resumed.lost) == (reader.resume_key, None)
        assert [type(event) for event in events] == [
            wire.MessageAccepted,
            wire.MessageDelta,
            wire.MessageDelta,
        ]


async def test_what_is_lost_elsewhere_is_said() -> None:
    async with followed(log_events=4) as link:
        link.remote.take(letters.Left(link=LINK))
        link.f.model.streams[0](["x"] * 9)
        link.follow(2)
        resumed, event = link.client.reader.take(), link.client.reader.take()
        assert isinstance(resumed, wire.SessionResumed)
        assert isinstance(event, wire.MessageDelta)
        assert resumed.lost == (3, 7)
        assert event.event == 8


class TestAcknowledging:
    async def test_one_is_on_its_way_and_the_newest_follows_it(self) -> None:
        async with followed() as link:
            link.f.model.streams[0](["x"] * 10)
            await link.told(12)
            for event in range(2, 12):
                link.say(wire.EventAck(event=event))
            assert [letter.message for letter in link.said] == [wire.EventAck(event=2)]
            assert link.follower.log.first == 12
            link.deliver()
            assert link.runner.log.first == 3
            link.f.model.streams[0](["x"])  # with which the owner says what it has heard
            await link.told(13)
            assert len(link.said) == 2
            link.deliver()
            assert link.runner.log.first == 12

    async def test_what_is_said_between_is_said_at_once_and_in_its_place(self) -> None:
        async with followed() as link:
            for event in (1, 2):
                link.say(wire.EventAck(event=event))
                link.say(wire.MessageCancel(id="unknown"))
            assert [type(letter.message) for letter in link.said] == [
                wire.EventAck,
                wire.MessageCancel,
                wire.MessageCancel,
            ]
            assert [letter.number for letter in link.said] == [1, 2, 3]

    async def test_many_of_them_are_no_flood(self) -> None:
        async with followed() as link:
            for _ in range(2 * MAX_UNHEARD):
                link.say(wire.EventAck(event=2))
            assert len(link.said) == 1
            assert not link.client.ended

    async def test_the_newest_is_said_again_where_the_session_comes(self) -> None:
        async with followed() as link:
            for event in (1, 2):
                link.say(wire.EventAck(event=event))
            link.follower.repeat(link.runner, link.f.connection.client)
            assert link.runner.log.first == 3


class TestBounds:
    async def test_who_says_too_much_that_is_not_heard_is_closed(self) -> None:
        async with followed() as link:
            for _ in range(MAX_UNHEARD):
                link.say(wire.MessageCancel(id="unknown"))
            assert not link.client.ended
            link.say(wire.MessageCancel(id="unknown"))
            assert link.client.ended == [(CloseCode.TOO_MANY, ErrorCode.QUEUE_FULL)]
            assert link.client.aborted
            assert len(link.said) == MAX_UNHEARD
            assert isinstance(link.posted[-1], letters.Left)

    async def test_what_is_heard_counts_no_longer(self) -> None:
        async with followed(message_bytes=100, queued_messages=1) as link:
            for round_ in range(3):
                for number in range(2):
                    message = wire.MessageSend(id=f"{round_} {number}", text="x")
                    link.follower.receive(message, FOLLOWED, 100)
                await link.heard()
            assert not link.client.ended

    async def test_who_says_what_is_too_large_together_is_closed(self) -> None:
        async with followed(message_bytes=100, queued_messages=1) as link:
            for number in range(3):
                assert not link.client.ended
                message = wire.MessageSend(id=str(number), text="x")
                link.follower.receive(message, FOLLOWED, 100)
            assert link.client.ended == [(CloseCode.TOO_MANY, ErrorCode.QUEUE_FULL)]
            assert len(link.said) == 2
