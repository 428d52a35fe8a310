"""An endpoint: instances behind one name, and the rules by which calls find theirs."""

import asyncio
import zlib
from collections.abc import Mapping, Sequence

from cachetools import LRUCache

from gateway.local.api import ApiError, model_error, validation_error
from gateway.local.containers import (
    CLOSED_SESSION_ID,
    NEW_SESSION_ID,
    SESSION_ID,
    Container,
    ContainerReply,
    ContainerUnreachable,
)
from gateway.local.faults import Faults

NEW_SESSION = "NEW_SESSION"
MAX_ROUTED_SESSIONS = 100_000
"""How many sessions an endpoint keeps the instance of; the least recently used is forgotten."""


class Instance:
    """A container with what the platform knows of it."""

    def __init__(self, name: str, container: Container) -> None:
        self.name = name
        self.container = container
        self.lost = False
        self.invocations = 0
        self.opened = 0
        self.closed = 0


class Endpoint:
    """One endpoint.

    Args:
        name: Its name.
        containers: One for each instance.
    """

    def __init__(self, name: str, containers: Sequence[Container]) -> None:
        self.name = name
        self.instances = [
            Instance(f"i-{number}", container) for number, container in enumerate(containers, 1)
        ]
        self.faults = Faults()
        self.abandoned = 0
        """Calls whose client went away before the answer."""
        self._routes: LRUCache[str, Instance] = LRUCache(MAX_ROUTED_SESSIONS)
        self._turn = 0

    @property
    def sessions(self) -> Mapping[str, int]:
        """How many sessions are routed to each instance."""
        counts = dict.fromkeys((instance.name for instance in self.instances), 0)
        for instance in self._routes.values():
            counts[instance.name] += 1
        return counts

    def lose(self, name: str) -> None:
        """An instance goes away, with its sessions."""
        instance = self._named(name)
        instance.lost = True
        instance.container.reset()

    def restore(self, name: str) -> None:
        """Another instance takes its place; it knows nothing of the sessions."""
        instance = self._named(name)
        instance.lost = False
        for session_id in [key for key, value in self._routes.items() if value is instance]:
            del self._routes[session_id]

    async def invoke(
        self, parameters: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> ContainerReply:
        """Send a call to the instance that it belongs to.

        Args:
            parameters: By their API names.
            headers: What the container is to get.
            body: Likewise.

        Raises:
            ApiError: As the platform answers.
        """
        await asyncio.sleep(self.faults.delay_seconds)
        error = self.faults.next_error(self.name)
        if error is not None:
            raise error
        session_id = parameters.get("SessionId")
        instance = self._pick(session_id, parameters.get("PrefixAwareId"))
        instance.invocations += 1
        sent = {**headers, SESSION_ID: session_id} if session_id else headers
        try:
            reply = await instance.container.invoke(sent, body)
        except ContainerUnreachable:
            text = "Your invocation timed out while waiting for a response from container primary."
            raise model_error(0, text, self.name) from None
        if reply.status >= 400:
            text = reply.body.decode(errors="replace")
            raise model_error(reply.status, text, self.name)
        return self._learn(instance, session_id, reply)

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
        self, instance: Instance, session_id: str | None, reply: ContainerReply
    ) -> ContainerReply:
        new = reply.headers.get(NEW_SESSION_ID)
        if new is not None:
            instance.opened += 1
            self._routes[new.partition(";")[0].strip()] = instance
            told = self.faults.next_new_session_id()
            if told is not None:
                headers = {k: v for k, v in reply.headers.items() if k != NEW_SESSION_ID}
                if told:
                    headers[NEW_SESSION_ID] = told
                    self._routes[told.partition(";")[0].strip()] = instance
                reply = ContainerReply(reply.status, headers, reply.body)
        closed = reply.headers.get(CLOSED_SESSION_ID)
        if closed is not None:
            instance.closed += 1
            self._routes.pop(session_id or closed, None)
        return reply

    def _named(self, name: str) -> Instance:
        for instance in self.instances:
            if instance.name == name:
                return instance
        raise validation_error(f"No instance {name}.")


def unknown_session(session_id: str) -> ApiError:
    """What the router says for a session that it does not know, or whose instance is gone.

    No document of AWS's settles either case; this is the one place that decides it here.
    """
    return validation_error(f"Session {session_id} not found or expired.")
