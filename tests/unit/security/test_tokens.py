"""Tokens: whose they are, and the attacks that books tell of."""

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.security.keysets import FileKeys
from gateway.security.principals import Principal
from gateway.security.tokens import MAX_NAME, MAX_TOKEN, BadToken, Secret, Tokens
from tests.support.tokens import AUDIENCE, ISSUER, Signer, claims, write_key_set

ES, RS, ED = Signer("es"), Signer("rs", "RS256"), Signer("ed", "EdDSA")
OTHER = Signer("es")
SECRET = b"0123456789abcdef0123456789abcdef"


def tokens(path: Path, *signers: Signer, **options: Any) -> Tokens:
    keys = FileKeys(write_key_set(path / "jwks.json", *(signers or (ES, RS, ED))))
    given: dict[str, Any] = {"algorithms": ["RS256", "ES256", "EdDSA"], "leeway": 30.0, **options}
    return Tokens(issuer=ISSUER, audience=AUDIENCE, keys=keys, **given)


@pytest.mark.parametrize("signer", [ES, RS, ED], ids=lambda signer: signer.algorithm)
async def test_a_good_token(signer: Signer, tmp_path: Path) -> None:
    end = int(time.time()) + 100
    known = await tokens(tmp_path).check(signer.token(exp=end))
    assert known == Principal(name="jwt:ada", expires_at=end + 30.0)


@pytest.mark.parametrize(
    ("routes", "may"), [(["chat", "x"], {"chat", "x"}), ("chat x", {"chat", "x"}), ([], set())]
)
async def test_routes(routes: object, may: set[str], tmp_path: Path) -> None:
    known = await tokens(tmp_path).check(ES.token(routes=routes))
    assert known.routes == frozenset(may)


async def test_other_claims_say_who_and_where(tmp_path: Path) -> None:
    checks = tokens(tmp_path, principal_claim="email", routes_claim="scope")
    known = await checks.check(ES.token(email="ada@example.com", scope="chat"))
    assert (known.name, known.routes) == ("jwt:ada@example.com", frozenset({"chat"}))


@pytest.mark.parametrize(
    ("said", "is_one"),
    [
        (True, True),
        ("chat operator", True),
        (["operator"], True),
        (False, False),
        ("true", False),
        (1, False),
        ("operators", False),
        (["x", 1], False),
        ({"operator": True}, False),
        (None, False),
    ],
)
async def test_who_is_an_operator(said: object, is_one: bool, tmp_path: Path) -> None:
    token = ES.token(role=said)
    assert (await tokens(tmp_path, operator_claim="role").check(token)).operator is is_one
    assert not (await tokens(tmp_path, operator_claim="scope").check(token)).operator
    assert not (await tokens(tmp_path).check(ES.token(operator=said, role=said))).operator


async def test_the_audience_may_be_one_of_several(tmp_path: Path) -> None:
    await tokens(tmp_path).check(ES.token(aud=["other", AUDIENCE]))


def unsigned(header: dict[str, Any], **changes: object) -> str:
    """A token with no signature."""
    parts = [json.dumps(each).encode() for each in (header, claims(**changes))]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."


def signed_by(secret: bytes, header: dict[str, Any]) -> str:
    """A token signed with HS256, whatever the secret is: pyjwt refuses a public key as one."""
    text = unsigned(header).rstrip(".")
    mac = hmac.new(secret, text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def public_pem(signer: Signer) -> bytes:
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        PublicFormat,
    )

    pem: bytes = signer.key.public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
    return pem


def raw(**changes: object) -> str:
    """A good token but for these claims, which pyjwt would not write."""
    return jwt.encode(claims() | changes, ES.key, "ES256", headers={"kid": "es"})


