"""All uses of undocumented parts of botocore and aiobotocore.

Any version may lack any of them. This module can be imported anyway, and if something is missing or
has changed, `discover` raises: calls are then made through aiobotocore, which needs none of this.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from gateway.sagemaker.connection import Reply
from gateway.sagemaker.pool import Origin
from gateway.sagemaker.requests import Operation
from gateway.sagemaker.signing import Signer

MODULES: Mapping[str, tuple[str, ...]] = {
    "botocore": ("UNSIGNED",),
    "botocore.awsrequest": ("HeadersDict",),
    "botocore.httpsession": ("ProxyConfiguration", "create_urllib3_context", "get_cert_path"),
    "botocore.parsers": ("create_parser",),
    "botocore.utils": ("normalize_url_path",),
    "botocore.validate": ("validate_parameters",),
}
"""The names that are imported, by module."""

OPERATIONS: Mapping[str, str] = {
    "InvokeEndpoint": "invoke_endpoint",
    "InvokeEndpointWithResponseStream": "invoke_endpoint_with_response_stream",
}
"""The client's methods, by the API's names."""

_OURS = {"amz-sdk-invocation-id", "content-length"}  # differ for each call
_UNSIGNED = {"amz-sdk-request", "user-agent", "x-amzn-trace-id"}
_PORTS = {"http": 80, "https": 443}


class NotLean(Exception):
    """The lean transport can't be used; the text says why, and contains no secret."""


class Sdk(msgspec.Struct, frozen=True):
    """How the calls are made, as aiobotocore would make them.

    Attributes:
        origin: Where to connect.
        signer: Signs them.
        whole: InvokeEndpoint.
        streamed: InvokeEndpointWithResponseStream.
        error_of: Converts an error response to botocore's exception.
    """

    origin: Origin
    signer: Signer
    whole: Operation
    streamed: Operation
    error_of: Callable[[Operation, Reply], Exception]


async def discover(client: Any, credentials: Any, options: Mapping[str, Any]) -> Sdk:
    """Find out how a client makes its calls, and test each piece of it.

    Args:
        client: An aiobotocore client for ``sagemaker-runtime``.
        credentials: The aiobotocore credentials that it signs with; None if there are none.
        options: The options of its HTTP session.

    Raises:
        NotLean: The client does something that the lean transport can't, or a piece is missing.
    """
    names = _names()
    try:
        return await _discover(client, credentials, options, names)
    except NotLean:
        raise
    except (AttributeError, KeyError, TypeError, ImportError) as error:
        raise NotLean(f"the AWS SDK is another than is known: {error}") from None
    except Exception as error:  # noqa: BLE001 - after any error, aiobotocore is used instead
        raise NotLean(f"the AWS SDK raises {type(error).__name__}") from None


def _names() -> dict[str, Any]:
    """Import the names of `MODULES`."""
    found = {}
    for module, names in MODULES.items():
        for name in names:
            try:
                found[name] = getattr(import_module(module), name)
            except (AttributeError, ImportError):
                raise NotLean(f"the AWS SDK has no {module}.{name}") from None
    return found


async def _discover(
    client: Any, credentials: Any, options: Mapping[str, Any], names: Mapping[str, Any]
) -> Sdk:
    if credentials is not None:
        _ = credentials.get_frozen_credentials
    whole, streamed = [await _rehearse(client, name, names["UNSIGNED"]) for name in OPERATIONS]
    if whole[:3] != streamed[:3]:
        raise NotLean("the operations are not called in one place")
    url, region, service = whole[:3]
    at = urlsplit(url)
    if at.scheme not in _PORTS or at.query or at.fragment or at.username or not at.hostname:
        raise NotLean("the endpoint's address is not a plain one")
    if names["ProxyConfiguration"](proxies=options.get("proxies")).proxy_url_for(url):
        raise NotLean("there is a proxy")
    host = f"[{at.hostname}]" if ":" in at.hostname else at.hostname
    port = at.port or _PORTS[at.scheme]
    if port != _PORTS[at.scheme]:
        host = f"{host}:{port}"
    context = None
    if at.scheme == "https":
        context = await asyncio.to_thread(
            _tls,
            names["create_urllib3_context"],
            names["get_cert_path"],
            options.get("verify", True),
            options.get("client_cert"),
        )

    def operation_of(rehearsal: _Rehearsal) -> Operation:
        return Operation(
            rehearsal.operation,
            at.path,
            host,
            rehearsal.constant,
            validate=names["validate_parameters"],
            normalize=names["normalize_url_path"],
        )

    def error_of(operation: Operation, reply: Reply) -> Exception:
        return _error_of(client, names["create_parser"], names["HeadersDict"], operation, reply)

    names["validate_parameters"](_PARAMETERS, whole.operation.input_shape)
    sdk = Sdk(
        Origin(at.hostname, port, context),
        Signer(region, service),
        operation_of(whole),
        operation_of(streamed),
        error_of,
    )
    _try(sdk)
    return sdk


