"""An endpoint: instances behind one name, and the routing of calls to them."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from cachetools import LRUCache
from msgspec import Struct

from gateway.local.api import ApiError, model_error, validation_error
from gateway.local.asynchronous import Accepted, Asynchronous
from gateway.local.containers import (
    CLOSED_SESSION_ID,
    NEW_SESSION_ID,
    SESSION_ID,
    Container,
    ContainerReply,
    ContainerUnreachable,
    whole,
)
from gateway.local.faults import Faults
from gateway.local.streaming import Stream

NEW_SESSION = "NEW_SESSION"
MAX_ROUTED_SESSIONS = 100_000
"""Maximum number of sessions with a known instance; the least recently used are forgotten."""


REPLY_SECONDS = 60.0
"""Maximum duration of a reply, or until a stream starts."""
STREAM_SECONDS = 480.0
"""Maximum duration of a stream."""


class Answer(Struct, frozen=True):
    """A complete reply; header names are in lower case."""

    headers: Mapping[str, str]
    body: bytes


class Instance:
    """A container, and the platform's state of it."""

    def __init__(self, name: str, container: Container) -> None:
        self.name = name
        self.container = container
        self.lost = False
        self.losses = 0
        self.invocations = 0
        self.opened = 0
        self.closed = 0
        self._limits: set[asyncio.Timeout] = set()

    @property
    def in_flight(self) -> int:
        """Number of calls and streams in progress."""
        return len(self._limits)

    def lose(self) -> None:
        """Lose the instance, with its sessions and the calls in progress."""
        self.lost = True
        self.losses += 1
        self.container.reset()
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def at_work(self, seconds: float, losses: int) -> AsyncIterator[None]:
        """Run a call on the instance, which fails when the instance is lost.

        Args:
            seconds: Maximum duration.
            losses: Value of `losses` when the call arrived.

        Raises:
            TimeoutError: It takes too long.
            ContainerUnreachable: The instance is lost.
        """
        limit = asyncio.timeout(seconds)
        self._limits.add(limit)
        try:
            async with limit:
                if self.losses != losses:
                    raise ContainerUnreachable("lost")
                yield
        except TimeoutError:
            if self.losses != losses:
                raise ContainerUnreachable("lost") from None
            raise
        finally:
            self._limits.discard(limit)


