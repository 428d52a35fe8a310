"""Holds a short conversation on a route, with the same calls as a gateway, and judges it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence

from gateway.config import RouteSettings, ServerSettings
from gateway.live.findings import Findings, Name, Step, Trial
from gateway.live.recall import QUESTION, Memory, has_name, judged, new_name, statement
from gateway.live.speaker import Answer, Given, Speaker
from gateway.protocol.discretion import Discreet
from gateway.protocol.messages import MessageSend
from gateway.sagemaker.symptoms import Symptom
from gateway.sagemaker.watched import Watched
from gateway.session.bodies import TEXT
from gateway.session.history import History
from gateway.session.policy import Opening
from gateway.session.ports import Model, ModelError, ModelSession

ENOUGH = 80
"""From this many characters on, a streamed reply has more than one part."""


class Tried(Discreet, frozen=True):
    """A route to try.

    Attributes:
        name: Name of the route.
        settings: Its settings.
        model: Its model.
        watched: The transport of its calls.
    """

    name: str
    settings: RouteSettings
    model: Model
    watched: Watched


class _Stop(Exception):
    """The conversation can't be continued."""


async def tried(
    of: Tried,
    *,
    given: Given | None,
    seconds: float,
    logged: Sequence[str],
    on_begin: Callable[[str], None],
    on_step: Callable[[Step], None],
) -> Trial:
    """Hold a short conversation on a route.

    Args:
        of: The route.
        given: The message to send; None for one that tests the model's memory.
        seconds: Maximum duration of a reply.
        logged: Lines that would have been logged so far.
        on_begin: Called before something that takes time.
        on_step: Called with each result.
    """
    findings = Findings(of.watched, logged, on_step)
    with contextlib.suppress(_Stop):
        await _Conversation(of, given, seconds, findings, on_begin).hold()
    return Trial(of.name, of.settings.endpoint_name, findings.ok, findings.steps)


