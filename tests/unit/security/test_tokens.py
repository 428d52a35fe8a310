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
from gateway.security.tokens import MAX_TOKEN, BadToken, Secret, Tokens
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


NOW = int(time.time())
ATTACKS = {
    "no algorithm": unsigned({"alg": "none", "kid": "es"}),
    "no algorithm, in another case": unsigned({"alg": "nOnE", "kid": "es"}),
    "no algorithm named": unsigned({"kid": "es"}),
    "an algorithm that is a list": unsigned({"alg": ["ES256"], "kid": "es"}),
    "a public key as a secret": signed_by(public_pem(RS), {"alg": "HS256", "kid": "rs"}),
    "a key of another kind": signed_by(public_pem(RS), {"alg": "RS256", "kid": "rs"}),
    "another's key of the same name": OTHER.token(),
    "a key of another name": ES.token(headers={"kid": "rs"}),
    "an unknown key": ES.token(headers={"kid": "none"}),
    "a key that is a path": ES.token(headers={"kid": "../../../../dev/null"}),
    "a key that is a query": ES.token(headers={"kid": "x' UNION SELECT 'key"}),
    "a key that it brings": OTHER.token(headers={"jwk": OTHER.public(), "kid": "es"}),
    "a key at an address": OTHER.token(headers={"jku": "http://127.0.0.1:9/jwks.json"}),
    "a certificate at an address": OTHER.token(headers={"x5u": "http://127.0.0.1:9/c.pem"}),
    "a critical header": ES.token(headers={"crit": ["exp"], "exp": NOW}),
    "an unknown critical header": ES.token(headers={"crit": ["x"], "x": 1}),
    "no critical header named": ES.token(headers={"crit": []}),
    "expired": ES.token(exp=NOW - 31),
    "expired for ever": ES.token(exp=-1),
    "no expiry": ES.token(exp=None),
    "an expiry that is no number": ES.token(exp="soon"),
    "not valid yet": ES.token(nbf=NOW + 600),
    "issued in the future": ES.token(iat=NOW + 600),
    "for another": ES.token(aud="other"),
    "for nobody": ES.token(aud=None),
    "of another issuer": ES.token(iss="https://evil.example.com"),
    "of an issuer like ours": ES.token(iss=f"{ISSUER}.evil.example.com"),
    "of no issuer": ES.token(iss=None),
    "nobody": ES.token(sub=None),
    "nobody, by name": ES.token(sub=""),
    "a name with a line in it": ES.token(sub="ada\nroot"),
    "a name that never ends": ES.token(sub="a" * 1000),
    "a name that is a number": jwt.encode(
        claims() | {"sub": 1}, ES.key, "ES256", headers={"kid": "es"}
    ),
    "routes that are no names": ES.token(routes=[1]),
    "no routes, said so": jwt.encode(
        claims() | {"routes": None}, ES.key, "ES256", headers={"kid": "es"}
    ),
    "an expiry past all numbers": ES.token(exp=10**400),
    "routes that are a table": ES.token(routes={"chat": True}),
    "a changed claim": ".".join(
        [ES.token().split(".")[0], unsigned({}, sub="bob").split(".")[1], ES.token().split(".")[2]]
    ),
    "no signature": ES.token().rpartition(".")[0] + ".",
    "two parts": ES.token().rpartition(".")[0],
    "four parts": ES.token() + ".x",
    "huge": ES.token(x="x" * MAX_TOKEN),
    "deep": unsigned({"alg": "ES256"}).split(".")[0] + "." + "W" * 4000 + ".x",
    "empty": "",
    "not ASCII": "é.é.é",
}


@pytest.mark.parametrize("attack", list(ATTACKS))
async def test_attacks(attack: str, tmp_path: Path) -> None:
    with pytest.raises(BadToken) as refused:
        await tokens(tmp_path).check(ATTACKS[attack])
    assert ATTACKS[attack][:40] not in str(refused.value) or not ATTACKS[attack]


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
    checks = tokens(tmp_path, ES, RS, Signer("two"))
    await checks.check(ES.token())
    with pytest.raises(BadToken, match="does not name one alone"):
        await checks.check(jwt.encode(claims(), ES.key, "ES256"))
    checks = tokens(tmp_path, ES, RS, OTHER)
    with pytest.raises(BadToken, match="does not name one alone"):
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
    assert SECRET.decode() not in repr(secret)
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
