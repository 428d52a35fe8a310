"""Encryption of stored data: AES-256-GCM, with the operator's keys."""

import os
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.session.storage import Unreadable

KEY_BYTES = 32
_NONCE_BYTES = 12


class SealingKeyError(Exception):
    """A key file can't be used; the message says what to do."""


class Sealer:
    """Encrypts and decrypts; without keys, data is left unchanged.

    Args:
        keys: The first one encrypts; all of them decrypt. To rotate keys, append the new one to the
            old one at every replica, then put it first.
    """

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        self._ciphers = [AESGCM(key) for key in keys]

    def seal(self, data: bytes, about: str) -> bytes:
        """Encrypt.

        Args:
            data: The plaintext.
            about: What the data belongs to, as associated data: it can't be opened as anything
                else's.
        """
        if not self._ciphers:
            return data
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._ciphers[0].encrypt(nonce, data, about.encode())

    def open(self, sealed: bytes, about: str) -> bytes:
        """Decrypt; see `seal`.

        Raises:
            Unreadable: None of the keys decrypts it.
        """
        if not self._ciphers:
            return sealed
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], about.encode())
            except (InvalidTag, ValueError):  # the latter if it is too short
                continue
        raise Unreadable("it was encrypted with another key, or not at all")


def sealer_of(path: Path) -> Sealer:
    """Load the keys of a file: one a line, 32 bytes as Base64.

    Raises:
        SealingKeyError: It has no keys, or invalid ones.
    """
    try:
        lines = path.read_text().split()
        keys = [b64decode(line, validate=True) for line in lines]
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not Base64"
        raise SealingKeyError(f"{path}: {why}. {_ADVICE}") from None
    if not keys or any(len(key) != KEY_BYTES for key in keys):
        raise SealingKeyError(f"{path}: each line has to be {KEY_BYTES} bytes as Base64. {_ADVICE}")
    return Sealer(keys)


_ADVICE = "To make a key: openssl rand -base64 32"
