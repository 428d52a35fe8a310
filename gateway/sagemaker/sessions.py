"""Parses ``NewSessionId`` leniently, and adds session ids to bodies.

The API model's pattern is ``ID; Expires=YYYY-MM-DDThh:mm:ssZ``; some containers leave ``Expires``
out or send a time without a zone. botocore checks neither pattern nor length, so this does.
"""

import re
from datetime import UTC, datetime

import msgspec

from gateway.formats.text import from_json
from gateway.session.ports import ModelSession

NEW_SESSION = "NEW_SESSION"
"""Instead of a session id, in a call that opens a session."""

# Equivalent to the API model's ``^[a-zA-Z0-9](-*[a-zA-Z0-9])*$``, but without backtracking: no
# hyphen at either end.
_ID = re.compile(r"(?!-)[a-zA-Z0-9-]{1,256}(?<!-)")
_YEAR_10000 = 253_402_300_800  # in seconds since the epoch; later dates can't be formatted
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_EXPIRES = re.compile(r"\s*expires\s*=\s*(.*?)\s*", re.IGNORECASE | re.DOTALL)


class MalformedSessionId(Exception):
    """A ``NewSessionId`` contains no valid session id."""


def parse_new_session_id(value: str) -> ModelSession:
    """Parse a reply's ``NewSessionId``.

    An invalid expiry is ignored; a time without a zone is UTC.

    Raises:
        MalformedSessionId: The id is missing or invalid.
    """
    session_id, _, rest = value.partition(";")
    session_id = session_id.strip()
    if _ID.fullmatch(session_id) is None:
        raise MalformedSessionId
    for attribute in rest.split(";"):
        match = _EXPIRES.fullmatch(attribute)
        if match is not None:
            return ModelSession(session_id, _seconds(match[1]))
    return ModelSession(session_id)


def _seconds(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = moment.timestamp()
    except (ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds < _YEAR_10000 else None


class NotOneObject(Exception):
    """A body begins like a JSON object but isn't one, or has trailing data."""


def with_session_id(body: bytes, key: str, session_id: str) -> bytes:
    """Add the session id to a JSON object's bytes as its last member.

    The rest is unchanged. The id comes last, so that it overrides one that a client may have added.
    A body that is not an object is returned unchanged.

    Raises:
        NotOneObject: A lenient container might read a client's own id from it.
    """
    text = body.strip()
    if not text.startswith(b"{"):
        return body
    if not _is_object(text):
        raise NotOneObject
    members = text[1:-1].rstrip()
    comma = b"," if members else b""
    member = msgspec.json.encode(key) + b":" + msgspec.json.encode(session_id)
    return b"{" + members + comma + member + b"}"


def _is_object(text: bytes) -> bool:
    try:
        _members(text)
    except (ValueError, RecursionError):  # msgspec is strict; servers in Python also accept `NaN`
        try:
            return isinstance(from_json(text), dict)
        except ValueError:
            return False
    return True
