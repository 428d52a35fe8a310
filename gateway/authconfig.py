"""What recognises clients, by the settings."""

from gateway.config import ConfigError, JwtSettings, Settings
from gateway.security.keys import KeyFileError, Keys
from gateway.security.keysets import FetchedKeys, FileKeys, KeySet, KeysUnavailable, Spawn
from gateway.security.reloading import Reloader
from gateway.security.tokens import Secret, Tokens


def verifiers(
    settings: Settings, spawn: Spawn, reloader: Reloader
) -> tuple[Keys | None, Tokens | None]:
    """What recognises keys and tokens, each where it is configured.

    Args:
        settings: All of them.
        spawn: Runs what goes on beside requests.
        reloader: Reads their files again.

    Raises:
        ConfigError: A file of theirs can't be used.
    """
    auth = settings.auth
    try:
        keys = tokens = None
        if auth.keys is not None:
            keys = Keys(auth.keys.file, settings.limits.of_principals)
            reloader.add([auth.keys.file], keys.reload)
        if auth.jwt is not None:
            tokens = _tokens(auth.jwt, spawn, reloader)
    except (KeyFileError, KeysUnavailable, ValueError) as error:
        raise ConfigError(str(error)) from None
    return keys, tokens


def _tokens(jwt: JwtSettings, spawn: Spawn, reloader: Reloader) -> Tokens:
    keys: KeySet | Secret
    if jwt.secret_file is not None:
        keys = Secret(jwt.secret_file)
        reloader.add([jwt.secret_file], keys.reload)
    elif jwt.jwks_file is not None:
        keys = FileKeys(jwt.jwks_file)
        reloader.add([jwt.jwks_file], keys.reload)
    else:
        keys = FetchedKeys(str(jwt.jwks_url), spawn)
    return Tokens(
        issuer=jwt.issuer,
        audience=jwt.audience,
        algorithms=jwt.algorithms,
        keys=keys,
        leeway=jwt.leeway_seconds,
        principal_claim=jwt.principal_claim,
        routes_claim=jwt.routes_claim,
        operator_claim=jwt.operator_claim,
    )
