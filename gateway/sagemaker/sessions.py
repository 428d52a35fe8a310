"""``NewSessionId``, read as leniently as containers write it, and ids put into bodies.

The API model's pattern is ``ID; Expires=YYYY-MM-DDThh:mm:ssZ``; some containers leave ``Expires``
out or send a time without a zone. botocore checks neither pattern nor length, so it is done here.
"""

import re
from datetime import UTC, datetime

import msgspec

from gateway.formats.text import from_json
from gateway.session.ports import ModelSession

NEW_SESSION = "NEW_SESSION"
"""In place of a session id: the call is to open one."""

# The API model's ``^[a-zA-Z0-9](-*[a-zA-Z0-9])*$``, written so that it can't backtrack: no hyphen
# at either end is the same language.
_ID = re.compile(r"(?!-)[a-zA-Z0-9-]{1,256}(?<!-)")
_YEAR_10000 = 253_402_300_800  # in seconds since the epoch; no date can be written from then on
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_EXPIRES = re.compile(r"\s*expires\s*=\s*(.*?)\s*", re.IGNORECASE | re.DOTALL)


class MalformedSessionId(Exception):
    """A ``NewSessionId`` holds no session id."""


def parse_new_session_id(value: str) -> ModelSession:
    """The session that a reply's ``NewSessionId`` speaks of.

    An expiry that can't be read is no expiry; a time without a zone is UTC.

    Raises:
        MalformedSessionId: There is no id that the platform could have given.
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
    """A body begins like a JSON object and is none, or has something after it."""


def with_session_id(body: bytes, key: str, session_id: str) -> bytes:
    """A JSON object's bytes with the session id as a further member.

    The rest stays as it was written. The id comes last, so that it wins over one that a client may
    have put there. A body of another kind is returned as it is.

    Raises:
        NotOneObject: A lenient container might read an id out of it that a client has put there.
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
    except (ValueError, RecursionError):  # strict; Python's servers read `NaN` too
        try:
            return isinstance(from_json(text), dict)
        except ValueError:
            return False
    return True
