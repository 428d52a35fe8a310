"""Asynchronous endpoints: ``InvokeEndpointAsync``, and polling for its output.

The call returns the S3 location where the reply will be. It is polled with growing intervals, or
read when the endpoint's notification arrives on a queue. There are no sessions, and a call can't
be cancelled at the platform.
"""

import asyncio
import random
import re
import secrets
import time
from collections.abc import Coroutine
from functools import partial
from typing import Any

import structlog

from gateway.errors import WAIT_SECONDS, ErrorCode, Failure, Outcome, internal
from gateway.formats.presets import Format
from gateway.logs import LogLimit
from gateway.protocol.options import CallOptions
from gateway.sagemaker.errors import failure_of, failure_of_reply, with_facts
from gateway.sagemaker.model import AS_IT_IS, SageMakerModel
from gateway.sagemaker.notices import Notice
from gateway.sagemaker.objects import DENIED, Found, NotRead
from gateway.sagemaker.options import ID_CHARACTERS, INLINE_BYTES, LATE_SECONDS, AsyncOptions
from gateway.sagemaker.parameters import wrong_field
from gateway.sagemaker.profiles import PROFILES
from gateway.sagemaker.services import Services
from gateway.sagemaker.symptoms import Symptom
from gateway.sagemaker.transport import result_of
from gateway.session.bodies import TEXT
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

LINES_A_MINUTE = 10

log = structlog.stdlib.get_logger("gateway.sagemaker")

_TOO_LARGE = Failure(
    code=ErrorCode.TOO_LARGE,
    message=f"The body is larger than {INLINE_BYTES} bytes, the most that this route takes.",
)
_LONG_ID = Failure(
    code=ErrorCode.VALIDATION_ERROR,
    message=f"`inference_id` may have {ID_CHARACTERS} characters on this route.",
)
_FULL = Failure(
    code=ErrorCode.THROTTLED,
    message="Too many replies are awaited; send it again later.",
    retry_after=WAIT_SECONDS,
)
_NOWHERE = Failure(
    code=ErrorCode.UNAVAILABLE,
    message="The model service accepted the message but did not say where the reply will be.",
    outcome=Outcome.UNKNOWN,
)
_EXPIRED = Failure(
    code=ErrorCode.TIMEOUT,
    message="The model did not answer within the route's time limits.",
    outcome=Outcome.UNKNOWN,
)
_FAILED = Failure(
    code=ErrorCode.MODEL_ERROR,
    message="The model failed; it may have seen the message.",
    outcome=Outcome.UNKNOWN,
)

_STATUS = re.compile(r"error \((\d{3})\)")


