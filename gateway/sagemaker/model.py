"""A route's model: turns, and opening and closing sessions, as calls to the platform."""

import asyncio
from functools import partial
from typing import Any

import msgspec
import structlog
from msgspec import UNSET, structs

from gateway.errors import ErrorCode, Failure, Outcome
from gateway.formats.presets import Format
from gateway.formats.streams import (
    LINE_BYTES,
    Part,
    Splitter,
    StreamError,
    StreamKind,
    splitter,
)
from gateway.formats.text import Text, from_json
from gateway.logs import LogLimit
from gateway.protocol.options import PARAMETERS, CallOptions
from gateway.sagemaker.errors import failure_of, failure_of_reply, with_facts
from gateway.sagemaker.exceptions import ReplyFailed
from gateway.sagemaker.parameters import (
    GIVEN,
    NONE_GIVEN,
    NOT_STREAMED,
    OPTIONAL,
    TARGETING,
    wrong_field,
)
from gateway.sagemaker.profiles import JsonObject, Profile
from gateway.sagemaker.replies import ReplyReader, WholeBody
from gateway.sagemaker.sessions import (
    NEW_SESSION,
    MalformedSessionId,
    NotOneObject,
    parse_new_session_id,
    with_session_id,
)
from gateway.sagemaker.symptoms import Symptom, explained, hint_of
from gateway.sagemaker.transport import StreamedReply, Transport, result_of
from gateway.session.bodies import JSON, TEXT, is_json, is_textual
from gateway.session.ports import (
    Call,
    ModelError,
    ModelReply,
    ModelRequest,
    ModelSession,
    OnEnd,
    OnParts,
    Receipt,
)

log = structlog.stdlib.get_logger("gateway.sagemaker")

AS_IT_IS = Format()

LINES_A_MINUTE = 10
"""The rate limit for log lines about a route's model, per reason."""

OPENED_NONE = Failure(
    code=ErrorCode.MODEL_ERROR,
    message="The endpoint opened no session. Are stateful sessions enabled in its container?",
    outcome=Outcome.INVOKED,
)


NOT_ONE_OBJECT = Failure(
    code=ErrorCode.VALIDATION_ERROR,
    message="The body must be a single JSON object, since the session's id is added to it.",
)

NOT_AWAITED = Failure(
    code=ErrorCode.GATEWAY_LOST,
    message="The gateway no longer waits for this reply: its route's settings have changed.",
    outcome=Outcome.UNKNOWN,
)