class Endpoint:
    """An endpoint.

    Args:
        name: Its name.
        containers: One for each instance.
        reply_seconds: Maximum duration of a reply, or until a stream starts.
        stream_seconds: Maximum duration of a stream.
        asynchronous: Its queue, if it is an asynchronous endpoint.
    """

    def __init__(
        self,
        name: str,
        containers: Sequence[Container],
        *,
        reply_seconds: float = REPLY_SECONDS,
        stream_seconds: float = STREAM_SECONDS,
        asynchronous: Asynchronous | None = None,
    ) -> None:
        self.name = name
        self.asynchronous = asynchronous
        self.reply_seconds = reply_seconds
        self.stream_seconds = stream_seconds
        self.instances = [
            Instance(f"i-{number}", container) for number, container in enumerate(containers, 1)
        ]
        self.faults = Faults()
        self.abandoned = 0
        """Number of calls whose client disconnected before the end of the reply."""
        self.streams = 0
        """Number of InvokeEndpointWithResponseStream calls that have reached an instance."""
        self._routes: LRUCache[str, Instance] = LRUCache(MAX_ROUTED_SESSIONS)
        self._turn = 0

    @property
    def sessions(self) -> Mapping[str, int]:
        """Number of sessions routed to each instance."""
        counts = dict.fromkeys((instance.name for instance in self.instances), 0)
        for instance in self._routes.values():
            counts[instance.name] += 1
        return counts

    def lose(self, name: str) -> None:
        """Lose an instance, with its sessions and the calls in progress."""
        self._named(name).lose()

    def restore(self, name: str) -> None:
        """Replace a lost instance with a new one, which has no sessions."""
        instance = self._named(name)
        instance.lost = False
        for session_id in [key for key, value in self._routes.items() if value is instance]:
            del self._routes[session_id]

    def expire(self, session_id: str | None) -> None:
        """Expire a session now; None for all. Its container then behaves as after a timeout."""
        if session_id is None:
            for instance in self.instances:
                instance.container.expire(None)
        elif session_id in self._routes:
            self._routes[session_id].container.expire(session_id)
        else:
            raise validation_error(f"No session {session_id}.")

    async def invoke(
        self, parameters: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Answer:
        """InvokeEndpoint: route a call to its instance.

        Args:
            parameters: Parameters by their API names.
            headers: Headers for the container.
            body: Body for the container.

        Raises:
            ApiError: The platform's error.
        """
        instance = await self._instance(parameters)
        return await self._answer(instance, parameters, headers, body, self.reply_seconds)

    async def invoke_later(
        self, parameters: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Accepted:
        """InvokeEndpointAsync: add a call to the queue.

        Args:
            parameters: Parameters by their API names.
            headers: Headers for the container.
            body: Body for the container; empty if it is an object.

        Raises:
            ApiError: The platform's error.
        """
        if self.asynchronous is None:
            raise validation_error(f"Endpoint {self.name} takes no asynchronous calls.")
        await self._fail_as_asked()
        return self.asynchronous.submit(self, parameters, headers, body)

    async def work(self, headers: Mapping[str, str], body: bytes, seconds: float) -> Answer:
        """Send a queued call to an instance; see `invoke`.

        Args:
            headers: Headers for the container.
            body: Body for the container.
            seconds: Maximum duration.
        """
        return await self._answer(self._pick(None, None), {}, headers, body, seconds)

    async def _answer(
        self,
        instance: Instance,
        parameters: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
        seconds: float,
    ) -> Answer:
        try:
            async with instance.at_work(seconds, instance.losses):
                reply = await _begin(instance, parameters, headers, body)
                content = await whole(reply.body)
        except (ContainerUnreachable, TimeoutError):
            raise self._no_response() from None
        if reply.status >= 400:
            raise model_error(reply.status, content.decode(errors="replace"), self.name)
        told = self._learn(instance, parameters.get("SessionId"), reply.headers)
        return Answer(told, content)

    async def stream(
        self, parameters: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> "Stream":
        """InvokeEndpointWithResponseStream: route a call, and wait for the start of its stream.

        Args:
            parameters: Parameters by their API names.
            headers: Headers for the container.
            body: Body for the container.

        Raises:
            ApiError: The platform's error.
        """
        instance = await self._instance(parameters)
        self.streams += 1
        losses = instance.losses
        content = b""
        try:
            async with instance.at_work(self.reply_seconds, losses):
                reply = await _begin(instance, parameters, headers, body)
                if reply.status >= 400:
                    content = await whole(reply.body)
        except (ContainerUnreachable, TimeoutError):
            raise self._no_response() from None
        if reply.status >= 400:
            raise model_error(reply.status, content.decode(errors="replace"), self.name)
        self._learn(instance, parameters.get("SessionId"), reply.headers)
        return Stream(self, instance, losses, reply)

    async def _fail_as_asked(self) -> None:
        await asyncio.sleep(self.faults.delay_seconds)
        error = self.faults.next_error(self.name)
        if error is not None:
            raise error

    async def _instance(self, parameters: Mapping[str, str]) -> Instance:
        if self.asynchronous is not None:
            raise validation_error(f"Endpoint {self.name} takes asynchronous calls alone.")
        await self._fail_as_asked()
        return self._pick(parameters.get("SessionId"), parameters.get("PrefixAwareId"))

    def _no_response(self) -> ApiError:
        text = "Your invocation timed out while waiting for a response from container primary."
        return model_error(0, text, self.name)

    def _pick(self, session_id: str | None, prefix_id: str | None) -> Instance:
        if session_id is not None and session_id != NEW_SESSION:
            instance = self._routes.get(session_id)
            if instance is None or instance.lost:
                raise unknown_session(session_id)
            return instance
        healthy = [instance for instance in self.instances if not instance.lost]
        if not healthy:
            raise ApiError("ServiceUnavailable", 503, "The service is currently unavailable.")
        if prefix_id is not None:
            return healthy[zlib.crc32(prefix_id.encode()) % len(healthy)]
        self._turn += 1
        return healthy[self._turn % len(healthy)]

    def _learn(
        self, instance: Instance, session_id: str | None, headers: Mapping[str, str]
    ) -> Mapping[str, str]:
        """Update the routing from a reply's session headers; returns the headers for the client."""
        new = headers.get(NEW_SESSION_ID)
        if new is not None:
            instance.opened += 1
            self._routes[_id_of(new)] = instance
            told = self.faults.next_new_session_id()
            if told is not None:
                headers = {k: v for k, v in headers.items() if k != NEW_SESSION_ID}
                if told:
                    headers[NEW_SESSION_ID] = told
                    self._routes[_id_of(told)] = instance
        closed = headers.get(CLOSED_SESSION_ID)
        if closed is not None:
            instance.closed += 1
            self._routes.pop(session_id or closed, None)
        return headers

    def _named(self, name: str) -> Instance:
        for instance in self.instances:
            if instance.name == name:
                return instance
        raise validation_error(f"No instance {name}.")


async def _begin(
    instance: Instance, parameters: Mapping[str, str], headers: Mapping[str, str], body: bytes
) -> ContainerReply:
    instance.invocations += 1
    session_id = parameters.get("SessionId")
    sent = {**headers, SESSION_ID: session_id} if session_id else headers
    return await instance.container.invoke(sent, body)


def _id_of(header: str) -> str:
    return header.partition(";")[0].strip()


def unknown_session(session_id: str) -> ApiError:
    """Create the error for a session that is unknown, or whose instance is gone.

    AWS documents neither case; this is the only place that decides it here.
    """
    return validation_error(f"Session {session_id} not found or expired.")
