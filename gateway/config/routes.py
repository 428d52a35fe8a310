"""A route's section of the configuration, and what follows from it for its sessions."""

from typing import Annotated, Any, Literal, Self

import msgspec
from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from gateway.config.sections import ServerSettings
from gateway.config.values import (
    Bytes,
    Count,
    EndpointName,
    EndpointUrl,
    Expression,
    Header,
    Id,
    Name,
    OutputName,
    OutputPath,
    Positive,
    S3Prefix,
    Seconds,
    Section,
    SessionProfile,
    WebOrigin,
    Whole,
    with_place,
)
from gateway.formats.presets import FORMATS, Format
from gateway.formats.streams import StreamKind
from gateway.formats.templates import HISTORY, tells_history
from gateway.protocol.options import OPTIONS, CallOptions, RestrictedOption
from gateway.sagemaker.options import ID_CHARACTERS, INLINE_BYTES, LATE_SECONDS, AsyncOptions
from gateway.sagemaker.profiles import PROFILES, Profile
from gateway.session.bodies import is_json
from gateway.session.policy import Opening, Policy, Recovery

_RECOVERY = {
    "close": Recovery.NONE,
    "fail": Recovery.NONE,
    "renew": Recovery.RENEW,
    "replay": Recovery.REPLAY,
}


HISTORY_BYTES = 65_536
"""Of a conversation that the gateway keeps, unless told otherwise: 16,000 tokens or so, since most
models answer more than they can read with an error."""
REPLAY_BYTES = 1_048_576
"""Of one that the model keeps."""


LOG_SECONDS = 600.0
"""How long events are kept, unless told otherwise."""

ASYNC_ONLY = AsyncOptions.__struct_fields__

_NOT_ASYNC = (
    "target_model",
    "target_variant",
    "target_container_hostname",
    "enable_explanations",
    "inference_component_name",
)
"""Parameters that InvokeEndpointAsync does not have."""

ASYNC_DEFAULTS = {"session": "stateless", "resume_seconds": 3600.0}
"""A turn may take hours: whoever has asked comes back for the reply."""


