"""One route's model: turns, and the opening and closing of sessions, as calls of the platform."""

import re
from typing import Any

import msgspec
import structlog

from gateway.errors import ErrorCode, Failure, Outcome
from gateway.sagemaker.formats import Format
from gateway.sagemaker.profiles import JsonObject, Profile
from gateway.sagemaker.runtime import Runtime
from gateway.sagemaker.sessions import (
    NEW_SESSION,
    MalformedSessionId,
    parse_new_session_id,
    with_session_id,
)
from gateway.sagemaker.streams import LINE_BYTES, Splitter, StreamKind, Text, splitter
from gateway.sagemaker.transport import StreamedReply
from gateway.session.bodies import JSON, TEXT, is_json
from gateway.session.ports import ModelError, ModelReply, ModelRequest, ModelSession, OnPart

log = structlog.stdlib.get_logger("gateway.sagemaker")

AS_IT_IS = Format()


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """What a route sends where a message says nothing; named as in `ModelRequest`."""

    accept: str | None = None
    custom_attributes: str | None = None
    inference_id: str | None = None
    target_model: str | None = None
    target_variant: str | None = None
    target_container_hostname: str | None = None
    enable_explanations: str | None = None
    inference_component_name: str | None = None


_NOT_STREAMED = frozenset({"TargetModel", "EnableExplanations"})
"""Parameters that InvokeEndpointWithResponseStream does not have."""

_PARAMETERS = {name: name.title().replace("_", "") for name in Defaults.__struct_fields__}
_TARGETING = frozenset(
    {"TargetModel", "TargetVariant", "TargetContainerHostname", "InferenceComponentName"}
)
"""What says where a call goes, and so goes with every call of a session.

The others are about one reply or its record, and say nothing to a call that opens or closes.
"""

_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
"""What a header can carry. SigV4 and aiohttp each choke on something else in their own way."""


