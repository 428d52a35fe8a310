"""Starts responses, and finds the results of those that exist."""

import contextlib
from collections.abc import Callable
from functools import partial

from msgspec import structs

from gateway.admission import Refused, Visitor
from gateway.errors import WAIT_SECONDS, ErrorCode, Outcome
from gateway.route import Route
from gateway.sessions import Sessions
from gateway.transports.exchange import Moved
from gateway.transports.openai.again import AMBIGUOUS, on_its_way, reserve
from gateway.transports.openai.asking import Ask, Failed
from gateway.transports.openai.errors import unknown_model, unsupported
from gateway.transports.openai.ids import Handle, handle_of
from gateway.transports.openai.keeping import Keeper, Kept, record_name
from gateway.transports.openai.opening import Opening
from gateway.transports.openai.past import RESPONSE, YOUNG_SECONDS, past_of
from gateway.transports.openai.reading import LOST
from gateway.transports.openai.requests import check
from gateway.transports.openai.turns import Turn, Watch


class Starter:
    """Starts responses, and finds their results.

    Args:
        sessions: The replica's sessions.
        keeper: Stores responses.
        clock: Returns seconds since the epoch.
    """

    def __init__(self, sessions: Sessions, keeper: Keeper, clock: Callable[[], float]) -> None:
        self._sessions = sessions
        self._keeper = keeper
        self._clock = clock

    def route_of(self, model: str, visitor: Visitor) -> Route:
        """Return the route with a model's name.

        Raises:
            Refused: It does not exist, the client may not use it, or its sessions can't be resumed.
        """
        route = self._sessions.routes.get(model)
        if route is None:
            raise unknown_model(model)
        visitor.check_route(model)
        if not route.policy.resume_seconds:
            text = "This route has no sessions between requests: its resume_seconds is 0."
            raise unsupported("model", text)
        return route

    async def begin(self, ask: Ask) -> Turn | Kept:
        """Start a response, or find it if the request is a retry.

        Returns:
            A running response, which must be read to its end; or the record of one that has ended.

        Raises:
            Failed: The turn has failed before its first event.
            Refused: It can't be started.
        """
        if self._sessions.draining:
            text = "This gateway is shutting down; try again."
            raise Refused(ErrorCode.UNAVAILABLE, text, WAIT_SECONDS)
        request, visitor = ask.request, ask.visitor
        route = self.route_of(request.model, visitor)
        policy = route.policy
        check(request, chat=policy.chat, whole=policy.chat or not policy.sends_history)
        before = await self._sent_before(ask)
        if before is not None and not isinstance(before, Handle):
            return before
        if ask.known.name is not None and before is None:
            # The client may retry before the request is sent to a session.
            await reserve(self._keeper, ask.known, ask.owner)
        try:
            return await self._begin(ask, route, before)
        except Refused:
            if ask.known.name is not None and before is None:
                with contextlib.suppress(Refused):
                    await self._keeper.delete(ask.known.name)
            raise

    async def _begin(self, ask: Ask, route: Route, before: Handle | None) -> Turn:
        settle = partial(self.settle, ask.visitor)
        past = ask.past or await past_of(ask.request, ask.owner, self._keeper, settle)
        self._keeper.bounds.check(len(past.names), past.size, past.param)
        opening = Opening(
            self._sessions, self._keeper, ask, route=route, past=past, now=self._clock()
        )
        return await opening.run(before)

    async def _sent_before(self, ask: Ask) -> Turn | Kept | Handle | None:
        """Find the response of the request that this one retries, or the turn it was sent as."""
        known = ask.known
        if not known.is_resent or known.name is None:
            return None
        asked = await self._keeper.asked(known.name, ask.owner)
        if asked is None:
            return None
        handle = handle_of(asked.response_id, RESPONSE)
        if handle is None:
            raise on_its_way()
        kept = await self._keeper.response(asked.response_id, ask.owner)
        has_failed = kept is not None and kept.response.status == "failed"
        if kept is not None and has_failed and kept.outcome is Outcome.NOT_INVOKED:
            await self._keeper.delete(known.name)
            return None
        if not known.is_own:
            raise Failed(AMBIGUOUS)
        if kept is None:
            return handle
        if kept.response.is_over:
            return kept
        return Turn(self.watch(kept, ask.visitor, seconds=ask.seconds), kept, self.keep)

    # Existing responses

    def watch(
        self,
        kept: Kept,
        visitor: Visitor,
        *,
        seconds: float | None = None,
        cancels: bool = False,
        only_now: bool = False,
    ) -> Watch:
        """Return a reader of a response's turn in its session's log; see `Watch`."""
        handle = handle_of(kept.response.id, RESPONSE)
        assert handle is not None  # noqa: S101 - its id contains one
        return Watch(
            self._sessions,
            handle.asker(visitor),
            kept.message_id,
            kept.after,
            seconds=seconds,
            cancels=cancels,
            only_now=only_now,
            is_young=self._clock() - kept.response.created_at < YOUNG_SECONDS
            and not kept.response.is_over,
        )

    async def settle(self, visitor: Visitor, response_id: str, owner: str) -> Kept | None:
        """Read a response; None if it does not exist. If it has no stored result, read its log.

        Raises:
            Refused: The store is unavailable.
        """
        kept = await self._keeper.response(response_id, owner)
        if kept is None or kept.response.is_over:
            return kept
        watch = self.watch(kept, visitor, only_now=True)
        turn = Turn(watch, kept, self.keep)
        try:
            while not turn.is_over and not watch.is_through:
                await turn.next()
        except (Moved, Refused):
            pass  # return what was read so far
        finally:
            watch.leave()
        return structs.replace(turn.kept, response=turn.response)

    async def keep(self, found: Kept) -> None:
        """Store a response as read from a log, unless the request that started it has stored it.

        Responses from incomplete logs are not stored: that request has read all of the log.
        """
        kept = await self._keeper.response(found.response.id, found.owner)
        if kept is not None and not kept.response.is_over and found.response.error != LOST:
            await self._keeper.replace(record_name("response", found.response.id), found)
