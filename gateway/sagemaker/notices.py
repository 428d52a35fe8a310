"""Notices of completed asynchronous calls: published by the endpoint, received from a queue.

A notice is a hint to poll now, and never relied on. If several replicas receive from one queue,
most notices reach a replica that doesn't await them: it passes them on a few times by making them
visible again soon, and the awaiting replica keeps polling anyway.
"""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import botocore.exceptions as boto
import msgspec
import structlog

from gateway.logs import LogLimit
from gateway.protocol.discretion import Discreet
from gateway.sagemaker.said import error_name
from gateway.session.ports import Receipt

WAIT_SECONDS = 20
"""Duration of a long poll: the longest that SQS allows."""

HIDDEN_SECONDS = 30
"""How long a message is hidden from other receivers while it is processed."""

PASSED_ON = 10
"""How often a message may be received before it is deleted, if nobody here awaits it."""

FAILED_SECONDS = 60
"""How long the notice of a failure is passed on: it may be the only record of it, and a replica
that takes the awaiting session over needs some time."""

PASS_SECONDS = 1
"""How soon a message that is passed on is visible again."""

AGAIN_SECONDS = 30.0
"""The longest pause before a queue that failed is polled again."""

LINES_A_MINUTE = 1

log = structlog.stdlib.get_logger("gateway.sagemaker")


class _Response(Discreet, frozen=True, rename="camel"):
    output_location: str | None = None


class Notice(Discreet, frozen=True, rename="camel"):
    """The endpoint's notice about a call.

    Attributes:
        inference_id: The call.
        invocation_status: ``Completed`` or ``Failed``.
        failure_reason: AWS's text about a failure.
        response_parameters: Where its output is.
    """

    inference_id: str | None = None
    invocation_status: str | None = None
    failure_reason: str | None = None
    response_parameters: _Response | None = None

    @property
    def has_failed(self) -> bool:
        """Whether there will be no reply."""
        return self.invocation_status == "Failed"


class _Envelope(Discreet, frozen=True):
    """SNS's envelope of a message, unless raw delivery is on."""

    Message: str


OnNotice = Callable[[Notice | None], None]
"""Called with a notice; or with None, when the queue can't be read any more."""


class Notices:
    """Receives from one queue.

    Args:
        client: An aiobotocore client for ``sqs``.
        url: The queue's URL.
    """

    def __init__(self, client: Any, url: str) -> None:
        self.is_up = False
        """Whether the last poll has succeeded, so that notices arrive without delay."""
        self._client = client
        self._url = url
        self._waiting: defaultdict[str, list[OnNotice]] = defaultdict(list)
        self._logged = LogLimit(LINES_A_MINUTE)

    def expect(self, receipt: Receipt, on_notice: OnNotice) -> Callable[[], None]:
        """Call `on_notice` with each notice of a call; returns a function that stops this."""
        keys = (receipt.id, receipt.reply_at)
        for key in keys:
            self._waiting[key].append(on_notice)

        def leave() -> None:
            for key in keys:
                self._waiting[key].remove(on_notice)
                if not self._waiting[key]:
                    del self._waiting[key]

        return leave

    async def run(self) -> None:
        """Receive until this is cancelled."""
        pause = 1.0
        while True:
            try:
                await self._receive()
            except Exception as error:  # noqa: BLE001 - any error may be temporary
                if self.is_up:
                    self.is_up = False
                    self._tell_all()
                self._log(error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, AGAIN_SECONDS)
            else:
                self.is_up, pause = True, 1.0

    async def _receive(self) -> None:
        answer = await self._client.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=WAIT_SECONDS if self.is_up else 0,  # to find out soon whether it works
            VisibilityTimeout=HIDDEN_SECONDS,
            MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
        )
        done: list[dict[str, Any]] = []
        others: list[dict[str, Any]] = []
        for number, message in enumerate(answer.get("Messages", [])):
            entry = {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
            notice = notice_of(message.get("Body", ""))
            if notice is None or self._take(notice) or _is_old(notice, message):
                done.append(entry)
            else:
                others.append({**entry, "VisibilityTimeout": PASS_SECONDS})
        if done:
            await self._client.delete_message_batch(QueueUrl=self._url, Entries=done)
        if others:
            await self._client.change_message_visibility_batch(QueueUrl=self._url, Entries=others)

    def _tell_all(self) -> None:
        """Tell all that await a notice to poll, since none will arrive."""
        for on_notice in {
            id(each): each for found in self._waiting.values() for each in found
        }.values():
            on_notice(None)

    def _take(self, notice: Notice) -> bool:
        """Pass a notice on; returns whether anything here awaits it."""
        found = {id(each): each for key in _keys(notice) for each in self._waiting.get(key, ())}
        for on_notice in found.values():
            on_notice(notice)
        return bool(found)

    def _log(self, error: Exception) -> None:
        name = type(error).__name__
        if isinstance(error, boto.ClientError):
            name = error_name(str(error.response.get("Error", {}).get("Code", "")))
        suppressed = self._logged.suppressed("")
        if suppressed is not None:
            log.warning("a queue can't be read", queue=self._url, why=name, suppressed=suppressed)


def notice_of(body: str) -> Notice | None:
    """Parse a message; None if it is not a notice."""
    try:
        with contextlib.suppress(msgspec.ValidationError):  # raw delivery
            body = msgspec.json.decode(body, type=_Envelope).Message
        return msgspec.json.decode(body, type=Notice)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _is_old(notice: Notice, message: Mapping[str, Any]) -> bool:
    """Whether it was passed on for long enough."""
    attributes = message.get("Attributes", {})
    if int(attributes.get("ApproximateReceiveCount", PASSED_ON)) < PASSED_ON:
        return False
    sent = int(attributes.get("SentTimestamp", 0)) / 1000
    return not notice.has_failed or time.time() - sent >= FAILED_SECONDS


def _keys(notice: Notice) -> Sequence[str]:
    where = notice.response_parameters
    location = None if where is None else where.output_location
    return [key for key in (notice.inference_id, location) if key]
