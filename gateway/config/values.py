"""What single values have to be: addresses, names, numbers, templates."""

import re
from ipaddress import ip_network
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

import msgspec
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from gateway.addresses import is_loopback, origin_of
from gateway.formats.templates import placeholders
from gateway.formats.text import Text
from gateway.sagemaker.profiles import PROFILES, Profile
from gateway.session.policy import Opening


class Section(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def _host(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9.:_-]{1,255}", value):
        raise ValueError("expected an address or the name of a host, without a port")
    return value


def _store_url(value: str) -> str:
    example = ValueError("expected an address such as valkey://127.0.0.1:6379/0")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise example from None  # and not with what the other quotes: it may be a password
    if parts.scheme not in {"valkey", "valkeys", "redis", "rediss"} or not parts.hostname:
        raise example
    if port == 0 or not _is_ascii(value) or "#" in value:
        raise example
    if parts.password is not None:
        raise ValueError("the password goes into GATEWAY_STORE__PASSWORD, not into the address")
    if parts.query not in {"", "cluster=true", "cluster=false"}:
        raise ValueError("the only thing that can follow is ?cluster=true")
    if not re.fullmatch(r"/?|/[0-9]{1,5}", parts.path):
        raise ValueError("expected the number of a database at the end, such as :6379/0")
    if parts.query == "cluster=true" and parts.path.strip("/0"):
        raise ValueError("a cluster has one database: end the address with /0?cluster=true")
    return value


def _keys_url(value: str) -> str:
    parts = _url(value)
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise ValueError("must begin with https://: whoever can change the keys can make tokens")
    return _endpoint_url(value)


def _origin(value: str) -> str:
    parts = _public_parts(value)
    if value.lower() != f"{parts.scheme}://{parts.netloc}".lower():
        raise ValueError("expected an origin such as https://chat.example.com, without a path")
    return origin_of(value)


def _endpoint_url(value: str) -> str:
    parts = _url(value)
    if parts.query or parts.fragment or not _is_ascii(value):
        raise ValueError("expected an address without spaces, `?` and `#`")
    return value


def _public_url(value: str) -> str:
    parts = _public_parts(value)
    if parts.query or parts.fragment:
        raise ValueError(
            "expected an address such as https://chat.example.com/gw, without `?` and `#`"
        )
    return value


def _public_parts(value: str) -> SplitResult:
    parts = _url(value)
    if not _is_ascii(value):
        raise ValueError(
            "expected an address without spaces, and a host's name with other letters as xn--…"
        )
    if "*" in parts.netloc:
        raise ValueError("expected one host: `*` does not stand for several, so name each")
    return parts


def _is_ascii(value: str) -> bool:
    return re.fullmatch(r"[\x21-\x7e]*", value) is not None


def _range(value: str) -> str:
    try:
        network = ip_network(value, strict=False)
    except ValueError:
        raise ValueError(
            "expected an address or a range of them, such as 10.1.2.3 or 10.0.0.0/8"
        ) from None
    if network.prefixlen == 0:
        raise ValueError("must not be all addresses: clients would be taken for proxies")
    return str(network)


def _url(value: str) -> SplitResult:
    """The parts of an address, which names a host and nobody's credentials."""
    wanted = "expected an address such as https://host or http://127.0.0.1:9000"
    try:
        parts = urlsplit(value)
        named = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        raise ValueError(wanted) from None
    if "@" in parts.netloc:
        raise ValueError(
            "must not hold a user or a password (user:password@); credentials come from AWS's "
            "usual chain"
        )
    if not named:
        raise ValueError(wanted)
    return parts


def _number(value: Any) -> Any:
    """What pydantic would take for 0 or 1 is a mistake."""
    if isinstance(value, bool):
        got = str(value).lower()
        raise PydanticCustomError("number", "expected a number, got {got}", {"got": got})
    return value


def _endpoint_name(value: str) -> str:
    if re.match(r"(arn:|https?://)", value):
        wanted = "expected the endpoint's name, which an ARN has after `endpoint/`"
        name = re.search(r"endpoints?/([A-Za-z0-9-]{1,63})(/|$)", value)
        raise ValueError(f"{wanted}; did you mean {name[1]}?" if name else wanted)
    return value


def _matching(pattern: str, most: int, expected: str) -> AfterValidator:
    """Holds a text to that pattern and length."""
    compiled = re.compile(pattern)

    def validate(value: str) -> str:
        if len(value) > most or not compiled.fullmatch(value):
            raise ValueError(f"expected 1 to {most} {expected}")
        return value

    return AfterValidator(validate)


def _text(most: int) -> AfterValidator:
    """What a header may carry; HTTP drops spaces at its ends."""
    expected = "printable ASCII characters, without a space at either end"
    return _matching(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", most, expected)


def _label(most: int) -> AfterValidator:
    """What AWS calls things by."""
    expected = "letters, digits and hyphens, with a letter or a digit at either end"
    return _matching(r"[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?", most, expected)


def _expression(value: str) -> str:
    Text(value)
    return value


def _profile(value: Any) -> Profile:
    if isinstance(value, Profile):
        return value
    if isinstance(value, str):
        if value not in PROFILES:
            choices = ", ".join(PROFILES)
            raise PydanticCustomError(
                "choice", "expected one of {choices}, or a table of your own", {"choices": choices}
            )
        return PROFILES[value]
    if not isinstance(value, dict):
        raise PydanticCustomError("profile", "expected the name of a profile, or a table")
    try:
        return msgspec.convert(value, Profile)
    except msgspec.ValidationError as error:
        # It names the key within the table, and may quote what it has found there.
        text, _, key = str(error).partition(" - at `$.")
        if text.startswith("Invalid enum value"):
            text = f"expected one of {', '.join(opening.value for opening in Opening)}"
        raise PydanticCustomError(
            "within", "{text}", {"text": text.partition(", got ")[0], "key": key}
        ) from None


def with_place(template: Any, names: tuple[str, ...], what: str) -> Any:
    """The template, which has to have a place for one of these."""
    if template is not None and placeholders(template).isdisjoint(names):
        places = " or ".join(f"${name}" for name in names)
        raise ValueError(f"needs {places} in it, for {what}: the model would not see it")
    return template


def _prefix(value: str) -> str:
    if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/([\x21-\x7e]*/)?", value):
        raise ValueError("expected a prefix such as s3://my-bucket/inputs/, with `/` at its end")
    if len(value) > 900:
        raise ValueError("expected at most 900 characters")
    return value


ID, SESSION = "0" * 24, "0" * 32
"""As long as what stands for ``$id`` and ``$session``."""


def _filename(value: str) -> str:
    if "$id" not in value:
        raise ValueError(
            "needs $id in it, for what is different for each turn: outputs of one name would be "
            "taken for each other's"
        )
    name = value.replace("$id", ID)
    if not re.fullmatch(r"[a-zA-Z0-9][\w.-]{0,31}", name, re.ASCII) or name.count(".") > 1:
        raise ValueError(
            "expected up to 32 letters, digits, `-`, `_` and one `.`, of which $id takes 24; such "
            "as $id.json"
        )
    return value


def _extension(value: str) -> str:
    path = value.replace("$id", ID).replace("$session", SESSION)
    if not re.fullmatch(r"(?!s3:|https:)[a-zA-Z0-9!_.*'()/-]{1,512}", path):
        raise ValueError(
            "expected a path of up to 512 letters, digits and !_.*'()/-, such as chat/$session"
        )
    return value


Seconds = Annotated[float, BeforeValidator(_number), Field(ge=0, le=86_400, allow_inf_nan=False)]
Positive = Annotated[float, BeforeValidator(_number), Field(gt=0, le=86_400, allow_inf_nan=False)]
PositiveBytes = Annotated[
    float, BeforeValidator(_number), Field(gt=0, le=1e12, allow_inf_nan=False)
]
Whole = Annotated[int, BeforeValidator(_number)]
Count = Annotated[Whole, Field(ge=1, le=1_000_000)]
Bytes = Annotated[Whole, Field(ge=1, le=1_073_741_824)]
HeldBytes = Annotated[Whole, Field(ge=1_000_000, le=1_099_511_627_776)]
# The lengths are those of SageMaker Runtime's API model.
Header = Annotated[str, _text(1024)]
Id = Annotated[str, _text(64)]
Name = Annotated[str, _label(63)]
EndpointName = Annotated[str, AfterValidator(_endpoint_name), _label(63)]
RouteName = Annotated[
    str, _matching(r"[A-Za-z0-9_-]+", 64, "letters, digits, `-` and `_` as a route's name")
]
S3Prefix = Annotated[str, AfterValidator(_prefix)]
OutputName = Annotated[str, AfterValidator(_filename)]
OutputPath = Annotated[str, AfterValidator(_extension)]
Expression = Annotated[str, AfterValidator(_expression)]
SessionProfile = Annotated[Any, BeforeValidator(_profile)]
Host = Annotated[str, AfterValidator(_host)]
StoreUrl = Annotated[str, AfterValidator(_store_url)]
ReplicaName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")]
KeysUrl = Annotated[str, AfterValidator(_keys_url)]
Claim = Annotated[str, Field(min_length=1, max_length=1024)]
AddressRange = Annotated[str, AfterValidator(_range)]
EndpointUrl = Annotated[str, AfterValidator(_endpoint_url)]
PublicUrl = Annotated[str, AfterValidator(_public_url)]
WebOrigin = Annotated[str, AfterValidator(_origin)]