def _try(sdk: Sdk) -> None:
    """Build a request and parse an error of each operation."""
    for operation in (sdk.whole, sdk.streamed):
        operation.head(_PARAMETERS, None, _NoKeys(), sdk.signer, 0.0)
        error = sdk.error_of(operation, _REFUSAL)
        if getattr(error, "response", {}).get("Error", {}).get("Code") != "ModelError":
            raise NotLean("the AWS SDK reads errors in another way")


_PARAMETERS: dict[str, Any] = {"EndpointName": "e", "Body": b""}
_REFUSAL = Reply(424, {"x-amzn-errortype": "ModelError"}, b'{"OriginalStatusCode": 500}')


class _NoKeys(NamedTuple):
    """Credentials for a test signature."""

    access_key: str = ""
    secret_key: str = ""
    token: str | None = None


class _Rehearsed(Exception):
    """Ends a call of aiobotocore before it is sent."""

    def __init__(self, request: Any) -> None:
        super().__init__()
        self.request = request


class _Rehearsal(NamedTuple):
    """How aiobotocore calls an operation.

    Attributes:
        url: Its URL, without the API model's path.
        region: The region of the signature.
        service: The service of the signature.
        operation: The operation's model.
        constant: Headers that are the same in each call.
    """

    url: str
    region: str
    service: str
    operation: Any
    constant: Mapping[str, str]


@contextmanager
def _rehearsing(events: Any, unsigned: Any) -> Iterator[Mapping[str, Any]]:
    """Let a client's calls end with `_Rehearsed`, and yield how they would have been signed."""
    signing: dict[str, Any] = {}
    rehearsing = True  # so that later calls work, even if handlers can't be unregistered

    def choose_signer(**how: Any) -> Any:
        signing.update(how)
        return unsigned if rehearsing else None

    def before_send(request: Any, **_: Any) -> None:
        if rehearsing:
            raise _Rehearsed(request)

    try:
        # The last handler, so that others that choose a signer come first, and are detected.
        events.register_last("choose-signer", choose_signer)
        events.register_first("before-send", before_send)
        yield signing
    finally:
        rehearsing = False
        events.unregister("choose-signer", choose_signer)
        events.unregister("before-send", before_send)


async def _rehearse(client: Any, name: str, unsigned: Any) -> _Rehearsal:
    """Let the client make a call up to signing and sending, which needs no credentials."""
    with _rehearsing(client.meta.events, unsigned) as signing:
        method = getattr(client, OPERATIONS[name])
        try:
            await method(**_PARAMETERS)
        except _Rehearsed as call:
            request = call.request
        except Exception as error:  # noqa: BLE001 - each call would fail like this one
            raise NotLean(f"no call can be made: {type(error).__name__}") from None
        else:
            raise NotLean("the client does not send its calls")
    operation = client.meta.service_model.operation_model(name)
    path = operation.http["requestUri"].replace("{EndpointName}", "e")
    if signing.get("signature_version") != "v4":
        raise NotLean("the calls are signed in another way")
    if request.method != "POST" or not request.url.endswith(path):
        raise NotLean("the calls are addressed in another way")
    headers = {
        key: value.decode() if isinstance(value, bytes) else value
        for key, value in request.headers.items()
        if key.lower() not in _OURS
    }
    if not _UNSIGNED.issuperset(key.lower() for key in headers):
        raise NotLean("the calls have further headers")
    return _Rehearsal(
        url=request.url.removesuffix(path),
        region=signing["region_name"],
        service=signing["signing_name"],
        operation=operation,
        constant=headers,
    )


def _error_of(
    client: Any, create_parser: Any, headers_dict: Any, operation: Operation, reply: Reply
) -> Exception:
    service = client.meta.service_model
    parser = create_parser(service.resolved_protocol)
    answer = {
        "headers": headers_dict(reply.headers),
        "status_code": reply.status,
        "body": reply.body,
        "context": {"operation_name": operation.model.name},
    }
    parsed = parser.parse(answer, operation.model.output_shape)
    code = parsed.get("Error", {}).get("Code")
    shape = None if code is None else service.shape_for_error_code(code)
    if shape is not None:
        parsed.update(parser.parse(answer, shape))
    kind = client.exceptions.from_code(code)
    error: Exception = kind(parsed, operation.model.name)
    return error


def _tls(
    new_context: Any, certificates_of: Any, verify: bool | str, certificate: Any
) -> ssl.SSLContext:
    """Make a TLS context as aiobotocore does.

    Args:
        new_context: botocore's function for contexts.
        certificates_of: botocore's function for the certificates to trust.
        verify: Whether to verify certificates, or the certificates to trust.
        certificate: The client certificate: its path, or its path and its key's.
    """
    context: ssl.SSLContext = new_context()
    if verify:
        context.check_hostname = True
        context.load_verify_locations(certificates_of(verify))
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate:
        context.load_cert_chain(*([certificate] if isinstance(certificate, str) else certificate))
    return context
