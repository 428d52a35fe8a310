"""The heads of requests, built as aiobotocore would.

What doesn't change between calls is computed once, in a plan for each kind of call.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from operator import itemgetter
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import msgspec

from gateway.sagemaker.connection import Headers
from gateway.sagemaker.exceptions import InvalidParameters
from gateway.sagemaker.signing import Signer

Values = Callable[[dict[str, Any]], tuple[Any, ...]]
"""Returns the values of some parameters."""

_KEPT = 1_000  # plans: one for each kind of call to each endpoint


class Plan(msgspec.Struct, frozen=True):
    """The format of requests to one endpoint with certain parameters.

    Attributes:
        before: Returns the values of the headers that are signed before the time and the token, in
            alphabetical order.
        after: Returns the values of the others.
        least: Minimum lengths of some of them.
        canonical: The canonical request: a format for those values, and a hash of the body.
        signed: The names of the signed headers.
        head: The request's head: a format for the same values, the authorization, a UUID and the
            body's length.
    """

    before: Values
    after: Values
    least: list[tuple[str, int]]
    canonical: str
    signed: str
    head: str


class Operation:
    """One operation of the API, as aiobotocore calls it.

    Args:
        model: The operation's model.
        prefix: The prefix of all paths.
        host: ``Host``.
        constant: Further headers, the same in each call, that are not signed.
        validate: Validates parameters against the shape of the input, or raises.
        normalize: Normalizes a path for its signature.
    """

    def __init__(
        self,
        model: Any,
        prefix: str,
        host: str,
        constant: Mapping[str, str],
        *,
        validate: Callable[[dict[str, Any], Any], object],
        normalize: Callable[[str], str],
    ) -> None:
        self.model = model
        self._validate = validate
        self._normalize = normalize
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
        self._plans: dict[tuple[Any, ...], Plan] = {}
        self._uuids = _uuids()

    def head(
        self,
        parameters: dict[str, Any],
        sha256: bytes | None,
        keys: Any,
        signer: Signer,
        now: float,
    ) -> bytes:
        """Return the head of a signed request.

        Args:
            parameters: The API model's parameters.
            sha256: The body's digest, if known.
            keys: The credentials, frozen.
            signer: Signs for the region and service.
            now: The time in seconds since the epoch.

        Raises:
            Exception: botocore's for parameters that the API model doesn't allow, or
                `InvalidParameters`.
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
        """Return the members of the output that are in a reply's headers."""
        return {member: headers[name] for member, name in self._received if name in headers}

    def _checked(self, parameters: dict[str, Any], plan: Plan, values: tuple[Any, ...]) -> str:
        """Validate the values against the API model, and return them joined."""
        try:
            text = "".join(values)
            fits = type(parameters["Body"]) is bytes
            for name, least in plan.least:
                fits = fits and len(parameters[name]) >= least
        except (KeyError, TypeError):
            text, fits = "", False
        if not fits:
            self._validate(parameters, self.model.input_shape)
            raise InvalidParameters
        if not (text.isascii() and text.isprintable()):
            raise InvalidParameters
        return text

    def _plan(self, parameters: dict[str, Any], *, token: bool) -> Plan:
        members = [name for name in parameters if name not in {"EndpointName", "Body"}]
        endpoint: Any = parameters.get("EndpointName")
        if type(endpoint) is not str or not self._members.keys() >= {*members}:
            self._validate(parameters, self.model.input_shape)
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
        canonical = _literal(quote(self._normalize(path), safe="/~"))
        return Plan(
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
    """Return a function for the values of these keys."""
    if not names:
        return lambda _given: ()
    if len(names) == 1:
        (name,) = names
        return lambda given: (given[name],)
    return itemgetter(*names)


def _literal(text: str) -> str:
    """Escape text for a format."""
    return text.replace("%", "%%")


def _uuids() -> Iterator[str]:
    """Generate UUIDs for an operation's calls, cheaper than one at random for each."""
    first = str(uuid4())[:-12]
    for number in count():
        yield f"{first}{number:012x}"
