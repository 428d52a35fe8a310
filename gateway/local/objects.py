"""A subset of S3 for asynchronous inference: getting and putting objects."""

import time
import uuid
from collections import OrderedDict
from email.utils import formatdate
from typing import Protocol
from urllib.parse import quote
from xml.sax.saxutils import escape

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from gateway.local.api import ApiError
from gateway.local.signing import Verifier

MAX_HELD_BYTES = 268_435_456
"""Maximum size of all objects together; the oldest are dropped."""


class NoSuchObject(Exception):
    """The object does not exist."""


class Stored(Struct, frozen=True):
    """An object."""

    body: bytes
    content_type: str
    at: float = 0.0


class Objects(Protocol):
    """The operations of S3 that asynchronous inference uses. Locations are ``s3://BUCKET/KEY``."""

    async def get(self, location: str) -> Stored:
        """Read an object.

        Raises:
            NoSuchObject: It does not exist.
        """
        ...

    async def put(self, location: str, stored: Stored) -> None:
        """Write an object."""
        ...


class Bucket:
    """All buckets, in memory; each bucket name exists.

    Attributes:
        lists: Whether callers may list buckets; if not, S3 reports missing objects as forbidden.
    """

    def __init__(self) -> None:
        self.lists = True
        self._objects: OrderedDict[str, Stored] = OrderedDict()
        self._held = 0

    async def get(self, location: str) -> Stored:
        """See `Objects.get`."""
        try:
            return self._objects[location]
        except KeyError:
            raise NoSuchObject(location) from None

    async def put(self, location: str, stored: Stored) -> None:
        """See `Objects.put`."""
        self._drop(location)
        self._objects[location] = Stored(stored.body, stored.content_type, time.time())
        self._held += len(stored.body)
        while self._held > MAX_HELD_BYTES:
            self._drop(next(iter(self._objects)))

    def _drop(self, location: str) -> None:
        dropped = self._objects.pop(location, None)
        if dropped is not None:
            self._held -= len(dropped.body)

    @property
    def locations(self) -> list[str]:
        """Locations of all objects, oldest first."""
        return [*self._objects]


class ObjectApi:
    """GetObject, HeadObject and PutObject, with path-style URLs.

    Args:
        bucket: The objects.
        verifier: Checks signatures.
    """

    def __init__(self, bucket: Bucket, verifier: Verifier) -> None:
        self._bucket = bucket
        self._verifier = verifier

    async def call(self, request: Request) -> Response:
        """Handle a call."""
        body = await request.body()
        path = quote(request.path_params["path"], safe="/~")
        try:
            self._verifier.check(request.method, _url(request, path), request.headers, body)
            location = f"s3://{request.path_params['path']}"
            if request.method == "PUT":
                kind = request.headers.get("content-type", "binary/octet-stream")
                await self._bucket.put(location, Stored(body, kind))
                return Response(headers=_headers())
            stored = await self._bucket.get(location)
        except ApiError as error:
            return _refusal(error.status, error.code)
        except NoSuchObject:
            if self._bucket.lists:
                return _refusal(404, "NoSuchKey")
            return _refusal(403, "AccessDenied")
        headers = {
            **_headers(),
            "content-type": stored.content_type,
            "last-modified": formatdate(stored.at, usegmt=True),
        }
        return Response(stored.body, headers=headers)


def _url(request: Request, path: str) -> str:
    """Return the URL as it was signed: S3 does not encode paths twice."""
    url = request.url
    return f"{url.scheme}://{url.netloc}{request.scope['root_path']}/_s3/{path}"


def _headers() -> dict[str, str]:
    return {"x-amz-request-id": uuid.uuid4().hex[:16].upper()}


def _refusal(status: int, code: str) -> Response:
    body = f"<Error><Code>{escape(code)}</Code><Message>{escape(code)}</Message></Error>"
    return Response(body, status, _headers(), media_type="application/xml")
