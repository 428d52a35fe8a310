"""Calls that cost little: what does not change from one to the next is found out once.

aiobotocore stays in charge of what it is good at: where to call, who signs, what the API is like,
and what an error means. It is asked how it would make a call, and from then on the same bytes are
put together here. Whatever it does that is not foreseen here makes `lean_transport` refuse, and
then the calls are its own.
"""

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from operator import itemgetter
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit
from uuid import uuid4

import botocore
import msgspec
from botocore import exceptions as boto
from botocore import xform_name
from botocore.awsrequest import HeadersDict
from botocore.httpsession import ProxyConfiguration, create_urllib3_context, get_cert_path
from botocore.parsers import create_parser
from botocore.utils import normalize_url_path
from botocore.validate import validate_parameters

from gateway.sagemaker.connections import (
    Connections,
    Exchange,
    Headers,
    OnGoodHead,
    Reply,
    Server,
)
from gateway.sagemaker.parts import Parts
from gateway.sagemaker.signing import Signer
from gateway.sagemaker.transport import (
    Limits,
    OnBytes,
    OnEnd,
    OnHead,
    OnPayloads,
    StreamedReply,
    streamed_reply,
    too_large,
)
from gateway.session.ports import Call, ModelError

Clock = Callable[[], float]
"""Gives the time in seconds since the epoch."""

Values = Callable[[dict[str, Any]], tuple[Any, ...]]
"""Gives some of the parameters' values."""

_KEPT = 1_000  # plans, of which there are as many as kinds of calls to each endpoint
_OURS = {"amz-sdk-invocation-id", "content-length"}  # made for each call
_UNSIGNED = {"amz-sdk-request", "user-agent", "x-amzn-trace-id"}
_PORTS = {"http": 80, "https": 443}


class NotLean(Exception):
    """The calls can't be made here; the text says why."""


class _Rehearsed(Exception):
    """Ends a call of aiobotocore in place of sending it."""

    def __init__(self, request: Any) -> None:
        super().__init__()
        self.request = request


class _Plan(msgspec.Struct, frozen=True):
    """How a request to one endpoint is written that has certain parameters.

    Attributes:
        before: Gives the values of the headers that come before those of the time and the token
            where they are signed, in alphabetical order.
        after: Gives the others.
        least: How long some of them have to be.
        canonical: What is signed: a format for those values, and a hash of the body.
        signed: The names of the headers that are signed.
        head: The request's head: a format for the same values, the authorization, a UUID and the
            body's length.
    """

    before: Values
    after: Values
    least: list[tuple[str, int]]
    canonical: str
    signed: str
    head: str


