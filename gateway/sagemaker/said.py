"""AWS's own messages, as far as a log may have them.

They say what an operator has to know: which endpoint is not found, who may not do what. But some
quote the call, and so what a client wrote, the session's id or a token: a value that is not what
the API model has, a name that there is none of, all headers where the signature is wrong.
"""

import re
from collections.abc import Iterable, Mapping

from gateway.logs import printable

MOST = 500
"""How many characters are kept."""

_HEAD = 32
"""As much of a long value is looked for; what quotes it may cut it off."""

_CONSTRAINT = "failed to satisfy constraint"
_FIELD = re.compile(rf"at '(\w+)' {_CONSTRAINT}")

# The paragraphs that follow "The request signature we calculated does not match" hold all that was
# signed; other messages about signatures quote the header.
_SIGNED = re.compile(r"\r|\n|the canonical string|the string-to-sign|authorization=", re.IGNORECASE)
_KEY_ID = re.compile(r"\bA[KS]IA[A-Z0-9]{12,}")


def loggable(message: str, sent: Mapping[str, str], own: Iterable[str] = ()) -> str:
    """What is left of a message.

    Args:
        message: AWS's.
        sent: The call's parameters, but for its body.
        own: Values among them that are the route's.
    """
    if _CONSTRAINT in message:
        # Any of the rest may be a value, in whatever it has been wrapped. The names are the API's.
        named = {field[0].upper() + field[1:]: field for field in _FIELD.findall(message)}
        fields = [field for name, field in sorted(named.items()) if name in sent]
        return f"Value at {', '.join(fields) or '…'} {_CONSTRAINT}"
    text = _KEY_ID.sub("…", _SIGNED.split(message, maxsplit=1)[0].strip())
    for value in sorted({*sent.values()} - {*own}, key=len, reverse=True):
        text = _without(text, value)
    return printable(text, MOST)


def _without(text: str, value: str) -> str:
    """A text that does not quote that value, whatever became of its spaces."""
    words = r"\s+".join(map(re.escape, value[:_HEAD].split()))
    if not words:
        return text
    if len(value) > _HEAD:
        return re.sub(f"{words}.*", "…", text, flags=re.IGNORECASE | re.DOTALL)
    # One letter is no quotation in the middle of a word.
    before = "(?<![a-z0-9])" if value[0].isalnum() else ""
    after = "(?![a-z0-9])" if value[-1].isalnum() else ""
    return re.sub(f"{before}{words}{after}", "…", text, flags=re.IGNORECASE)