NOW = int(time.time())
NOT_ALLOWED = "signed with an algorithm that is not in `algorithms`"
UNKNOWN = "signed with a key that is not known, or not for its algorithm"
WRONG = "its signature is wrong"
LACKING = "lacks exp, iss or aud"
NOBODY = "its claim sub names nobody"
NO_ROUTES = "its claim routes is no list of names"
NO_TOKEN = "no JSON Web Token"
CRITICAL = "has a critical header that is not known"
ATTACKS = {
    "no algorithm": (unsigned({"alg": "none", "kid": "es"}), NOT_ALLOWED),
    "no algorithm, in another case": (unsigned({"alg": "nOnE", "kid": "es"}), NOT_ALLOWED),
    "no algorithm named": (unsigned({"kid": "es"}), NOT_ALLOWED),
    "an algorithm that is a list": (unsigned({"alg": ["ES256"], "kid": "es"}), NOT_ALLOWED),
    "a public key as a secret": (
        signed_by(public_pem(RS), {"alg": "HS256", "kid": "rs"}),
        NOT_ALLOWED,
    ),
    "a key of another kind": (signed_by(public_pem(RS), {"alg": "RS256", "kid": "rs"}), WRONG),
    "another's key of the same name": (OTHER.token(), WRONG),
    "a key of another name": (ES.token(headers={"kid": "rs"}), UNKNOWN),
    "an unknown key": (ES.token(headers={"kid": "none"}), UNKNOWN),
    "a key that is a path": (ES.token(headers={"kid": "../../../../dev/null"}), UNKNOWN),
    "a key that is a query": (ES.token(headers={"kid": "x' UNION SELECT 'key"}), UNKNOWN),
    "a key that is a number": (unsigned({"alg": "ES256", "kid": 1}), NO_TOKEN),
    "a key that is nothing": (unsigned({"alg": "ES256", "kid": None}), NO_TOKEN),
    "a key that it brings": (OTHER.token(headers={"jwk": OTHER.public(), "kid": "es"}), WRONG),
    "a key at an address": (OTHER.token(headers={"jku": "http://127.0.0.1:9/jwks.json"}), WRONG),
    "a certificate at an address": (OTHER.token(headers={"x5u": "http://127.0.0.1:9/c"}), WRONG),
    "a critical header that pyjwt knows": (
        unsigned({"alg": "ES256", "kid": "es", "crit": ["b64"], "b64": True}),
        CRITICAL,
    ),
    "expired": (ES.token(exp=NOW - 31), "expired"),
    "expired for ever": (ES.token(exp=-1), "expired"),
    "no expiry": (ES.token(exp=None), LACKING),
    "an expiry that is no number": (ES.token(exp="soon"), "malformed"),
    "an expiry past all numbers": (ES.token(exp=10**400), "malformed"),
    "not valid yet": (ES.token(nbf=NOW + 600), "not valid yet"),
    "issued in the future": (ES.token(iat=NOW + 600), "not valid yet"),
    "issued at no time": (ES.token(iat="now"), "issued at no time"),
    "for another": (ES.token(aud="other"), "for another audience"),
    "for nobody": (ES.token(aud=None), LACKING),
    "of another issuer": (ES.token(iss="https://evil.example.com"), "of another issuer"),
    "of an issuer like ours": (ES.token(iss=f"{ISSUER}.evil.example.com"), "of another issuer"),
    "of no issuer": (ES.token(iss=None), LACKING),
    "nobody": (ES.token(sub=None), NOBODY),
    "nobody, by name": (ES.token(sub=""), NOBODY),
    "a name with a line in it": (ES.token(sub="ada\nroot"), NOBODY),
    "a name that is too long": (ES.token(sub="a" * (MAX_NAME + 1)), NOBODY),
    "a name that is a number": (raw(sub=1), NOBODY),
    "routes that are no names": (ES.token(routes=[1]), NO_ROUTES),
    "routes that are a table": (ES.token(routes={"chat": True}), NO_ROUTES),
    "no routes, said so": (raw(routes=None), NO_ROUTES),
    "a changed claim": (
        ".".join([*ES.token(sub="bob").split(".")[:2], ES.token().split(".")[2]]),
        WRONG,
    ),
    "no signature": (ES.token().rpartition(".")[0] + ".", WRONG),
    "two parts": (ES.token().rpartition(".")[0], NO_TOKEN),
    "four parts": (ES.token() + ".x", NO_TOKEN),
    "as long as may be": ("x" * MAX_TOKEN, NO_TOKEN),
    "longer": ("x" * (MAX_TOKEN + 1), "longer than a token may be"),
    "huge": (ES.token(x="x" * MAX_TOKEN), "longer than a token may be"),
    "deep": (unsigned({"alg": "ES256"}).split(".")[0] + "." + "W" * 4000 + ".x", NO_TOKEN),
    "empty": ("", NO_TOKEN),
    "not ASCII": ("é.é.é", NO_TOKEN),
}


@pytest.mark.parametrize("attack", list(ATTACKS))
async def test_attacks(attack: str, tmp_path: Path) -> None:
    token, why = ATTACKS[attack]
    with pytest.raises(BadToken) as refused:
        await tokens(tmp_path).check(token)
    assert str(refused.value) == why


