"""Verifies signatures by recomputing them with botocore's own signer."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from gateway.local.api import ApiError

SERVICE = "sagemaker"
SKEW = timedelta(minutes=5)
"""Maximum clock skew of a request, as on AWS."""

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/,]+)/(?P<scope>[^,]+),\s*"
    r"SignedHeaders=(?P<headers>[^,]+),\s*Signature=(?P<signature>[0-9a-f]{64})"
)


def _invalid(message: str) -> ApiError:
    return ApiError("InvalidSignatureException", 403, message)


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y%m%dT%H%M%SZ")


class Verifier:
    """Verifies requests that are signed with one access key, for one region and service.

    Args:
        access_key: id of the key.
        secret_key: Secret of the key.
        region: Region that requests must be signed for.
        service: Service that requests must be signed for.
        clock_seconds: How far its clock is ahead of this machine's.
    """

    def __init__(
        self,
        *,
        access_key: str,
        secret_key: str,
        region: str,
        service: str = SERVICE,
        clock_seconds: float = 0.0,
    ) -> None:
        self._access_key = access_key
        self._ahead = timedelta(seconds=clock_seconds)
        self._region = region
        self._service = service
        kind: type[SigV4Auth] = S3SigV4Auth if service == "s3" else SigV4Auth
        self._signer = kind(Credentials(access_key, secret_key), service, region)

    def check(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> None:
        """Verify a request.

        Args:
            method: HTTP method.
            url: URL as the client requested it.
            headers: Headers by name in lower case.
            body: The complete body.

        Raises:
            ApiError: Its signature is missing or not valid.
        """
        authorization = headers.get("authorization")
        if authorization is None:
            raise ApiError(
                "MissingAuthenticationTokenException", 403, "Missing Authentication Token"
            )
        match = _AUTHORIZATION.fullmatch(authorization)
        if match is None:
            raise ApiError("IncompleteSignature", 403, "Authorization header is malformed.")
        if not hmac.compare_digest(match["key"].encode(), self._access_key.encode()):
            raise ApiError(
                "UnrecognizedClientException",
                403,
                "The security token included in the request is invalid.",
            )
        timestamp = headers.get("x-amz-date", "")
        self._check_time(timestamp)
        if match["scope"] != f"{timestamp[:8]}/{self._region}/{self._service}/aws4_request":
            scope = match["scope"].split("/")
            region = scope[1] if len(scope) > 1 else ""
            raise _invalid(f"Credential should be scoped to a valid region, not '{region}'. ")
        names = match["headers"].split(";")
        hashed = headers.get("x-amz-content-sha256")
        if hashed is not None and hashed != hashlib.sha256(body).hexdigest():
            raise _invalid("The body is not what was signed.")
        if "host" not in names or "x-amz-date" not in names:
            raise _invalid("'Host' and 'X-Amz-Date' must be signed.")
        expected = self._signature(method, url, {n: headers.get(n, "") for n in names}, body)
        if not hmac.compare_digest(expected, match["signature"]):
            raise _invalid("The request signature we calculated does not match the one provided.")

    def _check_time(self, timestamp: str) -> None:
        try:
            moment = datetime.strptime(timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        except ValueError:
            raise _invalid("Date must be in ISO-8601 'basic format'.") from None
        now = datetime.now(UTC) + self._ahead
        least, most = now - SKEW, now + SKEW
        minutes = f"{SKEW.total_seconds() / 60:.0f} min."
        if moment < least:
            between = f"{timestamp} is now earlier than {_stamp(least)} ({_stamp(now)} - {minutes})"
            raise _invalid(f"Signature expired: {between}")
        if moment > most:
            between = f"{timestamp} is still later than {_stamp(most)} ({_stamp(now)} + {minutes})"
            raise _invalid(f"Signature not yet current: {between}")

    def _signature(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> str:
        request = AWSRequest(method=method, url=url, headers=dict(headers), data=body)
        request.context["timestamp"] = headers["x-amz-date"]
        canonical = self._signer.canonical_request(request)
        signature = self._signer.signature(self._signer.string_to_sign(request, canonical), request)
        return str(signature)