class _Operation:
    """One operation of the API, as aiobotocore calls it.

    Args:
        model: Its model.
        prefix: The path that everything is under.
        host: ``Host``.
        constant: Further headers, the same in each call, that are not signed.
    """

    def __init__(self, model: Any, prefix: str, host: str, constant: Mapping[str, str]) -> None:
        self.model = model
        self._prefix = prefix
        self._host = host
        self._constant = constant
        self._uri = model.http["requestUri"]
        self._members = model.input_shape.members
        self._received = [
            (member, shape.serialization["name"].lower())
            for member, shape in model.output_shape.members.items()
            if shape.serialization.get("location") == "header"
        ]
        self._plans: dict[tuple[Any, ...], _Plan] = {}
        self._uuids = _uuids()

    def head(
        self,
        parameters: dict[str, Any],
        sha256: bytes | None,
        keys: Any,
        signer: Signer,
        now: float,
    ) -> bytes:
        """The head of a request, signed.

        Args:
            parameters: As in the API model.
            sha256: The body's digest, where it is known.
            keys: The credentials, frozen.
            signer: Of the region and service.
            now: In seconds since the epoch.

        Raises:
            ParamValidationError: They are not what the API model has.
        """
        token = (keys.token,) if keys.token else ()
        kind = (parameters.get("EndpointName"), not token, *parameters)
        plan = self._plans.get(kind)
        if plan is None:
            plan = self._plan(parameters, token=bool(token))
            if len(self._plans) >= _KEPT:
                self._plans.clear()
            self._plans[kind] = plan
        time = signer.time(now)
        values = signed = (*plan.before(parameters), time, *token, *plan.after(parameters))
        if " " in self._checked(parameters, plan, values):
            signed = tuple(" ".join(value.split()) for value in values)
        body = parameters["Body"]
        hashed = hashlib.sha256(body).hexdigest() if sha256 is None else sha256.hex()
        canonical = plan.canonical % (*signed, hashed)
        authorization = signer.authorization(keys, time, plan.signed, canonical)
        return (plan.head % (*values, authorization, next(self._uuids), len(body))).encode()

    def output(self, headers: Headers) -> dict[str, Any]:
        """The members of the output that the headers of a reply hold."""
        return {member: headers[name] for member, name in self._received if name in headers}

    def _checked(self, parameters: dict[str, Any], plan: _Plan, values: tuple[Any, ...]) -> str:
        """All values in a row, if they are what the API model has."""
        try:
            text = "".join(values)
            fits = type(parameters["Body"]) is bytes
            for name, least in plan.least:
                fits = fits and len(parameters[name]) >= least
        except (KeyError, TypeError):
            text, fits = "", False
        if not fits:
            validate_parameters(parameters, self.model.input_shape)
            raise boto.ParamValidationError(report="`Body` has to be bytes")
        if not (text.isascii() and text.isprintable()):
            raise boto.ParamValidationError(report="a header holds printable ASCII, and no more")
        return text

    def _plan(self, parameters: dict[str, Any], *, token: bool) -> _Plan:
        members = [name for name in parameters if name not in {"EndpointName", "Body"}]
        endpoint: Any = parameters.get("EndpointName")
        if type(endpoint) is not str or not self._members.keys() >= {*members}:
            validate_parameters(parameters, self.model.input_shape)
        path = self._prefix + self._uri.replace("{EndpointName}", quote(endpoint, safe="-._~"))
        names = {self._members[member].serialization["name"]: member for member in members}
        headers = dict.fromkeys([*names, "X-Amz-Date"], "%s")
        headers["Host"] = _literal(self._host)
        if token:
            headers["X-Amz-Security-Token"] = "%s"
        ordered = sorted(headers, key=str.lower)
        signed = ";".join(ordered).lower()
        lines = "".join(f"{name.lower()}:{headers[name]}\n" for name in ordered)
        sent = {
            **{name: headers[name] for name in ordered},
            **{name: _literal(value) for name, value in self._constant.items()},
            "Authorization": "%s",
            "amz-sdk-invocation-id": "%s",
            "Content-Length": "%d",
            "Accept-Encoding": "identity",
        }
        if "Accept" not in headers:
            sent["Accept"] = "*/*"  # as aiohttp does
        head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        middle = ordered.index("X-Amz-Date")
        canonical = _literal(quote(normalize_url_path(path), safe="/~"))
        return _Plan(
            before=_values([names[name] for name in ordered[:middle] if name in names]),
            after=_values([names[name] for name in ordered[middle:] if name in names]),
            least=[
                (member, least)
                for member in members
                if (least := self._members[member].metadata.get("min", 0))
            ],
            canonical=f"POST\n{canonical}\n\n{lines}\n{signed}\n%s",
            signed=signed,
            head=f"POST {_literal(path)} HTTP/1.1\r\n{head}\r\n",
        )


def _values(names: list[str]) -> Values:
    """What gives the values of these keys."""
    if not names:
        return lambda _given: ()
    if len(names) == 1:
        (name,) = names
        return lambda given: (given[name],)
    return itemgetter(*names)


def _literal(text: str) -> str:
    """Text that a format leaves as it is."""
    return text.replace("%", "%%")


def _uuids() -> Iterator[str]:
    """UUIDs, of one operation's calls; each made at random is dearer."""
    first = uuid4().hex
    for number in count():
        yield f"{first[:8]}-{first[8:12]}-{first[12:16]}-{first[16:20]}-{number:012x}"


