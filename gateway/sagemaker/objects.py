"""S3 objects: the inputs of asynchronous calls, their outputs and failures."""

import asyncio
from typing import Any

import botocore.exceptions as boto

from gateway.errors import ErrorCode, Failure
from gateway.protocol.discretion import Discreet
from gateway.sagemaker.errors import with_facts
from gateway.sagemaker.said import error_name
from gateway.sagemaker.transport import too_large
from gateway.session.ports import ModelError

AT_ONCE = 50
"""How many objects are read concurrently, and how many are put; others wait."""

DENIED = "AccessDenied"
"""S3's error code, also for an object that doesn't exist if the gateway may not list the bucket."""

_ABSENT = frozenset({"NoSuchKey", "404"})
_BUSY = frozenset({"SlowDown", "Throttling", "RequestLimitExceeded", "ServiceUnavailable"})
_NOT_PUT = Failure(
    code=ErrorCode.UNAVAILABLE,
    message="The message can't be written to where the endpoint reads it; nothing was sent.",
)
_NOT_ALLOWED = Failure(
    code=ErrorCode.UNAVAILABLE,
    message="The gateway has no permission to write the message to where the endpoint reads it.",
    retryable=False,
)


class Found(Discreet, frozen=True):
    """An object.

    Attributes:
        body: Its content.
        content_type: Its content type, as set by its writer.
    """

    body: bytes
    content_type: str | None


class NotRead(Exception):
    """It is unknown whether an object exists; the text is the error of S3 or the connection."""


class Objects:
    """Reads and writes objects. A location is ``s3://BUCKET/KEY``.

    Args:
        client: An aiobotocore client for ``s3``.
        seconds: How long a call may take; for a put, with the wait for its turn.
        most: The largest object that is read.
    """

    def __init__(self, client: Any, *, seconds: float, most: int) -> None:
        self._client = client
        self._seconds = seconds
        self._most = most
        self._reading = asyncio.Semaphore(AT_ONCE)
        self._putting = asyncio.Semaphore(AT_ONCE)  # so that new turns don't wait for polls

    async def put(self, location: str, body: bytes, content_type: str) -> None:
        """Write an object.

        Raises:
            ModelError: It may not have been written.
        """
        bucket, key = _parts(location)
        try:
            async with asyncio.timeout(self._seconds), self._putting:
                await self._client.put_object(
                    Bucket=bucket, Key=key, Body=body, ContentType=content_type
                )
        except boto.ClientError as error:
            code, status = _said(error)
            failure = _NOT_PUT if code in _BUSY or status >= 500 else _NOT_ALLOWED
            facts = {"operation": "PutObject", "code": error_name(code), "status": status}
            raise ModelError(with_facts(failure, **facts)) from None
        except Exception as error:  # noqa: BLE001 - renewing credentials raises anything
            facts = {"operation": "PutObject", "raised": type(error).__name__}
            raise ModelError(with_facts(_NOT_PUT, **facts)) from None

    async def get(self, location: str) -> Found | None:
        """Read an object; return None if it does not exist.

        Raises:
            NotRead: It is unknown whether it exists.
            ModelError: It is too large.
        """
        bucket, key = _parts(location)
        try:
            async with self._reading, asyncio.timeout(self._seconds):
                answer = await self._client.get_object(Bucket=bucket, Key=key)
                async with answer["Body"] as stream:
                    body = await self._read(stream, answer.get("ContentLength", 0))
        except boto.ClientError as error:
            code, _ = _said(error)
            if code in _ABSENT:
                return None
            raise NotRead(error_name(code)) from None
        except ModelError:
            raise
        except Exception as error:  # noqa: BLE001 - as above; the poll outlasts temporary errors
            raise NotRead(type(error).__name__) from None
        return Found(body, answer.get("ContentType"))

    async def _read(self, stream: Any, length: int) -> bytes:
        if length > self._most:
            raise too_large(self._most)
        whole = bytearray()
        async for chunk in stream.iter_chunks(65_536):
            whole += chunk
            if len(whole) > self._most:
                raise too_large(self._most)
        return bytes(whole)


def _parts(location: str) -> tuple[str, str]:
    bucket, _, key = location.partition("://")[2].partition("/")
    return bucket, key


def _said(error: boto.ClientError) -> tuple[str, int]:
    """Return the code and the status of an error."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return str(error.response.get("Error", {}).get("Code", "")), status