class SageMakerModel:
    """A route's way to its model; see `gateway.session.ports.Model`.

    Args:
        runtime: Makes the calls.
        endpoint_name: Which endpoint to call.
        profile: How its container keeps sessions.
        defaults: Parameters for what a message leaves out. Those that say where a call goes are
            those of the calls that open and close a session too: it is where its turns are.
        body_format: How the model streams, and where the text is in its replies.
        line_bytes: The longest line or event of a stream.
    """

    def __init__(
        self,
        runtime: Runtime,
        endpoint_name: str,
        profile: Profile,
        defaults: Defaults,
        *,
        body_format: Format = AS_IT_IS,
        line_bytes: int = LINE_BYTES,
    ) -> None:
        self._runtime = runtime
        self._endpoint_name = endpoint_name
        self._profile = profile
        self._stream_kind = body_format.stream
        self._text = None if body_format.text is None else Text(body_format.text)
        self._line_bytes = line_bytes
        self._defaults = {
            parameter: value
            for name, parameter in _PARAMETERS.items()
            if (value := getattr(defaults, name)) is not None
        }
        if body_format.accept is not None:
            self._defaults.setdefault("Accept", body_format.accept)
        self._targets = {
            parameter: value
            for parameter, value in self._defaults.items()
            if parameter in _TARGETING
        }

    async def open(self) -> ModelSession:
        """See `Model.open`."""
        body = msgspec.json.encode(self._profile.open_body)
        session = _new_session(await self._invoke(body, JSON, SessionId=NEW_SESSION))
        if session is None:
            log.error("no session opened", endpoint=self._endpoint_name)
            text = "The endpoint opened no session; are stateful sessions on in its container?"
            raise ModelError(
                Failure(code=ErrorCode.MODEL_ERROR, message=text, outcome=Outcome.INVOKED)
            )
        return session

    async def invoke(
        self,
        request: ModelRequest,
        session: ModelSession | None,
        *,
        affinity: str,
        on_part: OnPart,
    ) -> ModelReply:
        """See `Model.invoke`.

        A turn that opens its session comes in one piece, since only InvokeEndpoint opens one, and
        so does one with a parameter that only InvokeEndpoint has.
        """
        _check_fields(request)
        given = {
            parameter: value
            for name, parameter in _PARAMETERS.items()
            if (value := getattr(request, name)) is not None
        }
        body = request.body
        if session is not None:
            given["SessionId"] = session.id
            key = self._profile.session_id_key
            if key is not None and is_json(request.content_type):
                body = with_session_id(body, key, session.id)
        elif self._profile.prefix_aware:
            given["PrefixAwareId"] = affinity
        elif self._profile.opens_with_turn:
            given["SessionId"] = NEW_SESSION
        given = self._defaults | given
        if (
            request.stream
            and self._stream_kind is not StreamKind.OFF
            and given.get("SessionId") != NEW_SESSION
            and _NOT_STREAMED.isdisjoint(given)
        ):
            return await self._stream(body, request.content_type, on_part, **given)
        response = await self._invoke(body, request.content_type, **given)
        new_session = _new_session(response)
        closed = response.get("ClosedSessionId")
        text = self._text_of(response["Body"], streamed=request.stream)
        return ModelReply(
            body=response["Body"] if text is None else text.encode(),
            content_type=response.get("ContentType") if text is None else TEXT,
            variant=response.get("InvokedProductionVariant"),
            custom_attributes=response.get("CustomAttributes"),
            new_session=new_session,
            session_closed=closed is not None and (new_session is None or closed == new_session.id),
        )

    async def close(self, session: ModelSession) -> None:
        """See `Model.close`."""
        if self._profile.close_body is None:
            return
        key = self._profile.session_id_key
        named: JsonObject = {} if key is None else {key: session.id}
        body = msgspec.json.encode(self._profile.close_body | named)
        try:
            await self._invoke(body, JSON, SessionId=session.id)
        except ModelError as error:
            if error.failure.code is not ErrorCode.SESSION_LOST:
                raise

    async def _stream(
        self, body: bytes, content_type: str, on_part: OnPart, **given: Any
    ) -> ModelReply:
        cut: Splitter

        def begin(reply: StreamedReply) -> None:
            nonlocal cut
            cut = splitter(
                self._stream_kind,
                text=self._text,
                content_type=reply.content_type,
                line_bytes=self._line_bytes,
            )

        def take(data: bytes) -> None:
            for part in cut.feed(data):
                on_part(part)

        reply = await self._runtime.invoke_endpoint_with_response_stream(
            self._profile,
            begin,
            take,
            EndpointName=self._endpoint_name,
            Body=body,
            ContentType=content_type,
            **given,
        )
        for part in cut.end():
            on_part(part)
        return ModelReply(
            body=None,
            content_type=reply.content_type if self._text is None else TEXT,
            variant=reply.variant,
            custom_attributes=reply.custom_attributes,
        )

    def _text_of(self, body: bytes, *, streamed: bool) -> str | None:
        """The text of a reply in one piece; None where it is to be passed on as it is.

        A body that asked for a stream gets the lines or events of one, even where the call could
        not stream; their text is that of the reply.
        """
        if self._text is None:
            return None
        text = self._text.of_body(body)
        if text is not None or not streamed or self._stream_kind is StreamKind.OFF:
            return text
        cut = splitter(self._stream_kind, text=self._text, line_bytes=self._line_bytes)
        try:
            parts = [*cut.feed(body), *cut.end()]
        except ModelError as error:
            if error.failure.code is ErrorCode.MODEL_ERROR:
                raise
            return None
        return "".join(part for part in parts if isinstance(part, str)) or None

    async def _invoke(self, body: bytes, content_type: str, **given: Any) -> dict[str, Any]:
        return await self._runtime.invoke_endpoint(
            self._profile,
            EndpointName=self._endpoint_name,
            Body=body,
            ContentType=content_type,
            **self._targets | given,
        )


def _check_fields(request: ModelRequest) -> None:
    """Refuse what no header can carry, before anything is sent; a client may have written it.

    Raises:
        ModelError: It names the field as the protocol does.
    """
    for name in ("content_type", *_PARAMETERS):
        value = getattr(request, name)
        if value is not None and _HEADER_VALUE.fullmatch(value) is None:
            text = f"`{name}` may hold nothing but printable ASCII."
            raise ModelError(Failure(code=ErrorCode.VALIDATION_ERROR, message=text))


def _new_session(response: dict[str, Any]) -> ModelSession | None:
    """The session that a reply opens, if it opens one that can be used."""
    value = response.get("NewSessionId")
    if value is None:
        return None
    try:
        return parse_new_session_id(value)
    except MalformedSessionId:
        log.warning("malformed NewSessionId", length=len(value))
        return None
