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
        context: Has the newest; a connection keeps what it began with.
        files: Both.

    Raises:
        CertificateError: They can't be used.
    """

    def __init__(self, cert_file: Path, key_file: Path) -> None:
        self.files = (cert_file, key_file)
        self._cert_file = cert_file
        self._key_file = key_file
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.set_alpn_protocols(["http/1.1"])
        self.reload()

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
        # First elsewhere: what fails halfway would leave a certificate with another one's key.
        trial = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            trial.load_verify_locations(self._cert_file)  # whose errors are of this file alone
        except ssl.SSLError:
            raise CertificateError(
                self._cert_file, "no certificate as PEM, or a broken one"
            ) from None
        for context in (trial, self.context):
            try:
                context.load_cert_chain(self._cert_file, self._key_file, password=_no_password)
            except ssl.SSLError as error:
                raise self._wrong(error) from None

    def _wrong(self, error: ssl.SSLError) -> CertificateError:
        """What OpenSSL has against them, which names neither file."""
        if error.reason == "KEY_VALUES_MISMATCH":
            return CertificateError(self._key_file, f"not the key of {self._cert_file}")
        if error.reason:  # it holds the certificate for too weak, say
            text = error.reason.replace("_", " ").lower()
            return CertificateError(self._cert_file, text)
        text = "no private key as PEM, or a broken one, or one with a password"
        return CertificateError(self._key_file, text)


def _no_password() -> bytes:
    """Nobody is here to be asked for one."""
    return b""