@pytest.mark.parametrize(
    "headers",
    [{"crit": ["exp"], "exp": NOW}, {"crit": ["x"], "x": 1}, {"crit": []}],
    ids=["known", "unknown", "none"],
)
async def test_a_critical_header_is_refused(headers: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BadToken) as refused:
        await tokens(tmp_path).check(ES.token(headers=headers))
    assert str(refused.value) in {CRITICAL, NO_TOKEN}, "newer versions of pyjwt are the first"


async def test_the_longest_name(tmp_path: Path) -> None:
    known = await tokens(tmp_path).check(ES.token(sub="a" * MAX_NAME))
    assert known.name == f"jwt:{'a' * MAX_NAME}"


async def test_what_is_in_sub_is_no_matter_where_another_claim_says_who(tmp_path: Path) -> None:
    checks = tokens(tmp_path, principal_claim="email")
    assert (await checks.check(raw(sub=1, email="ada@example.com"))).name == "jwt:ada@example.com"


async def test_the_issuers_clock_may_differ_by_so_much(tmp_path: Path) -> None:
    checks = tokens(tmp_path)
    now = int(time.time())
    await checks.check(ES.token(exp=now - 20))
    await checks.check(ES.token(nbf=now + 20, iat=now + 20))


async def test_a_token_that_names_no_key_is_of_the_only_one_of_its_algorithm(
    tmp_path: Path,
) -> None:
    await tokens(tmp_path, ES).check(jwt.encode(claims(), ES.key, "ES256"))
    await tokens(tmp_path, ES, RS, ED).check(jwt.encode(claims(), ES.key, "ES256"))


async def test_a_token_has_to_name_its_key_among_several_of_its_algorithm(tmp_path: Path) -> None:
    why = "^of several keys of its algorithm it does not name one alone$"
    checks = tokens(tmp_path, ES, RS, Signer("two"))
    await checks.check(ES.token())
    with pytest.raises(BadToken, match=why):
        await checks.check(jwt.encode(claims(), ES.key, "ES256"))
    checks = tokens(tmp_path, ES, RS, OTHER)
    with pytest.raises(BadToken, match=why):
        await checks.check(ES.token())


async def test_keys_of_one_name_and_two_types(tmp_path: Path) -> None:
    signers = [Signer("one", algorithm) for algorithm in ("ES256", "RS256", "EdDSA")]
    checks = tokens(tmp_path, *signers)
    for signer in signers:
        await checks.check(signer.token())


async def test_an_algorithm_that_is_not_among_those_that_may_be(tmp_path: Path) -> None:
    checks = tokens(tmp_path, algorithms=["ES256"])
    await checks.check(ES.token())
    with pytest.raises(BadToken, match="algorithm"):
        await checks.check(RS.token())


async def test_a_secret(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(SECRET + b"\n")
    secret = Secret(path)
    assert repr(secret) == "<Secret>"
    checks = Tokens(issuer=ISSUER, audience=AUDIENCE, keys=secret, algorithms=["HS256"], leeway=0.0)
    assert (await checks.check(jwt.encode(claims(), SECRET, "HS256"))).name == "jwt:ada"
    with pytest.raises(BadToken, match="signature"):
        await checks.check(jwt.encode(claims(), SECRET[::-1], "HS256"))
    with pytest.raises(BadToken, match="algorithm"):
        await checks.check(ES.token())
    path.write_bytes(b"short")
    with pytest.raises(ValueError, match="32 bytes"):
        secret.reload()
    assert (await checks.check(jwt.encode(claims(), SECRET, "HS256"))).name == "jwt:ada"


def test_a_secret_that_is_no_file_is_not_repeated() -> None:
    text = "No such file or directory: expected the path of a file that has the secret for HS256"
    with pytest.raises(ValueError, match=f"^{text}$"):
        Secret(Path(SECRET.decode()))


@given(
    st.text(max_size=200) | st.binary(max_size=200).map(base64.urlsafe_b64encode).map(bytes.decode)
)
async def test_what_is_no_token_is_refused_and_nothing_else_happens(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    checks = tokens(tmp_path_factory.mktemp("keys"), ES)
    header = base64.urlsafe_b64encode(b'{"alg":"ES256"}').rstrip(b"=").decode()
    for token in (text, f"{header}.{text}.{text}"):
        with pytest.raises(BadToken):
            await checks.check(token)
