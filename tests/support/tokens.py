"""An identity provider, as far as a gateway sees it: keys, the set of them, tokens."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from gateway.security import keys
from tests.support.secrets import register

ISSUER, AUDIENCE = "https://id.example.com", "chat"


def claims(**changes: object) -> dict[str, Any]:
    """Those of a good token; a change to None takes one out."""
    now = int(time.time())
    all_of_it = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ada",
        "iat": now,
        "exp": now + 600,
        **changes,
    }
    return {name: value for name, value in all_of_it.items() if value is not None}


def add_key(
    path: Path, name: str, routes: Sequence[str] | None = None, *, operator: bool = False
) -> str:
    """Add an API key to a file; see `gateway.security.keys.add`."""
    return register(keys.add(path, name, routes, operator=operator), "an API key")


class Signer:
    """One key of a provider's.

    Args:
        key_id: Its ``kid``.
        algorithm: What it signs with.
    """

    def __init__(self, key_id: str, algorithm: str = "ES256") -> None:
        self.key_id = key_id
        self.algorithm = algorithm
        self.key: Any
        if algorithm == "EdDSA":
            self.key = ed25519.Ed25519PrivateKey.generate()
        elif algorithm.startswith("ES"):
            self.key = ec.generate_private_key(ec.SECP256R1())
        else:
            self.key = rsa.generate_private_key(65537, 2048)

    def public(self, **more: object) -> dict[str, Any]:
        """Its public half, as a JWK."""
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        document = json.loads(algorithm.to_jwk(self.key.public_key()))
        return {**document, "kid": self.key_id, "use": "sig", "alg": self.algorithm, **more}

    def token(self, *, headers: dict[str, Any] | None = None, **changes: object) -> str:
        """A token; see `claims`."""
        given = {"kid": self.key_id, **(headers or {})}
        token = jwt.encode(claims(**changes), self.key, self.algorithm, headers=given)
        _, body, signature = token.split(".")  # the head is the same in many that are no secret
        if body:  # which stands elsewhere where the header `b64` is false (RFC 7797)
            register(body, "a token's claims")
        register(signature, "a token's signature")
        return token


def key_set(*signers: Signer) -> dict[str, Any]:
    """Their JWK set."""
    return {"keys": [signer.public() for signer in signers]}


def write_key_set(path: Path, *signers: Signer) -> Path:
    """The same as a file."""
    path.write_text(json.dumps(key_set(*signers)))
    return path