class AsyncModel(SageMakerModel):
    """A route's asynchronous endpoint; see `gateway.session.ports.Model`.

    Args:
        services: The AWS clients.
        endpoint_name: The endpoint.
        defaults: See `SageMakerModel`.
        options: The route's options.
        body_format: Where the text is in its replies.
        route: The route's name, for the log.
    """

    def __init__(
        self,
        services: Services,
        endpoint_name: str,
        defaults: CallOptions,
        options: AsyncOptions,
        *,
        body_format: Format = AS_IT_IS,
        route: str | None = None,
    ) -> None:
        super().__init__(
            services.transport,
            endpoint_name,
            PROFILES["stateless"],
            defaults,
            body_format=body_format,
            route=route,
        )
        self._services = services
        self._submitter = services.transport
        self._objects = services.objects
        self._options = options
        url = options.notification_queue_url
        self._notices = None if url is None else services.notices(url)
        self._awaited = 0
        self._unread = LogLimit(LINES_A_MINUTE)
        self._denied = False  # whether it was logged
        self._unheard = False  # the same for failures without a location

    def invoke(
        self,
        request: ModelRequest,
        session: ModelSession | None,  # noqa: ARG002 - there is none
        *,
        affinity: str,
        principal: str,  # noqa: ARG002 - the platform only knows the gateway
        until: float | None,  # noqa: ARG002 - nothing expires
        on_parts: OnParts,  # noqa: ARG002 - there are none
        on_end: OnEnd,
    ) -> Call:
        """See `Model.invoke`; it ends with a receipt."""
        loop = asyncio.get_running_loop()
        if self._options.input_location is None and len(request.body) > INLINE_BYTES:
            return loop.call_soon(on_end, _TOO_LARGE)
        if self._awaited >= self._options.max_turns_awaited:
            return loop.call_soon(on_end, _FULL)
        parameters = self._parameters(request, None, affinity)
        text = "".join(parameters.values())
        if not (text.isascii() and text.isprintable()):
            return loop.call_soon(on_end, wrong_field(parameters))
        if len(parameters.get("InferenceId", "")) > ID_CHARACTERS:
            return loop.call_soon(on_end, _LONG_ID)
        call = _Submission()
        call.task = self._run(self._submit(call, parameters, request, affinity), on_end)
        return call

    async def _submit(
        self, call: "_Submission", parameters: dict[str, Any], request: ModelRequest, affinity: str
    ) -> Receipt:
        options, name = self._options, secrets.token_hex(16)
        # Objects and notices are named by it. A client may use an id twice, and the result of one
        # turn would be taken for the other's, so it is made unique.
        given = parameters.get("InferenceId")
        parameters["InferenceId"] = name if given is None else f"{given}-{name}"
        if options.filename is not None:
            parameters["Filename"] = options.filename.replace("$id", name[:24])
        if options.s3_output_path_extension is not None:
            extension = options.s3_output_path_extension.replace("$session", affinity)
            parameters["S3OutputPathExtension"] = extension.replace("$id", name[:24])
        said = dict(parameters)
        if options.input_location is None:
            parameters["Body"] = request.body
        else:
            location = f"{options.input_location}{name}"
            await self._put(location, request)
            parameters["InputLocation"] = said["InputLocation"] = location
        parameters["RequestTTLSeconds"] = options.request_ttl_seconds
        parameters["InvocationTimeoutSeconds"] = options.invocation_timeout_seconds
        call.sent = True
        try:
            answer = await result_of(partial(self._submitter.invoke_endpoint_async, parameters))
        except Exception as error:  # noqa: BLE001 - all errors are mapped here
            own = (self._endpoint_name, *self._defaults.values())
            failure = failure_of(error, self._profile, in_session=False, sent=said, own=own)
            facts = {**failure.facts, "body_bytes": len(request.body)}
            raise ModelError(self._named(with_facts(failure, **facts))) from None
        if not answer.get("OutputLocation", "").startswith("s3://"):
            raise ModelError(self._named(_NOWHERE))
        lasts = options.request_ttl_seconds + options.invocation_timeout_seconds + LATE_SECONDS
        failure_at = answer.get("FailureLocation")
        if failure_at is None and self._notices is None and not self._unheard:
            self._unheard = True
            log.warning(
                "failures are not reported", route=self._route, endpoint=self._endpoint_name
            )
        return Receipt(
            id=answer.get("InferenceId") or parameters["InferenceId"],
            reply_at=answer["OutputLocation"],
            failure_at=failure_at,
            until=time.time() + lasts,  # the call may have waited for a connection
        )

    async def _put(self, location: str, request: ModelRequest) -> None:
        try:
            await self._objects.put(location, request.body, request.content_type)
        except ModelError as error:
            raise ModelError(self._named(error.failure)) from None

    def wait(self, receipt: Receipt, *, affinity: str, on_end: OnEnd) -> Call:
        """See `Model.wait`."""
        return self._run(self._wait(receipt, affinity), on_end)

    async def _wait(self, receipt: Receipt, affinity: str) -> ModelReply:
        heard = _Heard()
        notices = self._notices
        leave = None if notices is None else notices.expect(receipt, heard.take)
        try:
            return await self._poll(receipt, heard, affinity)
        finally:
            if leave is not None:
                leave()

    async def _poll(self, receipt: Receipt, heard: "_Heard", affinity: str) -> ModelReply:
        options, notices = self._options, self._notices
        pause = options.poll_seconds
        is_told = False
        while True:
            notice, was_told = heard.forget(), is_told
            is_told = notices is not None and notices.is_up
            why = await self._look(receipt, affinity)
            if isinstance(why, ModelReply):
                return why
            if notice is not None and notice.has_failed:
                raise ModelError(self._failed(notice.failure_reason or ""))
            left = receipt.until - time.time()
            if left <= 0:
                raise ModelError(self._named(with_facts(_EXPIRED, s3=why), Symptom.NO_REPLY))
            if notice is not None or (was_told and not is_told):
                pause = (
                    options.poll_seconds
                )  # the reply should be there, or may be, without a notice
            elif is_told:
                pause = options.poll_max_seconds
            wait = pause * random.uniform(0.5, 1)  # noqa: S311 - no secret
            pause = min(2 * pause, options.poll_max_seconds)
            await heard.wait(min(wait, left))

    async def _look(self, receipt: Receipt, affinity: str) -> ModelReply | str | None:
        """Return the reply; if there is none yet, why it can't be read, or None.

        Raises:
            ModelError: The turn has failed.
        """
        why = None
        for location in (receipt.reply_at, receipt.failure_at):
            if location is None:
                continue
            try:
                found = await self._objects.get(location)
            except NotRead as error:
                why = str(error)
                self._log_unread(why, affinity)
                continue
            except ModelError as error:
                raise ModelError(self._named(error.failure)) from None
            if found is None:
                continue
            if location == receipt.failure_at:
                raise ModelError(self._failed(found.body[:4096].decode(errors="replace")))
            return self._read(found)
        return why

    def _read(self, found: Found) -> ModelReply:
        try:
            text = None if self._text is None else self._text.of_body(found.body)
        except Exception as error:  # noqa: BLE001 - all errors are mapped here
            raise ModelError(self._named(failure_of_reply(error))) from None
        if text is None:
            return ModelReply(body=found.body, content_type=found.content_type)
        return ModelReply(body=text.encode(), content_type=TEXT)

    def _failed(self, text: str) -> Failure:
        """Convert AWS's text about a failure, unquoted: it may contain the container's."""
        status = _STATUS.search(text)
        if status is None:
            return self._named(_FAILED)
        failure = Failure(
            code=ErrorCode.MODEL_ERROR,
            message=f"The model answered with an error (status {status[1]}).",
            outcome=Outcome.INVOKED,
        )
        return self._named(with_facts(failure, original_status=int(status[1])))

    def _log_unread(self, why: str, affinity: str) -> None:
        about: dict[str, object] = {"route": self._route, "endpoint": self._endpoint_name}
        if why == DENIED:
            # S3 may also respond with this if the object is not there yet; see `DENIED`.
            if not self._denied:
                self._denied = True
                log.warning("S3 denies access to replies", **about)
            return
        suppressed = self._unread.suppressed("")
        if suppressed is not None:
            about |= {"session": affinity, "why": why, "suppressed": suppressed}
            log.warning("a reply can't be read yet", **about)

    def _run(
        self, work: Coroutine[Any, Any, ModelReply | Receipt], on_end: OnEnd
    ) -> "asyncio.Task[Any]":
        self._awaited += 1
        task = self._services.spawn(work)
        task.add_done_callback(partial(self._ended, on_end))
        return task

    def _ended(self, on_end: OnEnd, task: "asyncio.Task[ModelReply | Receipt]") -> None:
        try:
            _tell(on_end, task)
        finally:
            self._awaited -= 1  # last, since a call that ends may start its wait


class _Submission:
    """A submission in progress."""

    task: "asyncio.Task[Any]"
    sent = False

    def cancel(self) -> object:
        """See `Call.cancel`."""
        self.task.cancel()
        return None if self.sent else Outcome.NOT_INVOKED


class _Heard:
    """The notice of an awaited call, if one has arrived."""

    def __init__(self) -> None:
        self._notice: Notice | None = None
        self._event = asyncio.Event()

    def take(self, notice: Notice | None) -> None:
        if notice is not None:
            self._notice = notice
        self._event.set()

    def forget(self) -> Notice | None:
        notice, self._notice = self._notice, None
        self._event.clear()
        return notice

    async def wait(self, seconds: float) -> None:
        """Wait for a notice, at most so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            pass


def _tell(on_end: OnEnd, task: "asyncio.Task[ModelReply | Receipt]") -> None:
    if task.cancelled() or task.cancelling():
        return
    error = task.exception()
    if error is None:
        on_end(task.result())
    elif isinstance(error, ModelError):
        on_end(error.failure)
    else:
        log.error("an adapter failed", exc_info=error)
        on_end(internal(Outcome.UNKNOWN))
