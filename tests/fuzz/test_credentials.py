"""Whatever a visitor shows: it is who it is, or nobody; and what operators write into files."""

import base64
import contextlib
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admission import Credentials, Refused
from gateway.errors import ErrorCode
from gateway.security.door import Door
from gateway.security.keys import KeyFileError, Keys, add, read
from gateway.security.keysets import FileKeys, KeysUnavailable
from gateway.security.limits import LocalAccounts
from gateway.security.principals import Principal, PrincipalLimits
from gateway.security.tokens import BadToken, Tokens
from gateway.stores.memory import MemoryStore
from gateway.transports.credentials import credentials_of
from tests.support.tokens import AUDIENCE, ISSUER, Signer, write_key_set

SIGNER = Signer("one")
LIMITS = PrincipalLimits(
    connections=1000, sessions=1000, messages_per_second=1e6, bytes_per_second=1e9
)
FAR = int(time.time()) + 10**6
EDITS = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 2), st.text(max_size=3)), min_size=1, max_size=3
)


def edited(text: str, edits: list[tuple[int, int, str]]) -> str:
    """The same with some characters replaced, added or taken out."""
    for place, taken, new in edits:
        at = place % (len(text) + 1)
        text = text[:at] + new + text[at + taken :]
    return text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("credentials")


@pytest.fixture(scope="module")
def tokens(folder: Path) -> Tokens:
    return Tokens(
        issuer=ISSUER,
        audience=AUDIENCE,
        algorithms=["ES256"],
        keys=FileKeys(write_key_set(folder / "jwks.json", SIGNER)),
        leeway=0.0,
    )


class Shown:
    """A door with one key, and what is good for it."""

    def __init__(self, folder: Path, tokens: Tokens) -> None:
        file = folder / "door.toml"
        file.unlink(missing_ok=True)
        self.key = add(file, "ada", None)
        self.door = Door(
            keys=Keys(file, LIMITS),
            tokens=tokens,
            tickets=MemoryStore(),
            accounts=LocalAccounts(LIMITS),
            connections_per_address=10,
            handshakes_per_second=1e6,
        )

    async def who(self, credentials: Credentials) -> str | None:
        """Whose they are; None where they are nobody's."""
        visitor = self.door.arrive("192.0.2.1")
        refused: ErrorCode | None = None
        try:
            await visitor.identify(credentials, route="chat")
        except Refused as error:
            refused = error.code
        finally:
            visitor.release()
        expected = credentials and visitor.principal is None
        assert refused is (ErrorCode.UNAUTHENTICATED if expected else None)
        assert not len(self.door.accounts)  # type: ignore[arg-type]
        return visitor.principal


@pytest.fixture(scope="module")
def shown(folder: Path, tokens: Tokens) -> Shown:
    return Shown(folder, tokens)


@given(token=st.none() | st.text(max_size=80), ticket=st.none() | st.text(max_size=80))
async def test_anything_is_nobodys(shown: Shown, token: str | None, ticket: str | None) -> None:
    assert await shown.who(Credentials(token, ticket)) is None


@given(edits=EDITS)
async def test_a_changed_key_is_nobodys(shown: Shown, edits: list[tuple[int, int, str]]) -> None:
    assert await shown.who(Credentials(shown.key)) == "key:ada"
    other = edited(shown.key, edits)
    assert (await shown.who(Credentials(other)) is None) is (other != shown.key)


@given(edits=EDITS)
async def test_a_ticket_is_good_once_and_a_changed_one_never(
    shown: Shown, edits: list[tuple[int, int, str]]
) -> None:
    ticket = (await shown.door.issue(Principal(name="key:ada"))).value
    other = edited(ticket, edits)
    if other != ticket:
        assert await shown.who(Credentials(ticket=other)) is None
    assert await shown.who(Credentials(ticket=ticket)) == "key:ada"
    assert await shown.who(Credentials(ticket=ticket)) is None


@given(edits=EDITS, name=st.text(max_size=12), routes=st.none() | st.lists(st.text(max_size=5)))
async def test_a_changed_token_says_the_same_or_nothing(
    tokens: Tokens, edits: list[tuple[int, int, str]], name: str, routes: list[str] | None
) -> None:
    token = SIGNER.token(exp=FAR, sub=name, routes=routes)
    try:
        known = await tokens.check(token)
    except BadToken:
        known = None  # that is no name
    assert (known is not None) is (name != "" and name.isprintable())
    if known is not None:
        allowed = None if routes is None else frozenset(routes)
        assert known == Principal(name=f"jwt:{name}", routes=allowed, expires_at=float(FAR))
    with contextlib.suppress(BadToken):
        # Base64 has several spellings of the same bytes; what is signed is what counts.
        assert await tokens.check(edited(token, edits)) == known