class LeanTransport:
    """See `gateway.sagemaker.transport.Transport`; made by `lean_transport`."""

    def __init__(
        self,
        client: Any,
        credentials: Any,
        operations: tuple[_Operation, _Operation],
        *,
        signer: Signer,
        connections: Connections,
        limits: Limits,
        clock: Clock,
    ) -> None:
        self._client = client
        self._credentials = credentials
        self._whole, self._streamed = operations
        self._signer = signer
        self._connections = connections
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self.limits = limits

    def invoke_endpoint(
        self,
        parameters: dict[str, Any],
        on_end: OnEnd[dict[str, Any]],
        *,
        sha256: bytes | None = None,
    ) -> Call:
        """See `Transport.invoke_endpoint`."""
        operation, most = self._whole, self.limits.reply_bytes
        response: dict[str, Any] | None = None
        slices: list[bytes] = []
        left = most

        def begin(headers: Headers) -> OnBytes:
            nonlocal response
            response = operation.output(headers)
            return take

        def take(data: bytes) -> None:
            nonlocal left
            left -= len(data)
            if left < 0:
                raise too_large(most)
            slices.append(data)

        def ended(reply: Reply | Exception) -> None:
            if response is None or isinstance(reply, Exception):
                on_end(self._error(operation, reply))
            else:
                response["Body"] = slices[0] if len(slices) == 1 else b"".join(slices)
                on_end(response)

        return self._send(operation, parameters, sha256, begin, ended)

    def invoke_endpoint_with_response_stream(
        self,
        parameters: dict[str, Any],
        on_head: OnHead,
        on_payloads: OnPayloads,
        on_end: OnEnd[StreamedReply],
        *,
        sha256: bytes | None = None,
    ) -> Call:
        """See `Transport.invoke_endpoint_with_response_stream`."""
        operation = self._streamed
        streamed: StreamedReply | None = None
        parts = Parts(on_payloads)

        def begin(headers: Headers) -> OnBytes:
            nonlocal streamed
            streamed = streamed_reply(operation.output(headers))
            on_head(streamed)
            return parts.feed

        def ended(reply: Reply | Exception) -> None:
            if streamed is None or isinstance(reply, Exception):
                on_end(self._error(operation, reply))
                return
            try:
                parts.end()
            except ModelError as error:
                on_end(error)
            else:
                on_end(streamed)

        then = self.limits.stream_timeout
        return self._send(operation, parameters, sha256, begin, ended, then=then)

    def _send(
        self,
        operation: _Operation,
        parameters: dict[str, Any],
        sha256: bytes | None,
        on_head: OnGoodHead,
        on_end: OnEnd[Reply],
        *,
        then: float | None = None,
    ) -> Call:
        loop = self._loop
        deadline = loop.time() + self.limits.call_timeout
        exchange = Exchange(
            parameters.get("Body", b""), on_head, on_end, deadline=deadline, then=then
        )
        keys = self._keys_at_hand()
        if keys is None:
            exchange.starting = loop.create_task(
                self._send_later(operation, parameters, sha256, exchange)
            )
            return exchange
        try:
            exchange.head = operation.head(parameters, sha256, keys, self._signer, self._clock())
        except Exception as error:  # noqa: BLE001 - the caller's
            loop.call_soon(exchange.end, error)
        else:
            self._connections.send(exchange)
        return exchange

    def _keys_at_hand(self) -> Any:
        """Credentials, frozen; None where they can't be had without waiting."""
        credentials = self._credentials
        if credentials is None:
            return None
        # Fresh each time: they are those of a role, as a rule, and soon replaced. Those that never
        # are can't be asked.
        stale = getattr(credentials, "refresh_needed", None)
        if stale is not None and stale():
            return None
        asked = credentials.get_frozen_credentials()
        try:
            asked.send(None)
        except StopIteration as had:
            return had.value
        asked.close()
        return None

    async def _send_later(
        self,
        operation: _Operation,
        parameters: dict[str, Any],
        sha256: bytes | None,
        exchange: Exchange,
    ) -> None:
        """Send it once there are credentials."""
        try:
            async with asyncio.timeout_at(exchange.deadline):
                keys = await self._keys()
            exchange.head = operation.head(parameters, sha256, keys, self._signer, self._clock())
        except Exception as error:  # noqa: BLE001 - the caller's
            exchange.end(error)
        else:
            self._connections.send(exchange)

    async def _keys(self) -> Any:
        if self._credentials is None:
            raise boto.NoCredentialsError
        return await self._credentials.get_frozen_credentials()

    def _error(self, operation: _Operation, reply: Reply | Exception) -> Exception:
        """What a call failed with; of an answer, the exception that botocore makes of it."""
        if isinstance(reply, Exception):
            return reply
        try:
            return self._error_of(operation, reply)
        except Exception as error:  # noqa: BLE001 - an answer that botocore can't read
            return error

    def _error_of(self, operation: _Operation, reply: Reply) -> Exception:
        service = self._client.meta.service_model
        parser = create_parser(service.resolved_protocol)
        answer = {
            "headers": HeadersDict(reply.headers),
            "status_code": reply.status,
            "body": reply.body,
            "context": {"operation_name": operation.model.name},
        }
        parsed = parser.parse(answer, operation.model.output_shape)
        code = parsed.get("Error", {}).get("Code")
        shape = None if code is None else service.shape_for_error_code(code)
        if shape is not None:
            parsed.update(parser.parse(answer, shape))
        kind = self._client.exceptions.from_code(code)
        error: Exception = kind(parsed, operation.model.name)
        return error


