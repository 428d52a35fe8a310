"""Notices of asynchronous calls that have ended: published by the endpoint, received from a queue.

A notice is a hint to look now; none is relied on. Where several replicas receive from one queue,
most notices come to one that does not wait for them: it passes them on a few times by letting them
be received again soon, and whoever waits looks by itself once in a while anyway.
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
"""How long a queue is asked to wait for a message: the longest that SQS allows."""

HIDDEN_SECONDS = 30
"""How long a message is hidden from others while it is looked at here."""

PASSED_ON = 10
"""How often a message may be received before one that nobody here waits for is deleted."""

FAILED_SECONDS = 60
"""For how long the notice of a failure is passed on: it may be all that there is of it, and whoever
takes a session over that waits for it needs some time."""

PASS_SECONDS = 1
"""How soon it is received again."""

AGAIN_SECONDS = 30.0
"""How soon at the latest a queue is asked again that could not be."""

LINES_A_MINUTE = 1

log = structlog.stdlib.get_logger("gateway.sagemaker")


class _Response(Discreet, frozen=True, rename="camel"):
    output_location: str | None = None


class Notice(Discreet, frozen=True, rename="camel"):
    """What the endpoint says of a call.

    Attributes:
        inference_id: Which.
        invocation_status: ``Completed`` or ``Failed``.
        failure_reason: Why, in AWS's words.
        response_parameters: Where its output is.
    """

    inference_id: str | None = None
    invocation_status: str | None = None
    failure_reason: str | None = None
    response_parameters: _Response | None = None

    @property
    def has_failed(self) -> bool:
        """Whether no reply comes."""
        return self.invocation_status == "Failed"


class _Envelope(Discreet, frozen=True):
    """What SNS puts a message in, unless it is told to deliver it raw."""

    Message: str


OnNotice = Callable[[Notice | None], None]
"""Takes a notice; or None, when the queue can't be read any more."""


class Notices:
    """Receives from one queue.

    Args:
        client: aiobotocore's, for ``sqs``.
        url: The queue's.
    """

    def __init__(self, client: Any, url: str) -> None:
        self.is_up = False
        """Whether the queue could be asked last: notices come as soon as there are any."""
        self._client = client
        self._url = url
        self._waiting: defaultdict[str, list[OnNotice]] = defaultdict(list)
        self._logged = LogLimit(LINES_A_MINUTE)

    def expect(self, receipt: Receipt, on_notice: OnNotice) -> Callable[[], None]:
        """Call this with each notice of a call; returns what ends that."""
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
            except Exception as error:  # noqa: BLE001 - whatever it is, it may pass
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
            WaitTimeSeconds=WAIT_SECONDS if self.is_up else 0,  # to know soon whether it works
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
        """Nobody is told of anything any more, and each has to look."""
        for on_notice in {
            id(each): each for found in self._waiting.values() for each in found
        }.values():
            on_notice(None)

    def _take(self, notice: Notice) -> bool:
        """Tell whoever waits for it; whether anybody does."""
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
    """What a message says; None where it is none."""
    try:
        with contextlib.suppress(msgspec.ValidationError):  # where it has been delivered raw
            body = msgspec.json.decode(body, type=_Envelope).Message
        return msgspec.json.decode(body, type=Notice)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _is_old(notice: Notice, message: Mapping[str, Any]) -> bool:
    """Whether it has been passed on for long enough."""
    attributes = message.get("Attributes", {})
    if int(attributes.get("ApproximateReceiveCount", PASSED_ON)) < PASSED_ON:
        return False
    sent = int(attributes.get("SentTimestamp", 0)) / 1000
    return not notice.has_failed or time.time() - sent >= FAILED_SECONDS


def _keys(notice: Notice) -> Sequence[str]:
    where = notice.response_parameters
    location = None if where is None else where.output_location
    return [key for key in (notice.inference_id, location) if key]
