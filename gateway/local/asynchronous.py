"""Asynchronous inference: calls are queued, and their results stored as objects.

Some details are not specified by AWS's documents: here, without ``Filename`` an output is named
after its inference id, with ``.out``; a failure is ``ID-error.out`` and has the error as text; a
call that expires in the queue fails as any other, without reaching an instance.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from gateway.local.api import ApiError, validation_error
from gateway.local.objects import NoSuchObject, Objects, Stored

if TYPE_CHECKING:
    from gateway.local.platform import Endpoint

CONCURRENT = 4
"""Concurrent calls per instance."""

MAX_WAITING = 10_000
"""Maximum number of queued calls; more are throttled."""

TTL_SECONDS = 21_600
TIMEOUT_SECONDS = 900
"""The platform's defaults."""

OUTPUTS = "s3://local/outputs"
FAILURES = "s3://local/failures"

Publish = Callable[[dict[str, Any], bool], Awaitable[None]]
"""Publishes the end of a call, and whether it has succeeded: success and failure have separate
topics.
"""


class Accepted(Struct, frozen=True):
    """The response to a call."""

    inference_id: str
    output_location: str
    failure_location: str | None


class Asynchronous:
    """The queue of an asynchronous endpoint.

    Args:
        objects: Stores inputs, outputs and failures.
        publish: Publishes notifications; None for none.
        outputs: The endpoint's ``S3OutputPath``.
        failures: Its ``S3FailurePath``; None for none.
    """

    def __init__(
        self,
        objects: Objects,
        publish: Publish | None = None,
        *,
        outputs: str = OUTPUTS,
        failures: str | None = FAILURES,
    ) -> None:
        self.submitted = self.ended = 0
        self._objects = objects
        self._publish = publish
        self._outputs = outputs
        self._failures = failures
        self._free: asyncio.Semaphore | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(
        self,
        endpoint: "Endpoint",
        parameters: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
    ) -> Accepted:
        """InvokeEndpointAsync.

        Args:
            endpoint: The endpoint whose instances do the work.
            parameters: Parameters by their API names.
            headers: Headers for the container.
            body: The input; empty if it is an object.

        Raises:
            ApiError: The call is refused.
        """
        if ("InputLocation" in parameters) == bool(body):
            raise validation_error("Provide either InputLocation or a request body, and not both.")
        if len(self._tasks) >= MAX_WAITING:
            raise ApiError("ThrottlingException", 400, "Rate exceeded")
        inference_id = parameters.get("InferenceId") or str(uuid.uuid4())
        name = parameters.get("Filename") or f"{inference_id}.out"
        extension = parameters.get("S3OutputPathExtension", "").strip("/")
        output = "/".join(part for part in (self._outputs, extension, name) if part)
        failure = self._failures and f"{self._failures}/{inference_id}-error.out"
        accepted = Accepted(inference_id, output, failure)
        self.submitted += 1
        work = self._work(endpoint, accepted, parameters, headers, body)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return accepted

    async def _work(
        self,
        endpoint: "Endpoint",
        accepted: Accepted,
        parameters: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
    ) -> None:
        received = datetime.now(UTC)
        notice: dict[str, Any] = {
            "awsRegion": "us-east-1",
            "receivedTime": _time(received),
            "requestParameters": {
                "endpointName": endpoint.name,
                "contentType": headers.get("content-type"),
                "inputLocation": parameters.get("InputLocation"),
            },
            "inferenceId": accepted.inference_id,
            "eventVersion": "1.0",
            "eventSource": "aws:sagemaker",
            "eventName": "InferenceResult",
        }
        try:
            kind, reply = await self._answer(endpoint, parameters, headers, body)
        except ApiError as error:
            if accepted.failure_location is not None:
                stored = Stored(error.args[1].encode(), "text/plain")
                await self._objects.put(accepted.failure_location, stored)
            notice |= {"invocationStatus": "Failed", "failureReason": f"ClientError: {error.code}"}
        else:
            await self._objects.put(accepted.output_location, Stored(reply, kind))
            told = {"contentType": kind, "outputLocation": accepted.output_location}
            notice |= {"invocationStatus": "Completed", "responseParameters": told}
        self.ended += 1
        if self._publish is not None:
            notice["eventTime"] = _time(datetime.now(UTC))
            await self._publish(notice, notice["invocationStatus"] == "Completed")

    async def _answer(
        self,
        endpoint: "Endpoint",
        parameters: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
    ) -> tuple[str, bytes]:
        """Wait for an instance, and return the container's reply with its content type.

        Raises:
            ApiError: The call has failed.
        """
        if self._free is None:
            self._free = asyncio.Semaphore(CONCURRENT * len(endpoint.instances))
        try:
            async with asyncio.timeout(float(parameters.get("RequestTTLSeconds", TTL_SECONDS))):
                await self._free.acquire()
        except TimeoutError:
            raise ApiError("RequestExpired", 400, "The request has expired in the queue.") from None
        try:
            if "InputLocation" in parameters:
                body = (await self._objects.get(parameters["InputLocation"])).body
            await asyncio.sleep(endpoint.faults.delay_work_seconds)
            seconds = float(parameters.get("InvocationTimeoutSeconds", TIMEOUT_SECONDS))
            reply = await endpoint.work(headers, body, seconds)
        except NoSuchObject:
            raise validation_error("The input object can't be read.") from None
        finally:
            self._free.release()
        return reply.headers.get("content-type", "application/octet-stream"), reply.body

    async def close(self) -> None:
        """Cancel all calls."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
