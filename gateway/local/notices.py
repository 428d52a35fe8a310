"""A subset of SQS for asynchronous inference: one queue, which is subscribed to its topics."""

import asyncio
import hashlib
import time
import uuid
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from gateway.local.api import ApiError
from gateway.local.signing import Verifier
from gateway.local.visits import ClientGone, unless_gone

MAX_MESSAGES = 10_000
"""Maximum length of the queue; the oldest messages are dropped."""

VISIBILITY_SECONDS = 30.0
"""Default visibility timeout."""

MAX_RECEIVED = 10
MAX_WAIT_SECONDS = 20.0


class Message(Struct):
    """A message of the queue.

    Attributes:
        sent_at: When it was added, in seconds since the epoch.
        visible_at: When it can be received again, by the loop's clock.
        received: How often it was received.
        handle: Receipt handle of the last time.
    """

    id: str
    body: str
    sent_at: float
    visible_at: float = 0.0
    received: int = 0
    handle: str = ""


class Queue:
    """A queue."""

    def __init__(self) -> None:
        self._messages: dict[str, Message] = {}
        self._came = asyncio.Event()

    def __len__(self) -> int:
        return len(self._messages)

    async def publish(self, notice: Mapping[str, Any], _succeeded: bool) -> None:
        """Add a notification in SNS's envelope; the queue is subscribed to both topics."""
        envelope = {
            "Type": "Notification",
            "MessageId": str(uuid.uuid4()),
            "TopicArn": "arn:aws:sns:us-east-1:000000000000:local",
            "Message": msgspec.json.encode(notice).decode(),
        }
        self.add(msgspec.json.encode(envelope).decode())

    def add(self, body: str) -> None:
        """Add a message."""
        message = Message(str(uuid.uuid4()), body, time.time())
        self._messages[message.id] = message
        if len(self._messages) > MAX_MESSAGES:
            del self._messages[next(iter(self._messages))]
        self._came.set()

    async def receive(self, most: int, wait: float, hidden: float) -> list[Message]:
        """Receive messages, as soon as there is one.

        Args:
            most: Maximum number of messages.
            wait: Seconds to wait for one.
            hidden: Visibility timeout in seconds.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        while True:
            now = loop.time()
            found = [each for each in self._messages.values() if each.visible_at <= now][:most]
            if found or now >= until:
                break
            self._came.clear()
            due = min((each.visible_at for each in self._messages.values()), default=until)
            try:
                async with asyncio.timeout_at(min(due, until)):
                    await self._came.wait()
            except TimeoutError:
                pass
        for message in found:
            message.visible_at = now + hidden
            message.received += 1
            message.handle = f"{message.id}/{message.received}"
        return found

    def delete(self, handle: str) -> None:
        """Delete a message, if it exists."""
        self._messages.pop(handle.partition("/")[0], None)

    def hide(self, handle: str, seconds: float) -> None:
        """Change a message's visibility timeout."""
        message = self._messages.get(handle.partition("/")[0])
        if message is not None and message.handle == handle:
            message.visible_at = asyncio.get_running_loop().time() + seconds
            self._came.set()


class QueueApi:
    """ReceiveMessage, DeleteMessageBatch and ChangeMessageVisibilityBatch, in JSON.

    Args:
        queue: The queue, which answers at any queue URL.
        verifier: Checks signatures.
    """

    def __init__(self, queue: Queue, verifier: Verifier) -> None:
        self._queue = queue
        self._verifier = verifier

    async def call(self, request: Request) -> Response:
        """Handle a call."""
        body = await request.body()
        try:
            self._verifier.check(request.method, str(request.url), request.headers, body)
            asked = msgspec.json.decode(body)
            operation = request.headers.get("x-amz-target", "").partition(".")[2]
            answer = await unless_gone(request.receive, self._do(operation, asked))
        except ApiError as error:
            return _refusal(error.status, error.code)
        except ClientGone:
            return Response(status_code=499)
        return _answer(200, answer)

    async def _do(self, operation: str, asked: dict[str, Any]) -> dict[str, Any]:
        entries: list[dict[str, Any]] = asked.get("Entries", [])
        match operation:
            case "ReceiveMessage":
                messages = await self._queue.receive(
                    min(asked.get("MaxNumberOfMessages", 1), MAX_RECEIVED),
                    min(asked.get("WaitTimeSeconds", 0), MAX_WAIT_SECONDS),
                    asked.get("VisibilityTimeout", VISIBILITY_SECONDS),
                )
                return {"Messages": [_shown(message) for message in messages]} if messages else {}
            case "DeleteMessageBatch":
                for entry in entries:
                    self._queue.delete(entry["ReceiptHandle"])
            case "ChangeMessageVisibilityBatch":
                for entry in entries:
                    self._queue.hide(entry["ReceiptHandle"], entry["VisibilityTimeout"])
            case _:
                raise ApiError("UnsupportedOperation", 400, "There is no such operation here.")
        return {"Successful": [{"Id": entry["Id"]} for entry in entries], "Failed": []}


def _shown(message: Message) -> dict[str, Any]:
    digest = hashlib.md5(message.body.encode(), usedforsecurity=False).hexdigest()
    return {
        "MessageId": message.id,
        "ReceiptHandle": message.handle,
        "Body": message.body,
        "MD5OfBody": digest,
        "Attributes": {
            "ApproximateReceiveCount": str(message.received),
            "SentTimestamp": str(round(1000 * message.sent_at)),
        },
    }


def _answer(status: int, body: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/x-amz-json-1.0")


def _refusal(status: int, code: str) -> Response:
    return _answer(status, {"__type": f"com.amazonaws.sqs#{code}", "message": code})
