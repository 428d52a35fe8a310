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
    """``[routes.NAME]``: a SageMaker endpoint and how to call it. The first is the default."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    endpoint_name: EndpointName = Field(description="Name of the SageMaker endpoint.")
    mode: Literal["realtime", "async"] = Field(
        default="realtime",
        description='"async" for an asynchronous inference endpoint, "realtime" for all others.',
    )
    session: SessionProfile = Field(
        default=PROFILES["container-standards"],
        description=f"How the container keeps sessions: {', '.join(PROFILES)}, or a table (see "
        "below). With mode async, stateless.",
    )
    open: Literal["on_connect", "on_first_message"] = Field(
        default="on_connect",
        description='When to open the session at the model: "on_connect" or "on_first_message".',
    )
    content_type: Header | None = Field(
        default=None, description="Content type of messages that don't set their own."
    )
    body: Literal["auto", "json"] = Field(
        default="auto",
        description='"json" delivers replies that are valid JSON as `json`; "auto" delivers '
        "text as `text`.",
    )
    format: Literal["openai-chat", "lmi", "tgi", "plain"] | None = Field(
        default=None,
        description='What the model takes and returns: "openai-chat", "lmi", "tgi" or '
        '"plain". A format sets `stream`, `text` and `request`; setting one of '
        "these overrides it.",
    )
    stream: Literal["off", "raw", "lines", "sse"] | None = Field(
        default=None,
        description='How the model streams: "off", "raw" (as it is), "lines" (one record per '
        'line) or "sse" (server-sent events).',
    )
    text: Expression | None = Field(
        default=None,
        description="JMESPath expression that finds the text in the model's JSON. Clients "
        "then receive only the text.",
    )
    request: Any = Field(
        default=None,
        repr=False,
        description="Template of what the model is sent for a client's text. It contains "
        "$text, or $messages or $transcript for the whole conversation, and may "
        "contain $stream.",
    )
    history: Literal["gateway", "model"] | None = Field(
        default=None,
        description='Who keeps the conversation: with "gateway", each call carries all of it; '
        'with "model", only the newest message. Defaults to "gateway" if '
        "`request`, or that of the `format`, contains $messages or $transcript, "
        'else to "model".',
    )
    system: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        repr=False,
        description="System prompt, sent before the conversation that the gateway keeps.",
    )
    allow: frozenset[RestrictedOption] = Field(
        default=frozenset(),
        description="Restricted message fields that clients may set, such as `target_variant`.",
    )
    accept: Header | None = Field(
        default=None, description="Accept header of calls whose message sets none."
    )
    custom_attributes: Header | None = Field(
        default=None, repr=False, description="CustomAttributes of calls whose message sets none."
    )
    trace_attributes: bool = Field(
        default=False,
        description="With [traces], append the trace context (traceparent=…) to CustomAttributes.",
    )
    inference_id: Id | None = Field(
        default=None, description="InferenceId of calls whose message sets none."
    )
    target_model: Header | None = Field(
        default=None, description="TargetModel of calls whose message sets none."
    )
    target_variant: Name | None = Field(
        default=None, description="TargetVariant of calls whose message sets none."
    )
    target_container_hostname: Name | None = Field(
        default=None, description="TargetContainerHostname of calls whose message sets none."
    )
    enable_explanations: Id | None = Field(
        default=None, description="EnableExplanations of calls whose message sets none."
    )
    inference_component_name: Name | None = Field(
        default=None, description="InferenceComponentName of calls whose message sets none."
    )
    allowed_origins: frozenset[WebOrigin] = Field(
        default=frozenset(), description="Other origins whose pages may connect."
    )
    message_bytes: Bytes = Field(
        default=6_291_456,
        description="Maximum bytes of a message. The default is SageMaker's limit for a body.",
    )
    max_turns_in_flight: Count = Field(
        default=200,
        description="Maximum turns at the model at once per worker. The limit adapts: it is "
        "lower while the endpoint throttles or slows down. Calls that open or "
        "close sessions have a limit of the same size to themselves.",
    )
    queued_messages: Count = Field(
        default=16, description="Maximum messages that wait in a session."
    )
    remembered_messages: Count = Field(
        default=10_000,
        description="Number of message ids that a session remembers to recognise duplicates.",
    )
    resume_seconds: Seconds = Field(
        default=120.0,
        description="How long a session is kept for a client that has lost its connection. "
        "3600 with mode async.",
    )
    on_expiry: Literal["close", "renew", "replay"] | None = Field(
        default=None,
        description='What happens when a session expires: "close" ends it; "renew" continues '
        'in a new session that knows nothing; "replay" sends the conversation to '
        'the new session first. Defaults to "renew" if the gateway keeps the '
        'conversation, else to "close".',
    )
    on_lost: Literal["fail", "renew", "replay"] | None = Field(
        default=None,
        description='What happens when the model has lost the session: "fail" ends it; '
        '"renew" and "replay" as for on_expiry. Defaults to "renew" if the '
        'gateway keeps the conversation, else to "fail".',
    )
    replay_seed: Any = Field(
        default=None,
        repr=False,
        description="Replay in one message, made from this template: text or a table that "
        "contains $transcript or $messages.",
    )
    transcript_turns: Count = Field(
        default=100, description="Maximum turns of a conversation kept for history or replay."
    )
    transcript_bytes: Bytes | None = Field(
        default=None,
        description="Maximum bytes of these turns; a token is about four bytes. Defaults to "
        "65536 if the gateway keeps the conversation, else to 1048576.",
    )
    retries: Annotated[Whole, Field(ge=0, le=100)] = Field(
        default=3, description="How often a call is retried that certainly never reached the model."
    )
    retry_seconds: Positive = Field(
        default=0.5, description="Maximum wait before the first retry. It doubles with each retry."
    )
    retry_max_seconds: Positive = Field(
        default=8.0,
        description="Maximum wait before any retry. If AWS or the model asks for a longer "
        "one, the turn fails.",
    )
    idle_seconds: Positive = Field(
        default=600.0, description="A session that is unused for this long is closed at the model."
    )
    session_seconds: Positive = Field(
        default=1200.0, description="Lifetime of a session if the model does not state it."
    )
    expiry_margin_seconds: Seconds = Field(
        default=5.0, description="How long before its expiry a session is treated as expired."
    )
    expiring_notice_seconds: Seconds = Field(
        default=60.0, description="How long before that the client is warned with session.expiring."
    )
    close_seconds: Positive = Field(
        default=10.0, description="Time for the model to close a session."
    )
    log_events: Count = Field(
        default=4096, description="Maximum events kept for a client that resumes."
    )
    log_bytes: Bytes = Field(
        default=67_108_864,
        description="Maximum bytes of these events. Must be more than twice aws.reply_bytes.",
    )
    log_seconds: Positive | None = Field(
        default=None,
        description="Maximum age of these events. Must be more than resume_seconds. Defaults "
        "to 600 or, with mode async, to resume_seconds plus the longest time that "
        "all turns of a session may take.",
    )

    request_ttl_seconds: Annotated[Whole, Field(ge=60, le=21_600)] = Field(
        default=21_600, description="Mode async: how long a turn may wait for an instance."
    )
    invocation_timeout_seconds: Annotated[Whole, Field(ge=1, le=3600)] = Field(
        default=900, description="Mode async: how long the model may work on a turn."
    )
    input_location: S3Prefix | None = Field(
        default=None,
        description="Mode async: S3 prefix for inputs, such as s3://my-bucket/inputs/. If "
        "unset, the call carries the input, up to 128000 bytes.",
    )
    s3_output_path_extension: OutputPath | None = Field(
        default=None,
        description="Mode async: path for replies below the endpoint's output path. May "
        "contain $session and $id.",
    )
    filename: OutputName | None = Field(
        default=None,
        description="Mode async: file name of replies, which contains $id, such as $id.json. "
        "If unset, SageMaker chooses it.",
    )
    notification_queue_url: EndpointUrl | None = Field(
        default=None,
        description="Mode async: URL of the SQS queue that is subscribed to the endpoint's "
        "SNS topics. If unset, the gateway polls S3.",
    )
    poll_seconds: Positive = Field(
        default=1.0,
        description="Mode async: interval between the first two polls for a reply. It doubles "
        "with each poll.",
    )
    poll_max_seconds: Positive = Field(
        default=20.0,
        description="Mode async: maximum interval between polls. With a queue, every interval "
        "is this long.",
    )
    max_turns_awaited: Count = Field(
        default=1000,
        description="Mode async: maximum turns that are submitted or awaited at once per "
        "worker. Awaited turns don't count towards max_turns_in_flight.",
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