_CLAIM = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(
    claims=st.dictionaries(
        st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "routes", "jti"]), _CLAIM
    ),
    headers=st.dictionaries(
        st.sampled_from(["kid", "typ", "crit", "jku", "jwk", "x5u", "b64"]), _CLAIM, max_size=2
    ),
)
async def test_any_claims_that_are_signed(
    tokens: Tokens, claims: dict[str, Any], headers: dict[str, Any]
) -> None:
    """The issuer may be wrong too."""
    try:
        token = SIGNER.token(headers=headers, **claims)
    except (TypeError, ValueError, jwt.PyJWTError):
        return  # which its library does not let it be
    try:
        known = await tokens.check(token)
    except BadToken:
        return
    assert known.name.startswith("jwt:")
    assert known.expires_at is not None
    assert known.expires_at > time.time() - 60


_HEADER = st.text(st.characters(max_codepoint=0xFF), max_size=40)
_OFFER = st.builds(
    "{}{}".format, st.sampled_from(["", "bearer.", "ticket.", "bearer", "v1.json.x"]), _HEADER
)


@given(authorization=_HEADER, offered=st.lists(_OFFER, max_size=4))
def test_any_headers(authorization: str, offered: list[str]) -> None:
    found = credentials_of(authorization, offered)
    assert found.token is None or found.ticket is None
    if found.ticket is not None:
        assert f"ticket.{found.ticket}" in offered
    if not any(name.startswith(("bearer.", "ticket.")) for name in offered):
        assert found.token is None or authorization.lower().startswith("bearer")


@given(token=st.text(max_size=200), ticket=st.text(max_size=60))
def test_what_is_shown_is_read(token: str, ticket: str) -> None:
    spelt = base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode()
    offers = [f"ticket.{ticket}", f"bearer.{spelt}"]
    assert credentials_of("", offers) == Credentials(token=token)
    assert credentials_of("Basic x", offers[:1]) == Credentials(ticket=ticket)
    assert credentials_of("bEaReR  a.b.c ", offers) == Credentials(token="a.b.c")


_TOML = st.builds(
    "[{}]\nsha256 = {}\n{} = {}\n".format,
    st.sampled_from(["ada", "b-1", '"b c"', "c.d", ""]),
    st.sampled_from([f'"{digit * 64}"' for digit in "ab0"] + ['"AB"', "1"]),
    st.sampled_from(["routes", "sessions", "connections", "messages_per_second", "x", "sha256"]),
    st.sampled_from(["1", "0", "-1", "1.5", "nan", "inf", "[]", '["chat"]', '"x"', "true"]),
)


@given(data=st.lists(_TOML, max_size=3).map(lambda all_of: "".join(all_of).encode()) | st.binary())
def test_any_file_of_keys(folder: Path, data: bytes) -> None:
    file = folder / "any.toml"
    file.write_bytes(data)
    try:
        entries = read(file)
    except KeyFileError:
        with pytest.raises(KeyFileError):
            Keys(file, LIMITS)
        return
    assert len(Keys(file, LIMITS)) == len(entries)
    if "eve" not in entries:
        key = add(file, "eve", ["chat"])
        known = Keys(file, LIMITS).find(key)
        assert known is not None
        assert (known.name, known.routes) == ("key:eve", frozenset({"chat"}))
        assert {**read(file)}.keys() - {"eve"} == entries.keys()


_JWK = st.dictionaries(
    st.sampled_from(["kty", "crv", "x", "y", "n", "e", "d", "k", "kid", "use", "alg", "key_ops"]),
    st.sampled_from(["EC", "RSA", "OKP", "oct", "P-256", "Ed25519", "AQAB", "sig", "enc", "ES256"])
    | _CLAIM,
)


@given(keys=st.lists(_JWK | st.just(SIGNER.public()) | _CLAIM, max_size=3) | _CLAIM)
async def test_any_set_of_keys(folder: Path, keys: Any) -> None:
    file = folder / "any.json"
    file.write_text(json.dumps({"keys": keys}))
    try:
        FileKeys(file)
    except KeysUnavailable:
        return
    found = await FileKeys(file).get("one", "ES256")
    assert bool(found) is (SIGNER.public() in keys)