class RouteSettings(Section):
    """``[routes.NAME]``: one endpoint, and how to talk to it. The first is the default route."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    endpoint_name: EndpointName = Field(description="the SageMaker endpoint")
    mode: Literal["realtime", "async"] = Field(
        default="realtime",
        description='"async" for an endpoint of asynchronous inference, which answers later',
    )
    session: SessionProfile = Field(
        default=PROFILES["container-standards"],
        description=f"how its container keeps sessions: {', '.join(PROFILES)}, or a table; "
        "stateless with mode async",
    )
    open: Literal["on_connect", "on_first_message"] = Field(
        default="on_connect", description="when to open the session at the model"
    )
    content_type: Header | None = Field(
        default=None, description="content type of bodies whose message names none"
    )
    body: Literal["auto", "json"] = Field(
        default="auto", description='"json" gives replies to clients as JSON where they parse'
    )
    format: Literal["openai-chat", "lmi", "tgi", "plain"] | None = Field(
        default=None,
        description="what the model takes and gives; `stream`, `text` and `request` are its parts, "
        "and win over it",
    )
    stream: Literal["off", "raw", "lines", "sse"] | None = Field(
        default=None,
        description="how the model streams: its reply as it is, a record a line, or server-sent "
        "events",
    )
    text: Expression | None = Field(
        default=None,
        description="a JMESPath expression for where the text is in the model's JSON; clients then "
        "get the text alone",
    )
    request: Any = Field(
        default=None,
        repr=False,
        description="what the model is sent for a client's text: a table with $text, or $messages "
        "or $transcript for all of the conversation, and $stream in it",
    )
    history: Literal["gateway", "model"] | None = Field(
        default=None,
        description='who keeps the conversation: with "gateway" each turn carries all of it, with '
        '"model" the newest message alone; "gateway" where `request`, or that of the `format`, '
        "has $messages or $transcript",
    )
    system: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        repr=False,
        description="what the model is told ahead of the conversation that the gateway keeps",
    )
    allow: frozenset[RestrictedOption] = Field(
        default=frozenset(), description="message fields that clients may set"
    )
    accept: Header | None = Field(default=None, description="Accept, where a message has none")
    custom_attributes: Header | None = Field(
        default=None, repr=False, description="CustomAttributes, likewise"
    )
    trace_attributes: bool = Field(
        default=False,
        description="where there is [traces], tell the model in CustomAttributes what it is a part "
        "of: traceparent=…, behind what else there is",
    )
    inference_id: Id | None = Field(default=None, description="InferenceId, likewise")
    target_model: Header | None = Field(default=None, description="TargetModel, likewise")
    target_variant: Name | None = Field(default=None, description="TargetVariant, likewise")
    target_container_hostname: Name | None = Field(
        default=None, description="TargetContainerHostname, likewise"
    )
    enable_explanations: Id | None = Field(default=None, description="EnableExplanations, likewise")
    inference_component_name: Name | None = Field(
        default=None, description="InferenceComponentName, likewise"
    )
    allowed_origins: frozenset[WebOrigin] = Field(
        default=frozenset(), description="further origins whose pages may connect"
    )
    message_bytes: Bytes = Field(
        default=6_291_456, description="largest message; SageMaker's limit for a body"
    )
    max_turns_in_flight: Count = Field(
        default=200,
        description="turns at the model at once, fewer while it throttles or slows down; and as "
        "many calls that open or close sessions",
    )
    queued_messages: Count = Field(default=16, description="messages that may wait in a session")
    remembered_messages: Count = Field(
        default=10_000, description="message ids kept to recognise duplicates"
    )
    resume_seconds: Seconds = Field(
        default=120.0,
        description="how long a session is kept for a client whose connection is lost; 3600 with "
        "mode async",
    )
    on_expiry: Literal["close", "renew", "replay"] | None = Field(
        default=None,
        description='when a session expires, "close" ends it, "renew" goes on in a new one that '
        'knows nothing, "replay" in one that is told again what was said; "renew" where the '
        'gateway keeps the conversation, else "close"',
    )
    on_lost: Literal["fail", "renew", "replay"] | None = Field(
        default=None,
        description='the same when the model has lost the session, with "fail" for its end',
    )
    replay_seed: Any = Field(
        default=None,
        repr=False,
        description="replay by one message: text, or a table, with $transcript or $messages in it",
    )
    transcript_turns: Count = Field(
        default=100, description="turns of a conversation that are kept to be told to the model"
    )
    transcript_bytes: Bytes | None = Field(
        default=None,
        description="the same in bytes, of which a model reads about four as a token; 65536 where "
        "the gateway keeps the conversation, else 1048576",
    )
    retries: Annotated[Whole, Field(ge=0, le=100)] = Field(
        default=3, description="how often a call that the model never saw is made again"
    )
    retry_seconds: Positive = Field(
        default=0.5, description="longest wait before the first of these; it doubles with each"
    )
    retry_max_seconds: Positive = Field(
        default=8.0,
        description="longest wait before any; a model that asks for more fails the turn",
    )
    idle_seconds: Positive = Field(
        default=600.0, description="a session unused for this long is closed at the model"
    )
    session_seconds: Positive = Field(
        default=1200.0, description="how long a session lasts where the model does not say"
    )
    expiry_margin_seconds: Seconds = Field(
        default=5.0, description="a session counts as expired this long before it is"
    )
    expiring_notice_seconds: Seconds = Field(
        default=60.0, description="how long before that the client is told"
    )
    close_seconds: Positive = Field(
        default=10.0, description="time for the model to close a session"
    )
    log_events: Count = Field(default=4096, description="events kept for a client")
    log_bytes: Bytes = Field(
        default=67_108_864, description="the same in bytes; more than twice aws.reply_bytes"
    )
    log_seconds: Positive | None = Field(
        default=None,
        description="how long they are kept; more than resume_seconds; 600, or with mode async "
        "resume_seconds and the time that all turns of a session may take",
    )

    request_ttl_seconds: Annotated[Whole, Field(ge=60, le=21_600)] = Field(
        default=21_600, description="with mode async: how long a turn may wait for an instance"
    )
    invocation_timeout_seconds: Annotated[Whole, Field(ge=1, le=3600)] = Field(
        default=900, description="with mode async: how long the model may then work on it"
    )
    input_location: S3Prefix | None = Field(
        default=None,
        description="with mode async: where inputs are put, such as s3://my-bucket/inputs/; where "
        "absent, the call carries them, up to 128000 bytes",
    )
    s3_output_path_extension: OutputPath | None = Field(
        default=None,
        description="with mode async: where below its own path the endpoint puts replies, with "
        "$session or $id in it",
    )
    filename: OutputName | None = Field(
        default=None,
        description="with mode async: what replies are called, such as $id.json; where absent, as "
        "the platform does",
    )
    notification_queue_url: EndpointUrl | None = Field(
        default=None,
        description="with mode async: the queue that the endpoint's topics feed; where absent, "
        "replies are looked for",
    )
    poll_seconds: Positive = Field(
        default=1.0,
        description="with mode async: how long after the first look for a reply the second is; it "
        "doubles with each",
    )
    poll_max_seconds: Positive = Field(
        default=20.0,
        description="with mode async: longest time between two; with a queue, the time",
    )
    max_turns_awaited: Count = Field(
        default=1000,
        description="with mode async: turns that may be submitted or waited for at once, of each "
        "worker; those that are waited for are not among `max_turns_in_flight`",
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_its_mode(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("mode") == "async":
            return {**ASYNC_DEFAULTS, **values}
        return values

    @model_validator(mode="after")
    def _goes_with_its_mode(self) -> Self:
        given = self.model_fields_set
        if self.mode != "async":
            stray = [name for name in ASYNC_ONLY if name in given]
            if stray:
                raise ValueError(f'`{stray[0]}` goes with `mode = "async"`')
            return self
        if self.profile.opening is not Opening.NONE or self.profile.prefix_aware:
            raise ValueError(
                '`mode = "async"` has no sessions; leave `session` out. `history = "gateway"` lets '
                "the gateway keep the conversation"
            )
        if self.stream not in {None, "off"}:
            raise ValueError(
                '`mode = "async"` has no streams: replies come in one piece; leave `stream` out'
            )
        for name in _NOT_ASYNC:
            if getattr(self, name) is not None or name in self.allow:
                raise ValueError(f'InvokeEndpointAsync (`mode = "async"`) has no `{name}`')
        if self.poll_seconds > self.poll_max_seconds:
            raise ValueError(
                f"`poll_seconds` ({self.poll_seconds:g}) is more than `poll_max_seconds` "
                f"({self.poll_max_seconds:g}), to which it grows; raise that, or lower this"
            )
        if len(self.inference_id or "") > ID_CHARACTERS:
            raise ValueError(
                f'with `mode = "async"`, `inference_id` may have {ID_CHARACTERS} characters: what '
                "is different for each turn follows"
            )
        return self

    @property
    def events_seconds(self) -> float:
        """How long a session's events are kept: the first of many replies until the last has come
        that was asked for with it, and its client is back.
        """
        if self.log_seconds is not None:
            return self.log_seconds
        if self.mode != "async":
            return LOG_SECONDS
        longest = self.request_ttl_seconds + self.invocation_timeout_seconds + LATE_SECONDS
        return self.resume_seconds + (self.queued_messages + 1) * longest

    @property
    def async_options(self) -> AsyncOptions:
        """What there is to say of its asynchronous calls."""
        return AsyncOptions(**{name: getattr(self, name) for name in ASYNC_ONLY})

    @field_validator("request")
    @classmethod
    def _request_has_a_place(cls, value: Any) -> Any:
        return with_place(value, ("text", *HISTORY), "what the client says")

    @field_validator("replay_seed")
    @classmethod
    def _seed_has_a_place(cls, value: Any) -> Any:
        return with_place(value, HISTORY, "what was said")

    @field_validator("on_expiry", "on_lost")
    @classmethod
    def _has_a_session(cls, value: str | None, info: ValidationInfo) -> str | None:
        profile = info.data.get("session")
        if value == "replay" and profile is not None and profile.opening is Opening.NONE:
            raise ValueError(
                'there is no session to replay with a `session` such as "stateless" or '
                '"prefix-aware"; leave it out. Where the gateway keeps the conversation '
                '(`history = "gateway"`), each turn tells all of it anyway'
            )
        return value

    @property
    def profile(self) -> Profile:
        """How the route's container keeps sessions."""
        assert isinstance(self.session, Profile)  # noqa: S101 - the validator made it one
        return self.session

    @property
    def defaults(self) -> CallOptions:
        """What is sent where a message says nothing."""
        given = {name: getattr(self, name) for name in OPTIONS}
        return CallOptions(**{name: value for name, value in given.items() if value is not None})

    @property
    def body_format(self) -> Format:
        """What the route's model takes and gives."""
        stream = "off" if self.mode == "async" else self.stream
        given = {"stream": stream, "text": self.text, "request": self.request}
        known = FORMATS[self.format] if self.format else Format()
        made = {
            name: getattr(known, name) if value is None else value for name, value in given.items()
        }
        return msgspec.convert({**made, "accept": known.accept}, Format)

    @model_validator(mode="after")
    def _text_has_a_place(self) -> Self:
        try:
            makes_text = self.body_format.text is not None
        except msgspec.ValidationError as error:
            raise ValueError(str(error).partition(" - at")[0]) from None
        if makes_text and self.body == "json":
            raise ValueError('`body = "json"` and `text` (or a `format` with one) exclude another')
        return self

    @property
    def is_chat(self) -> bool:
        """Whether the model takes and gives OpenAI's chat completions, as they are."""
        form, known = self.body_format, FORMATS["openai-chat"]
        return (
            self.format == "openai-chat"
            and self.sends_history
            and (form.text, form.stream) == (known.text, known.stream)
            and isinstance(form.request, dict)
            and form.request.get("messages") == "$messages"
        )

    @property
    def takes_json_only(self) -> bool:
        """Whether there is nothing to make the JSON of a text that the model is sent."""
        return is_json(self.content_type) and self.body_format.request is None

    @property
    def sends_history(self) -> bool:
        """Whether the gateway keeps the conversation for the model."""
        if self.history is not None:
            return self.history == "gateway"
        return tells_history(self.body_format.request)

    @model_validator(mode="after")
    def _history_can_be_kept(self) -> Self:
        if not self.sends_history:
            if self.system is not None:
                raise ValueError('`system` goes with `history = "gateway"`')
        elif not tells_history(self.body_format.request):
            raise ValueError(
                '`history = "gateway"` needs a `request` with $messages or $transcript in it, or a '
                "`format` with one"
            )
        elif self.body == "json":
            raise ValueError(
                '`body = "json"` and `history = "gateway"` exclude another: what the model says is '
                "kept as text"
            )
        elif self.replay_seed is not None:
            raise ValueError(
                '`replay_seed` and `history = "gateway"` exclude another: each turn tells it all'
            )
        return self

    def policy(self, name: str, server: ServerSettings) -> Policy:
        """The rules of the route's sessions."""
        same = {
            field: getattr(self, field)
            for field in Policy.__struct_fields__
            if field in RouteSettings.model_fields
            and field not in {"on_expiry", "on_lost", "transcript_bytes", "log_seconds"}
        }
        form = self.body_format
        gone = Recovery.RENEW if self.sends_history else Recovery.NONE
        transcript = HISTORY_BYTES if self.sends_history else REPLAY_BYTES
        inline = self.mode == "async" and self.input_location is None
        return Policy(
            route=name,
            streams=form.stream is not StreamKind.OFF,
            template=form.request,
            opening=self.profile.opening,
            open_on_connect=self.open == "on_connect",
            chat=self.is_chat,
            json_only=self.takes_json_only,
            json_replies=self.body == "json",
            sends_history=self.sends_history,
            on_expiry=_RECOVERY[self.on_expiry] if self.on_expiry else gone,
            on_lost=_RECOVERY[self.on_lost] if self.on_lost else gone,
            seed=self.replay_seed,
            transcript_bytes=self.transcript_bytes or transcript,
            log_seconds=self.events_seconds,
            body_bytes=INLINE_BYTES if inline else None,
            client_fields=frozenset(self.allow),
            heartbeat_seconds=server.heartbeat_seconds,
            **same,
        )
