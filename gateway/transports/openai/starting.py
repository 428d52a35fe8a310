"""Responses of all sessions: they begin, and what has become of one can be asked for."""

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
    """Begins responses.

    Args:
        sessions: Where they are held.
        keeper: Keeps what becomes of them.
        clock: Seconds since the epoch.
    """

    def __init__(self, sessions: Sessions, keeper: Keeper, clock: Callable[[], float]) -> None:
        self._sessions = sessions
        self._keeper = keeper
        self._clock = clock

    def route_of(self, model: str, visitor: Visitor) -> Route:
        """The route that a model's name stands for.

        Raises:
            Refused: There is none for this visitor, or it keeps no sessions.
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
        """Have a response begin.

        Returns:
            It, which is read until it is over by whoever asked or by somebody else; or what it was
            where the request was answered before.

        Raises:
            Failed: The turn has failed before anything is told of it.
            Refused: It can't be begun.
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
            # It can be sent again before anything else is known of it.
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
        """What became of a request that was sent before: its response, or where its turn may be."""
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

    # Responses that there are

    def watch(
        self,
        kept: Kept,
        visitor: Visitor,
        *,
        seconds: float | None = None,
        cancels: bool = False,
        only_now: bool = False,
    ) -> Watch:
        """What reads a response's turn from its session's log; see `Watch`."""
        handle = handle_of(kept.response.id, RESPONSE)
        assert handle is not None  # noqa: S101 - it was made of one
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
        """A response, as far as anybody knows what has become of it; None where there is none.

        Raises:
            Refused: It can't be found out at the moment.
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
            pass  # what it says by now is true as well
        finally:
            watch.leave()
        return structs.replace(turn.kept, response=turn.response)

    async def keep(self, found: Kept) -> None:
        """Keep what a log says has become of a response, unless whoever sent its turn has done so.

        That one has read all of it, where the log is no longer whole.
        """
        kept = await self._keeper.response(found.response.id, found.owner)
        if kept is not None and not kept.response.is_over and found.response.error != LOST:
            await self._keeper.replace(record_name("response", found.response.id), found)
