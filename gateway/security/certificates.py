"""The gateway's own certificate and its key, which are read again while it runs."""

import ssl
from pathlib import Path


class CertificateError(Exception):
    """A certificate or its key can't be used; the text names the file, and says why.

    Attributes:
        file: Which of the two.
    """

    def __init__(self, file: Path, why: str) -> None:
        super().__init__(f"{file}: {why}")
        self.file = file


class Certificate:
    """How connections are encrypted.

    Args:
        cert_file: The certificate, and those between it and the root, as PEM.
        key_file: Its private key, as PEM, without a password.

    Attributes:
        context: Serves the newest; a connection keeps what it began with.
        files: Both.

    Raises:
        CertificateError: They can't be used.
    """

    def __init__(self, cert_file: Path, key_file: Path) -> None:
        self.files = (cert_file, key_file)
        self._cert_file = cert_file
        self._key_file = key_file
        self.reload()
        # Each time in a context of its own: one that has a certificate keeps it beside a new one
        # whose key is of another kind. The callback comes without a server's name, too.
        self.context = self._newest
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _outer: object) -> None:
        connection.context = self._newest

    def reload(self) -> None:
        """Read both again; where they can't be used, what was read before stays.

        Raises:
            CertificateError: They can't be used.
        """
        for file in self.files:
            try:
                file.read_bytes()
            except OSError as error:
                raise CertificateError(file, error.strerror or str(error)) from None
        trial = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            trial.load_verify_locations(self._cert_file)  # whose errors are of this file alone
        except ssl.SSLError:
            raise CertificateError(
                self._cert_file, "no certificate as PEM, or a broken one"
            ) from None
        newest = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        newest.set_alpn_protocols(["http/1.1"])
        try:
            newest.load_cert_chain(self._cert_file, self._key_file, password=_no_password)
        except ssl.SSLError as error:
            raise self._wrong(error) from None
        self._newest = newest

    def _wrong(self, error: ssl.SSLError) -> CertificateError:
        """What OpenSSL has against them, which names neither file."""
        if error.reason in {"KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}:  # or of another kind
            return CertificateError(self._key_file, f"not the key of {self._cert_file}")
        if error.reason:  # it holds the certificate for too weak, say
            text = error.reason.replace("_", " ").lower()
            return CertificateError(self._cert_file, text)
        text = "no private key as PEM, or a broken one, or one with a password"
        return CertificateError(self._key_file, text)


def _no_password() -> bytes:
    """Nobody is here to be asked for one."""
    return b""
