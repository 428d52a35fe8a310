"""One route's model: turns, and the opening and closing of sessions, as InvokeEndpoint calls."""

import re
from typing import Any

import msgspec
import structlog

from gateway.errors import ErrorCode, Failure, Outcome
from gateway.sagemaker.profiles import JsonObject, Profile
from gateway.sagemaker.runtime import Runtime
from gateway.sagemaker.sessions import (
    NEW_SESSION,
    MalformedSessionId,
    parse_new_session_id,
    with_session_id,
)
from gateway.session.bodies import JSON, is_json
from gateway.session.ports import ModelError, ModelReply, ModelRequest, ModelSession

log = structlog.stdlib.get_logger("gateway.sagemaker")


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
    """

    def __init__(
        self, runtime: Runtime, endpoint_name: str, profile: Profile, defaults: Defaults
    ) -> None:
        self._runtime = runtime
        self._endpoint_name = endpoint_name
        self._profile = profile
        self._defaults = {
            parameter: value
            for name, parameter in _PARAMETERS.items()
            if (value := getattr(defaults, name)) is not None
        }
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
        self, request: ModelRequest, session: ModelSession | None, *, affinity: str
    ) -> ModelReply:
        """See `Model.invoke`."""
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
        response = await self._invoke(body, request.content_type, **self._defaults | given)
        new_session = _new_session(response)
        closed = response.get("ClosedSessionId")
        return ModelReply(
            body=response["Body"],
            content_type=response.get("ContentType"),
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