@asynccontextmanager
async def lean_transport(
    client: Any, credentials: Any, options: Mapping[str, Any], limits: Limits, clock: Clock
) -> AsyncIterator[LeanTransport]:
    """A transport whose connections are closed with this context.

    Args:
        client: aiobotocore's, for ``sagemaker-runtime``.
        credentials: aiobotocore's, that it signs with; None where there are none.
        options: How its HTTP session was made.
        limits: How long calls may take, and how much they may bring.
        clock: Tells when a request is signed.

    Raises:
        NotLean: The client does, or is to do, what is not done here.
    """
    whole, streamed = [
        await _rehearse(client, name)
        for name in ("InvokeEndpoint", "InvokeEndpointWithResponseStream")
    ]
    if whole[:3] != streamed[:3]:
        raise NotLean("the operations are not called in one place")
    url, region, service = whole[:3]
    at = urlsplit(url)
    if at.scheme not in _PORTS or at.query or at.fragment or at.username or not at.hostname:
        raise NotLean("the endpoint's address is not a plain one")
    if ProxyConfiguration(proxies=options.get("proxies")).proxy_url_for(url):
        raise NotLean("there is a proxy")
    host = f"[{at.hostname}]" if ":" in at.hostname else at.hostname
    port = at.port or _PORTS[at.scheme]
    if port != _PORTS[at.scheme]:
        host = f"{host}:{port}"
    tls = None
    if at.scheme == "https":
        tls = await asyncio.to_thread(_tls, options.get("verify", True), options.get("client_cert"))
    connections = Connections(Server(url, at.hostname, port, tls), limits)
    try:
        yield LeanTransport(
            client,
            credentials,
            (
                _Operation(whole[3], at.path, host, whole[4]),
                _Operation(streamed[3], at.path, host, streamed[4]),
            ),
            signer=Signer(region, service),
            connections=connections,
            limits=limits,
            clock=clock,
        )
    finally:
        connections.close()


class _Rehearsal(NamedTuple):
    """How aiobotocore calls an operation.

    Attributes:
        url: Its address, without the path that the API model has.
        region: Signed for.
        service: Likewise.
        operation: The operation's model.
        constant: Headers that are the same in each call.
    """

    url: str
    region: str
    service: str
    operation: Any
    constant: Mapping[str, str]


async def _rehearse(client: Any, name: str) -> _Rehearsal:
    """Let the client make a call up to where it would be signed and sent, which needs no keys."""
    signing: dict[str, Any] = {}

    def choose_signer(**how: Any) -> Any:
        signing.update(how)
        return botocore.UNSIGNED

    def before_send(request: Any, **_: Any) -> None:
        raise _Rehearsed(request)

    events = client.meta.events
    # The last to be asked, so that anyone who has a say in it comes first, and is then found out.
    events.register_last("choose-signer", choose_signer)
    events.register_first("before-send", before_send)
    try:
        await getattr(client, xform_name(name))(EndpointName="e", Body=b"")
    except _Rehearsed as call:
        request = call.request
    except Exception as error:  # noqa: BLE001 - each call would fail as this one
        raise NotLean(f"no call can be made: {type(error).__name__}") from None
    else:
        raise NotLean("the client does not send its calls")
    finally:
        events.unregister("choose-signer", choose_signer)
        events.unregister("before-send", before_send)
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


def _tls(verify: bool | str, certificate: Any) -> ssl.SSLContext:
    """A context as aiobotocore makes it.

    Args:
        verify: Whether to, or the certificates to trust.
        certificate: The client's own: a path, or one of it and one of its key.
    """
    context: ssl.SSLContext = create_urllib3_context()
    if verify:
        context.check_hostname = True
        context.load_verify_locations(get_cert_path(verify))
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate:
        context.load_cert_chain(*([certificate] if isinstance(certificate, str) else certificate))
    return context