class SageMakerModel:
    """A route's model; see `gateway.session.ports.Model`.

    Args:
        transport: Makes the calls.
        endpoint_name: The endpoint.
        profile: How its container keeps sessions.
        defaults: Options that a message leaves out, without the content type, which every request
            has. Those that determine where a call goes also apply to the calls that open and close
            a session, which has to be where its turns are.
        body_format: How the model streams, and where the text is in its replies.
        line_bytes: The longest line or event of a stream.
        route: The route's name, for the log.
    """

    def __init__(
        self,
        transport: Transport,
        endpoint_name: str,
        profile: Profile,
        defaults: CallOptions,
        *,
        body_format: Format = AS_IT_IS,
        line_bytes: int = LINE_BYTES,
        route: str | None = None,
    ) -> None:
        self._route = route
        self._logged = LogLimit(LINES_A_MINUTE)
        self._transport = transport
        self._endpoint_name = endpoint_name
        self._profile = profile
        self._stream_kind = body_format.stream
        self._text = None if body_format.text is None else Text(body_format.text)
        self._line_bytes = line_bytes
        self._defaults = {
            parameter: value
            for name, parameter in PARAMETERS.items()
            if (value := getattr(defaults, name)) is not UNSET and name != "content_type"
        }
        if body_format.accept is not None:
            self._defaults.setdefault("Accept", body_format.accept)
        self._targets = {
            parameter: value
            for parameter, value in self._defaults.items()
            if parameter in TARGETING
        }

    async def open(self, principal: str) -> ModelSession:  # noqa: ARG002 - as in `invoke`
        """See `Model.open`."""
        try:
            response = await self._call(self._profile.open_body or {}, NEW_SESSION)
        except ModelError as error:
            if error.failure.facts.get("symptom") != Symptom.CONTAINER_ERROR:
                raise
            raise ModelError(explained(error.failure, Symptom.OPEN_REFUSED)) from None
        given = response.get("NewSessionId")
        session = _new_session(given)
        if session is None:
            why = Symptom.OPENED_NONE if given is None else Symptom.SESSION_MALFORMED
            raise ModelError(self._named(OPENED_NONE, why))
        return session

    def invoke(
        self,
        request: ModelRequest,
        session: ModelSession | None,
        *,
        affinity: str,
        principal: str,  # noqa: ARG002 - the platform only knows the gateway
        until: float | None,  # noqa: ARG002 - it is sent immediately
        on_parts: OnParts,
        on_end: OnEnd,
    ) -> Call:
        """See `Model.invoke`.

        A turn that opens its session comes in one piece, since only InvokeEndpoint opens one, and
        so does one with a parameter that only InvokeEndpoint has.
        """
        parameters = self._parameters(request, session, affinity)
        text = "".join(parameters.values())
        if not (text.isascii() and text.isprintable()):
            wrong = wrong_field(parameters)
            return asyncio.get_running_loop().call_soon(on_end, wrong)
        body, sha256 = request.body, request.sha256
        key = self._profile.session_id_key
        if session is not None and key is not None and is_json(request.content_type):
            try:
                body, sha256 = with_session_id(body, key, session.id), None
            except NotOneObject:
                return asyncio.get_running_loop().call_soon(on_end, NOT_ONE_OBJECT)
        parameters["Body"] = body
        in_session = session is not None
        taken = None if request.verbatim else self._text
        if not request.stream or self._stream_kind is StreamKind.OFF:
            return self._whole(taken, parameters, sha256, affinity, on_end, in_session=in_session)
        if parameters.get("SessionId") != NEW_SESSION and NOT_STREAMED.isdisjoint(parameters):
            return self._stream(taken, parameters, sha256, on_parts, on_end)
        if taken is None and not request.verbatim:
            return self._whole(taken, parameters, sha256, affinity, on_end, in_session=in_session)
        return self._split(
            taken,
            parameters,
            sha256,
            affinity,
            on_end,
            on_parts=on_parts,
            in_session=in_session,
        )

    def _whole(
        self,
        taken: Text | None,
        parameters: dict[str, Any],
        sha256: bytes | None,
        affinity: str,
        on_end: OnEnd,
        *,
        in_session: bool,
    ) -> Call:
        """Send a turn without streaming."""

        def ended(response: dict[str, Any] | Exception) -> None:
            if isinstance(response, Exception):
                on_end(self._failure(response, parameters, in_session=in_session))
                return
            try:
                text = None if taken is None else taken.of_body(response["Body"])
                reply = self._reply(response, text, affinity, in_session)
            except Exception as error:  # noqa: BLE001 - all errors are mapped here
                on_end(self._named(failure_of_reply(error)))
            else:
                on_end(reply)

        return self._transport.invoke_endpoint(parameters, ended, sha256=sha256)

    def _split(
        self,
        taken: Text | None,
        parameters: dict[str, Any],
        sha256: bytes | None,
        affinity: str,
        on_end: OnEnd,
        *,
        on_parts: OnParts,
        in_session: bool,
    ) -> Call:
        """Send a turn without streaming whose request asks the model for a stream.

        The body may be a stream's lines or events, all at once. Their text is the reply's text, or
        if it is wanted verbatim, they are its parts.
        """
        turn = _Turn()

        def ended(response: dict[str, Any] | Exception) -> None:
            if isinstance(response, Exception):
                on_end(self._failure(response, parameters, in_session=in_session))
                return
            try:
                is_whole, whole = _whole_of(response["Body"], taken)
            except Exception as error:  # noqa: BLE001 - as above
                on_end(self._named(failure_of_reply(error)))
                return
            if is_whole:
                on_end(self._reply(response, whole, affinity, in_session))
                return
            parts: list[Part] = []

            def split(result: StreamedReply | Exception) -> None:
                error = result.error if isinstance(result, ReplyFailed) else None
                if isinstance(error, StreamError) and error.failure.code is ErrorCode.MODEL_ERROR:
                    on_end(self._named(error.failure))
                    return
                if taken is None and parts and error is None:
                    on_parts(parts)
                    reply = self._reply(response, None, affinity, in_session)
                    on_end(structs.replace(reply, body=None))
                    return
                found = "".join(part for part in parts if isinstance(part, str))
                text = None if error else found or None
                on_end(self._reply(response, text, affinity, in_session))

            reader = ReplyReader(
                self._transport.budget,
                partial(self._splitter, taken),
                parts.extend,
                split,
                WholeBody(),
            )
            turn.call = reader
            reader.begin(StreamedReply())
            reader.feed(response["Body"])
            reader.end()

        turn.call = self._transport.invoke_endpoint(parameters, ended, sha256=sha256)
        return turn

    def _parameters(
        self, request: ModelRequest, session: ModelSession | None, affinity: str
    ) -> dict[str, Any]:
        """Return the call's parameters, without its body."""
        parameters = {
            "EndpointName": self._endpoint_name,
            "ContentType": request.content_type,
            **self._defaults,
        }
        given = structs.astuple(request)[GIVEN]
        if given != NONE_GIVEN:
            named = zip(OPTIONAL, given, strict=True)
            parameters |= {parameter: value for parameter, value in named if value is not UNSET}
        if session is not None:
            parameters["SessionId"] = session.id
        elif self._profile.prefix_aware:
            parameters["PrefixAwareId"] = affinity
        elif self._profile.opens_with_turn:
            parameters["SessionId"] = NEW_SESSION
        return parameters

    def _reply(
        self, response: dict[str, Any], text: str | None, affinity: str, in_session: bool
    ) -> ModelReply:
        get = response.get
        body = response["Body"]
        given, closed = get("NewSessionId"), get("ClosedSessionId")
        new_session = _new_session(given)
        if given is not None and new_session is None:
            if (facts := self._suspect("malformed", affinity)) is not None:
                log.warning("malformed NewSessionId", length=len(given), **facts)
        elif (
            given is None
            and not in_session
            and self._profile.opens_with_turn
            and (facts := self._suspect("stateless", affinity)) is not None
        ):
            log.warning("no session was opened", hint=hint_of(Symptom.OPENED_NONE), **facts)
        return ModelReply(
            body=body if text is None else text.encode(),
            content_type=get("ContentType") if text is None else TEXT,
            variant=get("InvokedProductionVariant"),
            custom_attributes=get("CustomAttributes"),
            new_session=new_session,
            session_closed=closed is not None and (new_session is None or closed == new_session.id),
        )

    def _failure(
        self, error: Exception, parameters: dict[str, Any], *, in_session: bool
    ) -> Failure:
        failure = failure_of(
            error,
            self._profile,
            in_session=in_session,
            sent={name: value for name, value in parameters.items() if name != "Body"},
            own=(self._endpoint_name, *self._defaults.values()),
        )
        return self._named(with_facts(failure, body_bytes=len(parameters["Body"]), **failure.facts))

    def _named(self, failure: Failure, symptom: Symptom | None = None) -> Failure:
        """Add the endpoint and a hint to a failure's facts."""
        named = with_facts(failure, endpoint=self._endpoint_name, **failure.facts)
        return explained(named, symptom)

    def wait(self, receipt: Receipt, *, affinity: str, on_end: OnEnd) -> Call:  # noqa: ARG002
        """See `Model.wait`: fails, since the turn was submitted under an earlier configuration."""
        return asyncio.get_running_loop().call_soon(on_end, NOT_AWAITED)

    async def close(self, session: ModelSession) -> None:
        """See `Model.close`."""
        if self._profile.close_body is None:
            return
        key = self._profile.session_id_key
        named: JsonObject = {} if key is None else {key: session.id}
        try:
            await self._call(self._profile.close_body | named, session.id)
        except ModelError as error:
            if error.failure.code is not ErrorCode.SESSION_LOST:
                raise

    def _stream(
        self,
        taken: Text | None,
        parameters: dict[str, Any],
        sha256: bytes | None,
        on_parts: OnParts,
        on_end: OnEnd,
    ) -> Call:
        def ended(reply: StreamedReply | Exception) -> None:
            in_session = "SessionId" in parameters  # it doesn't open one
            if isinstance(reply, Exception):
                on_end(self._failure(reply, parameters, in_session=in_session))
                return
            on_end(
                ModelReply(
                    body=None,
                    content_type=reply.content_type if taken is None else TEXT,
                    variant=reply.variant,
                    custom_attributes=reply.custom_attributes,
                )
            )

        return self._transport.invoke_endpoint_with_response_stream(
            parameters, partial(self._splitter, taken), on_parts, ended, sha256=sha256
        )

    def _splitter(self, taken: Text | None, reply: StreamedReply) -> Splitter:
        return splitter(
            self._stream_kind,
            text=taken,
            textual=is_textual(reply.content_type),
            line_bytes=self._line_bytes,
        )

    def _suspect(self, what: str, affinity: str) -> dict[str, object] | None:
        """Return the log fields about an invalid reply; None if the rate limit is exceeded."""
        suppressed = self._logged.suppressed(what)
        if suppressed is None:
            return None
        return {
            "route": self._route,
            "session": affinity,
            "endpoint": self._endpoint_name,
            "suppressed": suppressed,
        }

    async def _call(self, body: JsonObject, session_id: str) -> dict[str, Any]:
        """Make a call that is not a turn."""
        parameters = {
            "EndpointName": self._endpoint_name,
            "Body": msgspec.json.encode(body),
            "ContentType": JSON,
            "SessionId": session_id,
            **self._targets,
        }
        try:
            return await result_of(partial(self._transport.invoke_endpoint, parameters))
        except Exception as error:  # noqa: BLE001 - all errors are mapped here
            in_session = session_id != NEW_SESSION
            raise ModelError(self._failure(error, parameters, in_session=in_session)) from None


class _Turn:
    """A turn's call, and the handling of its reply."""

    __slots__ = ("call",)

    call: Call

    def cancel(self) -> None:
        self.call.cancel()


def _whole_of(body: bytes, taken: Text | None) -> tuple[bool, str | None]:
    """Return whether a body is a whole reply instead of a stream's events, and its text.

    Args:
        body: The reply's body.
        taken: Where its text is; None if it is wanted unchanged.
    """
    if taken is not None:
        text = taken.of_body(body)
        return text is not None, text
    try:
        from_json(body)
    except ValueError:
        return False, None
    return True, None


def _new_session(value: str | None) -> ModelSession | None:
    """Return the session that a reply opens, if it opens a valid one."""
    if value is None:
        return None
    try:
        return parse_new_session_id(value)
    except MalformedSessionId:
        return None