class _Conversation:
    def __init__(
        self,
        of: Tried,
        given: Given | None,
        seconds: float,
        findings: Findings,
        on_begin: Callable[[str], None],
    ) -> None:
        self._model, self._watched, self._settings = of.model, of.watched, of.settings
        self._policy = of.settings.policy(of.name, ServerSettings())
        self._speaker = Speaker(of.model, self._policy, seconds)
        self._given = given
        self._to = findings
        self._on_begin = on_begin
        self._history = History(self._policy)
        self._session: ModelSession | None = None
        self._name = new_name()

    async def hold(self) -> None:
        """Hold the conversation.

        Raises:
            _Stop: It can't be continued.
        """
        async with self._opened():
            message = self._speaker.message(statement(self._name), self._given)
            if message is None:
                text = (
                    "not sent: the route takes no text; give a message with --message, or a file "
                    "with --message @FILE"
                )
                self._to.found("message", "skipped", text)
                return
            first = await self._first(message)
            if self._policy.opening is Opening.NONE and not self._policy.sends_history:
                text = (
                    "not tested: the route has no sessions, and the gateway keeps no conversation"
                )
                self._to.found("memory", "skipped", text)
                return
            await self._remembers(first, await self._again())

    @contextlib.asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        """Open a session, if the route does so with a separate call, and close it in any case."""
        if self._policy.opening is Opening.CALL:
            self._on_begin("opening a session")
            began = time.perf_counter()
            try:
                self._session = await self._model.open("check")
            except ModelError as error:
                self._to.failed("session", error.failure)
                raise _Stop from None
            self._tell_of_session(self._session, time.perf_counter() - began)
        try:
            yield
        finally:
            if self._session is not None:
                await self._close(self._session)

    def _tell_of_session(self, session: ModelSession, seconds: float) -> None:
        margin = self._policy.expiry_margin_seconds
        if session.expires_at is None:
            text = "opened; the container does not say when it expires"
            self._to.found("session", "ok", text, seconds=seconds)
            return
        lasts = session.expires_at - time.time()
        if lasts > margin:
            text = f"opened; it expires in {_duration(lasts)}"
            self._to.found("session", "ok", text, seconds=seconds)
            return
        self._to.symptom(
            "session",
            "failed",
            "opened, but it expires too soon to be used",
            Symptom.SHORT_SESSION,
            seconds=f"{lasts:.0f}",
            margin=f"{margin:g}",
        )

    async def _first(self, message: MessageSend) -> Answer:
        self._on_begin("waiting for the model's reply")
        answer = await self._sent("message", message)
        self._to.found("message", "ok", f"answered: {answer.size}", seconds=answer.seconds)
        self._tell_of_format(answer)
        if self._policy.opening is Opening.TURN:
            self._take_session(answer)
        else:
            self._tell_of_stream(answer)
        return answer

    def _take_session(self, answer: Answer) -> None:
        if answer.reply.new_session is None:
            text = "the first message opened no session: the container is stateless"
            self._to.symptom("session", "failed", text, Symptom.OPENED_NONE)
            raise _Stop
        self._session = answer.reply.new_session
        self._tell_of_session(self._session, answer.seconds)

    def _tell_of_format(self, answer: Answer) -> None:
        if self._settings.body_format.text is None:
            return
        if not answer.said or (answer.reply.body is not None and answer.reply.content_type != TEXT):
            text = "no text was found in the reply"
            self._to.symptom("message", "failed", text, Symptom.OTHER_FORMAT)

    def _tell_of_stream(self, answer: Answer) -> None:
        if not self._policy.streams:
            return
        if answer.parts > 1:
            text = f"{answer.parts} parts, the first after {answer.first:.2f} s"
            self._to.found("stream", "ok", text, seconds=answer.seconds)
        elif len(answer.said) < ENOUGH:
            text = "the reply came in one piece, but is too short to tell whether it streams"
            self._to.found("stream", "unknown", text)
        else:
            text = "the reply came in one piece"
            self._to.symptom("stream", "warning", text, Symptom.NOT_STREAMED)

    async def _again(self) -> Answer:
        message = self._speaker.message(QUESTION, self._given)
        assert message is not None  # noqa: S101 - nor was the first one
        self._on_begin("sending a second message")
        answer = await self._sent("again", message)
        known = "answered" if self._session is None else "the session is still known"
        self._to.found("again", "ok", f"{known}: {answer.size}", seconds=answer.seconds)
        if self._policy.opening is Opening.TURN:  # the first reply, which opens it, is not streamed
            self._tell_of_stream(answer)
        return answer

    async def _remembers(self, first: Answer, answer: Answer) -> None:
        if self._policy.sends_history:
            text = "the gateway keeps the conversation and sends it with each message"
            self._to.found("memory", "ok", text)
        elif self._given is not None:
            text = "not tested, because of --message"
            self._to.found("memory", "skipped", text)
        elif has_name(self._name, answer.said):
            text = "the model was asked for what it had been told, and knew it"
            self._to.found("memory", "ok", text)
        elif judged(first.said, answer.said, await self._afresh()) is Memory.FORGETS:
            text = "the model was asked for what it had been told, and answered as in a new session"
            self._to.symptom("memory", "failed", text, Symptom.FORGETS)
        else:
            text = (
                "the model was asked for what it had been told, and did not know it: either the "
                "container forgets, or the model is bad at recall; try `session-gateway chat`"
            )
            self._to.found("memory", "unknown", text)

    async def _afresh(self) -> str:
        """Ask the question in a new session; returns an empty answer if that fails."""
        self._on_begin("asking the same in a new session")
        message, session = self._speaker.message(QUESTION, None), None
        assert message is not None  # noqa: S101 - it was sent before
        try:
            if self._policy.opening is Opening.CALL:
                session = await self._model.open("check")
            answer = await self._speaker.send(message, session, History(self._policy))
            session = answer.reply.new_session or session
        except (ModelError, TimeoutError):
            return ""
        finally:
            if session is not None:
                with contextlib.suppress(ModelError, TimeoutError):
                    async with asyncio.timeout(self._policy.close_seconds):
                        await self._model.close(session)
        return answer.said

    async def _sent(self, step: Name, message: MessageSend) -> Answer:
        """Send a message, and keep the new session that its reply may name.

        Raises:
            _Stop: It has failed.
        """
        try:
            answer = await self._speaker.send(message, self._session, self._history)
        except ModelError as error:
            self._to.failed(step, error.failure)
        except TimeoutError:
            text = f"no reply within {self._speaker.seconds:g} s (--timeout)"
            later = self._settings.mode == "async"
            symptom = Symptom.NO_REPLY if later else Symptom.TOO_SLOW
            self._to.symptom(step, "failed", text, symptom)
        else:
            if self._session is not None and answer.reply.new_session is not None:
                self._session = answer.reply.new_session
            return answer
        raise _Stop

    async def _close(self, session: ModelSession) -> None:
        if self._settings.profile.close_body is None:
            text = "the session profile has no call for closing: the session is left to expire"
            self._to.found("close", "skipped", text)
            return
        self._on_begin("closing the session")
        began, failure = time.perf_counter(), None
        try:
            async with asyncio.timeout(self._policy.close_seconds):
                await self._model.close(session)
            text = "requested, but not confirmed"
        except ModelError as error:
            failure = error.failure
            text = f"not closed: {failure.message}"
        except TimeoutError:
            text = f"not confirmed in {self._policy.close_seconds:g} s"
        else:
            if self._watched.closed:
                seconds = time.perf_counter() - began
                self._to.found("close", "ok", "confirmed by the container", seconds=seconds)
                return
        self._to.symptom("close", "warning", text, Symptom.NOT_CLOSED, failure=failure)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
