"""Verification of JSON Web Tokens (RFC 7519) according to RFC 8725.

A token never decides how it is verified: the configuration pins the algorithms and the keys, and
each key is used with its own kind of algorithm only. Headers that refer to keys (``jku``, ``x5u``,
``jwk``, ``x5c``) are ignored, and tokens with ``crit`` are refused.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jwt

from gateway.security.keysets import KeySet
from gateway.security.principals import Principal

MAX_TOKEN = 8192
"""Maximum length of a token, in characters."""

MAX_NAME = 256
"""Maximum length of a principal's name, in characters."""

OPERATOR = "operator"
"""The value of a claim that makes its principal an operator."""

MIN_SECRET = 32
"""Minimum length of a secret for HS256, in bytes (RFC 7518, 3.2)."""


class BadToken(Exception):
    """A token is not valid; the message says why, for the operator, and repeats nothing of it."""


class Secret:
    """A shared secret for HS256, read from a file.

    Args:
        path: The file; trailing white space is ignored.

    Raises:
        ValueError: It can't be read, or is too short.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.reload()

    def reload(self) -> None:
        """Read the file again; on an error, the previous secret stays in use.

        Raises:
            ValueError: It can't be used.
        """
        try:
            value = self._path.read_bytes().rstrip()
        except OSError as error:
            # Without the path: it may have been set to the secret itself.
            text = "expected the path of a file that has the secret for HS256"
            raise ValueError(f"{error.strerror}: {text}") from None
        if len(value) < MIN_SECRET:
            raise ValueError(f"{self._path}: a secret for HS256 has {MIN_SECRET} bytes at least")
        self.value = value

    def __repr__(self) -> str:
        return "<Secret>"


class Tokens:
    """Verifies the tokens of an issuer.

    Args:
        issuer: Required ``iss``.
        audience: Required ``aud``.
        algorithms: Accepted algorithms.
        keys: The issuer's public keys, or the secret that it shares with this gateway.
        leeway: Allowed clock skew in seconds.
        principal_claim: Claim with the principal's name.
        routes_claim: Claim with the names of the allowed routes; all if a token lacks it.
        operator_claim: Claim that marks operators; None if no token does.
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        algorithms: Collection[str],
        keys: KeySet | Secret,
        leeway: float,
        principal_claim: str = "sub",
        routes_claim: str = "routes",
        operator_claim: str | None = None,
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._algorithms = frozenset(algorithms)
        self._keys = keys
        self._leeway = leeway
        self._principal_claim = principal_claim
        self._routes_claim = routes_claim
        self._operator_claim = operator_claim

    async def check(self, token: str) -> Principal:
        """Verify a token, and return its principal.

        Raises:
            BadToken: It is not valid.
            KeysUnavailable: The keys to verify it are not available.
        """
        if len(token) > MAX_TOKEN:
            raise BadToken("longer than a token may be")
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise BadToken("no JSON Web Token") from None
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise BadToken("signed with an algorithm that is not in `algorithms`")
        if "crit" in header:
            raise BadToken("has a critical header that is not known")
        key = await self._key(algorithm, header.get("kid"))
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway,
                options={"require": ["exp", "iss", "aud"], "verify_sub": False},
            )
            return self._principal(claims)
        except BadToken:
            raise
        except jwt.PyJWTError as error:
            raise BadToken(_why(error)) from None
        except Exception:  # noqa: BLE001 - whatever it is, it lets nobody in
            raise BadToken("malformed") from None

    async def _key(self, algorithm: str, key_id: object) -> Any:
        if isinstance(self._keys, Secret):
            return self._keys.value
        if key_id is not None and not isinstance(key_id, str):
            raise BadToken("names its key by no text")
        keys = await self._keys.get(key_id, algorithm)
        if not keys:
            raise BadToken("signed with a key that is not known, or not for its algorithm")
        if len(keys) > 1:  # don't try each of them
            raise BadToken("of several keys of its algorithm it does not name one alone")
        return keys[0]

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        name = claims.get(self._principal_claim)
        if not isinstance(name, str) or not name or len(name) > MAX_NAME or not name.isprintable():
            raise BadToken(f"its claim {self._principal_claim} names nobody")
        return Principal(
            name=f"jwt:{name}",
            routes=self._routes(claims),
            expires_at=float(claims["exp"]) + self._leeway,
            operator=self._is_operator(claims),
        )

    def _is_operator(self, claims: Mapping[str, Any]) -> bool:
        """Whether the claim is true or has `OPERATOR`, as ``scope`` or ``groups`` has words."""
        said = None if self._operator_claim is None else claims.get(self._operator_claim)
        if isinstance(said, str):
            said = said.split()
        return said is True or (isinstance(said, list) and OPERATOR in said)

    def _routes(self, claims: Mapping[str, Any]) -> frozenset[str] | None:
        if self._routes_claim not in claims:
            return None
        routes = claims[self._routes_claim]
        if isinstance(routes, str):
            routes = routes.split()
        if not isinstance(routes, list) or not all(isinstance(route, str) for route in routes):
            raise BadToken(f"its claim {self._routes_claim} is no list of names")
        return frozenset(routes)


def _why(error: jwt.PyJWTError) -> str:
    """Describe an error without repeating anything of the token."""
    reasons: dict[type[jwt.PyJWTError], str] = {
        jwt.ExpiredSignatureError: "expired",
        jwt.ImmatureSignatureError: "not valid yet",
        jwt.InvalidAudienceError: "for another audience",
        jwt.InvalidIssuerError: "of another issuer",
        jwt.InvalidIssuedAtError: "issued at no time",
        jwt.MissingRequiredClaimError: "lacks exp, iss or aud",
        jwt.InvalidSignatureError: "its signature is wrong",
    }
    return next((text for kind, text in reasons.items() if isinstance(error, kind)), "malformed")
