"""That planted secrets are found, whatever form they are in."""

import base64
import json
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest

from tests.support.secrets import check, found, planted

FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "base64": lambda secret: base64.b64encode(secret.encode()).decode(),
    "base64, one later": lambda secret: base64.b64encode(b"x" + secret.encode()).decode(),
    "base64, two later": lambda secret: base64.b64encode(b"xy" + secret.encode() + b"z").decode(),
    "base64url": lambda secret: base64.urlsafe_b64encode(b"?" * 4 + secret.encode()).decode(),
    "basic": lambda secret: base64.b64encode(f"ada:{secret}".encode()).decode(),
    "hexadecimal": lambda secret: secret.encode().hex(),
    "percent": lambda secret: quote(secret, safe=""),
    "every letter": lambda secret: "".join(f"%{ord(letter):02x}" for letter in secret),
    "a form": quote_plus,
    "JSON": lambda secret: json.dumps({"a": secret}),
    "JSON for HTML": lambda secret: json.dumps(secret).replace("/", "\\/"),
    "repr": lambda secret: repr([secret.encode()]),
    "its beginning": lambda secret: secret[:24],
    "its end": lambda secret: secret[-24:],
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_each_form_is_found(form: Callable[[str], str]) -> None:
    with planted("a password") as secret:
        text = f"[info] something {form(secret)} more"
        assert found(text) == {"a password"}
        with pytest.raises(AssertionError, match="a password"):
            check(text)
    assert found(text) == set()


def test_what_is_none_is_not() -> None:
    with planted("a password") as secret:
        check(f"[info] something {secret[:12]} more")
        check("")
